"""Segments of a flow that were sent and that its peer has not acknowledged: copies of what came from sal0.

When a path goes and takes with it what was under way, they are sent again at once, instead of after the kernel's
retransmission time-out. A super-segment is one copy; what the peer has of it is left out when it is sent again.

Large copies lie in buffers that are used again and again. Memory from the allocator would go back to the system each
time the peer has acknowledged everything, and fetching it anew costs four times as much as copying.
"""

from __future__ import annotations

import struct
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from serval_node.io.fast_flow import (
    CHECKSUM_AT,
    FLAGS_AT,
    KERNEL_IP_AT,
    OFFSET_AT,
    PSH,
    SEQUENCE_AT,
    SEQUENCE_MASK,
    TCP_AT,
    VNET_AT,
)
from serval_node.io.tun import (
    GSO_NONE,
    GSO_TCPV4,
    MAX_PACKET,
    NEEDS_CHECKSUM,
    VNET_HEADER,
    VNET_HEADER_LENGTH,
)
from serval_node.wire.ipv4 import PROTOCOL_TCP, build_ipv4
from serval_node.wire.transport import CWR, strip_sack

FLOW_LIMIT = 4 << 20  # bytes of copies for one flow
TOTAL_LIMIT = 64 << 20  # and for all
SPARE_BUFFERS = 64
SMALL = 16 << 10  # bytes; a smaller packet is not worth a buffer
_BUFFER_SIZE = MAX_PACKET + VNET_HEADER_LENGTH

_HALF = 0x80000000
# Positions in a copy, which begins with the vnet header.
_IP, _TCP = KERNEL_IP_AT - VNET_AT, TCP_AT - VNET_AT
_SEQUENCE_ACK = struct.Struct("!II")
_WINDOW = struct.Struct("!H")
_SEQUENCE_IN_TCP, _FLAGS_IN_TCP, _WINDOW_IN_TCP = SEQUENCE_AT - TCP_AT, FLAGS_AT - TCP_AT, FLAGS_AT + 1 - TCP_AT

Range = tuple[int, int]
"""Sequence numbers from the first up to, not including, the second."""


@dataclass(slots=True)
class Memory:
    """Bytes that the flows of one data path may keep, and do. ``forgotten`` counts copies that had to give way."""

    flow_limit: int = FLOW_LIMIT
    total_limit: int = TOTAL_LIMIT
    used: int = 0
    forgotten: int = 0
    _spare: list[memoryview] = field(default_factory=list)

    def copy(self, packet: memoryview) -> bytes | memoryview:
        size = len(packet)
        if size < SMALL:
            self.used += size
            return bytes(packet)
        self.used += _BUFFER_SIZE
        buffer = self._spare.pop() if self._spare else memoryview(bytearray(_BUFFER_SIZE))
        buffer[:size] = packet
        return buffer

    def give_back(self, copy: bytes | memoryview) -> None:
        self.used -= len(copy)
        if not isinstance(copy, bytes) and len(self._spare) < SPARE_BUFFERS:
            self._spare.append(copy)

    def release(self) -> None:
        """Nobody sends any more."""
        self._spare.clear()


