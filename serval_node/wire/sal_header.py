"""The SAL header and its five extensions (docs/wire-compatibility.md, protocol notes sections 1.1 to 1.3).

    0                   1                   2                   3
    +---------------------------------------------------------------+
    |                        source flowID                          |
    +---------------------------------------------------------------+
    |                      destination flowID                       |
    +---------------+---------------+-------------------------------+
    | words in all  |   protocol    |    checksum of these words    |
    +---------------+---------------+-------------------------------+
    |  extensions: type << 4, length in bytes, ...                  |

``decode`` raises nothing but :class:`WireError`, whatever it is given; ``encode`` raises ``ValueError`` for a packet
that cannot be written. Extensions keep their order, so what was decoded encodes to the same bytes, except that
reserved bits (other than the mark) are not kept: receivers ignore them and we send zero.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass

from .checksum import Buffer
from .errors import DropReason, WireError
from .ipv4 import Address
from .serviceid import ServiceID

__all__ = [
    "AddressList",
    "BARE_LENGTH",
    "Control",
    "ControlFlag",
    "DropReason",
    "Extension",
    "MARK",
    "MAX_EXTENSIONS",
    "MAX_SOURCES",
    "NONCE_LENGTH",
    "Pad",
    "SalPacket",
    "Service",
    "Source",
    "WireError",
    "bare_header",
    "decode",
    "encode",
]

BARE_LENGTH = 12
NONCE_LENGTH = 8
MAX_EXTENSIONS = 10
MAX_SOURCES = 20
MAX_WORDS = 255

# Nodes of this project know each other by this value in the reserved byte of CONTROL in SYN and SYN-ACK. The original
# ignores the byte; its user-level stack sends zero there.
MARK = 0x5A

_TYPE_PAD, _TYPE_CONTROL, _TYPE_SERVICE, _TYPE_ADDRESS, _TYPE_SOURCE = range(5)
_CONTROL_LENGTH = 20
_SERVICE_LENGTH = 36
_SOURCE_FIXED = 4
_ADDRESS_FIXED = 12
_MIN_SOURCES = 2
_MAX_ADDRESSES = (255 - _ADDRESS_FIXED) // 4
_FLAG_BITS = 0xFC

_BASE = struct.Struct("!IIBBH")
_CONTROL = struct.Struct("!BBBBII8s")
_SERVICE = struct.Struct("!BBH32s")
_ADDRESS = struct.Struct("!BBHII")
_VERSIONS = struct.Struct("!II")
_PREFIX = struct.Struct("!BBH")


class ControlFlag:
    """Flags of the CONTROL extension; they may be combined (RSYN|ACK|FIN has been seen).

    Plain numbers: one `&` of an enum.IntFlag costs as much as reading a whole header (docs/performance.md).
    """

    SYN = 0x80
    RSYN = 0x40
    ACK = 0x20
    NACK = 0x10
    RST = 0x08
    FIN = 0x04


@dataclass(slots=True)
class Pad:
    """One byte of nothing."""


@dataclass(slots=True)
class Control:
    """Connection control. ``flags`` are of ControlFlag, ``ackno`` is the next verno expected from the peer, ``nonce``
    8 bytes of the sender.
    """

    flags: int
    verno: int
    ackno: int
    nonce: bytes
    mark: int = 0


@dataclass(slots=True)
class Service:
    """A serviceID: the destination's; in an unconnected datagram a second one is the source's."""

    service_id: ServiceID


@dataclass(slots=True)
class AddressList:
    """The addresses at which a host can be reached, under a version number of their own (never sent originally)."""

    verno: int
    ackno: int
    addresses: tuple[Address, ...]


@dataclass(slots=True)
class Source:
    """2 to 20 addresses: the client's, each service router's in order; in a SYN-ACK the server's at the end."""

    addresses: tuple[Address, ...]


Extension = Pad | Control | Service | AddressList | Source


