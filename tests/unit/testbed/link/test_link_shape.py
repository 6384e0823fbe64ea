"""Links as data: what a topology's options mean, what tc is told, and how its answer is read."""

from __future__ import annotations

import pytest

from testbed.errors import TestbedError
from testbed.link.shape import MIN_QUEUE_BYTES, Shape, parse_delay
from testbed.link.tc import Achieved, parse_class, rate_lines


@pytest.mark.parametrize(("text", "seconds"), [("5ms", 0.005), ("250us", 0.00025), ("0.1s", 0.1), ("1.5ms", 0.0015)])
def test_delays_have_mininets_notation(text: str, seconds: float) -> None:
    assert parse_delay(text) == pytest.approx(seconds)


@pytest.mark.parametrize("text", ["5", "ms", "-1ms", "5 m", "5ms jitter", ""])
def test_other_delays_are_refused(text: str) -> None:
    with pytest.raises(TestbedError, match="is no delay"):
        parse_delay(text)


@pytest.mark.parametrize("wrong", [{"bw": 0}, {"bw": -5}, {"bw": 1e6}, {"loss": 101}, {"loss": -1}, {"delay": "fast"}])
def test_impossible_shapes_are_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(TestbedError):
        Shape.parse(wrong)


def test_a_shape_says_what_it_is() -> None:
    assert str(Shape.parse({"bw": 100, "delay": "5ms", "loss": 0.5})) == "100 Mbit/s, 5 ms, 0.5 % loss"
    assert str(Shape()) == "unlimited"
    assert Shape.parse({"loss": 1}).impaired
    assert not Shape.parse({"bw": 10}).impaired


@pytest.mark.parametrize(("rate", "burst"), [(1, 3028), (100, 12500), (1000, 125000)])
def test_the_burst_is_a_millisecond_and_at_least_two_frames(rate: float, burst: int) -> None:
    assert Shape(rate=rate).burst == burst


def test_the_queue_is_fifty_milliseconds_and_holds_two_offloaded_segments() -> None:
    assert Shape(rate=100).queue == 625_000
    assert Shape(rate=1).queue == MIN_QUEUE_BYTES >= 2 * 65536


def test_tc_is_told_rate_burst_quantum_and_queue() -> None:
    qdisc, htb_class, leaf = rate_lines("ann-eth0", Shape(rate=100))
    assert qdisc == "tc qdisc replace dev ann-eth0 root handle 5: htb default 1"
    assert "rate 100000000bit burst 12500 cburst 12500 quantum 15140" in htb_class
    assert leaf.endswith("bfifo limit 625000")


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
