"""The netlink framing that rtnetlink and sock_diag share: requests, dumps, attributes."""

from __future__ import annotations

import errno
import os
import socket
import struct
from collections.abc import Iterator
from dataclasses import dataclass

_HEADER = struct.Struct("=IHHII")  # length, type, flags, sequence, port
_ATTRIBUTE = struct.Struct("=HH")  # length, type
_ERROR = struct.Struct("=i")

NLM_F_REQUEST = 0x1
NLM_F_DUMP = 0x300
NLMSG_ERROR = 2
NLMSG_DONE = 3
_NLA_TYPE_MASK = 0x3FFF  # the two top bits are flags
_NLM_F_DUMP_INTR = 0x10
_RECEIVE_SIZE = 1 << 17
_DUMP_ATTEMPTS = 10


@dataclass(frozen=True, slots=True)
class NetlinkMessage:
    """One message: its type and what follows the netlink header."""

    kind: int
    body: bytes
    interrupted: bool = False


def messages(data: bytes) -> Iterator[NetlinkMessage]:
    """The messages in one datagram of the kernel; stops at a malformed length."""
    offset = 0
    while offset + _HEADER.size <= len(data):
        length, kind, flags, _, _ = _HEADER.unpack_from(data, offset)
        if length < _HEADER.size or offset + length > len(data):
            return
        interrupted = bool(flags & _NLM_F_DUMP_INTR)
        yield NetlinkMessage(kind, data[offset + _HEADER.size : offset + length], interrupted)
        offset += _aligned(length)


def attributes(body: bytes, offset: int) -> dict[int, bytes]:
    """The attributes from `offset` on, by type; the last of a type wins."""
    found: dict[int, bytes] = {}
    while offset + _ATTRIBUTE.size <= len(body):
        length, kind = _ATTRIBUTE.unpack_from(body, offset)
        if length < _ATTRIBUTE.size or offset + length > len(body):
            break
        found[kind & _NLA_TYPE_MASK] = body[offset + _ATTRIBUTE.size : offset + length]
        offset += _aligned(length)
    return found


def dump(protocol: int, kind: int, request: bytes) -> list[NetlinkMessage]:
    """Everything the kernel answers to one dump request, asked again while the table changed under the dump.

    `protocol` is a NETLINK_* number, `kind` the message type, `request` what follows the netlink header. Raises
    OSError.
    """
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, protocol) as link:
        link.settimeout(5)
        link.bind((0, 0))
        for attempt in range(1, _DUMP_ATTEMPTS + 1):
            header = _HEADER.pack(_HEADER.size + len(request), kind, NLM_F_REQUEST | NLM_F_DUMP, attempt, 0)
            link.send(header + request)
            answers = _answers(link)
            if not any(answer.interrupted for answer in answers):
                break
        # A table that never holds still is taken as it was in the last round: each entry is right by itself.
        return answers


def ask(protocol: int, kind: int, request: bytes) -> NetlinkMessage:
    """The kernel's answer to a question that has one. Raises OSError with the kernel's refusal."""
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, protocol) as link:
        link.settimeout(5)
        link.bind((0, 0))
        link.send(_HEADER.pack(_HEADER.size + len(request), kind, NLM_F_REQUEST, 1, 0) + request)
        for message in messages(link.recv(_RECEIVE_SIZE)):
            _raise_error(message)
            return message
    raise OSError(errno.EBADMSG, os.strerror(errno.EBADMSG))


def attribute(kind: int, value: bytes) -> bytes:
    """One attribute of a request."""
    padding = bytes(-len(value) % 4)
    return _ATTRIBUTE.pack(_ATTRIBUTE.size + len(value), kind) + value + padding


def _raise_error(message: NetlinkMessage) -> None:
    if message.kind == NLMSG_ERROR:
        number = -_ERROR.unpack_from(message.body)[0]
        raise OSError(number, os.strerror(number))


def _answers(link: socket.socket) -> list[NetlinkMessage]:
    answers: list[NetlinkMessage] = []
    while True:
        for message in messages(link.recv(_RECEIVE_SIZE)):
            if message.kind == NLMSG_DONE:
                return answers
            _raise_error(message)
            answers.append(message)


def _aligned(length: int) -> int:
    return (length + 3) & ~3