@dataclass(slots=True)
class SalPacket:
    """A SAL header with its extensions, and the transport segment behind it (TCP or UDP header first, or empty)."""

    src_flow: int
    dst_flow: int
    protocol: int
    extensions: tuple[Extension, ...]
    payload: bytes

    @property
    def control(self) -> Control | None:
        """The CONTROL extension, if there is one."""
        for extension in self.extensions:
            if isinstance(extension, Control):
                return extension
        return None

    @property
    def services(self) -> tuple[ServiceID, ...]:
        """None, one (destination) or two (destination, source) serviceIDs."""
        return tuple([extension.service_id for extension in self.extensions if isinstance(extension, Service)])

    @property
    def source(self) -> tuple[Address, ...]:
        """The addresses of the SOURCE extension; empty without one."""
        for extension in self.extensions:
            if isinstance(extension, Source):
                return extension.addresses
        return ()

    @property
    def address_list(self) -> AddressList | None:
        """The ADDRESS extension, if there is one."""
        for extension in self.extensions:
            if isinstance(extension, AddressList):
                return extension
        return None


def decode(data: Buffer) -> SalPacket:
    """Read what follows an IPv4 header of protocol 144. Raises :class:`WireError` only."""
    if len(data) < BARE_LENGTH:
        raise WireError(DropReason.TRUNCATED, f"{len(data)} bytes hold no SAL header")
    src_flow, dst_flow, words, protocol, _ = _BASE.unpack_from(data)
    length = words * 4
    if length < BARE_LENGTH:
        raise WireError(DropReason.BAD_HEADER_LENGTH, f"{words} words")
    if length > len(data):
        raise WireError(DropReason.TRUNCATED, f"SAL header of {length} bytes, {len(data)} received")
    header = bytes(data[:length])
    # The sum over a whole number of words; a header is never all zeros, its length byte is not.
    if int.from_bytes(header, "big") % 65535:
        raise WireError(DropReason.BAD_CHECKSUM)
    extensions = _decode_extensions(header, length) if words > 3 else ()
    return SalPacket(src_flow, dst_flow, protocol, extensions, bytes(data[length:]))


def _decode_extensions(header: bytes, end: int) -> tuple[Extension, ...]:
    found: list[Extension] = []
    seen = [0, 0, 0, 0, 0]
    offset = BARE_LENGTH
    while offset < end:
        kind = header[offset] >> 4
        if kind > _TYPE_SOURCE:
            raise WireError(DropReason.UNKNOWN_EXTENSION, f"type {kind}")
        if len(found) == MAX_EXTENSIONS:
            raise WireError(DropReason.TOO_MANY_EXTENSIONS)
        if kind == _TYPE_PAD:
            found.append(Pad())
            offset += 1
            continue
        size = header[offset + 1] if offset + 1 < end else 0
        if size < _SOURCE_FIXED or offset + size > end:
            raise WireError(DropReason.BAD_EXTENSION, f"type {kind} of {size} bytes at {offset} of {end}")
        seen[kind] += 1
        if seen[kind] > (2 if kind == _TYPE_SERVICE else 1):
            raise WireError(DropReason.DUPLICATE_EXTENSION, f"type {kind}")
        found.append(_decode_extension(kind, header, offset, size))
        offset += size
    return tuple(found)


def _decode_extension(kind: int, header: bytes, offset: int, size: int) -> Extension:
    if kind == _TYPE_CONTROL and size == _CONTROL_LENGTH:
        _, _, flags, mark, verno, ackno, nonce = _CONTROL.unpack_from(header, offset)
        return Control(flags & _FLAG_BITS, verno, ackno, nonce, mark)
    if kind == _TYPE_SERVICE and size == _SERVICE_LENGTH:
        return Service(ServiceID(header[offset + 4 : offset + _SERVICE_LENGTH]))
    if kind == _TYPE_SOURCE and size % 4 == 0 and _MIN_SOURCES <= (size - _SOURCE_FIXED) // 4 <= MAX_SOURCES:
        return Source(_addresses(header, offset + _SOURCE_FIXED, offset + size))
    if kind == _TYPE_ADDRESS and size % 4 == 0 and size >= _ADDRESS_FIXED:
        verno, ackno = _VERSIONS.unpack_from(header, offset + 4)
        return AddressList(verno, ackno, _addresses(header, offset + _ADDRESS_FIXED, offset + size))
    raise WireError(DropReason.BAD_EXTENSION, f"type {kind} of {size} bytes")


