"""QEMU's monitor: commands, and events with times of the host's monotonic clock. A thin layer over qemu.qmp."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from qemu.qmp import QMPClient, QMPError
from qemu.qmp.qmp_client import ExecuteError

from testbed.errors import TestbedError

COMMAND_SECONDS = 10.0
_T = TypeVar("_T")


@dataclass(frozen=True, slots=True)
class Event:
    """Something that QEMU told; `time` in seconds of CLOCK_MONOTONIC, to the microsecond as QEMU stamps it."""

    name: str
    time: float
    data: Mapping[str, Any]


def monotonic_minus_realtime() -> float:
    """What to add to a time since 1970 of this machine for one of CLOCK_MONOTONIC, in seconds.

    Both clocks are read thrice in turns, and the tightest turn counts; that is good for some microseconds.
    """
    turns = []
    for _ in range(3):
        before, middle, after = time.monotonic(), time.time(), time.monotonic()
        turns.append((after - before, (before + after) / 2 - middle))
    return min(turns)[1]


class Monitor:
    """A connection to one QEMU. Its event loop has a thread of its own, so that the caller need not be asynchronous."""

    def __init__(self, path: Path, name: str) -> None:
        """Connect; raises TestbedError."""
        self._name = name
        self._client = QMPClient(name)
        self._events: list[Event] = []
        self._told = threading.Condition()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name=f"qmp {name}", daemon=True)
        self._thread.start()
        try:
            self._wait(self._connect(path), "connecting")
        except BaseException:
            self.close()
            raise

    async def _connect(self, path: Path) -> None:
        await self._client.connect(str(path))
        self._listening = asyncio.create_task(self._listen())

    async def _listen(self) -> None:
        while True:
            message: Mapping[str, Any] = await self._client.events.get()
            stamp = message["timestamp"]
            happened = stamp["seconds"] + stamp["microseconds"] * 1e-6 + monotonic_minus_realtime()
            with self._told:
                self._events.append(Event(message["event"], happened, message.get("data", {})))
                self._told.notify_all()

    def execute(self, command: str, **arguments: Any) -> Any:
        """What QEMU answers; `max_bandwidth=1` is its argument max-bandwidth. Raises TestbedError."""
        named = {key.replace("_", "-"): value for key, value in arguments.items()}
        return self._wait(self._client.execute(command, named or None), command)

    def wait_event(
        self, name: str, *, after: float, timeout: float, meanwhile: Callable[[], None] = lambda: None
    ) -> Event | None:
        """The first event of this name since a monotonic time; None when none has come in time (seconds).

        `meanwhile` is called every few milliseconds and may raise.
        """
        deadline = time.monotonic() + timeout
        while True:
            with self._told:
                for event in self._events:
                    if event.name == name and event.time >= after:
                        return event
                if time.monotonic() >= deadline:
                    return None
                self._told.wait(0.02)
            meanwhile()

    def close(self) -> None:
        """May be called again."""
        if self._loop.is_closed():
            return
        try:
            self._wait(self._disconnect(), "disconnecting")
        except TestbedError:
            pass  # QEMU was gone before
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(COMMAND_SECONDS)
        self._loop.close()

    async def _disconnect(self) -> None:
        if hasattr(self, "_listening"):
            self._listening.cancel()
        await self._client.disconnect()

    def _wait(self, operation: Awaitable[_T], what: str) -> _T:
        async def within() -> _T:
            return await asyncio.wait_for(operation, COMMAND_SECONDS)

        try:
            return asyncio.run_coroutine_threadsafe(within(), self._loop).result(COMMAND_SECONDS + 1)
        except ExecuteError as error:
            raise TestbedError(f"QEMU of {self._name} refuses {what}: {error}") from None
        except (QMPError, EOFError, OSError, TimeoutError, asyncio.TimeoutError) as error:
            said = str(error) or f"no answer within {COMMAND_SECONDS:g} s"
            raise TestbedError(f"QEMU of {self._name}, {what}: {said}") from None
