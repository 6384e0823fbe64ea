"""The probe frames by which the fabric finds its links: LLDP (IEEE 802.1AB) with datapath id and port number."""

from __future__ import annotations

import struct

ETHERTYPE = 0x88CC
DESTINATION = bytes.fromhex("0180c200000e")

_CHASSIS, _PORT, _TTL = 1, 2, 3
_LOCAL = 7
_TTL_SECONDS = 120


def build(datapath_id: int, port: int, source: bytes) -> bytes:
    """The frame to send out of `port`; `source` is that port's MAC address."""
    return b"".join(
        (
            DESTINATION,
            source,
            ETHERTYPE.to_bytes(2, "big"),
            _tlv(_CHASSIS, bytes([_LOCAL]) + datapath_id.to_bytes(8, "big")),
            _tlv(_PORT, bytes([_LOCAL]) + port.to_bytes(4, "big")),
            _tlv(_TTL, struct.pack("!H", _TTL_SECONDS)),
            _tlv(0, b""),
        )
    ).ljust(60, b"\0")


def parse(frame: bytes) -> tuple[int, int] | None:
    """(datapath id, port) of a frame that `build` made; None for any other frame."""
    if len(frame) < 14 or frame[12:14] != ETHERTYPE.to_bytes(2, "big"):
        return None
    values: dict[int, bytes] = {}
    offset = 14
    while offset + 2 <= len(frame):
        (head,) = struct.unpack_from("!H", frame, offset)
        kind, length = head >> 9, head & 0x1FF
        if kind == 0:
            break
        values.setdefault(kind, frame[offset + 2 : offset + 2 + length])
        offset += 2 + length
    chassis, port = values.get(_CHASSIS, b""), values.get(_PORT, b"")
    if len(chassis) != 9 or len(port) != 5 or chassis[0] != _LOCAL or port[0] != _LOCAL:
        return None
    return int.from_bytes(chassis[1:], "big"), int.from_bytes(port[1:], "big")


def _tlv(kind: int, value: bytes) -> bytes:
    return struct.pack("!H", kind << 9 | len(value)) + value
