"""Read the IPv4 packets of a pcap file, of Ethernet or Linux cooked captures, without scapy."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

LINKTYPE_ETHERNET = 1
LINKTYPE_RAW = 101
LINKTYPE_LINUX_SLL = 113
LINKTYPE_IPV4 = 228
LINKTYPE_LINUX_SLL2 = 276

_ETHERTYPE_IPV4 = 0x0800
_ETHERTYPE_VLAN = 0x8100
# Where the link layer says what it carries, and how long its header is.
_LINK_LAYERS = {LINKTYPE_ETHERNET: (12, 14), LINKTYPE_LINUX_SLL: (14, 16), LINKTYPE_LINUX_SLL2: (0, 20)}
_GLOBAL_HEADER = 24
_RECORD_HEADER = 16
# Magic number as the writer's byte order puts it -> our reading of that order, fractions of a second.
_MAGICS = {
    b"\xd4\xc3\xb2\xa1": ("<", 1e-6),
    b"\xa1\xb2\xc3\xd4": (">", 1e-6),
    b"\x4d\x3c\xb2\xa1": ("<", 1e-9),
    b"\xa1\xb2\x3c\x4d": (">", 1e-9),
}


@dataclass(frozen=True, slots=True)
class CapturedPacket:
    """One captured IPv4 packet from its IPv4 header on (link-layer padding may follow); ``time`` in Unix seconds."""

    time: float
    data: bytes


def read_ipv4(path: str | Path) -> Iterator[CapturedPacket]:
    """The IPv4 packets of the file in their order; other frames are left out, and a record cut at the end.

    Raises ``ValueError`` for a file that is no pcap file or has a link layer unknown here, ``OSError`` as usual.
    """
    content = Path(path).read_bytes()
    if len(content) < _GLOBAL_HEADER or content[:4] not in _MAGICS:
        raise ValueError(f"{path}: no pcap file")
    order, fraction = _MAGICS[content[:4]]
    (linktype,) = struct.unpack_from(f"{order}I", content, 20)
    record = struct.Struct(f"{order}IIII")
    offset = _GLOBAL_HEADER
    while offset + _RECORD_HEADER <= len(content):
        seconds, parts, captured, _ = record.unpack_from(content, offset)
        offset += _RECORD_HEADER
        data = _ipv4_part(content[offset : offset + captured], linktype & 0xFFFF, path)
        offset += captured
        if data and offset <= len(content):
            yield CapturedPacket(seconds + parts * fraction, data)


def _ipv4_part(frame: bytes, linktype: int, path: str | Path) -> bytes:
    if linktype in (LINKTYPE_RAW, LINKTYPE_IPV4):
        return frame if frame[:1] and frame[0] >> 4 == 4 else b""
    if linktype not in _LINK_LAYERS:
        raise ValueError(f"{path}: link type {linktype} is not read here")
    type_at, length = _LINK_LAYERS[linktype]
    kind = int.from_bytes(frame[type_at : type_at + 2], "big")
    if linktype == LINKTYPE_ETHERNET and kind == _ETHERTYPE_VLAN:
        kind, length = int.from_bytes(frame[16:18], "big"), 18
    return frame[length:] if kind == _ETHERTYPE_IPV4 else b""
