"""IPv4 headers and the ICMP errors a node gives to its own programs. Addresses are 4 ``bytes`` everywhere inside.

Decoded headers, here and in the other modules of this room, are values: nobody changes one. They are not ``frozen``
because one is made for every packet, and that would triple its cost (docs/performance.md).
"""

from __future__ import annotations

import socket
import struct
from dataclasses import dataclass
from typing import NamedTuple

from .checksum import Buffer, internet_checksum
from .errors import DropReason, WireError

Address = bytes

PROTOCOL_ICMP = 1
PROTOCOL_TCP = 6
PROTOCOL_UDP = 17
PROTOCOL_SERVAL = 144

HEADER_LENGTH = 20
LARGEST_PACKET = 65535
DEFAULT_TTL = 64

ICMP_NET_UNREACHABLE = 0
ICMP_HOST_UNREACHABLE = 1
ICMP_PROTOCOL_UNREACHABLE = 2
ICMP_PORT_UNREACHABLE = 3
ICMP_FRAGMENTATION_NEEDED = 4

_HEADER = struct.Struct("!BBHHHBBH4s4s")
_DONT_FRAGMENT = 0x4000
_MORE_FRAGMENTS = 0x2000
_OFFSET_MASK = 0x1FFF
# RFC 1812 section 4.3.2.3: as much of the original as fits in 576 bytes.
_ICMP_QUOTE = 576 - HEADER_LENGTH - 8


def address(text: str) -> Address:
    """``"10.0.0.1"`` as 4 bytes. Raises ``ValueError`` for anything but four decimal numbers."""
    try:
        return socket.inet_pton(socket.AF_INET, text)
    except OSError:
        raise ValueError(f"not an IPv4 address: {text!r}") from None


def address_text(value: Address) -> str:
    """4 bytes in dotted form. Raises ``ValueError`` for another length."""
    return socket.inet_ntop(socket.AF_INET, value)


class UdpPorts(NamedTuple):
    """The ports of UDP encapsulation, as one host sees them: its own and the other host's (behind a NAT, the NAT's)."""

    local: int
    peer: int


@dataclass(slots=True)
class Ipv4Header:
    """The fields of a received IPv4 header; lengths in bytes. ``ports`` are those of the UDP header between this one
    and SAL in an encapsulated packet (:mod:`.encapsulation`), None in a raw one.
    """

    source: Address
    destination: Address
    protocol: int
    ttl: int
    header_length: int
    total_length: int
    tos: int = 0
    identification: int = 0
    dont_fragment: bool = False
    ports: UdpPorts | None = None

    @classmethod
    def decode(cls, packet: Buffer) -> Ipv4Header:
        """Read the header of a whole packet as a raw socket or a TUN gives it.

        The header checksum is not verified: the kernel has done so, and a TUN with offloads may leave it unset.
        Raises :class:`WireError` for a packet that is no complete IPv4 packet, fragments included.
        """
        if len(packet) < HEADER_LENGTH:
            raise WireError(DropReason.TRUNCATED, f"{len(packet)} bytes hold no IPv4 header")
        first, tos, total, identification, fragment, ttl, protocol, _, source, destination = _HEADER.unpack_from(packet)
        header_length = (first & 0x0F) * 4
        if first >> 4 != 4 or header_length < HEADER_LENGTH or total < header_length:
            raise WireError(DropReason.BAD_IP_HEADER, f"version and length byte {first:#04x}, total length {total}")
        if total > len(packet):
            raise WireError(DropReason.TRUNCATED, f"IPv4 length {total}, {len(packet)} bytes received")
        if fragment & (_MORE_FRAGMENTS | _OFFSET_MASK):
            raise WireError(DropReason.IP_FRAGMENT)
        return cls(
            source,
            destination,
            protocol,
            ttl,
            header_length,
            total,
            tos,
            identification,
            bool(fragment & _DONT_FRAGMENT),
        )

    def payload(self, packet: Buffer) -> bytes:
        """What follows this header in ``packet``, without link-layer padding."""
        return bytes(packet[self.header_length : self.total_length])


def build_ipv4(
    source: Address,
    destination: Address,
    protocol: int,
    payload: Buffer,
    ttl: int = DEFAULT_TTL,
    df: bool = True,
    tos: int = 0,
    identification: int = 0,
) -> bytes:
    """A whole packet with a 20-byte header and its checksum.

    Raises ``ValueError`` when it exceeds 65535 bytes or an address has not 4.
    """
    if len(source) != 4 or len(destination) != 4:
        raise ValueError(f"an IPv4 address has 4 bytes, not {len(source)} and {len(destination)}")
    total = HEADER_LENGTH + len(payload)
    if total > 0xFFFF:
        raise ValueError(f"an IPv4 packet of {total} bytes does not exist")
    fragment = _DONT_FRAGMENT if df else 0
    words = (0x45 << 8 | tos) + total + identification + fragment + (ttl << 8 | protocol)
    checksum = -(words + int.from_bytes(source, "big") + int.from_bytes(destination, "big")) % 65535
    header = _HEADER.pack(0x45, tos, total, identification, fragment, ttl, protocol, checksum, source, destination)
    return header + payload


def icmp_unreachable(original_packet: Buffer, code: int, source: Address | None = None, *, mtu: int = 0) -> bytes:
    """A whole ICMP destination-unreachable packet (RFC 792) that answers ``original_packet``.

    It comes from ``source``, or from the address that the original was sent to; ``mtu`` goes with
    ICMP_FRAGMENTATION_NEEDED (RFC 1191). Raises :class:`WireError` when the original is no complete IPv4 packet.
    """
    header = Ipv4Header.decode(original_packet)
    quote = bytes(original_packet[: min(header.total_length, _ICMP_QUOTE)])
    message = bytearray(struct.pack("!BBHI", 3, code, 0, mtu) + quote)
    message[2:4] = internet_checksum(message).to_bytes(2, "big")
    return build_ipv4(source or header.destination, header.source, PROTOCOL_ICMP, message, df=False)
