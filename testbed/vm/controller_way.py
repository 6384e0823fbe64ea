"""The host's end of a guest's way to the controller: bytes between QEMU's end of a port and a TCP connection.

The guest's end, and the form of the lines, are in testbed/vm/guest/controller.py. This end lives in the sandbox's own
namespace, where the controller is: so the guest has no interface for management, as no Serval host of the testbed has.
"""

from __future__ import annotations

import base64
import json
import selectors
import socket
import threading
from pathlib import Path
from typing import Any

from testbed.errors import TestbedError

CONNECT_SECONDS = 2.0
_STOP_SECONDS = 5.0
_CHUNK = 1 << 14


class ControllerWay:
    """Connected to the port at once, since no port may change hands during a move; it says nothing until `begin`."""

    def __init__(self, path: Path, controller: tuple[str, int], name: str) -> None:
        """Raises TestbedError."""
        self._controller = controller
        self._session = 0
        self._connection: socket.socket | None = None
        self._port = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            self._port.connect(str(path))
        except OSError as error:
            self._port.close()
            raise TestbedError(f"cannot reach the controller's port of {name} at {path}: {error.strerror}") from None
        self._stopped, self._stop = socket.socketpair()
        self._thread = threading.Thread(target=self._serve, name=f"controller of {name}", daemon=True)

    def begin(self) -> None:
        """Serve the guest, which connects anew."""
        # What stands before it on the line may be the beginning of a line that was cut off by a move.
        self._port.sendall(b"\n" + _line(hello=True))
        self._thread.start()

    def close(self) -> None:
        """May be called again."""
        self._stop.close()
        if self._thread.ident is not None:
            self._thread.join(_STOP_SECONDS)
        self._hang_up()
        self._stopped.close()
        self._port.close()

    def _serve(self) -> None:
        waiting = b""
        with selectors.DefaultSelector() as selector:
            selector.register(self._port, selectors.EVENT_READ)
            selector.register(self._stopped, selectors.EVENT_READ)
            while True:
                if self._connection is not None and self._connection not in selector.get_map():
                    selector.register(self._connection, selectors.EVENT_READ)
                ready = [entry.fileobj for entry, _ in selector.select()]
                if self._stopped in ready:
                    return
                if self._connection is not None and self._connection in ready:
                    self._from_controller(self._connection, selector)
                if self._port in ready:
                    try:
                        data = self._port.recv(1 << 16)
                    except OSError:
                        data = b""
                    if not data:
                        return  # QEMU has ended
                    *lines, waiting = (waiting + data).split(b"\n")
                    for line in lines:
                        self._from_guest(line, selector)

    def _from_guest(self, line: bytes, selector: selectors.BaseSelector) -> None:
        try:
            message = json.loads(line)
        except ValueError:
            return  # the rest of a line of which the beginning came out before a move
        session = message.get("session", 0)
        if "data" in message:
            if session == self._session and self._connection is not None:
                self._to_controller(base64.b64decode(message["data"]), selector)
        elif message.get("closed"):
            if session == self._session:
                self._drop(selector)
        else:
            self._drop(selector)
            self._session = session
            try:
                self._connection = socket.create_connection(self._controller, timeout=CONNECT_SECONDS)
            except OSError:
                self._to_guest(closed=True)  # servald tries again, as it does everywhere

    def _to_controller(self, data: bytes, selector: selectors.BaseSelector) -> None:
        assert self._connection is not None
        try:
            self._connection.sendall(data)
        except OSError:
            self._drop(selector)
            self._to_guest(closed=True)

    def _from_controller(self, connection: socket.socket, selector: selectors.BaseSelector) -> None:
        try:
            data = connection.recv(_CHUNK)
        except OSError:
            data = b""
        if data:
            self._to_guest(data=base64.b64encode(data).decode())
        else:
            self._drop(selector)
            self._to_guest(closed=True)

    def _to_guest(self, **fields: Any) -> None:
        try:
            self._port.sendall(_line(session=self._session, **fields))
        except OSError:
            pass  # QEMU has ended, which the next read tells

    def _drop(self, selector: selectors.BaseSelector) -> None:
        if self._connection is not None and self._connection in selector.get_map():
            selector.unregister(self._connection)
        self._hang_up()

    def _hang_up(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.close()


def _line(**fields: Any) -> bytes:
    return json.dumps(fields).encode() + b"\n"
