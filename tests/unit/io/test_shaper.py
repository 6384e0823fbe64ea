"""Reading a shaper, and the account that a sender keeps of its token bucket."""

from __future__ import annotations

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from serval_node.io.shaper import Bucket, Pace, parse_class
from tests.unit.io.test_netlink_message import attribute

TCMSG = bytes(20)


def htb_options(rate: int, ticks: int) -> bytes:
    """struct tc_htb_opt: two tc_ratespec, buffer, cbuffer, quantum, level, prio."""
    spec = struct.pack("=BBHhHI", 0, 1, 0, -1, 0, rate)
    return spec + spec + struct.pack("=5I", ticks, ticks, 15140, 0, 0)


def test_an_htb_class_is_read() -> None:
    # 1 Gbit/s, burst 125000 bytes: 1 ms, in ticks of 64 ns.
    options = attribute(1, htb_options(125_000_000, 15625))
    body = TCMSG + attribute(1, b"htb\0") + attribute(2, options)
    assert parse_class(body) == Bucket(125e6, pytest.approx(125_000))


@pytest.mark.parametrize(
    "body",
    [
        b"",
        attribute(1, b"hfsc\0") + attribute(2, attribute(1, htb_options(1000, 10))),
        attribute(1, b"htb\0"),
        attribute(1, b"htb\0") + attribute(2, attribute(1, htb_options(1000, 10)[:-20])),
        attribute(1, b"htb\0") + attribute(2, attribute(1, htb_options(0, 10))),
        attribute(1, b"htb\0") + attribute(2, attribute(1, htb_options(0xFFFFFFFF, 10)) + attribute(6, bytes(8))),
    ],
)
def test_what_is_no_htb_class_or_not_understood_is_none(body: bytes) -> None:
    assert parse_class(TCMSG + body) is None


def test_only_fast_buckets_that_outlast_a_sleep_are_paced() -> None:
    assert Bucket(125e6, 125e3).worth_pacing
    assert not Bucket(125e6, 15e3).worth_pacing, "Mininet's own links: the bucket is over after 0.1 ms"
    assert not Bucket(1.25e6, 125e3).worth_pacing, "10 Mbit/s"
    assert not Bucket(12.5e6, 125e3).worth_pacing, "100 Mbit/s"


@given(
    st.lists(st.tuples(st.floats(0, 0.01), st.integers(60, 68000)), max_size=60),
    st.floats(1e6, 1e9),
    st.floats(0.0008, 0.1),
)
def test_who_waits_for_half_a_bucket_never_finds_less_in_it(
    steps: list[tuple[float, int]], rate: float, depth: float
) -> None:
    """Against a token bucket that is filled and emptied step by step."""
    bucket = Bucket(rate, rate * depth)
    now = 1000.0
    pace = Pace(bucket, now)
    tokens, at = 0.0, now
    for delay, size in steps:
        now = max(now + delay, pace.opens_at)
        tokens, at = min(bucket.burst, tokens + (now - at) * rate), now
        assert tokens >= bucket.burst / 2 - rate * 1e-9
        assert pace.room(now) == pytest.approx(tokens, abs=rate * 1e-9)
        tokens -= size
        pace.spend(size, now)
    # And it is no more careful than that: it opens when the bucket is half full, or is open.
    missing = bucket.burst / 2 - tokens
    assert pace.opens_at - now == pytest.approx(missing / rate, abs=1e-6) or missing <= 0