class Unacknowledged:
    """The copies of one flow, in the order of their sequence numbers."""

    __slots__ = ("_acknowledged", "_copies", "_highest", "_memory", "_size")

    def __init__(self, memory: Memory) -> None:
        self._memory = memory
        self._size = 0
        self._highest = -1
        self._acknowledged = -1
        # One past the last sequence number, where the packet is, and how long.
        self._copies: deque[tuple[int, bytes | memoryview, int]] = deque()

    def __bool__(self) -> bool:
        return bool(self._copies)

    def keep(self, end: int, packet: memoryview) -> None:
        """Copies what came from sal0; `end` is one past its last sequence number. What goes out once more is
        there already, or has been acknowledged.
        """
        copies, memory = self._copies, self._memory
        if self._highest >= 0 and end - self._highest - 1 & SEQUENCE_MASK >= _HALF:
            return
        self._highest = end
        copy = memory.copy(packet)
        copies.append((end, copy, len(packet)))
        self._size += len(copy)
        # The oldest give way; they would also be the first to be acknowledged.
        while copies and (self._size > memory.flow_limit or memory.used > memory.total_limit):
            self._forget()
            memory.forgotten += 1

    def trim(self, acknowledged: int) -> None:
        """Forgets what the peer has; an older number than before changes nothing."""
        copies = self._copies
        if self._acknowledged < 0 or _signed(acknowledged - self._acknowledged) > 0:
            self._acknowledged = acknowledged
        while copies and acknowledged - copies[0][0] & SEQUENCE_MASK < _HALF:
            self._forget()

    def clear(self) -> None:
        while self._copies:
            self._forget()

    def _forget(self) -> None:
        copy = self._copies.popleft()[1]
        self._size -= len(copy)
        self._memory.give_back(copy)

    def lacking(self, before: int, had: Sequence[Range], ack: int, window: int) -> Iterator[bytes]:
        """The packets, as if from sal0, that carry again what lies before the number `before` and in none of the
        ranges `had`, with the kernel's latest acknowledgement and window.
        """
        for end, copy, size in list(self._copies):
            packet = bytes(copy[:size])
            start = end - (len(packet) - _data_at(packet)) & SEQUENCE_MASK
            acknowledged = [(start, self._acknowledged)] if self._acknowledged >= 0 else []
            for first, stop in without((start, _earlier(end, before)), [*acknowledged, *had]):
                yield _part(packet, first - start & SEQUENCE_MASK, stop - start & SEQUENCE_MASK, ack, window)


def without(whole: Range, had: Sequence[Range]) -> list[Range]:
    """The parts of `whole` that are in none of the ranges `had`; nothing of a range that ends before it begins."""
    start, stop = whole
    left = [(0, _signed(stop - start))]  # relative to the start, so that numbers compare as they are
    for first, last in had:
        low, high = _signed(first - start), _signed(last - start)
        left = [part for begin, end in left for part in ((begin, min(end, low)), (max(begin, high), end))]
    return [(start + begin & SEQUENCE_MASK, start + end & SEQUENCE_MASK) for begin, end in left if begin < end]


def payload_size(packet: bytes, room: int) -> tuple[int, int]:
    """The payload of a packet from sal0, and of each of its segments where `room` bytes of TCP fit in one."""
    data_at = _data_at(packet)
    _, _, _, gso_size, _, _ = VNET_HEADER.unpack_from(packet)
    most = room - (data_at - _TCP)
    return len(packet) - data_at, min(gso_size, most) if gso_size else most


def _earlier(one: int, other: int) -> int:
    return one if _signed(other - one) >= 0 else other


def _signed(difference: int) -> int:
    difference &= SEQUENCE_MASK
    return difference - (1 << 32) if difference >= _HALF else difference


def _data_at(packet: bytes) -> int:
    return _TCP + (packet[OFFSET_AT - VNET_AT] >> 4) * 4


def _part(packet: bytes, first: int, stop: int, ack: int, window: int) -> bytes:
    """The packet with the bytes first..stop-1 of its payload only."""
    data_at = _data_at(packet)
    header = bytearray(strip_sack(packet[_TCP:data_at]))
    (sequence, _) = _SEQUENCE_ACK.unpack_from(header, _SEQUENCE_IN_TCP)
    _SEQUENCE_ACK.pack_into(header, _SEQUENCE_IN_TCP, sequence + first & SEQUENCE_MASK, ack)
    _WINDOW.pack_into(header, _WINDOW_IN_TCP, window)
    if first:
        header[_FLAGS_IN_TCP] &= ~CWR & 0xFF
    if data_at + stop < len(packet):
        header[_FLAGS_IN_TCP] &= ~PSH & 0xFF
    _, _, _, gso_size, _, _ = VNET_HEADER.unpack_from(packet)
    large = 0 < gso_size < stop - first
    # Who sends it on computes the checksum.
    vnet = VNET_HEADER.pack(
        NEEDS_CHECKSUM,
        GSO_TCPV4 if large else GSO_NONE,
        data_at - _IP,
        gso_size if large else 0,
        _TCP - _IP,
        CHECKSUM_AT - TCP_AT,
    )
    segment = header + packet[data_at + first : data_at + stop]
    source, destination = packet[_IP + 12 : _IP + 16], packet[_IP + 16 : _IP + 20]
    return vnet + build_ipv4(source, destination, PROTOCOL_TCP, segment, tos=packet[_IP + 1])
