"""Are the checksums of a captured packet right? The SAL header's, and that of the TCP or UDP segment behind it.

The answers are words for a person: ``ok``, ``bad``, ``cut`` (the capture holds too little to tell) and ``none`` (there
is nothing to check). Inside UDP a segment's checksum may be right and not fit: ``nat``, for the addresses before a NAT;
``joined``, because the capture shows many segments as the one datagram in which a kernel passes them on.
"""

from __future__ import annotations

from collections.abc import Callable

from scapy.fields import Field
from scapy.layers.inet import IP, UDP
from scapy.packet import Packet

from ..wire import transport
from ..wire.checksum import sums_to_zero
from ..wire.errors import WireError
from ..wire.ipv4 import PROTOCOL_TCP, PROTOCOL_UDP, address
from ..wire.sal_header import BARE_LENGTH

OK, BAD, CUT, NONE, NAT, JOINED = "ok", "bad", "cut", "none", "nat", "joined"
_WORDS_OFFSET = 8
# What a sender of UDP writes that computes none; some of the original's datagrams are so.
_NO_CHECKSUM = bytes(2)


def header_status(data: bytes) -> str:
    """Of the SAL header and its extensions, which ``data`` begins with (docs/wire-compatibility.md)."""
    if len(data) < BARE_LENGTH:
        return CUT
    length = data[_WORDS_OFFSET] * 4
    if length < BARE_LENGTH:
        return BAD
    if length > len(data):
        return CUT
    return OK if sums_to_zero(data[:length]) else BAD


def segment_status(
    data: bytes,
    protocol: int,
    source: bytes | None,
    destination: bytes | None,
    missing: int,
    *,
    inside_udp: bool = False,
) -> str:
    """Of the segment behind the SAL header that ``data`` begins with, over the outer IP addresses (None: not known).

    ``missing`` is how many bytes of the packet the capture lacks.
    """
    length = data[_WORDS_OFFSET] * 4 if len(data) > _WORDS_OFFSET else 0
    if missing > 0 or length > len(data):
        return CUT
    segment = data[length:]
    if length < BARE_LENGTH or not segment or protocol not in (PROTOCOL_TCP, PROTOCOL_UDP):
        return NONE
    if source is None or destination is None or (protocol == PROTOCOL_UDP and segment[6:8] == _NO_CHECKSUM):
        return NONE
    try:
        if transport.verify(segment, protocol, source, destination):
            return OK
    except WireError:  # shorter than its own header
        return BAD
    if not inside_udp:
        return BAD
    return JOINED if length == BARE_LENGTH and data[:length] in segment else NAT


class StatusField(Field):
    """A line of ``show()`` that takes no bytes of the packet: what ``status`` says about the layer."""

    __slots__ = ("_status",)

    def __init__(self, name: str, status: Callable[[Packet], str]) -> None:
        super().__init__(name, None)
        self._status = status

    def addfield(self, pkt: Packet, s: bytes, val: object) -> bytes:
        return s

    def getfield(self, pkt: Packet, s: bytes) -> tuple[bytes, None]:
        return s, None

    def i2repr(self, pkt: Packet, x: object) -> str:
        return self._status(pkt)


def _outer(layer: Packet) -> tuple[bytes | None, bytes | None, int]:
    """Source and destination of the IP header around a layer, and how many bytes of its payload were not captured."""
    ip = layer.underlayer
    udp = 0
    if isinstance(ip, UDP):
        ip, udp = ip.underlayer, transport.UDP_HEADER_LENGTH
    if not isinstance(ip, IP):
        return None, None, 0
    missing = 0
    if ip.len is not None and ip.ihl is not None and ip.len > ip.ihl * 4:
        missing = ip.len - ip.ihl * 4 - udp - len(bytes(layer))
    return address(ip.src), address(ip.dst), missing


def header_of(layer: Packet) -> str:
    """The status of a SAL layer's own checksum."""
    return header_status(bytes(layer))


def segment_of(layer: Packet) -> str:
    """The status of the checksum in the TCP or UDP header behind a SAL layer."""
    inside_udp = isinstance(layer.underlayer, UDP)
    return segment_status(bytes(layer), layer.protocol, *_outer(layer), inside_udp=inside_udp)
