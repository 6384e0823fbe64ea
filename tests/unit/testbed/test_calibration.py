"""What a path is asked for, what iperf3's output means, and when a path is good enough."""

from __future__ import annotations

from dataclasses import replace

import pytest

from testbed.calibration import Calibration, asked, settled_rate
from testbed.errors import TestbedError
from testbed.links import Shape

MEASURED = Calibration("ann", "dan", 100, 95.6, 95.0, 0.010, 0.0105)


def test_the_slowest_link_and_all_delays_make_a_path() -> None:
    assert asked([Shape(rate=100), Shape(rate=10, delay=0.005), Shape(delay=0.001)]) == (10, pytest.approx(0.012))
    assert asked([Shape()]) == (None, 0)


def test_slow_start_and_a_stub_of_an_interval_do_not_count() -> None:
    def interval(start: float, seconds: float, size: int) -> dict:
        return {"sum": {"start": start, "seconds": seconds, "bytes": size}}

    result = {
        "intervals": [
            interval(0.0, 0.1, 100),
            interval(0.4, 0.1, 200),
            interval(0.5, 0.1, 1_000_000),
            interval(0.6, 0.1, 1_250_000),
            interval(0.7, 0.001, 900_000),
        ]
    }
    assert settled_rate(result) == pytest.approx(90.0)


def test_a_transfer_that_measured_nothing_is_an_error() -> None:
    with pytest.raises(TestbedError, match="refused"):
        settled_rate({"intervals": [], "error": "connection refused"})


def test_good_is_what_was_asked() -> None:
    assert MEASURED.good
    assert not replace(MEASURED, rate_achieved=80.0).good
    assert not replace(MEASURED, rtt_achieved=0.015).good
    assert replace(MEASURED, link_rate=None, rate_asked=None).good


def test_the_lines_name_asked_and_achieved() -> None:
    rate, rtt = MEASURED.lines()
    assert "asked 100 Mbit/s" in rate
    assert "achieved 95.0 (99 %)" in rate
    assert "asked 10 ms" in rtt
    assert "10.50 ms" in rtt
