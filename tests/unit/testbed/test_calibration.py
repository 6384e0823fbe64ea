"""What a path is asked for, how it is probed, and which verdict what was found gets."""

from __future__ import annotations

import json
import random

import pytest

from testbed.calibration import MISSED, OK, Asked, Calibration, Quantity, asked, judged, payload_rate, probing
from testbed.link.one_way import OneWay, matched, quantile
from testbed.link.shape import Shape

PATH = Asked(rate=100, delay=0.005, jitter=0.0, loss=0.0, delaying=1, hops=5)


def steady(delay: float = 0.0051, count: int = 500, lost: int = 0) -> OneWay:
    chance = random.Random(1)
    return OneWay(count, tuple(delay + chance.uniform(0, 0.0001) for _ in range(count - lost)))


def verdicts(wanted: Asked, found: OneWay, rate: float | None = 95.0) -> dict[str, str]:
    return {quantity.name: quantity.verdict for quantity in judged(wanted, found, rate)}


def test_the_slowest_link_and_all_that_impairs_make_a_path() -> None:
    shapes = [
        Shape(rate=100),
        Shape(rate=10, delay=0.005, jitter=0.003, loss=10),
        Shape(delay=0.01, jitter=0.004, loss=50),
    ]
    assert asked(shapes) == Asked(10, pytest.approx(0.015), pytest.approx(0.005), pytest.approx(55), 2, 5)
    assert asked(shapes, 9000).mtu == 9000
    assert asked([Shape()]) == Asked(None, 0, 0, 0, 0, 1)
    assert asked([Shape(hole=True), Shape()]).loss == 100


def test_what_arrives_of_a_rate_are_payloads_and_what_is_not_lost() -> None:
    assert payload_rate(PATH) == pytest.approx(95.64, abs=0.01)
    assert payload_rate(Asked(100, 0, 0, 10, 0, 1)) == pytest.approx(100 * 1448 / 1490 * 0.9)
    assert payload_rate(Asked(100, 0, 0, 0, 0, 1, mtu=9000)) == pytest.approx(100 * 8948 / 9014)
    assert payload_rate(Asked(None, 0, 0, 0, 0, 1)) is None


def test_probes_neither_load_a_slow_path_nor_hold_each_other_up() -> None:
    assert probing(PATH) == (1500, 0.001)
    count, interval = probing(Asked(1, 0, 0, 0, 0, 1))
    assert interval == pytest.approx(0.016)
    assert 100 * 8 / interval <= 0.05 * 1e6
    assert count * interval <= 4.0
    count, interval = probing(Asked(100, 0.02, 0.01, 0, 1, 1))
    assert (count, interval) == (200, 0.02)
    assert probing(Asked(0.01, 0, 0, 0, 0, 1))[0] >= 1, "at least one, however slow"


def test_a_path_that_does_what_was_asked_is_good() -> None:
    assert set(verdicts(PATH, steady()).values()) == {OK}


@pytest.mark.parametrize(
    ("found", "rate", "missed"),
    [
        (steady(), 80.0, "rate"),
        (steady(), 99.0, "rate"),
        (steady(0.008), 95.0, "delay"),
        (steady(0.0040), 95.0, "delay"),
        (OneWay(500, steady().delays[:490] + (0.05,) * 10), 95.0, "delay, late"),
        (OneWay(500, tuple(0.004 + number % 100 * 2e-5 for number in range(500))), 95.0, "jitter"),
        (steady(lost=1), 95.0, "loss"),
    ],
)
def test_what_is_missed_is_named(found: OneWay, rate: float, missed: str) -> None:
    assert verdicts(PATH, found, rate)[missed] == MISSED
    made = Calibration("ann", "dan", judged(PATH, found, rate))
    assert not made.good
    assert any("MISSED: " in line for line in made.lines())


def test_jitter_that_was_asked_is_found_in_the_spread() -> None:
    wanted = Asked(100, 0.02, 0.005, 0, 1, 1)
    chance = random.Random(5)
    for jitter, verdict in ((0.005, OK), (0.002, MISSED), (0.008, MISSED)):
        delays = tuple(0.0201 + chance.uniform(-jitter, jitter) for _ in range(400))
        assert verdicts(wanted, OneWay(400, delays))["jitter"] == verdict
    two = Asked(100, 0.04, 0.005 * 2**0.5, 0, 2, 3)
    delays = tuple(0.04 + chance.uniform(-0.005, 0.005) + chance.uniform(-0.005, 0.005) for _ in range(400))
    assert verdicts(two, OneWay(400, delays))["jitter"] == OK


@pytest.mark.parametrize(("lost", "verdict"), [(10, MISSED), (40, OK), (60, OK), (90, MISSED)])
def test_loss_counts_by_its_exact_interval(lost: int, verdict: str) -> None:
    wanted = Asked(100, 0.005, 0, 5, 1, 5)
    assert verdicts(wanted, steady(count=1000, lost=lost), None)["loss"] == verdict


def test_where_all_is_to_be_lost_only_loss_is_judged() -> None:
    wanted = Asked(100, 0.005, 0, 100, 1, 5)
    assert verdicts(wanted, OneWay(300, ()), None) == {"loss": OK}


def test_lines_and_data_have_asked_and_achieved() -> None:
    made = Calibration("ann", "dan", judged(PATH, steady(), 95.0))
    rate, delay, *_ = made.lines()
    assert rate == "rate        asked 95.64 Mbit/s of TCP payload, achieved 95 (99 % of what the links leave)"
    assert delay.startswith("delay       asked 5 ms, achieved 5.1")
    data = json.loads(json.dumps(made.as_json()))
    assert (data["source"], data["target"], data["good"]) == ("ann", "dan", True)
    assert data["quantities"][0]["verdict"] == OK
    free = Quantity("rate", "Mbit/s", None, 9000.0, None, None)
    assert (free.verdict, free.line()) == (OK, "rate        asked no limit, achieved 9000")


def test_stamps_of_both_ends_make_delays_and_losses() -> None:
    found = matched([[0, 1_000_000], [1, 2_000_000], [2, 3_000_000]], [[2, 4_500_000], [0, 1_200_000], [0, 9_000_000]])
    assert found.delays == pytest.approx((0.0002, 0.0015))
    assert (found.sent, found.lost) == (3, 1)


def test_a_quantile_is_one_of_the_values() -> None:
    values = [float(number) for number in range(1, 101)]
    assert (quantile(values, 0.5), quantile(values, 0.99), quantile(values, 1.0)) == (50, 99, 100)
    assert quantile([7.0], 0.99) == 7.0
