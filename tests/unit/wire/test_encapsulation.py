"""Serval inside UDP on the wire (S52; protocol notes 1.7)."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from serval_node.wire.encapsulation import CLIENT_PORT, SERVER_PORT, TO_SERVER, encapsulate, open_packet, received
from serval_node.wire.errors import DropReason, WireError
from serval_node.wire.ipv4 import PROTOCOL_SERVAL, PROTOCOL_TCP, UdpPorts, address, build_ipv4
from serval_node.wire.sal_header import bare_header
from serval_node.wire.transport import OPTION_MSS, SYN, TcpHeader, build_tcp, clamp_mss

A, B = address("10.0.0.1"), address("10.0.3.1")
SAL = bare_header(7, 9, PROTOCOL_TCP)


def refused(packet: bytes) -> DropReason:
    with pytest.raises(WireError) as caught:
        open_packet(packet)
    return caught.value.reason


def test_known_bytes() -> None:
    packet = encapsulate(A, B, TO_SERVER, SAL + b"data")
    assert packet[9] == 17 and packet[20:28].hex() == "d434d4350018" + packet[26:28].hex()
    assert packet[28:] == SAL + b"data"
    assert (CLIENT_PORT, SERVER_PORT) == (54324, 54325)


@given(st.binary(max_size=300), st.integers(1, 65535), st.integers(1, 255))
def test_both_ways(data: bytes, port: int, ttl: int) -> None:
    sent = encapsulate(A, B, UdpPorts(port, SERVER_PORT), data, ttl)
    for packet in (sent, received(A, B, UdpPorts(SERVER_PORT, port), data, ttl)):
        header, inner = open_packet(memoryview(packet))
        assert (header.source, header.destination, header.ttl) == (A, B, ttl)
        assert header.ports == UdpPorts(SERVER_PORT, port)
        assert inner == data


def test_a_raw_packet_has_no_ports() -> None:
    header, inner = open_packet(build_ipv4(A, B, PROTOCOL_SERVAL, SAL))
    assert header.ports is None and inner == SAL


def test_what_is_refused() -> None:
    good = encapsulate(A, B, TO_SERVER, SAL)
    assert refused(good[:-1] + bytes([good[-1] ^ 1])) is DropReason.BAD_TRANSPORT_CHECKSUM
    assert refused(encapsulate(A, B, UdpPorts(CLIENT_PORT, 53), SAL)) is DropReason.UNKNOWN_PROTOCOL
    assert refused(encapsulate(A, B, UdpPorts(0, SERVER_PORT), SAL)) is DropReason.UNKNOWN_PROTOCOL
    assert refused(build_ipv4(A, B, PROTOCOL_TCP, SAL)) is DropReason.UNKNOWN_PROTOCOL
    assert refused(build_ipv4(A, B, 17, b"\0\1")) is DropReason.TRUNCATED
    with pytest.raises(ValueError, match="datagram"):
        encapsulate(A, B, TO_SERVER, bytes(65530))


def test_mss_is_clamped_and_nothing_else() -> None:
    options = bytes.fromhex("0101080a0000000100000002020405a8")
    segment = build_tcp(0, 0, 5, 0, SYN, options=options)
    clamped = clamp_mss(segment, 1440)
    assert TcpHeader.decode(clamped).option(OPTION_MSS) == (1440).to_bytes(2, "big")
    assert clamped == segment[:-2] + clamped[-2:]
    assert clamp_mss(segment, 1448) == segment
    assert clamp_mss(build_tcp(0, 0, 5, 0, SYN), 100) == build_tcp(0, 0, 5, 0, SYN)
