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
    MULTIPART_REQUEST = 18
    MULTIPART_REPLY = 19
    BARRIER_REQUEST = 20
    BARRIER_REPLY = 21


class Multipart(IntEnum):
    DESCRIPTION = 0
    PORT_DESCRIPTION = 13


class ErrorType(IntEnum):
    HELLO_FAILED = 0
    BAD_REQUEST = 1


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
