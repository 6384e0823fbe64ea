"""A virtio-serial port as a stream of JSON lines, and the guest's event loop around several of them."""

from __future__ import annotations

import json
import os
import selectors
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

PORTS = Path("/sys/class/virtio-ports")
FIND_SECONDS = 10.0
RETRY_SECONDS = 0.02
_CHUNK = 1 << 16


class Loop:
    """Calls back when a descriptor can be read or written."""

    def __init__(self) -> None:
        self._selector = selectors.DefaultSelector()
        self._later: list[tuple[float, Callable[[], None]]] = []

    def close(self) -> None:
        """Watch nothing any more."""
        self._selector.close()

    def watch(self, fd: int, readable: Callable[[], None], writable: Callable[[], None] | None = None) -> None:
        """Replaces what was said of this descriptor before."""
        events = selectors.EVENT_READ | (selectors.EVENT_WRITE if writable is not None else 0)
        if fd in self._selector.get_map():
            self._selector.modify(fd, events, (readable, writable))
        else:
            self._selector.register(fd, events, (readable, writable))

    def forget(self, fd: int) -> None:
        if fd in self._selector.get_map():
            self._selector.unregister(fd)

    def call_later(self, seconds: float, callback: Callable[[], None]) -> None:
        self._later.append((time.monotonic() + seconds, callback))

    def run(self) -> None:
        """Never returns."""
        while True:
            wait = min((when for when, _ in self._later), default=None)
            self.step(None if wait is None else max(0.0, wait - time.monotonic()))

    def step(self, timeout: float | None) -> None:
        """Do what is to be done now, after waiting at most `timeout` seconds for something."""
        for entry, events in self._selector.select(timeout):
            if self._selector.get_map().get(entry.fd) is not entry:
                continue  # what came before it in this round has ended or replaced it
            readable, writable = entry.data
            if events & selectors.EVENT_WRITE and writable is not None:
                writable()
            if events & selectors.EVENT_READ:
                readable()
        now = time.monotonic()
        due = [callback for when, callback in self._later if when <= now]
        self._later = [item for item in self._later if item[0] > now]
        for callback in due:
            callback()


class Port:
    """One port. Half a line is what a move may leave behind: what is no JSON object is passed over."""

    def __init__(self, loop: Loop, fd: int, heard: Callable[[dict[str, Any]], None]) -> None:
        """``fd`` does not block: what `open_port` gives."""
        self._loop = loop
        self._heard = heard
        self._input = b""
        self._output = b""
        self._fd = fd
        self._watch()

    def send(self, message: Mapping[str, Any]) -> None:
        self._output += json.dumps(message).encode() + b"\n"
        self._write()

    def _watch(self) -> None:
        self._loop.watch(self._fd, self._read, self._write if self._output else None)

    def _write(self) -> None:
        try:
            while self._output:
                self._output = self._output[os.write(self._fd, self._output) :]
        except BlockingIOError:
            pass  # the host does not read now; the loop says when there is room
        self._watch()

    def _read(self) -> None:
        try:
            data = os.read(self._fd, _CHUNK)
        except BlockingIOError:
            return
        if not data:
            # Nobody is at the host's end, of which the kernel tells again and again.
            self._loop.forget(self._fd)
            self._loop.call_later(RETRY_SECONDS, self._watch)
            return
        *lines, self._input = (self._input + data).split(b"\n")
        for message in messages(lines):
            self._heard(message)


def messages(lines: list[bytes]) -> Iterator[dict[str, Any]]:
    """The lines that are JSON objects."""
    for line in lines:
        try:
            message = json.loads(line)
        except ValueError:
            continue
        if isinstance(message, dict):
            yield message


def open_port(name: str) -> int:
    """The descriptor of the port of this name; raises OSError when it is not there in time."""
    return os.open(_device(name), os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)


def _device(name: str) -> str:
    deadline = time.monotonic() + FIND_SECONDS
    while True:
        for entry in PORTS.glob("*"):
            if (entry / "name").read_text().strip() == name:
                return f"/dev/{entry.name}"
        if time.monotonic() > deadline:
            raise FileNotFoundError(f"no virtio-serial port {name}")
        time.sleep(RETRY_SECONDS)
