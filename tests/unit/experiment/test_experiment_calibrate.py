"""The links are measured before the first run, once for each network that differs, whatever becomes of it."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from testbed.errors import TestbedError
from testbed.experiment.calibrate import calibrate
from testbed.experiment.plan import Plan
from tests.unit.experiment.fakes import World
from tests.unit.experiment.made import SWEPT, planned


@dataclass
class Measured:
    source: str
    target: str
    good: bool = True

    def lines(self) -> list[str]:
        return ["rate fine" if self.good else "rate MISSED"]

    def as_json(self) -> dict[str, Any]:
        return {"good": self.good}


class Told:
    def __init__(self) -> None:
        self.said: list[str] = []

    def calibrating(self, words: str) -> None:
        self.said.append(words)

    def calibrated(self, line: str) -> None:
        self.said.append(line)


def laid(**settings: Any) -> Plan:
    return planned(
        replace(SWEPT, scene=lambda values, who: replace(SWEPT.scene(values, who), calibrate=(("ann", "dan"),))),
        points="ends",
        **settings,
    )


def test_every_network_is_measured_and_taken_down(tmp_path: Path) -> None:
    world, told = World(), Told()
    goods = iter([True, False])

    def measure(network: Any, pairs: Iterable[tuple[str, str]]) -> list[Measured]:
        world.happened.append("measured")
        good = next(goods)
        return [Measured(*pair, good=good) for pair in pairs]

    found = list(calibrate(laid(), tmp_path, world.tools(), measure, told))  # type: ignore[arg-type]
    assert world.happened == ["network up", "measured", "network down", "logs collected"] * 2
    assert [(one["setting"], one["good"], one["lines"]) for one in found] == [
        (0, True, ["ann - dan: rate fine"]),
        (1, False, ["ann - dan: rate MISSED"]),
    ]
    assert told.said[:2] == ["ann-dan at rtt=0", "ann - dan: rate fine"]


def test_what_cannot_be_measured_is_on_record_and_the_rest_goes_on(tmp_path: Path) -> None:
    world, told = World(fail_start=(1,)), Told()
    found = list(
        calibrate(laid(), tmp_path, world.tools(), lambda network, pairs: [Measured("ann", "dan")], told)  # type: ignore[arg-type,list-item]
    )
    assert [(one["good"], one["error"]) for one in found] == [
        (False, "the nodes did not start; its log is somewhere"),
        (True, None),
    ]
    assert "not measured: the nodes did not start; its log is somewhere" in told.said
    assert world.happened.count("network down") == 2


def test_an_interruption_takes_the_network_down(tmp_path: Path) -> None:
    world = World()

    def measure(network: Any, pairs: Iterable[tuple[str, str]]) -> list[Measured]:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        list(calibrate(laid(), tmp_path, world.tools(), measure, Told()))  # type: ignore[arg-type]
    assert world.happened[-2:] == ["network down", "logs collected"]


def test_nothing_is_measured_unasked(tmp_path: Path) -> None:
    def measure(network: Any, pairs: Iterable[tuple[str, str]]) -> list[Measured]:
        raise TestbedError("nothing is to be measured")

    assert not list(calibrate(laid(calibrate=False), tmp_path, World().tools(), measure, Told()))  # type: ignore[arg-type]
