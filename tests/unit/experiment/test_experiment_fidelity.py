"""What makes a run doubtful, and how a network's own counters are read."""

from __future__ import annotations

import time
from dataclasses import replace
from typing import Any

import pytest

from testbed.experiment import fidelity, observe
from testbed.experiment.fidelity import Meter, Observed, judge
from testbed.measure.machine import Load
from testbed.measure.statistics import percentile

QUIET = Load(seconds=4.0, own=2.0, others=0.1, softirq=0.1, steal=0.0, total=8.0)
GOOD = Observed(QUIET, windows=[[0.5, 0.2]] * 20, lags=[0.0001] * 500)
RELAY = {"frames": 1000.0, "late": 5.0, "late_mean": 0.0001, "late_max": 0.004, "dropped": 0.0}


def test_a_quiet_machine_is_trusted_and_its_figures_are_kept() -> None:
    found = judge(replace(GOOD, relays={"ann-s1": [RELAY]}))
    assert found["trustworthy"] and found["reasons"] == [] and found["cores"] == pytest.approx([0.5, 0.2])
    assert found["lag"] == {"median": 0.0001, "p99": 0.0001, "max": 0.0001}
    assert found["relays"] == {"ann-s1": [RELAY]} and found["saturated"] == 0.0


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"windows": [[0.99, 0.2]] * 4 + [[0.5, 0.2]] * 16}, "a core was busy: in 20 % of the time a core was at 95 %"),
        ({"load": replace(QUIET, steal=1.0)}, "something else: the hypervisor took 12 % of the CPU time"),
        ({"load": replace(QUIET, others=2.0)}, "something else: others used 25 % of the CPU time"),
        ({"lags": [0.0001] * 90 + [0.02] * 10}, "the scheduler was late: 20.0 ms at the 99th percentile"),
        ({"relays": {"a-b": [RELAY, {**RELAY, "late": 50.0}]}}, "a relay was late: a-b: 0.10 ms in the mean, 5.0 %"),
        ({"relays": {"a-b": [{**RELAY, "late_mean": 0.002}]}}, "a relay was late: a-b: 2.00 ms in the mean"),
        ({"relays": {"a-b": [{**RELAY, "dropped": 3.0}]}}, "a relay lost frames: a-b: 3 that came faster"),
    ],
)
def test_what_can_have_spoilt_a_run_is_said(changes: dict[str, Any], reason: str) -> None:
    found = judge(replace(GOOD, **changes))
    assert not found["trustworthy"] and len(found["reasons"]) == len(found["kinds"]) == 1
    assert reason in found["reasons"][0]


def test_a_core_may_be_busy_for_a_moment() -> None:
    assert judge(replace(GOOD, windows=[[0.99, 0.2]] * 2 + [[0.5, 0.2]] * 18))["trustworthy"]


def test_cores_are_read_one_by_one() -> None:
    tick = fidelity._TICK
    first = f"cpu  0 0 0 0 0 0 0 0 0 0\ncpu0 {tick} 0 0 {tick} 0 0 0 0 0 0\ncpu1 0 0 0 {tick} 0 0 0 0 0 0\nintr 5\n"
    last = f"cpu  0 0 0 0 0 0 0 0 0 0\ncpu0 {4 * tick} 0 0 {2 * tick} 0 0 0 0 0 0\ncpu1 0 0 0 {5 * tick} 0 0 0 0 0 0\n"
    assert fidelity.parse_cores(first) == [(1.0, 2.0), (0.0, 1.0)]
    assert fidelity.busy_shares(fidelity.parse_cores(first), fidelity.parse_cores(last)) == [0.75, 0.0]


def test_relays_count_from_the_beginning_of_the_run() -> None:
    before = {"a-b": [{"forwarded": 100, "late": 50, "late_mean": 0.01, "late_max": 0.5, "missed": 2, "overflowed": 1}]}
    after = {"a-b": [{"forwarded": 300, "late": 51, "late_mean": 0.004, "late_max": 0.5, "missed": 2, "overflowed": 4}]}
    (found,) = fidelity.relay_growth(before, after)["a-b"]
    assert found["frames"] == 200 and found["late"] == 1 and found["dropped"] == 3
    assert found["late_mean"] == pytest.approx((300 * 0.004 - 100 * 0.01) / 200)


def test_the_meter_notes_while_it_runs() -> None:
    meter = Meter()
    meter.begin()
    time.sleep(2.5 * fidelity.WINDOW_SECONDS)
    found = meter.finish({})
    assert found["lag"]["max"] > 0 and len(found["cores"]) >= 1 and all(0 <= share <= 1 for share in found["cores"])
    meter.stop()
    Meter().stop()  # one that never began


@pytest.mark.parametrize(("values", "share", "value"), [([], 50, 0.0), ([3, 1, 2], 50, 2), (range(1, 101), 99, 99)])
def test_percentiles_are_values_that_occurred(values: list[float], share: float, value: float) -> None:
    assert percentile(list(values), share) == value


INTERFACES = """\
Inter-|   Receive                                         |  Transmit
 face |bytes packets errs drop fifo frame compressed multicast|bytes packets errs drop fifo colls carrier compressed
    lo:   840     10    0    0    0     0          0         0    840     10    0    0    0     0       0          0
ann-eth0: 123456 789    0    0    0     0          0         0 654321    987    0    0    0     0       0          0
"""


def test_interfaces_are_counted_without_the_loopback() -> None:
    assert observe.parse_interfaces(INTERFACES) == {
        "ann-eth0": {"rx_bytes": 123456, "rx_packets": 789, "tx_bytes": 654321, "tx_packets": 987}
    }


def test_counters_are_what_they_grew_by() -> None:
    before = {"node": {"packets": 5, "name": "ann"}, "gone": {"x": 1}}
    after = {"node": {"packets": 9, "drops": 2, "name": "ann", "up": True}, "interfaces": {"ann-eth0": {"rx_bytes": 7}}}
    assert observe.growth(before, after) == {
        "node": {"packets": 4, "drops": 2},
        "interfaces": {"ann-eth0": {"rx_bytes": 7}},
    }


def test_a_blackout_is_told_with_the_name_of_what_flows_there() -> None:
    event = {
        "service_id": "bulk.example:5101",
        "cause": "link-down",
        "source": "10.0.0.1",
        "target": "10.1.0.1",
        "happened": 104.0,
        "detect": 0.001,
        "decide": 0.002,
        "signal": 0.02,
        "recover": None,
        "rsyns": 1,
    }
    found = observe.blackout("ann", event, 100.0, {"bulk.example": "flow1"})
    assert (found["host"], found["flow"], found["at"], found["signal"]) == ("ann", "flow1", 4.0, 0.02)
    assert observe.blackout("ann", event, 100.0, {})["flow"] is None


def test_offloads_are_on_or_off() -> None:
    shown = "Features for ann-eth0:\nrx-checksumming: on\ntx-checksumming: on [fixed]\ntcp-segmentation-offload: off\n"
    assert observe.parse_offloads(shown) == {"tx-checksumming": "on", "tcp-segmentation-offload": "off"}
