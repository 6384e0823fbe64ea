"""What tc is told, and how its answer is read."""

from __future__ import annotations

import pytest

from testbed.errors import TestbedError
from testbed.link import tc
from testbed.link.shape import Shape
from testbed.link.tc import Achieved, parse_class, rate_lines

CLASS = "class htb 5:1 root leaf 6: prio 0 rate 100Mbit ceil 100Mbit burst 12500b cburst 12500b \n"
QUEUE = "qdisc htb 5: root refcnt 2 r2q 10 default 0x1\nqdisc bfifo 6: parent 5:1 limit 625000b\n"
# As iproute2 prints it, 6.1; kernels from 6.6 on add a seed.
NETEM = "qdisc netem 7: parent 5:1 limit 1500 delay 10ms  2ms loss 1% seed 11\n"


def test_tc_is_told_rate_burst_quantum_and_queue() -> None:
    qdisc, htb_class, leaf = rate_lines("ann-eth0", Shape(rate=100))
    assert qdisc == "tc qdisc replace dev ann-eth0 root handle 5: htb default 1"
    assert "rate 100000000bit burst 12500 cburst 12500 quantum 15140" in htb_class
    assert leaf == "tc qdisc replace dev ann-eth0 parent 5:1 handle 6: bfifo limit 625000"


def test_with_netem_the_leaf_delays_and_holds_what_is_under_way_and_what_waits() -> None:
    shape = Shape(rate=100, delay=0.01, jitter=0.002, loss=1, queue=50)
    leaf = tc.lines("x", shape, netem=True)[-1]
    # 100 Mbit/s for 12 ms are 99 frames; 50 may wait.
    assert leaf == "tc qdisc replace dev x parent 5:1 handle 7: netem limit 149 delay 10000us 2000us loss 1%"
    assert tc.lines("x", shape, netem=False)[-1].endswith("handle 6: bfifo limit 75700"), "a relay does the rest"


def test_without_a_rate_netem_is_alone_and_a_hole_loses_all() -> None:
    assert tc.lines("x", Shape(hole=True), netem=True) == [
        "tc qdisc replace dev x root handle 7: netem limit 1000 loss 100%"
    ]
    assert tc.lines("x", Shape(delay=0.001), netem=False) == tc.lines("x", Shape(), netem=True) == []


def test_a_changed_rate_leaves_the_shaper_where_it_is() -> None:
    # HTB cannot be put in its own place: the kernel refuses that.
    changed = tc.change_lines("x", Shape(rate=10), Shape(rate=20), netem=False)
    assert [line.split(" dev x ")[0] for line in changed] == ["tc class replace", "tc qdisc replace"]
    assert "rate 20000000bit" in changed[0]


@pytest.mark.parametrize(
    ("before", "after", "removed"),
    [
        (Shape(), Shape(rate=10), False),
        (Shape(rate=10), Shape(), True),
        (Shape(rate=10, delay=0.01), Shape(delay=0.01), True),
        (Shape(delay=0.01), Shape(rate=10, delay=0.01), True),
        (Shape(delay=0.01), Shape(delay=0.02), False),
        (Shape(delay=0.01), Shape(), True),
    ],
)
def test_a_rate_that_comes_or_goes_makes_another_tree(before: Shape, after: Shape, removed: bool) -> None:
    changed = tc.change_lines("x", before, after, netem=True)
    assert (changed[:1] == ["tc qdisc del dev x root"]) is removed
    assert changed[removed:] == tc.lines("x", after, netem=True)


# As iproute2 prints it: 6.1 (Debian 12), 5.15 (Ubuntu 22.04).
@pytest.mark.parametrize(
    ("shown", "achieved"),
    [
        (
            "class htb 5:1 root leaf 6: prio 0 rate 100Mbit ceil 100Mbit burst 6237b cburst 6237b \n",
            Achieved(100e6, 6237),
        ),
        ("class htb 5:1 root leaf 6: prio 0 rate 1Gbit ceil 1Gbit burst 62500b cburst 62500b\n", Achieved(1e9, 62500)),
        ("class htb 5:1 root prio 0 rate 12500Kbit ceil 12500Kbit burst 15Kb cburst 15Kb\n", Achieved(12.5e6, 15360)),
        ("class htb 5:1 root prio 0 rate 800bit ceil 800bit burst 2Mb cburst 2Mb\n", Achieved(800, 2 << 20)),
    ],
)
def test_what_tc_shows_is_read(shown: str, achieved: Achieved) -> None:
    assert parse_class(shown) == achieved


@pytest.mark.parametrize("shown", ["", "class fq_codel 5:1 parent 5: \n", "class htb 5:1 root rate what"])
def test_an_interface_without_its_class_is_an_error(shown: str) -> None:
    with pytest.raises(TestbedError, match="no HTB class"):
        parse_class(shown)


def test_what_is_shown_is_compared_with_what_was_asked() -> None:
    tc.check(CLASS + QUEUE, Shape(rate=100), netem=False)
    tc.check(CLASS + QUEUE.replace("625000b", "610Kb"), Shape(rate=100), netem=True)
    tc.check(CLASS + NETEM, Shape(rate=100, delay=0.01, jitter=0.002, loss=1), netem=True)
    tc.check(NETEM.replace("parent 5:1", "root"), Shape(delay=0.01, jitter=0.002, loss=1), netem=True)
    tc.check("qdisc noqueue 0: root refcnt 2\n", Shape(), netem=True)


@pytest.mark.parametrize(
    ("shown", "shape", "reason"),
    [
        (CLASS + QUEUE, Shape(rate=90), "asked for 90 Mbit/s, tc shows 100 Mbit/s"),
        (CLASS + QUEUE, Shape(rate=100, queue=50), "asked for a queue of 75700 bytes, tc shows 625000"),
        (CLASS, Shape(rate=100), "tc shows none"),
        (CLASS + QUEUE, Shape(), "asked for no rate"),
        (CLASS + QUEUE, Shape(rate=100, delay=0.01), "no netem"),
        (CLASS + NETEM, Shape(rate=100, delay=0.02, jitter=0.002, loss=1), "a delay of 0.02, tc shows 0.01"),
        (CLASS + NETEM, Shape(rate=100, delay=0.01, loss=1), "a jitter of 0, tc shows 0.002"),
        (CLASS + NETEM, Shape(rate=100, delay=0.01, jitter=0.002, hole=True), "a loss of 100, tc shows 1"),
    ],
)
def test_what_differs_is_named(shown: str, shape: Shape, reason: str) -> None:
    with pytest.raises(TestbedError, match=reason):
        tc.check(shown, shape, netem=True)
