"""Messages as bytes: compact JSON in OpenFlow experimenter messages.

The JSON stands after the experimenter id and type. A text that is too long for one OpenFlow message (its length
field has 16 bits) is cut into pieces; all but the last have the bit MORE set in the type and all share one xid, as
with OpenFlow's own multipart messages. `Assembler` puts them together.
"""

from __future__ import annotations

import json
from typing import Any, get_args

from serval_node.control.messages import Message, MessageType
from serval_node.control.rules import MessageError, as_object

EXPERIMENTER = 0x53455256
"""The experimenter id: "SERV"."""

DPID_TAG = 0x5356
"""Upper 16 bits of a Serval node's datapath id ("SV"); the switch fabric leaves such datapaths alone."""

MORE = 0x80000000
PIECE_BYTES = 60_000
MAX_BODY_BYTES = 64 << 20


_CLASSES: dict[MessageType, Any] = {cls.TYPE: cls for cls in get_args(Message)}


class UnknownMessageType(MessageError):
    """An experimenter type that this version does not know."""


def node_datapath_id(node_id: int) -> int:
    """The OpenFlow datapath id of the Serval node with this id (48 bits)."""
    if not 0 <= node_id < 1 << 48:
        raise ValueError(f"a node id has 48 bits, {node_id} does not fit")
    return DPID_TAG << 48 | node_id


def is_serval_datapath(datapath_id: int) -> bool:
    """Whether this datapath is a Serval node and not a switch."""
    return datapath_id >> 48 == DPID_TAG


def encode(message: Message, *, piece_bytes: int = PIECE_BYTES) -> list[tuple[int, bytes]]:
    """(experimenter type, data) of the OpenFlow messages that carry this one; all are sent with one xid."""
    body = json.dumps(message.to_json(), separators=(",", ":")).encode()
    pieces = [body[start : start + piece_bytes] for start in range(0, len(body), piece_bytes)]
    return [(message.TYPE | MORE, piece) for piece in pieces[:-1]] + [(int(message.TYPE), pieces[-1])]


def decode(exp_type: int, body: bytes) -> Message:
    """A whole message. Raises UnknownMessageType, or MessageError for a body that does not fit its type."""
    try:
        cls = _CLASSES[MessageType(exp_type)]
    except ValueError:
        raise UnknownMessageType(f"unknown experimenter type {exp_type}") from None
    try:
        data = json.loads(body)
    except (ValueError, RecursionError):
        raise MessageError("the body is not JSON") from None
    return cls.from_json(as_object(data, "message"))


class Assembler:
    """Puts the pieces of one direction of one channel together."""

    __slots__ = ("_key", "_pieces", "_size")

    def __init__(self) -> None:
        self._key: tuple[int, int] | None = None
        self._pieces: list[bytes] = []
        self._size = 0

    def add(self, exp_type: int, xid: int, data: bytes) -> Message | None:
        """The message when its last piece is here, else None.

        Raises as `decode` does, also for pieces of two messages mixed and for a message above MAX_BODY_BYTES;
        what was gathered is then forgotten.
        """
        key = (exp_type & ~MORE, xid)
        if self._key not in (None, key):
            self._forget()
            raise MessageError("pieces of two messages are mixed")
        self._key = key
        self._pieces.append(bytes(data))
        self._size += len(data)
        if self._size > MAX_BODY_BYTES:
            self._forget()
            raise MessageError(f"a message of more than {MAX_BODY_BYTES} bytes")
        if exp_type & MORE:
            return None
        body = b"".join(self._pieces)
        self._forget()
        return decode(key[0], body)

    def _forget(self) -> None:
        self._key, self._pieces, self._size = None, [], 0
