"""E2 and E4: what their metrics make of runs that were written by hand."""

from __future__ import annotations

from typing import Any

import pytest

from experiments import nic_load_balancing as e2
from experiments import tcp_throughput as e4
from testbed.experiment.record import RunRecord

MEGABIT = 1e6 / 8


def stream(*parts: tuple[float, float], gaps: tuple[tuple[float, float], ...] = ()) -> dict[str, Any]:
    """A stream of so many seconds at so many Mbit/s each."""
    bins = [round(rate * MEGABIT * 0.01) for seconds, rate in parts for _ in range(round(seconds / 0.01))]
    silences = [{"at": at, "seconds": seconds} for at, seconds in gaps]
    return {"bin": 0.01, "received": bins, "sent": bins, "gaps": silences, "intact": True, "broken": None}


def run(seconds: float, contender: str, **traffic: Any) -> RunRecord:
    events = [{"at": seconds / 2, "name": "flow1 moves to dan's eth1", "source": "schedule", "facts": {}}]
    data = {"number": 1, "contender": contender, "seconds": seconds, "events": events, "traffic": traffic}
    return RunRecord({**data, "point": {"rate": 100.0}, "fidelity": {"cores": [0.2, 0.6]}})


def test_a_move_that_doubles_the_sum() -> None:
    flow1 = stream((6.0, 48.0), (0.25, 10.0), (5.75, 96.0), gaps=((5.995, 0.024), (2.0, 0.5), (6.4, 0.3)))
    record = run(12.0, "serval", flow1=flow1, flow2=stream((6.0, 48.0), (6.0, 96.0)))
    found = {metric.name: metric.compute(record) for metric in e2.EXPERIMENT.metrics}
    assert found["jain"] == pytest.approx(1.0)
    assert found["ratio"] == pytest.approx(2.0)
    assert found["dip"] == 2.0, "the bin that is half of one and half of the other is none"
    assert found["gap"] == 0.024
    assert found["sum"] == pytest.approx(192e6)
    assert (found["busiest"], found["whole"]) == (0.6, 1.0)


def test_shares_that_are_not_even_and_a_flow_that_breaks() -> None:
    flow1 = {**stream((6.0, 90.0), (6.0, 0.0)), "broken": {"at": 6.0, "why": "gone"}}
    record = run(12.0, "tcp", flow1=flow1, flow2=stream((6.0, 10.0), (6.0, 96.0)))
    found = {metric.name: metric.compute(record) for metric in e2.EXPERIMENT.metrics}
    assert found["jain"] == pytest.approx(0.6098, abs=1e-3)
    assert found["dip"] == 20.0
    assert found["whole"] == 0.0


@pytest.mark.parametrize(("contender", "payload"), [("tcp", 1448), ("serval", 1436), ("serval-udp", 1428)])
def test_a_full_link_is_all_that_it_leaves_to_each_transport(contender: str, payload: int) -> None:
    rate = 100.0 * payload / 1514
    record = run(3.0, contender, bulk=stream((1.0, 5.0), (2.0, rate)))
    assert e4.share(record) == pytest.approx(1.0, rel=1e-4)
    assert e4.goodput(record) == pytest.approx(rate * 1e6, rel=1e-4)
