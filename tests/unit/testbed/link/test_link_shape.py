"""What a link is asked for: the options of a topology, changes to them, and what is refused."""

from __future__ import annotations

import math

import pytest

from testbed.errors import TestbedError
from testbed.link.shape import FRAME_BYTES, MIN_QUEUE_BYTES, Shape, mtu, parse_delay, parse_rate, shapes


@pytest.mark.parametrize(("text", "seconds"), [("5ms", 0.005), ("250us", 0.00025), ("0.1s", 0.1), ("1.5ms", 0.0015)])
def test_delays_have_mininets_notation(text: str, seconds: float) -> None:
    assert parse_delay(text) == pytest.approx(seconds)


@pytest.mark.parametrize("text", ["5", "ms", "-1ms", "5 m", "5ms jitter", "", "5min"])
def test_other_delays_are_refused(text: str) -> None:
    with pytest.raises(TestbedError, match="is no delay"):
        parse_delay(text)


@pytest.mark.parametrize(
    ("value", "mbit"), [(10, 10), (0.5, 0.5), ("100", 100), ("500kbit", 0.5), ("10Mbit", 10), ("1Gbit/s", 1000)]
)
def test_rates_are_mbit_or_have_a_unit(value: float | str, mbit: float) -> None:
    assert parse_rate(value) == pytest.approx(mbit)


@pytest.mark.parametrize("value", ["fast", "10 MB", "10mb", "-5", "", "5kbyte"])
def test_other_rates_are_refused(value: str) -> None:
    with pytest.raises(TestbedError, match="is no rate"):
        parse_rate(value)


@pytest.mark.parametrize(
    ("wrong", "reason"),
    [
        ({"bw": 0}, "rate must be from 0.01"),
        ({"bw": -5}, "rate must be"),
        ({"bw": 1e6}, "rate must be"),
        ({"bw": "much"}, "rate is a number"),
        ({"loss": 101}, "loss must be from 0 to 100 percent, not 101"),
        ({"loss": -1}, "loss must be"),
        ({"delay": "fast"}, "is no delay"),
        ({"delay": -0.1}, "delay must be"),
        ({"delay": "11s"}, "delay must be from 0 to 10 s"),
        ({"jitter": "1ms"}, "jitter must be from 0 to its delay"),
        ({"delay": "5ms", "jitter": "6ms"}, r"jitter must be from 0 to its delay \(5 ms\), not 6 ms"),
        ({"bw": 10, "max_queue_size": 0}, "queue must be a whole number"),
        ({"bw": 10, "max_queue_size": 1.5}, "queue must be a whole number"),
        ({"max_queue_size": 100}, "without a rate has no queue"),
    ],
)
def test_impossible_shapes_are_refused(wrong: dict[str, object], reason: str) -> None:
    with pytest.raises(TestbedError, match=reason):
        Shape.parse(wrong)


def test_a_shape_says_what_it_is() -> None:
    asked = {"bw": 100, "delay": "5ms", "jitter": "1ms", "loss": 0.5, "max_queue_size": 50}
    assert str(Shape.parse(asked)) == "100 Mbit/s, 5 +- 1 ms, 0.5 % loss, queue of 50 frames"
    assert str(Shape()) == "unlimited"
    assert Shape.parse({"loss": 1}).impaired
    assert not Shape.parse({"bw": 10}).impaired


def test_each_end_may_have_options_of_its_own() -> None:
    there, back = shapes({"bw": 100, "delay": "5ms", "params1": {"bw": 10}, "params2": {"ip": "10.0.0.1/8", "loss": 2}})
    assert (there.rate, there.delay, there.loss) == (10, 0.005, 0)
    assert (back.rate, back.delay, back.loss) == (100, 0.005, 2)


def test_a_change_leaves_the_rest_as_it_was() -> None:
    before = Shape(rate=10, delay=0.01, jitter=0.002, queue=40)
    assert before.changed(loss=1) == Shape(rate=10, delay=0.01, jitter=0.002, loss=1, queue=40)
    assert before.changed(rate="1Gbit", delay="20ms") == Shape(rate=1000, delay=0.02, jitter=0.002, queue=40)
    assert before.changed(rate=math.inf) == Shape(delay=0.01, jitter=0.002)
    assert before.changed(hole=True).changed(hole=False) == before
    with pytest.raises(TestbedError, match=r"jitter must be from 0 to its delay \(1 ms\)"):
        before.changed(delay=0.001)


@pytest.mark.parametrize(("rate", "burst"), [(1, 3028), (100, 12500), (1000, 125000)])
def test_the_burst_is_a_millisecond_and_at_least_two_frames(rate: float, burst: int) -> None:
    assert Shape(rate=rate).burst == burst


def test_the_queue_is_fifty_milliseconds_and_holds_two_offloaded_segments() -> None:
    assert Shape(rate=100).queue_bytes == 625_000
    assert Shape(rate=1).queue_bytes == MIN_QUEUE_BYTES >= 2 * 65536
    assert Shape(rate=1, queue=20).queue_bytes == 20 * FRAME_BYTES


def test_where_frames_count_segments_are_split() -> None:
    assert Shape(loss=1).single_frames
    assert Shape(rate=1, queue=20).single_frames, "no offloaded segment would ever fit into it"
    assert not Shape(rate=1, queue=200).single_frames
    assert not Shape(rate=1).single_frames


@pytest.mark.parametrize("wrong", [0, 575, 9217, "9000", 1500.0])
def test_an_mtu_that_no_link_has_is_refused(wrong: object) -> None:
    assert (mtu({"mtu": 9000}), mtu({})) == (9000, None)
    with pytest.raises(TestbedError, match="a link's MTU must be a whole number of bytes from 576 to 9216"):
        mtu({"mtu": wrong})
