"""The local control socket: JSON lines over a unix stream socket, one answer line per request line.

What the requests mean is in serval_node.daemon.operations; this module owns the sockets. A connection stands
for the process behind it: what it reserved is released when it closes.
"""

from __future__ import annotations

import json
import os
import socket
import stat
import traceback
from collections.abc import Callable
from typing import Any

from serval_node.daemon.log import log
from serval_node.daemon.loop import EventLoop

MAX_REQUEST_BYTES = 1 << 20
MAX_UNSENT_BYTES = 8 << 20
ACCEPT_RETRY_SECONDS = 0.1

_to_json = json.JSONEncoder(separators=(",", ":")).encode


class ControlPathError(RuntimeError):
    """The path of the control socket cannot be used; one clear line."""


class RequestError(ValueError):
    """A request that is refused; the text goes to its sender."""


class Connection:
    """One client. `reserved` are the flowIDs that its sockets hold until they connect; `prepared`, by local port, those
    of sockets that were about to."""

    def __init__(self, sock: socket.socket, server: ControlServer) -> None:
        self.reserved: set[int] = set()
        self.prepared: dict[int, int] = {}
        self._socket = sock
        self._server = server
        self._input = bytearray()
        self._output = bytearray()

    def readable(self) -> None:
        try:
            data = self._socket.recv(65536)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if not data:
            self.close()
            return
        self._input += data
        while (end := self._input.find(b"\n")) >= 0:
            line = bytes(self._input[:end])
            del self._input[: end + 1]
            self._send(self._server.answer(line, self))
        if len(self._input) > MAX_REQUEST_BYTES:
            self._send({"ok": False, "error": f"a request is one line of at most {MAX_REQUEST_BYTES} bytes"})
            self.close()

    def push(self, message: dict[str, Any]) -> None:
        """A line that no request asked for just now, on a connection that an operation has made a stream."""
        self._send(message)

    def _send(self, message: dict[str, Any]) -> None:
        self._output += _to_json(message).encode() + b"\n"
        self.writable()

    def writable(self) -> None:
        loop = self._server.loop
        try:
            while self._output:
                del self._output[: self._socket.send(self._output)]
        except BlockingIOError:
            if len(self._output) > MAX_UNSENT_BYTES:
                self.close()  # a client that asks and does not read
            else:
                loop.add_writer(self._socket.fileno(), self.writable)
            return
        except OSError:
            self.close()
            return
        if self._socket.fileno() >= 0:
            loop.remove_writer(self._socket.fileno())

    def close(self) -> None:
        fd = self._socket.fileno()
        if fd < 0:
            return
        self._server.loop.remove_reader(fd)
        self._server.loop.remove_writer(fd)
        self._socket.close()
        self._server.forget(self)


class ControlServer:
    """Listens at a path; `handle(request, connection)` returns the answer's fields or raises RequestError."""

    def __init__(
        self,
        path: str,
        loop: EventLoop,
        handle: Callable[[dict[str, Any], Connection], dict[str, Any]],
        closed: Callable[[Connection], None],
    ) -> None:
        """Take the path; raises ControlPathError when another daemon answers there or it cannot be made."""
        self.loop = loop
        self._handle = handle
        self._closed = closed
        self._path = path
        self._connections: set[Connection] = set()
        self._socket = take_path(path)
        self._identity = _identity(path)
        loop.add_reader(self._socket.fileno(), self._accept)

    def _accept(self) -> None:
        try:
            sock, _ = self._socket.accept()
        except BlockingIOError:
            return
        except OSError as error:  # out of descriptors: try again when some may be free, instead of spinning
            log(f"control socket: {error.strerror}")
            fd = self._socket.fileno()
            self.loop.remove_reader(fd)
            self.loop.call_later(ACCEPT_RETRY_SECONDS, lambda: self.loop.add_reader(fd, self._accept))
            return
        sock.setblocking(False)
        connection = Connection(sock, self)
        self._connections.add(connection)
        self.loop.add_reader(sock.fileno(), connection.readable)

    def answer(self, line: bytes, connection: Connection) -> dict[str, Any]:
        """The answer to one request line."""
        try:
            request = json.loads(line)
        except (ValueError, RecursionError):
            return {"ok": False, "error": "a request is one JSON object per line"}
        if not isinstance(request, dict):
            return {"ok": False, "error": "a request is a JSON object"}
        try:
            return {"ok": True, **self._handle(request, connection)}
        except (RequestError, ValueError) as error:  # ServiceNameError and RuleError are ValueErrors
            return {"ok": False, "error": str(error)}
        except Exception:  # noqa: BLE001 - an error in our code must not take the host's connections with it
            log(f"while serving {line[:200]!r}:\n{traceback.format_exc()}")
            return {"ok": False, "error": "internal error; servald.log has the details"}

    def forget(self, connection: Connection) -> None:
        self._connections.discard(connection)
        self._closed(connection)

    def close(self) -> None:
        """Close every connection and remove the path, unless another daemon has it by now."""
        self.loop.remove_reader(self._socket.fileno())
        for connection in list(self._connections):
            connection.close()
        self._socket.close()
        if _identity(self._path) == self._identity:
            os.unlink(self._path)


def _identity(path: str) -> tuple[int, int] | None:
    try:
        status = os.stat(path)
    except OSError:
        return None
    return (status.st_dev, status.st_ino)


def take_path(path: str) -> socket.socket:
    """A listening unix socket at `path`; the file of a daemon that died is replaced, a living one is not.

    Raises ControlPathError.
    """
    try:
        os.makedirs(os.path.dirname(path) or ".", exist_ok=True)
    except OSError as error:
        raise ControlPathError(f"cannot make the directory of {path}: {error.strerror}") from None
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        try:
            probe.connect(path)
        except FileNotFoundError:
            pass
        except ConnectionRefusedError:
            _remove_stale(path)
        except OSError as error:
            raise ControlPathError(f"cannot use {path} as control socket: {error.strerror or error}") from None
        else:
            raise ControlPathError(f"another servald is listening on {path}: stop it, or choose another run_dir")
    server = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        server.bind(path)
    except OSError as error:
        server.close()
        raise ControlPathError(f"cannot use {path} as control socket: {error.strerror or error}") from None
    server.listen(128)
    server.setblocking(False)
    return server


def _remove_stale(path: str) -> None:
    if not stat.S_ISSOCK(os.stat(path).st_mode):
        raise ControlPathError(f"cannot use {path} as control socket: a file that is no socket is there")
    os.unlink(path)
