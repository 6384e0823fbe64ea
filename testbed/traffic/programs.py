"""Helper programs in the hosts: started once and given orders, so that no measurement pays for a start.

`testbed.traffic.orders` is the other side.
"""

from __future__ import annotations

import json
import re
import select
import socket
import sys
import threading
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

from testbed import hosts, processes, sandbox
from testbed.errors import TestbedError
from testbed.hosts import EmulatedNode

DIRECTORY = Path("/run/testbed/programs")
ORDER_SECONDS = 90.0


def file_name(name: str) -> str:
    """A name of anything as part of a file's."""
    return re.sub(r"[^\w.-]", "_", name)


class Program:
    """A program that runs in a host, and prints "ready" when it does."""

    def __init__(self, name: str, host: EmulatedNode, words: Sequence[str], logs: Path) -> None:
        argv = hosts.inside(host, [sys.executable, "-m", *words])
        self.log = logs / f"{name}.log"
        self._daemon = daemon = processes.start(name, argv, log=self.log, cwd=sandbox.ROOT)
        self.stop = daemon.stop

    def wait_ready(self) -> None:
        """Raises TestbedError."""
        self._daemon.wait_ready(partial(_says_ready, self._daemon))


def _says_ready(daemon: processes.Daemon) -> bool:
    return "ready" in daemon.printed()


class Worker(Program):
    """A program that takes orders: `words` is followed by the path of its socket and by `more`.

    Raises TestbedError only.
    """

    def __init__(
        self, name: str, host: EmulatedNode, words: Sequence[str], logs: Path, *, more: Sequence[str] = ()
    ) -> None:
        DIRECTORY.mkdir(parents=True, exist_ok=True)
        self._name, self._path = name, DIRECTORY / f"{name}.sock"
        self._path.unlink(missing_ok=True)
        self._stream: Any = None
        self._lock = threading.Lock()
        super().__init__(name, host, [*words, str(self._path), *more], logs)

    def wait_ready(self) -> None:
        super().wait_ready()
        self._channel = channel = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        channel.settimeout(ORDER_SECONDS)
        channel.connect(str(self._path))
        self._stream = channel.makefile("rwb")

    def order(self, op: str, **arguments: Any) -> dict[str, Any]:
        """One order and its answer; may be called from several threads."""
        with self._lock:
            self.give(op, **arguments)
            return self.answer()

    def give(self, op: str, **arguments: Any) -> None:
        """An order, without waiting for its answers."""
        try:
            self._stream.write(json.dumps({"op": op, **arguments}).encode() + b"\n")
            self._stream.flush()
        except OSError as error:
            raise self._trouble(str(error)) from None

    def answer(self) -> dict[str, Any]:
        """The next answer."""
        try:
            line = self._stream.readline()
        except OSError as error:
            raise self._trouble(str(error)) from None
        if not line:
            raise self._trouble("it has ended")
        answer = json.loads(line)
        if not answer.pop("ok"):
            raise self._trouble(answer["error"])
        return answer

    def answered(self, seconds: float) -> bool:
        """Whether an answer comes within so many seconds."""
        return bool(select.select([self._channel], [], [], max(0.0, seconds))[0])

    def close(self) -> None:
        """End the connection; `stop` ends the program."""
        if self._stream is not None:
            self._stream.close()
            self._channel.close()

    def _trouble(self, text: str) -> TestbedError:
        return TestbedError(f"{self._name}: {text}", f"its log is {self.log}")
