"""The host's end of the agent's port: orders and their answers, and what the agent tells by itself, as JSON lines."""

from __future__ import annotations

import itertools
import json
import socket
import threading
import time
from pathlib import Path
from typing import Any

from testbed.errors import TestbedError

ORDER_SECONDS = 10.0


class Channel:
    """A connection to QEMU's end of a port. A thread reads it, because QEMU stops reading from a guest that is not
    heard.
    """

    def __init__(self, path: Path, name: str) -> None:
        """Connect, without waiting for the guest; raises TestbedError."""
        self._name = name
        self._numbers = itertools.count(1)
        self._answers: dict[int, dict[str, Any]] = {}
        self._events: list[dict[str, Any]] = []
        self._told = threading.Condition()
        self._ended = False
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            self._socket.connect(str(path))
        except OSError as error:
            self._socket.close()
            raise TestbedError(f"cannot reach the agent's port of {name} at {path}: {error.strerror}") from None
        self._thread = threading.Thread(target=self._read, name=f"agent of {name}", daemon=True)
        self._thread.start()

    def order(self, op: str, *, timeout: float = ORDER_SECONDS, **fields: Any) -> dict[str, Any]:
        """What the agent answers; raises TestbedError when it refuses or says nothing in time (seconds)."""
        number = next(self._numbers)
        line = json.dumps({"id": number, "op": op, **fields}).encode() + b"\n"
        try:
            self._socket.settimeout(timeout)
            self._socket.sendall(line)
        except OSError as error:
            raise TestbedError(f"the guest {self._name} takes no orders: {error}") from None
        deadline = time.monotonic() + timeout
        with self._told:
            while number not in self._answers:
                left = deadline - time.monotonic()
                if left <= 0 or self._ended:
                    why = "has ended" if self._ended else f"has not answered within {timeout:g} s"
                    raise TestbedError(f"the guest {self._name} {why}: the order was {op}")
                self._told.wait(left)
            answer = self._answers.pop(number)
        if not answer.get("ok"):
            raise TestbedError(f"the guest {self._name} could not do what it was told: {answer.get('error')}")
        return answer

    def wait_event(self, name: str, *, timeout: float) -> dict[str, Any] | None:
        """The first event of this name that was told and not fetched yet; None when none comes in time (seconds)."""
        deadline = time.monotonic() + timeout
        with self._told:
            while True:
                for event in self._events:
                    if event.get("event") == name:
                        self._events.remove(event)
                        return event
                left = deadline - time.monotonic()
                if left <= 0 or self._ended:
                    return None
                self._told.wait(left)

    def offset(self) -> tuple[float, float]:
        """What to add to a time of the guest's monotonic clock for one of the host's, and how far off that may be.

        Both in seconds; of ten questions the one that was answered fastest counts. It drifts, and changes with a move.
        """
        turns = []
        for _ in range(10):
            before = time.monotonic()
            guest = self.order("clock")["monotonic"]
            after = time.monotonic()
            turns.append(((after - before) / 2, (before + after) / 2 - guest))
        uncertainty, offset = min(turns)
        return offset, uncertainty

    def close(self) -> None:
        """May be called again."""
        try:
            self._socket.shutdown(socket.SHUT_RDWR)
        except OSError:
            pass  # it has ended already
        self._thread.join(ORDER_SECONDS)
        self._socket.close()

    def _read(self) -> None:
        waiting = b""
        while True:
            try:
                data = self._socket.recv(1 << 16)
            except TimeoutError:
                continue  # the time limit is that of sending
            except OSError:
                data = b""
            if not data:
                with self._told:
                    self._ended = True
                    self._told.notify_all()
                return
            *lines, waiting = (waiting + data).split(b"\n")
            for line in lines:
                self._take(line)

    def _take(self, line: bytes) -> None:
        try:
            message = json.loads(line)
        except ValueError:
            return  # the rest of a line of which the beginning came out before a move
        with self._told:
            if "id" in message:
                self._answers[message["id"]] = message
            else:
                self._events.append(message)
            self._told.notify_all()
