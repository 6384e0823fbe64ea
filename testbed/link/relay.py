"""A link's delay, loss and black hole in user space, for kernels without netem: carries frames between two interfaces.

    python -m testbed.link.relay FIRST SECOND --control PATH [--delay S] [--loss PERCENT] [--seed N]

Each frame is sent on `delay` seconds after the kernel received it. Offloaded segments stay whole (PACKET_VNET_HDR), so
TCP through the relay is not slowed down to single frames; random loss however takes what the relay sees as one frame,
so whoever asks for loss has to switch segmentation offload off at both ends (testbed.link.emulated does).

The control socket (unix, SOCK_SEQPACKET) takes one JSON object per packet and answers each with the relay's state:
    {"op": "state"}
    {"op": "set", "delay": 0.01, "loss": 1.5, "hole": true}      any of the three
"""

from __future__ import annotations

import argparse
import ctypes
import errno
import gc
import json
import os
import random
import select
import signal
import socket
import struct
import sys
import time
from collections import deque
from dataclasses import dataclass, field
from typing import Any

ETH_P_ALL = 0x0003
SOL_PACKET, PACKET_STATISTICS, PACKET_VNET_HDR, PACKET_IGNORE_OUTGOING = 263, 6, 15, 23
SO_SNDBUFFORCE, SO_RCVBUFFORCE, SO_TIMESTAMPNS = 32, 33, 35
PR_SET_TIMERSLACK = 29
RECEIVE_BUFFER, SEND_BUFFER = 64 << 20, 8 << 20
MAX_FRAME = 10 + 14 + 4 + 65536  # vnet header, Ethernet with a tag, the largest IPv4 super-segment
MAX_QUEUED = 256 << 20  # bytes under way in one direction; beyond it frames are dropped and counted
BATCH = 32  # frames read from one side before due ones are looked at again
MAX_DELAY = 10.0
_TIMESPEC, _STATISTICS = struct.Struct("@qq"), struct.Struct("=II")


def wall_to_monotonic() -> float:
    """What to add to a time on the wall clock, on which the kernel stamps frames.

    Who is held up between reading the two clocks may pass a frame on too late, but in this order never too early.
    """
    wall = time.time()
    return time.monotonic() - wall


class RelayError(ValueError):
    """A setting that makes no sense, or an interface that cannot be used; one line."""


@dataclass(slots=True)
class Counters:
    """What one direction has done. Lateness in seconds, of frames against arrival + delay."""

    forwarded: int = 0
    lost: int = 0  # by the asked loss
    swallowed: int = 0  # by the black hole
    overflowed: int = 0  # more than MAX_QUEUED bytes were under way
    unsent: int = 0  # the kernel refused them
    missed: int = 0  # came faster than the relay took them, and the kernel dropped them
    late_sum: float = 0.0
    late_max: float = 0.0

    def to_json(self) -> dict[str, float]:
        mean = self.late_sum / self.forwarded if self.forwarded else 0.0
        return {
            "forwarded": self.forwarded,
            "lost": self.lost,
            "swallowed": self.swallowed,
            "overflowed": self.overflowed,
            "unsent": self.unsent,
            "missed": self.missed,
            "late_mean": mean,
            "late_max": self.late_max,
        }


@dataclass(slots=True)
class Direction:
    """Frames from one interface to the other, in order, each with the monotonic time at which it is due."""

    source: socket.socket
    target: socket.socket
    queue: deque[tuple[float, bytes]] = field(default_factory=deque)
    queued: int = 0
    counters: Counters = field(default_factory=Counters)

    def send_due(self, now: float) -> None:
        queue, counters = self.queue, self.counters
        while queue and queue[0][0] <= now:
            due, frame = queue.popleft()
            self.queued -= len(frame)
            try:
                self.target.send(frame)
            except OSError:  # interface down or full: a wire would lose the frame too
                counters.unsent += 1
                continue
            counters.forwarded += 1
            late = now - due
            counters.late_sum += late
            if late > counters.late_max:
                counters.late_max = late


