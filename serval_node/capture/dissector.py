"""A scapy layer for Serval: the SAL header and its extensions in ``IPv4 / SAL / TCP or UDP``, or inside UDP.

    >>> from scapy.all import rdpcap
    >>> import serval_node.capture.dissector
    >>> rdpcap("capture.pcap")[0].show()

Packets that were dissected build to the same bytes. Of packets made by hand, the header's length, the checksums and the
extensions' lengths are filled in where they were not given. ``show()`` and the summary say whether the checksums are
right. Nothing else in the project depends on this module: nodes use :mod:`serval_node.wire.sal_header`.
"""

from __future__ import annotations

from typing import ClassVar

from scapy.fields import (
    BitEnumField,
    BitField,
    ByteEnumField,
    ByteField,
    Field,
    FieldLenField,
    FieldListField,
    FlagsField,
    IntField,
    IPField,
    PacketListField,
    ShortField,
    XByteField,
    XShortField,
    XStrFixedLenField,
)
from scapy.layers.inet import IP, TCP, UDP
from scapy.packet import NoPayload, Packet, Raw, bind_bottom_up, bind_layers

from ..wire import transport
from ..wire.checksum import internet_checksum
from ..wire.encapsulation import CLIENT_PORT, SERVER_PORT
from ..wire.ipv4 import PROTOCOL_SERVAL, PROTOCOL_TCP, PROTOCOL_UDP, address
from ..wire.sal_header import BARE_LENGTH, MARK, NONCE_LENGTH
from .checks import BAD, CUT, OK, StatusField, header_of, segment_of

TYPES = {0: "PAD", 1: "CONTROL", 2: "SERVICE", 3: "ADDRESS", 4: "SOURCE"}
PROTOCOLS = {PROTOCOL_TCP: "TCP", PROTOCOL_UDP: "UDP"}
# FlagsField wants the names from the lowest bit on; the lowest two are reserved.
FLAG_NAMES = ["r0", "r1", "FIN", "RST", "NACK", "ACK", "RSYN", "SYN"]


class SALExtension(Packet):
    """What the extensions have in common: they stand side by side, none is another's payload."""

    def extract_padding(self, s: bytes) -> tuple[bytes, bytes]:
        return b"", s


class SALPad(SALExtension):
    name = "SAL PAD"
    fields_desc: ClassVar[list[Field]] = [BitEnumField("type", 0, 4, TYPES), BitField("reserved", 0, 4)]


class SALControl(SALExtension):
    name = "SAL CONTROL"
    fields_desc: ClassVar[list[Field]] = [
        BitEnumField("type", 1, 4, TYPES),
        BitField("reserved", 0, 4),
        ByteField("length", 20),
        FlagsField("flags", 0, 8, FLAG_NAMES),
        XByteField("mark", 0),
        IntField("verno", 0),
        IntField("ackno", 0),
        XStrFixedLenField("nonce", bytes(NONCE_LENGTH), NONCE_LENGTH),
    ]

    def mysummary(self) -> str:
        marked = " marked" if self.mark == MARK else ""
        return f"{self.flags!s} v={self.verno} a={self.ackno}{marked}"


class SALService(SALExtension):
    name = "SAL SERVICE"
    fields_desc: ClassVar[list[Field]] = [
        BitEnumField("type", 2, 4, TYPES),
        BitField("reserved", 0, 4),
        ByteField("length", 36),
        ShortField("reserved2", 0),
        XStrFixedLenField("service_id", bytes(32), 32),
    ]

    def mysummary(self) -> str:
        return "service 0x" + (bytes(self.service_id).rstrip(b"\0").hex() or "00")


class SALAddresses(SALExtension):
    name = "SAL ADDRESS"
    fields_desc: ClassVar[list[Field]] = [
        BitEnumField("type", 3, 4, TYPES),
        BitField("reserved", 0, 4),
        FieldLenField("length", None, fmt="B", count_of="addresses", adjust=lambda _, count: 12 + 4 * count),
        ShortField("reserved2", 0),
        IntField("verno", 0),
        IntField("ackno", 0),
        FieldListField("addresses", [], IPField("", "0.0.0.0"), length_from=lambda packet: packet.length - 12),
    ]

    def mysummary(self) -> str:
        return "addresses " + ", ".join(self.addresses)


class SALSource(SALExtension):
    name = "SAL SOURCE"
    fields_desc: ClassVar[list[Field]] = [
        BitEnumField("type", 4, 4, TYPES),
        BitField("reserved", 0, 4),
        FieldLenField("length", None, fmt="B", count_of="addresses", adjust=lambda _, count: 4 + 4 * count),
        ShortField("reserved2", 0),
        FieldListField("addresses", [], IPField("", "0.0.0.0"), length_from=lambda packet: packet.length - 4),
    ]

    def mysummary(self) -> str:
        return "source " + ", ".join(self.addresses)


