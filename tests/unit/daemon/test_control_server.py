"""The control socket: requests and refusals, a busy path, a stale one."""

from __future__ import annotations

import json
import os
import socket
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from serval_node.control.local import Client, ControlError, ControlUnreachable
from serval_node.daemon.control_server import (
    MAX_REQUEST_BYTES,
    Connection,
    ControlPathError,
    ControlServer,
    RequestError,
    take_path,
)
from serval_node.daemon.loop import EventLoop


class Daemon:
    """A control server on its own loop in a thread, with three operations."""

    def __init__(self, path: str) -> None:
        self.loop = EventLoop()
        self.closed = threading.Event()
        self.server = ControlServer(path, self.loop, self.handle, lambda _connection: self.closed.set())
        self._wake, self._end = socket.socketpair()
        self.loop.add_reader(self._end.fileno(), self.loop.stop)
        self.thread = threading.Thread(target=self.loop.run)
        self.thread.start()

    def handle(self, request: dict[str, Any], _connection: Connection) -> dict[str, Any]:
        if request["op"] == "echo":
            return {"text": request["text"]}
        if request["op"] == "value":
            raise ValueError("no such value")
        raise RequestError(f"unknown operation {request['op']!r}")

    def stop(self) -> None:
        self._wake.send(b"x")
        self.thread.join(10)
        self.server.close()
        self.loop.close()
        self._wake.close()
        self._end.close()


@pytest.fixture
def path(tmp_path: Path) -> str:
    return str(tmp_path / "run" / "control.sock")


@pytest.fixture
def daemon(path: str) -> Iterator[Daemon]:
    daemon = Daemon(path)
    yield daemon
    daemon.stop()


@pytest.mark.usefixtures("daemon")
def test_requests_and_refusals(path: str) -> None:
    with Client(path) as client:
        assert client.request("echo", text="hello") == {"text": "hello"}
        with pytest.raises(ControlError, match="^no such value$"):
            client.request("value")
        with pytest.raises(ControlError, match="unknown operation 'nonsense'"):
            client.request("nonsense")
        long = "x" * 3_00_000
        assert client.request("echo", text=long) == {"text": long}


@pytest.mark.usefixtures("daemon")
@pytest.mark.parametrize("line", [b"\n", b"{\n", b"[]\n", b"\xff\xfe\n"])
def test_garbage_is_answered_and_the_connection_goes_on(path: str, line: bytes) -> None:
    with socket.socket(socket.AF_UNIX) as sock:
        sock.connect(path)
        sock.sendall(line + b'{"op": "echo", "text": 1}\n')
        file = sock.makefile()
        assert json.loads(file.readline())["ok"] is False
        assert json.loads(file.readline()) == {"ok": True, "text": 1}
        file.close()


@pytest.mark.usefixtures("daemon")
def test_an_endless_line_ends_the_connection(path: str) -> None:
    with socket.socket(socket.AF_UNIX) as sock:
        sock.settimeout(10)
        sock.connect(path)
        try:
            sock.sendall(b"x" * (MAX_REQUEST_BYTES + 100_000))
        except BrokenPipeError:
            pass  # the daemon closed before it had read all of it
        answer = b""
        try:
            while data := sock.recv(65536):
                answer += data
        except ConnectionResetError:
            pass  # the same, seen from the reading side
        assert not answer or json.loads(answer)["ok"] is False


def test_the_end_of_a_connection_is_told(daemon: Daemon, path: str) -> None:
    with Client(path) as client:
        client.request("echo", text="")
        assert not daemon.closed.is_set()
    assert daemon.closed.wait(10)


@pytest.mark.usefixtures("daemon")
def test_a_busy_path_is_one_clear_error(path: str) -> None:
    with pytest.raises(ControlPathError, match=f"another servald is listening on {path}"):
        take_path(path)


def test_a_stale_socket_file_is_replaced(path: str) -> None:
    os.makedirs(os.path.dirname(path))
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(path)
        dead.listen()
    assert os.path.exists(path)
    daemon = Daemon(path)
    with Client(path) as client:
        assert client.request("echo", text="alive") == {"text": "alive"}
    daemon.stop()
    assert not os.path.exists(path)


def test_a_file_that_is_no_socket_is_left_alone(path: str) -> None:
    os.makedirs(os.path.dirname(path))
    Path(path).write_text("precious")
    with pytest.raises(ControlPathError, match="no socket"):
        take_path(path)
    assert Path(path).read_text() == "precious"


def test_a_path_that_is_too_long_is_a_clear_error(tmp_path: Path) -> None:
    with pytest.raises(ControlPathError, match="cannot use"):
        take_path(str(tmp_path / ("x" * 120)))


def test_the_path_of_a_later_daemon_stays(path: str) -> None:
    first = Daemon(path)
    os.unlink(path)
    second = Daemon(path)
    first.stop()
    with Client(path) as client:
        assert client.request("echo", text="second") == {"text": "second"}
    second.stop()
    with pytest.raises(ControlUnreachable), Client(path) as client:
        client.request("echo", text="")
