"""Serval inside UDP, for NATs and whatever else knows no IP protocol 144 (slide 42, S52; protocol notes 1.7).

    IPv4, protocol 17 | UDP | SAL header | extensions | TCP or UDP segment

There is nothing between UDP and SAL. A client sends from port 54324 to port 54325; a server answers from the port that
it was asked at to the port that the question came from, which behind a NAT is the NAT's choice.

The checksum of the inner segment still covers the addresses that its sender used. A NAT changes them, so a receiver
goes by UDP's checksum, which covers the whole packet and which NATs keep right.
"""

from __future__ import annotations

import struct

from .checksum import Buffer
from .errors import DropReason, WireError
from .ipv4 import DEFAULT_TTL, PROTOCOL_SERVAL, PROTOCOL_UDP, Address, Ipv4Header, UdpPorts, build_ipv4
from .transport import UDP_HEADER_LENGTH, UdpHeader, to_kernel, verify

CLIENT_PORT = 54324
SERVER_PORT = 54325
PORTS = (CLIENT_PORT, SERVER_PORT)
TO_SERVER = UdpPorts(CLIENT_PORT, SERVER_PORT)
"""What a client uses that asks first."""

_NO_CHECKSUM = struct.Struct("!HHHH")


def encapsulate(source: Address, destination: Address, ports: UdpPorts, data: bytes, ttl: int = DEFAULT_TTL) -> bytes:
    """A whole IPv4 packet around ``data``, which begins with the SAL header; UDP's checksum is filled in.

    Raises ``ValueError`` when it exceeds 65535 bytes.
    """
    if UDP_HEADER_LENGTH + len(data) > 0xFFFF:
        raise ValueError(f"a UDP datagram of {len(data)} bytes does not exist")
    datagram = to_kernel(bytes(UDP_HEADER_LENGTH) + data, PROTOCOL_UDP, source, destination, *ports)
    return build_ipv4(source, destination, PROTOCOL_UDP, datagram, ttl=ttl)


def received(source: Address, destination: Address, ports: UdpPorts, data: Buffer, ttl: int = DEFAULT_TTL) -> bytes:
    """The packet that a UDP socket had ``data`` from, put together again for :func:`open_packet`; the kernel has
    verified its checksum, so it has none. ``ports`` as the receiver sees them.
    """
    header = _NO_CHECKSUM.pack(ports.peer, ports.local, UDP_HEADER_LENGTH + len(data), 0)
    return build_ipv4(source, destination, PROTOCOL_UDP, header + bytes(data), ttl=ttl)


def open_packet(packet: Buffer) -> tuple[Ipv4Header, bytes]:
    """The outer header of a raw or encapsulated Serval packet, and its bytes from the SAL header on.

    Raises :class:`WireError` for anything else: another protocol or port, a wrong UDP checksum.
    """
    header = Ipv4Header.decode(packet)
    payload = header.payload(packet)
    if header.protocol == PROTOCOL_SERVAL:
        return header, payload
    if header.protocol != PROTOCOL_UDP:
        raise WireError(DropReason.UNKNOWN_PROTOCOL)
    udp = UdpHeader.decode(payload)
    if udp.destination_port not in PORTS or udp.source_port == 0:
        raise WireError(DropReason.UNKNOWN_PROTOCOL, f"UDP port {udp.source_port} to {udp.destination_port}")
    if not verify(payload[: udp.length], PROTOCOL_UDP, header.source, header.destination):
        raise WireError(DropReason.BAD_TRANSPORT_CHECKSUM)
    header.ports = UdpPorts(udp.destination_port, udp.source_port)
    return header, payload[UDP_HEADER_LENGTH : udp.length]