EXTENSIONS = {0: SALPad, 1: SALControl, 2: SALService, 3: SALAddresses, 4: SALSource}


# Of those with a length: the shortest one, and whether addresses may follow it.
_LENGTHS = {1: (20, False), 2: (36, False), 3: (12, True), 4: (4, True)}


def _extension_class(_packet: Packet, _found: list[Packet], _last: Packet | None, rest: bytes) -> type[Packet] | None:
    """What stands next in the header; Raw, which takes all the rest of it, for what no node would accept either."""
    if not rest:
        return None
    kind = rest[0] >> 4
    if kind in _LENGTHS:
        length = rest[1] if len(rest) > 1 else 0
        shortest, longer = _LENGTHS[kind]
        fits = shortest <= length <= len(rest) and (length - shortest) % 4 == 0
        return EXTENSIONS[kind] if fits and (longer or length == shortest) else Raw
    return EXTENSIONS.get(kind, Raw)


def _extension_text(layer: Packet) -> str:
    return layer.mysummary() if isinstance(layer, SALExtension) else f"{len(layer)} bytes of no known extension"


class SAL(Packet):
    """The SAL header; ``words`` and ``checksum`` are computed when they are None."""

    name = "SAL"
    fields_desc: ClassVar[list[Field]] = [
        IntField("src_flow", 0),
        IntField("dst_flow", 0),
        ByteField("words", None),
        ByteEnumField("protocol", PROTOCOL_TCP, PROTOCOLS),
        XShortField("checksum", None),
        StatusField("checksum_status", header_of),
        StatusField("segment_status", segment_of),
        PacketListField(
            "extensions",
            [],
            next_cls_cb=_extension_class,
            length_from=lambda packet: max(packet.words * 4 - BARE_LENGTH, 0),
        ),
    ]

    def post_build(self, pkt: bytes, pay: bytes) -> bytes:
        header = bytearray(pkt)
        if self.words is None:
            header[8] = len(header) // 4
        if self.checksum is None:
            header[10:12] = internet_checksum(header).to_bytes(2, "big")
        return bytes(header) + self._with_transport_checksum(pay)

    def _with_transport_checksum(self, segment: bytes) -> bytes:
        """TCP and UDP compute their checksum only directly above IP; here SAL does it for them."""
        inner, outer = self.payload, self.underlayer
        if isinstance(outer, UDP):
            outer = outer.underlayer
        if isinstance(inner, (TCP, UDP)) and inner.chksum is None and isinstance(outer, IP):
            ends = address(outer.src), address(outer.dst)
            ports = int(inner.sport), int(inner.dport)
            return transport.to_kernel(segment, self.protocol, *ends, *ports)
        return segment

    def mysummary(self) -> str:
        parts = [_extension_text(extension) for extension in self.extensions if not isinstance(extension, SALPad)]
        carried = "" if isinstance(self.payload, NoPayload) else f" / {PROTOCOLS.get(self.protocol, self.protocol)}"
        what = ": " + "; ".join(parts) if parts else ""
        return f"SAL {self.src_flow:#x} > {self.dst_flow:#x}{what}{carried}, {self._checksum_text()}"

    def _checksum_text(self) -> str:
        states = {"SAL": header_of(self), PROTOCOLS.get(self.protocol, "segment"): segment_of(self)}
        bad = [name for name, state in states.items() if state == BAD]
        if bad:
            return f"checksum bad ({', '.join(bad)})"
        if OK not in states.values():
            return "checksum not known"
        return "checksum ok (SAL), the segment is cut" if CUT in states.values() else "checksum ok"

    def control_flags(self) -> int:
        """The flags of the CONTROL extension; none of them without one."""
        for extension in self.extensions:
            if isinstance(extension, SALControl):
                return int(extension.flags) & 0xFC
        return 0


bind_layers(IP, SAL, proto=PROTOCOL_SERVAL)
bind_layers(UDP, SAL, sport=CLIENT_PORT, dport=SERVER_PORT)
# A NAT changes the client's port, never the server's.
bind_bottom_up(UDP, SAL, dport=SERVER_PORT)
bind_bottom_up(UDP, SAL, sport=SERVER_PORT)
bind_layers(SAL, TCP, protocol=PROTOCOL_TCP)
bind_layers(SAL, UDP, protocol=PROTOCOL_UDP)
