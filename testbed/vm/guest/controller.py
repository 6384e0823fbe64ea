"""The way from servald to its controller: a port of the guest's own 127.0.0.1, led through virtio-serial to the host.

Each connection of servald is a session with a number. Lines on the port: {"session": n} opens one, {"session": n,
"data": base64} carries bytes either way, {"session": n, "closed": true} ends it. {"hello": true} comes from a host's
end that has just begun, here or after a move: the session there was has ended, and servald connects again by itself.
"""

from __future__ import annotations

import base64
import socket
from typing import Any

from .ports import Loop, Port

_CHUNK = 1 << 14


class ControllerWay:
    """Listens where servald looks for its controller."""

    def __init__(self, loop: Loop, fd: int) -> None:
        """``fd`` is that of the port."""
        self._loop = loop
        self._session = 0
        self._connection: socket.socket | None = None
        self._listener: socket.socket | None = None
        self._output = b""
        self._line = Port(loop, fd, self._heard)

    def listen(self, port: int) -> None:
        """Have servald find its controller on this TCP port of 127.0.0.1. Raises OSError."""
        self._listener = socket.create_server(("127.0.0.1", port))
        self._listener.setblocking(False)
        self._loop.watch(self._listener.fileno(), self._accept)

    def close(self) -> None:
        """End what there is, and listen no more."""
        self._close(tell=True)
        if self._listener is not None:
            self._loop.forget(self._listener.fileno())
            self._listener.close()

    def _accept(self) -> None:
        assert self._listener is not None
        try:
            connection, _ = self._listener.accept()
        except BlockingIOError:
            return
        self._close(tell=True)
        connection.setblocking(False)
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._connection = connection
        self._session += 1
        self._tell()
        self._loop.watch(connection.fileno(), self._read)

    def _read(self) -> None:
        assert self._connection is not None
        try:
            data = self._connection.recv(_CHUNK)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if data:
            self._tell(data=base64.b64encode(data).decode())
        else:
            self._close(tell=True)

    def _heard(self, message: dict[str, Any]) -> None:
        if message.get("hello"):
            self._close(tell=False)
        elif message.get("session") != self._session or self._connection is None:
            return  # of a connection that has ended here
        elif message.get("closed"):
            self._close(tell=False)
        else:
            self._output += base64.b64decode(message.get("data", ""))
            self._write()

    def _write(self) -> None:
        if self._connection is None:
            return
        try:
            while self._output:
                self._output = self._output[self._connection.send(self._output) :]
        except BlockingIOError:
            pass  # servald is busy; the loop says when there is room
        except OSError:
            self._close(tell=True)
            return
        self._loop.watch(self._connection.fileno(), self._read, self._write if self._output else None)

    def _close(self, *, tell: bool) -> None:
        connection, self._connection, self._output = self._connection, None, b""
        if connection is None:
            return
        self._loop.forget(connection.fileno())
        connection.close()
        if tell:
            self._tell(closed=True)

    def _tell(self, **fields: Any) -> None:
        self._line.send({"session": self._session, **fields})
