"""Copies of what the peer has not acknowledged: bounds, trimming, and what exactly is sent again."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from serval_node.io.tun import GSO_NONE, GSO_TCPV4, NEEDS_CHECKSUM, VNET_HEADER
from serval_node.io.unacknowledged import Memory, Unacknowledged, without
from serval_node.wire.checksum import sums_to_zero
from serval_node.wire.ipv4 import Ipv4Header, address, build_ipv4
from serval_node.wire.serial import serial_add, serial_diff
from serval_node.wire.transport import ACK, CWR, OPTION_SACK, PSH, TcpHeader, build_tcp

SIZE = 1448
SACK = bytes((1, 1, OPTION_SACK, 10)) + (5).to_bytes(4, "big") + (9).to_bytes(4, "big")


def copy(seq: int, data: bytes, *, gso: int = SIZE, flags: int = ACK, options: bytes = b"", tos: int = 0) -> memoryview:
    """As it comes from sal0, of the flow state(1)."""
    tcp = build_tcp(40001, 80, seq, 1, flags, window=2, options=options, data=data)
    vnet = VNET_HEADER.pack(NEEDS_CHECKSUM, GSO_TCPV4 if gso else GSO_NONE, 40, gso, 20, 16)
    return memoryview(vnet + build_ipv4(address("198.18.0.1"), address("198.18.77.3"), 6, tcp, tos=tos))


def sent_again(kept: Unacknowledged, before: int, *had: tuple[int, int]) -> list[tuple[int, bytes, TcpHeader]]:
    """Sequence number, data and header of each packet, after a look at the rest."""
    found = []
    for packet in kept.lacking(before, had, 77, 88):
        flags, gso_type, header_length, gso, start, offset = VNET_HEADER.unpack_from(packet)
        ip = Ipv4Header.decode(packet[10:])
        assert sums_to_zero(packet[10:30]) and ip.total_length == len(packet) - 10
        segment = ip.payload(packet[10:])
        tcp = TcpHeader.decode(segment)
        data = bytes(segment[tcp.header_length :])
        assert (tcp.source_port, tcp.destination_port, tcp.ack, tcp.window) == (40001, 80, 77, 88)
        assert (flags, start, offset, header_length) == (NEEDS_CHECKSUM, 20, 16, 20 + tcp.header_length)
        assert (gso_type, gso) == ((GSO_TCPV4, SIZE) if len(data) > SIZE else (GSO_NONE, 0))
        found.append((tcp.seq, data, tcp))
    return found


@given(
    first=st.one_of(st.integers(0, 2**32 - 1), st.integers(2**32 - 9000, 2**32 - 1)),
    sizes=st.lists(st.integers(1, 5000), min_size=1, max_size=8),
    cuts=st.tuples(st.floats(0, 1), st.floats(0, 1)),
    blocks=st.lists(st.tuples(st.floats(0, 1), st.floats(0, 1)), max_size=3),
)
def test_exactly_what_the_peer_lacks(first, sizes, cuts, blocks) -> None:
    """Acknowledgement, SACK blocks and the end of what is in doubt may lie anywhere, also in the middle of a copy."""
    whole = bytes(number * 7 % 251 for number in range(sum(sizes)))
    memory = Memory()
    kept = Unacknowledged(memory)
    at = 0
    for size in sizes:
        kept.keep(serial_add(first, at + size), copy(serial_add(first, at), whole[at : at + size]))
        at += size
    acknowledged, before = (round(cut * len(whole)) for cut in cuts)
    had = [tuple(sorted(round(end * len(whole)) for end in block)) for block in blocks]
    kept.trim(serial_add(first, acknowledged))
    kept.trim(serial_add(first, acknowledged - 10_000))  # an older one that was overtaken
    numbers = [(serial_add(first, low), serial_add(first, high)) for low, high in had]
    seen: list[int] = []
    for seq, data, _ in sent_again(kept, serial_add(first, before), *numbers):
        begin = serial_diff(seq, first)
        assert data and data == whole[begin : begin + len(data)]
        seen += range(begin, begin + len(data))
    wanted = [n for n in range(acknowledged, before) if not any(low <= n < high for low, high in had)]
    assert seen == wanted
    kept.trim(serial_add(first, len(whole)))
    assert not kept and memory.used == 0 and memory.forgotten == 0


def test_a_range_without_others() -> None:
    top = 2**32
    assert without((top - 10, 10), [(top - 5, top - 2), (3, 20)]) == [(top - 10, top - 5), (top - 2, 3)]
    assert without((5, 5), []) == [] and without((9, 5), []) == []
    assert without((5, 9), [(0, 5), (9, 12)]) == [(5, 9)] and without((5, 9), [(0, 100)]) == []


def test_headers_of_a_part() -> None:
    """The congestion signal belongs to the first part, the push to the last; SACK blocks of then are out of date."""
    kept = Unacknowledged(Memory())
    kept.keep(3000, copy(0, bytes(3000), flags=ACK | PSH | CWR, options=SACK, tos=2))
    parts = [tcp for _, _, tcp in sent_again(kept, 3000, (1000, 2000))]
    assert [tcp.flags for tcp in parts] == [ACK | CWR, ACK | PSH]
    assert all(tcp.options == bytes([1]) * len(SACK) for tcp in parts)
    (whole,) = kept.lacking(3000, (), 77, 88)
    assert whole[11] == 2  # the TOS byte, with ECN


def test_what_goes_out_once_more_is_kept_once() -> None:
    kept = Unacknowledged(Memory())
    kept.keep(100, copy(0, bytes(100)))
    kept.keep(100, copy(0, bytes(100)))
    kept.keep(60, copy(50, bytes(10)))
    assert len(list(kept.lacking(100, (), 1, 1))) == 1
    kept.trim(100)
    kept.keep(100, copy(0, bytes(100)))
    assert not kept
    kept.keep(150, copy(80, bytes(70)))  # the kernel joined an old segment to a new one
    assert [seq for seq, _, _ in sent_again(kept, 150)] == [100]


def test_the_oldest_give_way() -> None:
    memory = Memory(flow_limit=5000, total_limit=8000)
    one, other = Unacknowledged(memory), Unacknowledged(memory)
    size = len(copy(0, bytes(1000)))
    for number in range(10):
        one.keep(1000 * (number + 1), copy(1000 * number, bytes(1000)))
    assert memory.used == 4 * size and memory.forgotten == 6
    assert [seq for seq, _, _ in sent_again(one, 10_000)] == [6000, 7000, 8000, 9000]
    for number in range(10):
        other.keep(1000 * (number + 1), copy(1000 * number, bytes(1000)))
    assert memory.used <= memory.total_limit and [seq for seq, _, _ in sent_again(other, 10_000)] == [7000, 8000, 9000]
    one.clear()
    other.clear()
    assert memory.used == 0


def test_large_copies_use_the_same_memory_again() -> None:
    memory = Memory()
    kept = Unacknowledged(memory)
    for number in range(3):
        for piece in range(4):
            at = 4 * 60_000 * number + 60_000 * piece
            kept.keep(at + 60_000, copy(at, bytes([number]) * 60_000))
        data = b"".join(data for _, data, _ in sent_again(kept, at + 60_000))
        assert data == bytes([number]) * 240_000
        assert memory.used > 240_000
        kept.trim(at + 60_000)
        assert memory.used == 0 and len(memory._spare) == 4
    memory.release()
    assert not memory._spare
