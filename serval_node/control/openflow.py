"""The part of OpenFlow 1.3 that a node speaks: framing, and the messages of a datapath without tables and ports.

Layouts are those of the OpenFlow Switch Specification 1.3.5, section 7. Nothing here keeps state but `Framer`.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from enum import IntEnum

VERSION = 4
"""OpenFlow 1.3 in the header's version field."""

HEADER = struct.Struct("!BBHI")
MAX_MESSAGE = 65535


class Type(IntEnum):
    """Message types that a node sends or answers."""

    HELLO = 0
    ERROR = 1
    ECHO_REQUEST = 2
    ECHO_REPLY = 3
    EXPERIMENTER = 4
    FEATURES_REQUEST = 5
    FEATURES_REPLY = 6
    GET_CONFIG_REQUEST = 7
    GET_CONFIG_REPLY = 8
    SET_CONFIG = 9
    PACKET_OUT = 13
    FLOW_MOD = 14
    GROUP_MOD = 15
    PORT_MOD = 16
    TABLE_MOD = 17
    MULTIPART_REQUEST = 18
    MULTIPART_REPLY = 19
    BARRIER_REQUEST = 20
    BARRIER_REPLY = 21
    QUEUE_GET_CONFIG_REQUEST = 22
    ROLE_REQUEST = 24
    METER_MOD = 29


class Multipart(IntEnum):
    DESCRIPTION = 0
    FLOW = 1
    AGGREGATE = 2
    TABLE = 3
    PORT_STATS = 4
    QUEUE = 5
    GROUP = 6
    GROUP_DESCRIPTION = 7
    GROUP_FEATURES = 8
    METER = 9
    METER_CONFIG = 10
    METER_FEATURES = 11
    TABLE_FEATURES = 12
    PORT_DESCRIPTION = 13


EMPTY_REPLIES: dict[int, bytes] = {
    Multipart.FLOW: b"",
    Multipart.AGGREGATE: bytes(24),
    Multipart.TABLE: b"",
    Multipart.PORT_STATS: b"",
    Multipart.QUEUE: b"",
    Multipart.GROUP: b"",
    Multipart.GROUP_DESCRIPTION: b"",
    Multipart.GROUP_FEATURES: bytes(40),
    Multipart.METER: b"",
    Multipart.METER_CONFIG: b"",
    Multipart.METER_FEATURES: bytes(16),
    Multipart.TABLE_FEATURES: b"",
}
"""Bodies of the replies that say: there are none, and none can be made."""


class ErrorType(IntEnum):
    HELLO_FAILED = 0
    BAD_REQUEST = 1
    BAD_ACTION = 2
    FLOW_MOD_FAILED = 5
    GROUP_MOD_FAILED = 6
    PORT_MOD_FAILED = 7
    TABLE_MOD_FAILED = 8
    QUEUE_OPERATION_FAILED = 9
    ROLE_REQUEST_FAILED = 11
    METER_MOD_FAILED = 12


@dataclass(frozen=True, slots=True)
class Refusal:
    """The error that a datapath without tables and ports answers a change with.

    command  offset and format of the change's command in the body; None when it has none
    delete   commands that delete: of what is not there nothing is left, so they have succeeded
    """

    kind: ErrorType
    code: int
    command: tuple[int, str] | None = None
    delete: tuple[int, ...] = ()

    def applies(self, body: bytes) -> bool:
        """Whether this change is refused; raises struct.error when the body is too short."""
        if self.command is None:
            return True
        offset, layout = self.command
        return struct.unpack_from(layout, body, offset)[0] not in self.delete


REFUSALS: dict[int, Refusal] = {
    Type.PACKET_OUT: Refusal(ErrorType.BAD_ACTION, 4),  # BAD_OUT_PORT
    Type.FLOW_MOD: Refusal(ErrorType.FLOW_MOD_FAILED, 2, (17, "!B"), (3, 4)),  # BAD_TABLE_ID
    Type.GROUP_MOD: Refusal(ErrorType.GROUP_MOD_FAILED, 3, (0, "!H"), (2,)),  # OUT_OF_GROUPS
    Type.PORT_MOD: Refusal(ErrorType.PORT_MOD_FAILED, 0),  # BAD_PORT
    Type.TABLE_MOD: Refusal(ErrorType.TABLE_MOD_FAILED, 0),  # BAD_TABLE
    Type.QUEUE_GET_CONFIG_REQUEST: Refusal(ErrorType.QUEUE_OPERATION_FAILED, 0),  # BAD_PORT
    Type.ROLE_REQUEST: Refusal(ErrorType.ROLE_REQUEST_FAILED, 1),  # UNSUP
    Type.METER_MOD: Refusal(ErrorType.METER_MOD_FAILED, 11, (0, "!H"), (2,)),  # OUT_OF_METERS
}


