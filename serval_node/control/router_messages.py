"""How a host finds the service routers on its links: three small datagrams to and from UDP port 54326.

    "SvRd" | version 1 | kind 1 | token 8 | length of the name 1 | name, UTF-8

A host asks by QUERY to the broadcast addresses of its links, with a random token. Service routers answer it by ANSWER
with the same token, which shows that they have heard the question; the address that it comes from is the router's. A
router that starts says so by ANNOUNCE, with a token of zeros: that is believed by nobody and makes hosts ask.

UDP, and not SAL: this is control and no service; it works before a node has a rule or a route for anything, it needs
no flow, and the original has nothing that it could be compatible with (protocol notes 6.3).
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from enum import IntEnum

from serval_node.control.rules import MessageError

PORT = 54326
TOKEN_LENGTH = 8
MAX_NAME = 63
MAX_LENGTH = 64 + TOKEN_LENGTH + MAX_NAME
"""What a receiver reads of a datagram; more is no message of this kind."""

_MAGIC, _VERSION = b"SvRd", 1
_HEADER = struct.Struct(f"!4sBB{TOKEN_LENGTH}sB")
NO_TOKEN = bytes(TOKEN_LENGTH)


class Kind(IntEnum):
    QUERY = 1
    ANSWER = 2
    ANNOUNCE = 3


@dataclass(frozen=True, slots=True)
class RouterMessage:
    """One datagram; `name` is the sender's, for people."""

    kind: Kind
    token: bytes
    name: str

    def encode(self) -> bytes:
        """A name that is too long is cut."""
        name = self.name.encode()[:MAX_NAME].decode(errors="ignore").encode()
        return _HEADER.pack(_MAGIC, _VERSION, self.kind, self.token, len(name)) + name

    @classmethod
    def decode(cls, data: bytes) -> RouterMessage:
        """Raises MessageError."""
        if len(data) < _HEADER.size:
            raise MessageError(f"{len(data)} bytes are no message about routers")
        magic, version, kind, token, length = _HEADER.unpack_from(data)
        name = data[_HEADER.size :]
        if (magic, version) != (_MAGIC, _VERSION):
            raise MessageError(f"no message about routers of version {_VERSION}")
        if len(name) != length or length > MAX_NAME:
            raise MessageError(f"a name of {len(name)} bytes, {length} announced")
        try:
            text = name.decode()
            if text and not text.isprintable():
                raise MessageError(f"the name {text!r} cannot be shown")
            return cls(Kind(kind), token, text)
        except UnicodeDecodeError:
            raise MessageError("the name is no UTF-8") from None
        except ValueError as error:
            raise MessageError(str(error)) from None
