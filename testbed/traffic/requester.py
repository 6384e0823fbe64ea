"""Makes requests, one connection each: `python -m testbed.traffic.requester PATH PROGRESS` takes orders there.

begin   target, protocol, congestion, rate, size, count, hold, limit
        requests from now on: `rate` a second whatever becomes of them, null: one after the other; `count` of them,
        null: until `end`; each with `limit` seconds at most, beside its `hold`
end     no new ones; what is held is answered now
finish  zero, within   after `within` seconds at most: {"requests": [{"at", "connect", "seconds", "instance",
                       "error"}, ...]}, "at" after the monotonic time `zero`
"""

from __future__ import annotations

import asyncio
import errno
import gc
import json
import os
import resource
import socket
import sys
import threading
import time
from typing import Any

from testbed.traffic import flow
from testbed.traffic.orders import Operation, serve_orders
from testbed.traffic.pattern import WrongData, leading
from testbed.traffic.samples import Samples

HOLD_STEP = 1.0
MOST_OPEN = 4000
"""Connections at once; what would be more is on record as an error."""
_PIECE = 1 << 16


class Requester:
    """All requests of one item."""

    def __init__(self, progress: str) -> None:
        self._answered = Samples(progress)
        self._notes: list[dict[str, Any]] = []
        self._order: dict[str, Any] = {}
        self._loop = asyncio.new_event_loop()
        self._ended = asyncio.Event()
        self._open: set[asyncio.Task[None]] = set()
        self._thread = threading.Thread(target=self._loop.run_until_complete, args=(self._run(),), daemon=True)

    def operations(self) -> dict[str, Operation]:
        return {"begin": self.begin, "end": self.end, "finish": self.finish}

    # -- orders

    def begin(self, order: dict[str, Any], _tell: Any) -> dict[str, Any]:
        self._order = order
        self._thread.start()
        return {}

    def end(self, _order: dict[str, Any], _tell: Any) -> dict[str, Any]:
        self._loop.call_soon_threadsafe(self._ended.set)
        return {}

    def finish(self, order: dict[str, Any], _tell: Any) -> dict[str, Any]:
        self._thread.join(order["within"])
        notes = [{**note, "at": note["at"] - order["zero"]} for note in self._notes]
        for note in notes:
            if note["seconds"] is None and note["error"] is None:
                note["error"] = "still open at the end"
        return {"requests": notes}

    # -- requests

    async def _run(self) -> None:
        begun, number, rate, count = time.monotonic(), 0, self._order["rate"], self._order["count"]
        while not self._ended.is_set() and (count is None or number < count):
            if rate is None:
                await self._one()
            else:
                await self._pause(begun + number / rate - time.monotonic())
                if self._ended.is_set():
                    break
                self._start_one()
            number += 1
        while self._open:
            await asyncio.wait(self._open)

    async def _pause(self, seconds: float) -> None:
        """Wait so long, or until the end."""
        if seconds > 0:
            try:
                await asyncio.wait_for(self._ended.wait(), seconds)
            except asyncio.TimeoutError:  # no builtin TimeoutError before Python 3.11
                return

    def _start_one(self) -> None:
        if len(self._open) >= MOST_OPEN:
            error = f"not made: {MOST_OPEN} connections are open"
            self._notes.append({**_note(), "error": error})
            return
        task = self._loop.create_task(self._one())
        self._open.add(task)
        task.add_done_callback(self._open.discard)

    async def _one(self) -> None:
        note = _note()
        self._notes.append(note)
        begun = time.monotonic()
        with socket.socket(socket.AF_INET, socket.SOCK_STREAM, self._order["protocol"]) as connection:
            connection.setblocking(False)
            try:
                limit = self._order["limit"] + self._order["hold"]
                await asyncio.wait_for(self._exchange(connection, note, begun), limit)
            except asyncio.TimeoutError:
                note["error"] = f"TimeoutError: not answered within {limit:g} s"
            except (OSError, ValueError, KeyError) as error:
                note["error"] = f"{type(error).__name__}: {error}"
            else:
                note["seconds"] = time.monotonic() - begun
                self._answered.add(time.monotonic(), 1)
        if note["error"] is not None and self._order["rate"] is None:
            await self._pause(0.01)  # one after the other, but not a storm where a refusal comes at once

    async def _exchange(self, connection: socket.socket, note: dict[str, Any], begun: float) -> None:
        flow.pin(connection, self._order["congestion"])
        await self._connect(connection, tuple(self._order["target"]))
        note["connect"] = time.monotonic() - begun
        size, hold = self._order["size"], self._order["hold"]
        await self._loop.sock_sendall(connection, json.dumps({"size": size, "hold": hold}).encode() + b"\n")
        came = b""
        while b"\n" not in came:
            came += await self._some(connection)
        line, _, rest = came.partition(b"\n")
        note["instance"] = json.loads(line)["instance"]
        if hold:
            await self._hold(connection, begun + hold)
        body = bytearray(rest)
        while data := await self._loop.sock_recv(connection, _PIECE):
            body += data
        if body != leading(size):
            raise WrongData(f"other bytes than were asked for: {len(body)} of {size}")

    async def _connect(self, connection: socket.socket, target: tuple[str, int]) -> None:
        # Not loop.sock_connect(): that asks the resolver about MPTCP, which it does not know.
        error = connection.connect_ex(target)
        if error == errno.EINPROGRESS:
            writable = asyncio.Event()
            self._loop.add_writer(connection, writable.set)
            try:
                await writable.wait()
            finally:
                self._loop.remove_writer(connection)
            error = connection.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        if error:
            raise OSError(error, os.strerror(error))

    async def _hold(self, connection: socket.socket, until: float) -> None:
        while (left := until - time.monotonic()) > 0 and not self._ended.is_set():
            await self._loop.sock_sendall(connection, b".")
            if await self._some(connection) != b".":
                raise WrongData("another byte came back than was sent")
            await self._pause(min(HOLD_STEP, left))
        await self._loop.sock_sendall(connection, b"\n")

    async def _some(self, connection: socket.socket) -> bytes:
        data = await self._loop.sock_recv(connection, _PIECE)
        if not data:
            raise ConnectionError("the server closed the connection")
        return data


def _note() -> dict[str, Any]:
    return {"at": time.monotonic(), "connect": None, "seconds": None, "instance": None, "error": None}


def main() -> None:
    path, progress = sys.argv[1:]
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    gc.freeze()
    serve_orders(path, Requester(progress).operations())


if __name__ == "__main__":
    main()
