"""TCP and UDP headers as they change between the kernel and the wire (protocol notes sections 1.5 and 1.6).

On the wire the ports are zero and the checksum covers the addresses of the outer IP header; towards the kernel the
ports and the checksum are those of the virtual addresses on sal0. Everything here works on a whole *segment*: the
bytes from the transport header to the end of the data. Functions that read the peer's bytes raise :class:`WireError`.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass

from .checksum import Buffer, pseudo_sum
from .errors import DropReason, WireError
from .ipv4 import PROTOCOL_TCP, PROTOCOL_UDP, Address
from .serial import serial_add

FIN = 0x01
SYN = 0x02
RST = 0x04
PSH = 0x08
ACK = 0x10
URG = 0x20
ECE = 0x40
CWR = 0x80

TCP_HEADER_LENGTH = 20
UDP_HEADER_LENGTH = 8

OPTION_END = 0
OPTION_NOP = 1
OPTION_MSS = 2
OPTION_WINDOW_SCALE = 3
OPTION_SACK_PERMITTED = 4
OPTION_SACK = 5
OPTION_TIMESTAMPS = 8

_TCP = struct.Struct("!HHIIBBHHH")
_UDP = struct.Struct("!HHHH")
_U16 = struct.Struct("!H")
_PORTS = struct.Struct("!HH")
_SEQ_OFFSET = 4
_LENGTH_OFFSET = 12
_FLAGS_OFFSET = 13
_CHECKSUM_OFFSET = {PROTOCOL_TCP: 16, PROTOCOL_UDP: 6}
_MINIMUM = {PROTOCOL_TCP: TCP_HEADER_LENGTH, PROTOCOL_UDP: UDP_HEADER_LENGTH}
_UDP_LENGTH_OFFSET = 4


@dataclass(slots=True)
class TcpHeader:
    """A decoded TCP header; ``header_length`` and ``options`` include padding, in bytes."""

    source_port: int
    destination_port: int
    seq: int
    ack: int
    flags: int
    window: int
    header_length: int
    checksum: int
    urgent: int
    options: bytes

    @classmethod
    def decode(cls, segment: Buffer) -> TcpHeader:
        """Read the header at the start of ``segment``. Raises :class:`WireError` when it is cut or senseless."""
        length = _header_length(segment)
        sport, dport, seq, ack, _, flags, window, checksum, urgent = _TCP.unpack_from(segment)
        options = bytes(segment[TCP_HEADER_LENGTH:length])
        return cls(sport, dport, seq, ack, flags, window, length, checksum, urgent, options)

    def option(self, kind: int) -> bytes | None:
        """The value (without kind and length) of the first option of that kind."""
        for found, value in iterate_options(self.options):
            if found == kind:
                return value
        return None

    def sequence_length(self, segment_length: int) -> int:
        """How many sequence numbers a segment of ``segment_length`` bytes takes; SYN and FIN count one each."""
        count = segment_length - self.header_length
        return count + bool(self.flags & SYN) + bool(self.flags & FIN)


@dataclass(slots=True)
class UdpHeader:
    """A decoded UDP header; ``length`` includes its own 8 bytes."""

    source_port: int
    destination_port: int
    length: int
    checksum: int

    @classmethod
    def decode(cls, segment: Buffer) -> UdpHeader:
        """Read the header at the start of ``segment``. Raises :class:`WireError` when it is cut or senseless."""
        if len(segment) < UDP_HEADER_LENGTH:
            raise WireError(DropReason.TRUNCATED, f"{len(segment)} bytes hold no UDP header")
        sport, dport, length, checksum = _UDP.unpack_from(segment)
        if not UDP_HEADER_LENGTH <= length <= len(segment):
            raise WireError(DropReason.BAD_TRANSPORT_HEADER, f"UDP length {length} in {len(segment)} bytes")
        return cls(sport, dport, length, checksum)


def iterate_options(options: bytes) -> Iterator[tuple[int, bytes]]:
    """Kind and value of each TCP option but NOP, up to the end mark or the first malformed one."""
    offset = 0
    while offset < len(options):
        kind = options[offset]
        if kind == OPTION_END:
            return
        if kind == OPTION_NOP:
            offset += 1
            continue
        size = options[offset + 1] if offset + 1 < len(options) else 0
        if size < 2 or offset + size > len(options):
            return
        yield kind, options[offset + 2 : offset + size]
        offset += size


def to_wire(segment: Buffer, protocol: int, source: Address, destination: Address) -> bytes:
    """The segment with ports 0 and the checksum for the outer addresses.

    The old checksum is not looked at: sal0 hands out segments whose checksum is left to the device.
    Raises :class:`WireError` for a segment shorter than its header or another protocol.
    """
    return _rewritten(segment, protocol, source, destination, 0, 0)


def to_kernel(
    segment: Buffer, protocol: int, source: Address, destination: Address, source_port: int, destination_port: int
) -> bytes:
    """The segment with these ports and the checksum for these (virtual) addresses; verify it first.

    Raises :class:`WireError` for a segment shorter than its header or another protocol.
    """
    return _rewritten(segment, protocol, source, destination, source_port, destination_port)


def recompute_checksum(segment: Buffer, protocol: int, source: Address, destination: Address) -> bytes:
    """The segment with its checksum made right for these addresses, ports kept: a service router's rewrite.

    A UDP checksum of 0 ("none") stays. Raises :class:`WireError` as :func:`to_wire`.
    """
    _check_length(segment, protocol)
    source_port, destination_port = _PORTS.unpack_from(segment)
    if protocol == PROTOCOL_UDP and segment[6] == 0 and segment[7] == 0:
        return bytes(segment)
    return _rewritten(segment, protocol, source, destination, source_port, destination_port)


def verify(segment: Buffer, protocol: int, source: Address, destination: Address) -> bool:
    """Whether the checksum is right for these addresses; a UDP checksum of 0 means "none" and is right.

    Raises :class:`WireError` for a segment shorter than its header or another protocol.
    """
    _check_length(segment, protocol)
    if protocol == PROTOCOL_UDP and segment[6] == 0 and segment[7] == 0:
        return True
    return (_sum(segment) + pseudo_sum(source, destination, protocol, len(segment))) % 65535 == 0


def set_flags(segment: Buffer, flags: int) -> bytes:
    """A TCP segment with these flags; the checksum is left to :func:`to_wire` or :func:`to_kernel`."""
    changed = bytearray(segment)
    changed[_FLAGS_OFFSET] = flags
    return bytes(changed)


def strip_timestamps(segment: Buffer) -> bytes:
    """A TCP segment whose timestamp option is overwritten by NOPs, so that the peer's TCP does not take it up.

    Used on the SYN: twelve bytes less in every later segment. The length stays; the checksum is left to
    :func:`to_wire`. Raises :class:`WireError` when the header is cut.
    """
    return _without_option(segment, OPTION_TIMESTAMPS)


def strip_sack(segment: Buffer) -> bytes:
    """A TCP segment whose SACK blocks are overwritten by NOPs: when it is sent again they are out of date.

    The length stays; the checksum is left to :func:`to_wire`. Raises :class:`WireError` when the header is cut.
    """
    return _without_option(segment, OPTION_SACK)


def _without_option(segment: Buffer, kind: int) -> bytes:
    end = _header_length(segment)
    changed = bytearray(segment)
    offset = TCP_HEADER_LENGTH
    while offset < end and changed[offset] != OPTION_END:
        if changed[offset] == OPTION_NOP:
            offset += 1
            continue
        size = changed[offset + 1] if offset + 1 < end else 0
        if size < 2 or offset + size > end:
            break
        if changed[offset] == kind:
            changed[offset : offset + size] = bytes([OPTION_NOP]) * size
        offset += size
    return bytes(changed)


def clamp_mss(segment: Buffer, limit: int) -> bytes:
    """A TCP SYN or SYN-ACK whose MSS option is no larger than ``limit``; without the option MSS is 536 (RFC 9293).

    The checksum is left to :func:`to_wire` or :func:`to_kernel`. Raises :class:`WireError` when the header is cut.
    """
    end = _header_length(segment)
    changed = bytearray(segment)
    offset = TCP_HEADER_LENGTH
    while offset < end and changed[offset] != OPTION_END:
        if changed[offset] == OPTION_NOP:
            offset += 1
            continue
        size = changed[offset + 1] if offset + 1 < end else 0
        if size < 2 or offset + size > end:
            break
        if changed[offset] == OPTION_MSS and size == 4:
            _U16.pack_into(changed, offset + 2, min(limit, *_U16.unpack_from(changed, offset + 2)))
        offset += size
    return bytes(changed)


def split(segment: Buffer, mss: int) -> list[bytes]:
    """A TCP super-segment (TSO) as segments of at most ``mss`` bytes of data.

    Sequence numbers advance, FIN and PSH go to the last segment only, CWR to the first (RFC 3168); checksums are left
    to :func:`to_wire`. Raises ``ValueError`` for ``mss`` < 1 and :class:`WireError` when the header is cut.
    """
    if mss < 1:
        raise ValueError(f"no segments of {mss} bytes")
    header = TcpHeader.decode(segment)
    start, total = header.header_length, len(segment)
    if total - start <= mss:
        return [bytes(segment)]
    pieces = []
    for offset in range(start, total, mss):
        piece = bytearray(segment[:start])
        _put_u32(piece, _SEQ_OFFSET, serial_add(header.seq, offset - start))
        flags = header.flags
        if offset + mss < total:
            flags &= ~(FIN | PSH)
        if offset > start:
            flags &= ~CWR
        piece[_FLAGS_OFFSET] = flags
        pieces.append(bytes(piece) + bytes(segment[offset : offset + mss]))
    return pieces


def build_tcp(
    source_port: int,
    destination_port: int,
    seq: int,
    ack: int,
    flags: int,
    *,
    window: int = 0,
    options: bytes = b"",
    data: bytes = b"",
) -> bytes:
    """A TCP segment without checksum, for :func:`to_wire` or :func:`to_kernel`. ``options`` are padded to words.

    Raises ``ValueError`` for more than 40 bytes of options.
    """
    options += bytes(-len(options) % 4)
    length = TCP_HEADER_LENGTH + len(options)
    if length > 60:
        raise ValueError(f"a TCP header of {length} bytes does not exist")
    header = _TCP.pack(source_port, destination_port, seq, ack, length // 4 << 4, flags, window, 0, 0)
    return header + options + data


def build_udp(source_port: int, destination_port: int, data: bytes = b"") -> bytes:
    """A UDP segment with checksum field 0 ("none")."""
    return _UDP.pack(source_port, destination_port, UDP_HEADER_LENGTH + len(data), 0) + data


def _header_length(segment: Buffer) -> int:
    """Of a TCP segment, in bytes, options included. Raises :class:`WireError` when the header is cut or senseless."""
    if len(segment) < TCP_HEADER_LENGTH:
        raise WireError(DropReason.TRUNCATED, f"{len(segment)} bytes hold no TCP header")
    length = (segment[_LENGTH_OFFSET] >> 4) * 4
    if not TCP_HEADER_LENGTH <= length <= len(segment):
        raise WireError(DropReason.BAD_TRANSPORT_HEADER, f"TCP header of {length} bytes in {len(segment)}")
    return length


def _check_length(segment: Buffer, protocol: int) -> None:
    minimum = _MINIMUM.get(protocol)
    if minimum is None:
        raise WireError(DropReason.UNKNOWN_PROTOCOL, f"transport protocol {protocol}")
    if len(segment) < minimum:
        raise WireError(DropReason.TRUNCATED, f"{len(segment)} bytes hold no header of protocol {protocol}")


def _sum(segment: Buffer) -> int:
    """A number that is the sum of the segment's words modulo 65535; not reduced."""
    total = int.from_bytes(segment, "big")
    return total << 8 if len(segment) & 1 else total


def _rewritten(
    segment: Buffer, protocol: int, source: Address, destination: Address, source_port: int, destination_port: int
) -> bytes:
    _check_length(segment, protocol)
    changed = bytearray(segment)
    _PORTS.pack_into(changed, 0, source_port, destination_port)
    at = _CHECKSUM_OFFSET[protocol]
    _U16.pack_into(changed, at, 0)
    if protocol == PROTOCOL_UDP:
        _U16.pack_into(changed, _UDP_LENGTH_OFFSET, len(changed))
    # The sum of a pseudo header is never true zero, so -0 stands for "sums to 65535" and the field becomes 0;
    # UDP writes that as 65535 because 0 means "none" there.
    checksum = -(_sum(changed) + pseudo_sum(source, destination, protocol, len(changed))) % 65535
    if protocol == PROTOCOL_UDP and checksum == 0:
        checksum = 0xFFFF
    _U16.pack_into(changed, at, checksum)
    return bytes(changed)


def _put_u32(buffer: bytearray, offset: int, value: int) -> None:
    buffer[offset : offset + 4] = value.to_bytes(4, "big")