def _addresses(header: bytes, start: int, end: int) -> tuple[Address, ...]:
    return tuple([header[at : at + 4] for at in range(start, end, 4)])


def encode(packet: SalPacket) -> bytes:
    """The bytes behind the IPv4 header, checksum filled in. Raises ``ValueError`` for what cannot be written."""
    if not packet.extensions:
        return bare_header(packet.src_flow, packet.dst_flow, packet.protocol) + packet.payload
    body = b"".join([_encode_extension(extension) for extension in packet.extensions])
    words, rest = divmod(BARE_LENGTH + len(body), 4)
    if rest or words > MAX_WORDS or len(packet.extensions) > MAX_EXTENSIONS:
        raise ValueError(f"{len(packet.extensions)} extensions of {len(body)} bytes fit in no SAL header")
    return _header(packet.src_flow, packet.dst_flow, words, packet.protocol, body) + packet.payload


def bare_header(src_flow: int, dst_flow: int, protocol: int) -> bytes:
    """The 12 bytes in front of the data of an established flow."""
    return _header(src_flow, dst_flow, 3, protocol, b"")


def _header(src_flow: int, dst_flow: int, words: int, protocol: int, body: bytes) -> bytes:
    try:
        blank = _BASE.pack(src_flow, dst_flow, words, protocol, 0)
    except struct.error as error:
        raise ValueError(f"no SAL header: {error}") from None
    total = int.from_bytes(blank, "big") + int.from_bytes(body, "big")
    return _BASE.pack(src_flow, dst_flow, words, protocol, -total % 65535) + body


def _encode_extension(extension: Extension) -> bytes:
    try:
        if isinstance(extension, Control):
            return _encode_control(extension)
        if isinstance(extension, Service):
            return _SERVICE.pack(_TYPE_SERVICE << 4, _SERVICE_LENGTH, 0, extension.service_id.raw)
        if isinstance(extension, Source):
            return _encode_source(extension)
        if isinstance(extension, AddressList):
            return _encode_address_list(extension)
    except struct.error as error:
        raise ValueError(f"{extension}: {error}") from None
    return bytes(1)


def _encode_control(control: Control) -> bytes:
    if len(control.nonce) != NONCE_LENGTH:
        raise ValueError(f"a nonce has {NONCE_LENGTH} bytes, not {len(control.nonce)}")
    return _CONTROL.pack(
        _TYPE_CONTROL << 4,
        _CONTROL_LENGTH,
        control.flags & _FLAG_BITS,
        control.mark,
        control.verno,
        control.ackno,
        control.nonce,
    )


def _encode_source(source: Source) -> bytes:
    count = len(source.addresses)
    if not _MIN_SOURCES <= count <= MAX_SOURCES:
        raise ValueError(f"a SOURCE extension holds {_MIN_SOURCES} to {MAX_SOURCES} addresses, not {count}")
    return _PREFIX.pack(_TYPE_SOURCE << 4, _SOURCE_FIXED + 4 * count, 0) + _joined(source.addresses)


def _encode_address_list(extension: AddressList) -> bytes:
    count = len(extension.addresses)
    if count > _MAX_ADDRESSES:
        raise ValueError(f"an ADDRESS extension holds at most {_MAX_ADDRESSES} addresses, not {count}")
    size = _ADDRESS_FIXED + 4 * count
    fixed = _ADDRESS.pack(_TYPE_ADDRESS << 4, size, 0, extension.verno, extension.ackno)
    return fixed + _joined(extension.addresses)


def _joined(addresses: tuple[Address, ...]) -> bytes:
    for address in addresses:
        if len(address) != 4:
            raise ValueError(f"an IPv4 address has 4 bytes, not {len(address)}")
    return b"".join(addresses)
