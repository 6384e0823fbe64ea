from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from serval_node.wire import transport
from serval_node.wire.checksum import ones_sum, pseudo_sum
from serval_node.wire.ipv4 import PROTOCOL_TCP, PROTOCOL_UDP, address
from serval_node.wire.sal_header import DropReason, WireError
from serval_node.wire.transport import TcpHeader, UdpHeader, build_tcp, build_udp

ADDRESSES = st.binary(min_size=4, max_size=4)
PORTS = st.integers(0, 65535)
U32 = st.integers(0, 0xFFFFFFFF)
A, B = address("10.0.0.1"), address("10.0.1.2")

OPTIONS = st.sampled_from([b"", bytes.fromhex("020405b401030307"), bytes.fromhex("0101080a0102030405060708")])
TCP_SEGMENTS = st.builds(
    lambda s, d, seq, ack, flags, window, options, data: build_tcp(
        s, d, seq, ack, flags, window=window, options=options, data=data
    ),
    *(PORTS, PORTS, U32, U32, st.integers(0, 255), PORTS, OPTIONS, st.binary(max_size=90)),
)
UDP_SEGMENTS = st.builds(build_udp, PORTS, PORTS, st.binary(max_size=90))
SEGMENTS = st.one_of(
    TCP_SEGMENTS.map(lambda segment: (PROTOCOL_TCP, segment)), UDP_SEGMENTS.map(lambda segment: (PROTOCOL_UDP, segment))
)
LINUX_SYN_OPTIONS = bytes.fromhex("020405a80402080a010203040000000001030307")


@given(SEGMENTS, ADDRESSES, ADDRESSES)
def test_the_wire_has_no_ports_and_a_right_checksum(segment: tuple[int, bytes], source: bytes, target: bytes) -> None:
    protocol, inside = segment
    wire = transport.to_wire(inside, protocol, source, target)
    assert wire[:4] == bytes(4) and len(wire) == len(inside)
    assert transport.verify(wire, protocol, source, target)
    assert (ones_sum(wire) + pseudo_sum(source, target, protocol, len(wire))) % 65535 == 0
    at = 16 if protocol == PROTOCOL_TCP else 6
    assert wire[4:at] == inside[4:at] and wire[at + 2 :] == inside[at + 2 :]


@given(SEGMENTS, ADDRESSES, ADDRESSES, PORTS, PORTS)
def test_the_kernel_gets_ports_back(
    segment: tuple[int, bytes], source: bytes, target: bytes, sport: int, dport: int
) -> None:
    protocol, inside = segment
    wire = transport.to_wire(inside, protocol, source, target)
    back = transport.to_kernel(memoryview(wire), protocol, target, source, sport, dport)
    assert back[:2] == sport.to_bytes(2, "big") and back[2:4] == dport.to_bytes(2, "big")
    assert transport.verify(back, protocol, target, source)
    assert transport.to_wire(back, protocol, source, target) == wire


@given(SEGMENTS, st.data())
def test_one_changed_bit_is_noticed(segment: tuple[int, bytes], data: st.DataObject) -> None:
    protocol, inside = segment
    broken = bytearray(transport.to_wire(inside, protocol, A, B))
    at = data.draw(st.integers(0, len(broken) - 1))
    broken[at] ^= 1 << data.draw(st.integers(0, 7))
    if protocol == PROTOCOL_UDP and broken[6:8] == b"\0\0":
        return
    assert not transport.verify(broken, protocol, A, B)
    sound = transport.to_wire(inside, protocol, A, B)
    assert not transport.verify(sound, protocol, A, address("10.0.1.3"))


@given(SEGMENTS, ADDRESSES)
def test_a_service_router_repairs_the_checksum_for_its_target(segment: tuple[int, bytes], target: bytes) -> None:
    protocol, inside = segment
    wire = transport.to_wire(inside, protocol, A, B)
    assert transport.recompute_checksum(wire, protocol, A, target) == transport.to_wire(inside, protocol, A, target)


def test_udp_without_checksum_is_right_and_stays_so() -> None:
    datagram = build_udp(0, 0, b"data")
    assert transport.verify(datagram, PROTOCOL_UDP, A, B)
    assert transport.recompute_checksum(datagram, PROTOCOL_UDP, A, B) == datagram


@given(UDP_SEGMENTS, ADDRESSES, ADDRESSES)
def test_a_udp_checksum_of_zero_is_never_written(segment: bytes, source: bytes, target: bytes) -> None:
    assert transport.to_wire(segment, PROTOCOL_UDP, source, target)[6:8] != b"\0\0"


def test_a_udp_sum_of_zero_is_written_as_65535() -> None:
    complement = transport.to_wire(build_udp(0, 0, bytes(2)), PROTOCOL_UDP, A, B)[6:8]
    datagram = transport.to_wire(build_udp(0, 0, complement), PROTOCOL_UDP, A, B)
    assert datagram[6:8] == b"\xff\xff" and transport.verify(datagram, PROTOCOL_UDP, A, B)


