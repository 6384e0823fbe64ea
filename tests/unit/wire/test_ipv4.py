from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from serval_node.wire.checksum import sums_to_zero
from serval_node.wire.ipv4 import (
    ICMP_NET_UNREACHABLE,
    ICMP_PORT_UNREACHABLE,
    PROTOCOL_ICMP,
    Ipv4Header,
    address,
    address_text,
    build_ipv4,
    icmp_unreachable,
)
from serval_node.wire.sal_header import DropReason, WireError

ADDRESSES = st.binary(min_size=4, max_size=4)
A, B = address("10.0.0.1"), address("198.18.7.9")


@given(ADDRESSES, ADDRESSES, st.integers(0, 255), st.binary(max_size=100), st.integers(0, 255), st.booleans())
def test_round_trip(source: bytes, target: bytes, protocol: int, payload: bytes, ttl: int, df: bool) -> None:
    packet = build_ipv4(source, target, protocol, payload, ttl=ttl, df=df)
    header = Ipv4Header.decode(packet)
    assert (header.source, header.destination, header.protocol, header.ttl) == (source, target, protocol, ttl)
    assert header.dont_fragment is df and header.payload(packet + b"padding") == payload
    assert sums_to_zero(packet[:20])


@given(st.binary(max_size=80), st.integers(0, 15))
def test_garbage_raises_wire_error_only(data: bytes, words: int) -> None:
    candidates = [data, bytes([0x40 | words]) + data]
    if len(data) >= 20:
        candidates.append(bytes([0x40 | words, 0, 0, len(data) % 256]) + data[4:])
    for packet in candidates:
        try:
            Ipv4Header.decode(packet)
            icmp_unreachable(packet, 1)
        except WireError:
            pass  # the only exception there may be


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda p: p[:19], DropReason.TRUNCATED),
        (lambda p: p[:-1], DropReason.TRUNCATED),
        (lambda p: b"\x65" + p[1:], DropReason.BAD_IP_HEADER),
        (lambda p: b"\x44" + p[1:], DropReason.BAD_IP_HEADER),
        (lambda p: p[:2] + b"\0\x13" + p[4:], DropReason.BAD_IP_HEADER),
        (lambda p: p[:6] + b"\x20\0" + p[8:], DropReason.IP_FRAGMENT),
        (lambda p: p[:6] + b"\0\x05" + p[8:], DropReason.IP_FRAGMENT),
    ],
)
def test_bad_headers_have_their_reason(change, reason) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(WireError) as caught:
        Ipv4Header.decode(change(build_ipv4(A, B, 6, b"payload")))
    assert caught.value.reason is reason


def test_icmp_unreachable_answers_the_sender() -> None:
    original = build_ipv4(A, B, 6, bytes(range(200)) * 5)
    packet = icmp_unreachable(original, ICMP_NET_UNREACHABLE)
    header = Ipv4Header.decode(packet)
    message = header.payload(packet)
    assert (header.source, header.destination, header.protocol) == (B, A, PROTOCOL_ICMP)
    assert message[:2] == bytes([3, ICMP_NET_UNREACHABLE]) and sums_to_zero(message)
    assert message[8:] == original[: 576 - 28] and len(packet) == 576
    router = address("10.9.9.9")
    assert Ipv4Header.decode(icmp_unreachable(original, ICMP_PORT_UNREACHABLE, router)).source == router


@given(ADDRESSES)
def test_address_text_round_trip(value: bytes) -> None:
    assert address(address_text(value)) == value


@pytest.mark.parametrize("text", ["", "10.0.0", "10.0.0.256", "web.example", "10.0.0.1 ", "::1"])
def test_wrong_addresses_are_value_errors(text: str) -> None:
    with pytest.raises(ValueError):
        address(text)


def test_build_refuses_what_does_not_exist() -> None:
    for source, payload in ((A[:3], b""), (A, bytes(65516))):
        with pytest.raises(ValueError):
            build_ipv4(source, B, 6, payload)
