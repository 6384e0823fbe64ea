"""Actions of experiments, carried out on a running network by a test."""

from __future__ import annotations

import time
from collections.abc import Mapping
from types import SimpleNamespace
from typing import Any

from testbed.network import ServalNetwork
from testbed.streaming import Streaming

RATE = 2.0
"""Mbit/s of the streams that live through it."""


class Doing:
    """Carries out actions as the runner does; `events` is what they put on record."""

    def __init__(self, network: ServalNetwork) -> None:
        self.network, self.zero = network, time.monotonic()
        self.contender = SimpleNamespace(transport="serval")
        self.facts: dict[str, Any] = {}
        self.events: list[str] = []

    def now(self) -> float:
        return time.monotonic() - self.zero

    def log(self, name: str, *, at: float | None = None, source: str = "", **facts: Any) -> None:
        self.events.append(name)

    def do(self, action: Any) -> Mapping[str, Any]:
        action.check(self.network.topo, ())
        before = self.now()
        facts = action.carry_out(self)
        assert before <= facts.get("at", before) <= self.now(), "stamped when it took effect"
        return facts


def whole(stream: Streaming) -> dict[str, Any]:
    result = stream.finish()
    assert result["intact"] and result["broken"] is None, result
    return result