@given(st.binary(max_size=40), st.integers(0, 255))
def test_garbage_raises_wire_error_only(segment: bytes, protocol: int) -> None:
    for call in (
        lambda: transport.to_wire(segment, protocol, A, B),
        lambda: transport.to_kernel(segment, protocol, A, B, 1, 2),
        lambda: transport.verify(segment, protocol, A, B),
        lambda: transport.recompute_checksum(segment, protocol, A, B),
        lambda: transport.strip_timestamps(segment),
        lambda: transport.split(segment, 10),
        lambda: list(transport.iterate_options(segment)),
        lambda: UdpHeader.decode(segment),
    ):
        try:
            call()
        except WireError:
            pass  # the only exception there may be


@pytest.mark.parametrize(
    ("segment", "reason"),
    [
        (bytes(19), DropReason.TRUNCATED),
        (bytes(12) + b"\x40" + bytes(7), DropReason.BAD_TRANSPORT_HEADER),
        (bytes(12) + b"\x60" + bytes(8), DropReason.BAD_TRANSPORT_HEADER),
    ],
)
def test_bad_tcp_headers_have_their_reason(segment: bytes, reason: DropReason) -> None:
    with pytest.raises(WireError) as caught:
        TcpHeader.decode(segment)
    assert caught.value.reason is reason


def test_udp_header() -> None:
    assert UdpHeader.decode(build_udp(1, 2, b"abc") + b"trailer") == UdpHeader(1, 2, 11, 0)
    with pytest.raises(WireError):
        UdpHeader.decode(build_udp(1, 2, b"abc")[:-1])


def test_timestamps_leave_the_syn_and_nothing_else_does() -> None:
    syn = build_tcp(40000, 80, 7, 0, transport.SYN, window=64240, options=LINUX_SYN_OPTIONS)
    stripped = transport.strip_timestamps(syn)
    header = TcpHeader.decode(stripped)
    kinds = [kind for kind, _ in transport.iterate_options(header.options)]
    assert kinds == [transport.OPTION_MSS, transport.OPTION_SACK_PERMITTED, transport.OPTION_WINDOW_SCALE]
    assert header.option(transport.OPTION_TIMESTAMPS) is None and header.option(transport.OPTION_WINDOW_SCALE) == b"\7"
    assert len(stripped) == len(syn) and stripped[:20] == syn[:20]
    plain = build_tcp(1, 2, 3, 4, transport.ACK, data=b"\x08\x0a" * 10)
    assert transport.strip_timestamps(plain) == plain
    overrunning = build_tcp(1, 2, 3, 4, transport.SYN, options=bytes([8, 10, 1, 1]), data=b"data of it")
    assert transport.strip_timestamps(overrunning) == overrunning


@given(TCP_SEGMENTS, st.integers(1, 100))
def test_split_carries_the_same_stream(segment: bytes, mss: int) -> None:
    whole = TcpHeader.decode(segment)
    pieces = transport.split(segment, mss)
    expected, stream = whole.seq, b""
    for number, piece in enumerate(pieces):
        header = TcpHeader.decode(piece)
        last = number == len(pieces) - 1
        data = piece[header.header_length :]
        assert header.seq == expected and header.ack == whole.ack and header.options == whole.options
        assert len(data) == mss or last
        keep = (0xFF if last else 0xFF & ~(transport.FIN | transport.PSH)) & (0xFF if not number else ~transport.CWR)
        assert header.flags == whole.flags & keep
        expected = (expected + len(data)) % (1 << 32)
        stream += data
        assert transport.verify(transport.to_wire(piece, PROTOCOL_TCP, A, B), PROTOCOL_TCP, A, B)
    assert stream == segment[whole.header_length :]


def test_split_needs_a_positive_size() -> None:
    with pytest.raises(ValueError):
        transport.split(build_tcp(1, 2, 3, 4, 0), 0)


def test_sequence_length_counts_syn_and_fin() -> None:
    segment = build_tcp(1, 2, 3, 4, transport.SYN | transport.FIN, data=b"abc")
    assert TcpHeader.decode(segment).sequence_length(len(segment)) == 5


def test_build_tcp_pads_options_and_refuses_too_many() -> None:
    assert TcpHeader.decode(build_tcp(1, 2, 3, 4, 0, options=b"\1")).header_length == 24
    with pytest.raises(ValueError):
        build_tcp(1, 2, 3, 4, 0, options=bytes(41))


def test_set_flags() -> None:
    assert (
        TcpHeader.decode(transport.set_flags(build_tcp(1, 2, 3, 4, transport.SYN), transport.RST)).flags
        == transport.RST
    )