class Relay:
    """Carries frames between two packet sockets until SIGTERM."""

    def __init__(self, first: socket.socket, second: socket.socket, control: socket.socket, seed: int | None) -> None:
        self._directions = {first: Direction(first, second), second: Direction(second, first)}
        self._control = control
        self._clients: list[socket.socket] = []
        self._random = random.Random(seed)
        self._delay, self._loss, self._hole = 0.0, 0.0, False

    def set(self, *, delay: float | None = None, loss: float | None = None, hole: bool | None = None) -> None:
        """Change what is given (delay in seconds one way, loss in percent). Raises RelayError and changes nothing."""
        if delay is not None and not 0 <= delay <= MAX_DELAY:
            raise RelayError(f"delay must be from 0 to {MAX_DELAY:g} s, not {delay!r}")
        if loss is not None and not 0 <= loss <= 100:
            raise RelayError(f"loss must be from 0 to 100 percent, not {loss!r}")
        self._delay = self._delay if delay is None else float(delay)
        self._loss = self._loss if loss is None else loss / 100
        self._hole = self._hole if hole is None else bool(hole)

    def state(self) -> dict[str, Any]:
        for direction in self._directions.values():
            direction.counters.missed += _dropped(direction.source)
        directions = [direction.counters.to_json() for direction in self._directions.values()]
        return {"delay": self._delay, "loss": self._loss * 100, "hole": self._hole, "directions": directions}

    def run(self) -> None:
        """Carry frames until the process is ended."""
        # select() takes its limit in microseconds; epoll would round to milliseconds.
        gc.freeze()
        gc.disable()
        directions = list(self._directions.values())
        while True:
            now = time.monotonic()
            for direction in directions:
                direction.send_due(now)
            heads = [direction.queue[0][0] for direction in directions if direction.queue]
            limit = max(0.0, min(heads) - time.monotonic()) if heads else None
            readable, _, _ = select.select([*self._directions, self._control, *self._clients], (), (), limit)
            for ready in readable:
                if ready in self._directions:
                    self._receive(self._directions[ready])
                elif ready is self._control:
                    self._clients.append(self._control.accept()[0])
                else:
                    self._answer(ready)

    def _receive(self, direction: Direction) -> None:
        counters, source = direction.counters, direction.source
        to_monotonic = wall_to_monotonic()
        for _ in range(BATCH):
            try:
                frame, ancillary, _, _ = source.recvmsg(MAX_FRAME, 64)
            except BlockingIOError:
                return
            except OSError:  # interface down: nothing to carry until it is up again
                return
            if self._hole:
                counters.swallowed += 1
            elif self._loss and self._random.random() < self._loss:
                counters.lost += 1
            elif direction.queued + len(frame) > MAX_QUEUED:
                counters.overflowed += 1
            else:
                due = self._arrival(ancillary, to_monotonic) + self._delay
                if direction.queue:
                    due = max(due, direction.queue[-1][0])  # a shorter delay does not overtake
                direction.queue.append((due, frame))
                direction.queued += len(frame)

    @staticmethod
    def _arrival(ancillary: list[tuple[int, int, bytes]], to_monotonic: float) -> float:
        now = time.monotonic()
        if not ancillary:
            return now
        seconds, nanoseconds = _TIMESPEC.unpack_from(ancillary[0][2])
        stamp = seconds + nanoseconds * 1e-9 + to_monotonic
        # Only a step of the wall clock puts the arrival into the future or long ago.
        return stamp if now - 1.0 < stamp <= now else now

    def _answer(self, client: socket.socket) -> None:
        try:
            data = client.recv(4096)
            if not data:
                raise OSError("end of connection")
            client.send(json.dumps(self._handle(data)).encode())
        except OSError:  # the client has gone
            self._clients.remove(client)
            client.close()

    def _handle(self, data: bytes) -> dict[str, Any]:
        try:
            request = json.loads(data)
            operation = request.pop("op")
            if operation == "set":
                self.set(**request)
            elif operation != "state":
                raise RelayError(f"unknown op {operation!r}; known: set, state")
        except (ValueError, TypeError, AttributeError, KeyError) as error:
            return {"ok": False, "error": str(error)}
        return {"ok": True, **self.state()}


def _dropped(packet: socket.socket) -> int:
    """Frames that the kernel dropped in front of a packet socket since it was asked last."""
    if packet.family != socket.AF_PACKET:  # in tests
        return 0
    return _STATISTICS.unpack(packet.getsockopt(SOL_PACKET, PACKET_STATISTICS, _STATISTICS.size))[1]


def open_interface(name: str) -> socket.socket:
    """A packet socket that sends and receives whole frames of one interface, offload information in front."""
    packet = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0)
    packet.setsockopt(SOL_PACKET, PACKET_VNET_HDR, 1)
    packet.setsockopt(SOL_PACKET, PACKET_IGNORE_OUTGOING, 1)
    packet.setsockopt(socket.SOL_SOCKET, SO_TIMESTAMPNS, 1)
    for force, plain, size in (
        (SO_RCVBUFFORCE, socket.SO_RCVBUF, RECEIVE_BUFFER),
        (SO_SNDBUFFORCE, socket.SO_SNDBUF, SEND_BUFFER),
    ):
        try:
            packet.setsockopt(socket.SOL_SOCKET, force, size)
        except PermissionError:  # in a user namespace: as large as the host's limit allows
            packet.setsockopt(socket.SOL_SOCKET, plain, size)
    packet.setblocking(False)
    packet.bind((name, ETH_P_ALL))
    return packet


def _listen(path: str) -> socket.socket:
    os.makedirs(os.path.dirname(path) or ".", exist_ok=True)
    # A network of this sandbox that was killed leaves its relays' sockets behind; a relay that runs answers.
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as probe:
        if probe.connect_ex(path) == errno.ECONNREFUSED:
            os.unlink(path)
    control = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    try:
        control.bind(path)
        control.listen()
    except OSError:
        control.close()
        raise
    return control


def main(arguments: list[str] | None = None) -> int:
    """Prints "ready" when it carries frames; ends at SIGTERM."""
    parser = argparse.ArgumentParser(prog="testbed.link.relay", description="Impairs frames between interfaces.")
    parser.add_argument("interfaces", nargs=2, metavar="INTERFACE")
    parser.add_argument("--control", required=True, help="path of the control socket")
    parser.add_argument("--delay", type=float, default=0.0, help="one way, seconds")
    parser.add_argument("--loss", type=float, default=0.0, help="percent of frames")
    parser.add_argument("--seed", type=int, help="of the random loss")
    options = parser.parse_args(arguments)
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(0))
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    ctypes.CDLL(None).prctl(PR_SET_TIMERSLACK, 1, 0, 0, 0)
    try:
        first, second = (open_interface(name) for name in options.interfaces)
        relay = Relay(first, second, _listen(options.control), options.seed)
        relay.set(delay=options.delay, loss=options.loss)
    except (OSError, RelayError) as error:
        print(f"relay {' '.join(options.interfaces)}: {error}", file=sys.stderr)
        return 1
    print("ready", flush=True)
    relay.run()
    return 0


if __name__ == "__main__":
    sys.exit(main())