class HelloFailed(IntEnum):
    INCOMPATIBLE = 0


class BadRequest(IntEnum):
    """Codes of ErrorType.BAD_REQUEST."""

    VERSION = 0
    TYPE = 1
    MULTIPART = 2
    EXPERIMENTER = 3
    EXPERIMENTER_TYPE = 4
    LENGTH = 6


class FramingError(Exception):
    """The bytes are not OpenFlow, so that the next message cannot be found: the connection is of no use."""


@dataclass(frozen=True, slots=True)
class OpenFlowMessage:
    """One message: header fields and what follows the header. `raw` is all of it, for errors that quote it."""

    version: int
    type: int
    xid: int
    body: bytes
    raw: bytes


class Framer:
    """Cuts a byte stream into messages."""

    __slots__ = ("_buffer",)

    def __init__(self) -> None:
        self._buffer = bytearray()

    def feed(self, data: bytes) -> list[OpenFlowMessage]:
        """The messages completed by `data`; raises FramingError."""
        self._buffer += data
        messages, start = [], 0
        while len(self._buffer) - start >= HEADER.size:
            version, kind, length, xid = HEADER.unpack_from(self._buffer, start)
            if length < HEADER.size:
                raise FramingError(f"an OpenFlow message of {length} bytes")
            if len(self._buffer) - start < length:
                break
            raw = bytes(self._buffer[start : start + length])
            messages.append(OpenFlowMessage(version, kind, xid, raw[HEADER.size :], raw))
            start += length
        del self._buffer[:start]
        return messages


def build(kind: int, xid: int, body: bytes = b"") -> bytes:
    """A message with its header. Raises ValueError above 65,535 bytes."""
    length = HEADER.size + len(body)
    if length > MAX_MESSAGE:
        raise ValueError(f"an OpenFlow message has at most {MAX_MESSAGE} bytes, not {length}")
    return HEADER.pack(VERSION, kind, length, xid) + body


def hello(xid: int) -> bytes:
    """HELLO with a version bitmap that holds 1.3 alone."""
    return build(Type.HELLO, xid, struct.pack("!HHI", 1, 8, 1 << VERSION))


def speaks_our_version(message: OpenFlowMessage) -> bool:
    """Whether the sender of this HELLO can speak 1.3: by its bitmap, or without one by the header's version."""
    body, offset = message.body, 0
    while offset + 4 <= len(body):
        kind, length = struct.unpack_from("!HH", body, offset)
        if length < 4:
            break
        if kind == 1 and offset + 8 <= len(body):
            return bool(struct.unpack_from("!I", body, offset + 4)[0] & 1 << VERSION)
        offset += (length + 7) // 8 * 8
    return message.version >= VERSION


def features_reply(xid: int, datapath_id: int) -> bytes:
    """No buffers, no tables, no auxiliary connection, no capabilities."""
    return build(Type.FEATURES_REPLY, xid, struct.pack("!QIBB2xII", datapath_id, 0, 0, 0, 0, 0))


def get_config_reply(xid: int, flags: int, miss_send_len: int) -> bytes:
    return build(Type.GET_CONFIG_REPLY, xid, struct.pack("!HH", flags, miss_send_len))


def multipart_reply(xid: int, kind: int, body: bytes = b"") -> bytes:
    return build(Type.MULTIPART_REPLY, xid, struct.pack("!HH4x", kind, 0) + body)


def description(name: str) -> bytes:
    """Body of the description multipart: who made this datapath and what it is called."""
    fields = (("Serval testbed", 256), ("", 256), ("servald", 256), ("", 32), (name, 256))
    return b"".join(text.encode()[: size - 1].ljust(size, b"\0") for text, size in fields)


def error(kind: int, code: int, refused: OpenFlowMessage) -> bytes:
    """An error about `refused`, with its first 64 bytes and its xid."""
    return build(Type.ERROR, refused.xid, struct.pack("!HH", kind, code) + refused.raw[:64])


def hello_failed(xid: int, text: str) -> bytes:
    code = struct.pack("!HH", ErrorType.HELLO_FAILED, HelloFailed.INCOMPATIBLE)
    return build(Type.ERROR, xid, code + text.encode("ascii", "replace"))


def experimenter(xid: int, experimenter_id: int, exp_type: int, data: bytes) -> bytes:
    return build(Type.EXPERIMENTER, xid, struct.pack("!II", experimenter_id, exp_type) + data)
