"""What both ends of a stream have: notes of what went by, the comparison of what came, and orders about them.

drain   seconds                    wait so long for the receiver to see the stream's orderly end
finish  zero, seconds, bin, begin, end  end what still goes on, and tell: {"bins", "bytes", "silences", "last",
                                   "wrong", "error", "ended"}; zero, and begin and end between which silences count,
                                   are monotonic times, those told are after zero
"""

from __future__ import annotations

import socket
import threading
import time
from bisect import bisect_right
from typing import Any

from testbed.traffic import bins, flow
from testbed.traffic.orders import Operation
from testbed.traffic.pattern import Verifier, WrongData
from testbed.traffic.samples import Samples

CLOSE_SECONDS = 3.0


class End:
    """One end of a stream."""

    def __init__(self, progress: str | None) -> None:
        self.samples = Samples(progress)
        self.verifier = Verifier()
        self.wrong: str | None = None
        self.error: tuple[float, str] | None = None
        """The first thing that went wrong with a connection."""
        self.ended: float | None = None
        """When the receiver saw the stream's orderly end."""
        self.stopping = self.closed = False
        """Told that the stream is over; the connection ended by this end itself."""
        self.connection: socket.socket | None = None
        self.thread: threading.Thread | None = None
        """Carries the stream over `connection`."""

    def fail(self, error: Exception) -> None:
        if isinstance(error, WrongData):
            self.wrong = self.wrong or str(error)
        elif self.stopping:
            return  # whatever a connection says that is being ended
        if self.error is None:
            self.error = (time.monotonic(), f"{type(error).__name__}: {error}")

    def operations(self) -> dict[str, Operation]:
        return {"drain": self.drain, "finish": self.finish}

    def drain(self, order: dict[str, Any], _tell: Any) -> dict[str, Any]:
        if self.thread is not None:
            self.thread.join(order["seconds"])
        return {}

    def close(self) -> None:
        """End the connection and wait for its thread."""
        self.stopping = self.closed = True
        if self.connection is not None:
            flow.give_up(self.connection)
        if self.thread is not None:
            self.thread.join(CLOSE_SECONDS)

    def finish(self, order: dict[str, Any], _tell: Any) -> dict[str, Any]:
        """Everything of this end: bins of `bin` seconds from the monotonic time `zero` on for `seconds`."""
        self.close()
        times, sizes = self.samples.times, self.samples.sizes
        zero = order["zero"]
        before = bisect_right(times, order["end"])
        if self.thread is None or not self.thread.is_alive():
            try:
                self.verifier.check()
            except WrongData as error:
                self.fail(error)
        return {
            "bins": bins.binned(times, sizes, zero=zero, seconds=order["seconds"], size=order["bin"]),
            "bytes": self.samples.total,
            "silences": bins.silences(times, zero=zero, begin=order["begin"], end=order["end"]),
            "last": times[before - 1] - zero if before else None,
            "wrong": self.wrong,
            "error": None if self.error is None else {"at": self.error[0] - zero, "why": self.error[1]},
            "ended": None if self.ended is None else self.ended - zero,
        }
