"""A guest's way to its controller, both ends joined without a guest: sockets stand for the virtio-serial port."""

from __future__ import annotations

import socket
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from testbed.vm import controller_way
from testbed.vm.guest.controller import ControllerWay
from testbed.vm.guest.ports import Loop

DEADLINE_SECONDS = 5.0


class Way:
    """The guest's end, a controller, and a QEMU that passes on what comes."""

    def __init__(self, directory: Path) -> None:
        self._path = directory / "port"
        self._listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._listener.bind(str(self._path))
        self._listener.listen()
        self.controller = socket.create_server(("127.0.0.1", 0))
        self.controller.setblocking(False)
        self._to_guest = b""
        self._open: list[Any] = [self._listener, self.controller]
        self._guest, device = (self._kept(end) for end in socket.socketpair())
        self.loop = Loop()
        self.guest_end = ControllerWay(self.loop, device.fileno())
        with socket.create_server(("127.0.0.1", 0)) as free:
            self.number = free.getsockname()[1]
        self.guest_end.listen(self.number)
        self._open += [self.loop, self.guest_end]
        self.host_end = self.new_host()

    def new_host(self) -> controller_way.ControllerWay:
        """From now on another QEMU has the guest, and this is the host's end there."""
        end = controller_way.ControllerWay(self._path, self.controller.getsockname(), "vm")
        self._open.append(end)
        self._qemu = self._kept(self._listener.accept()[0])
        return end

    def begin(self, host_end: controller_way.ControllerWay) -> None:
        """Have a host's end begin, until the guest has heard of it."""
        self._to_guest = b""
        host_end.begin()
        self.until(lambda: b"hello" in self._to_guest)
        self.loop.step(DEADLINE_SECONDS)

    def say_half(self) -> None:
        """The beginning of a line gets to the guest, and its end is lost."""
        self._guest.send(b'{"session": 1, "da')

    def _kept(self, item: socket.socket) -> socket.socket:
        item.setblocking(False)
        self._open.append(item)
        return item

    def _pass_on(self) -> None:
        for one, other in ((self._guest, self._qemu), (self._qemu, self._guest)):
            try:
                data = one.recv(1 << 12)
            except BlockingIOError:
                continue
            other.setblocking(True)
            other.sendall(data)
            other.setblocking(False)
            if other is self._guest:
                self._to_guest += data

    def connect(self) -> tuple[socket.socket, socket.socket]:
        """servald's connection, and what the controller got of it."""
        servald = self.dial()
        accepted: list[socket.socket] = []

        def arrived() -> bool:
            try:
                accepted.append(self.controller.accept()[0])
            except BlockingIOError:
                return False
            return True

        self.until(arrived)
        return servald, self._kept(accepted[0])

    def dial(self) -> socket.socket:
        return self._kept(socket.create_connection(("127.0.0.1", self.number)))

    def until(self, done: Callable[[], bool]) -> None:
        deadline = time.monotonic() + DEADLINE_SECONDS
        while not done():
            assert time.monotonic() < deadline
            self.loop.step(0.001)
            self._pass_on()

    def carried(self, sender: socket.socket, receiver: socket.socket, data: bytes) -> bytes:
        """What arrives of some bytes; b"" when the receiver's connection ends."""
        sender.setblocking(True)
        sender.sendall(data)
        sender.setblocking(False)
        return self.received(receiver, len(data))

    def received(self, receiver: socket.socket, count: int) -> bytes:
        got = bytearray()

        def whole() -> bool:
            try:
                more = receiver.recv(1 << 16)
            except BlockingIOError:
                return False
            got.extend(more)
            return not more or len(got) >= count

        self.until(whole)
        return bytes(got)

    def close(self) -> None:
        for item in reversed(self._open):
            item.close()


@pytest.fixture
def way(tmp_path: Path) -> Iterator[Way]:
    way = Way(tmp_path)
    yield way
    way.close()


def test_bytes_pass_both_ways(way: Way) -> None:
    way.begin(way.host_end)
    servald, controller = way.connect()
    assert way.carried(servald, controller, b"hello" * 9000) == b"hello" * 9000
    assert way.carried(controller, servald, bytes(range(256))) == bytes(range(256))


def test_the_end_of_a_connection_is_that_of_the_other(way: Way) -> None:
    way.begin(way.host_end)
    servald, controller = way.connect()
    controller.close()
    assert way.received(servald, 1) == b""
    again, controller = way.connect()
    again.close()
    assert way.received(controller, 1) == b""


def test_a_new_end_of_the_host_ends_what_there_was(way: Way) -> None:
    """As after a move."""
    way.begin(way.host_end)
    servald, _ = way.connect()
    way.say_half()
    way.begin(way.new_host())
    assert way.received(servald, 1) == b""
    servald, controller = way.connect()
    assert way.carried(controller, servald, b"again") == b"again"


def test_no_controller_is_a_connection_that_ends(way: Way) -> None:
    way.begin(way.host_end)
    way.controller.close()
    assert way.received(way.dial(), 1) == b""
