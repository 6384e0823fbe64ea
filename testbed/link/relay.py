"""A link's delay, jitter, loss and black hole in user space, for kernels without netem: carries frames between two
interfaces.

    python -m testbed.link.relay FIRST SECOND --control PATH [--there JSON] [--back JSON] [--seed N]

Each frame is sent on `delay` seconds after the kernel received it. Offloaded segments stay whole (PACKET_VNET_HDR), so
TCP through the relay is not slowed down to single frames; random loss however takes what the relay sees as one frame,
so whoever asks for loss has to switch segmentation offload off at both ends (testbed.link.emulated does).

Who sleeps until a frame is due wakes up too late, by what the kernel's timers and its scheduler take. So the relay asks
to be woken SPIN seconds before, watches the clock for the rest, and runs before other programs, where it may.

The control socket (unix, SOCK_SEQPACKET) takes one JSON object per packet and answers each with the relay's state:
    {"op": "state"}
    {"op": "reset"}                                              the counters; the answer has them as they were
    {"op": "set", "direction": 0, "delay": 0.01, "loss": 1.5}    what Direction.set takes; no direction: both
"""

from __future__ import annotations

import argparse
import ctypes
import errno
import gc
import json
import os
import select
import signal
import socket
import struct
import sys
import time
from typing import Any

from testbed.link.direction import Direction, RelayError

ETH_P_ALL = 0x0003
SOL_PACKET, PACKET_STATISTICS, PACKET_VNET_HDR, PACKET_IGNORE_OUTGOING = 263, 6, 15, 23
SO_SNDBUFFORCE, SO_RCVBUFFORCE, SO_TIMESTAMPNS = 32, 33, 35
PR_SET_TIMERSLACK = 29
RECEIVE_BUFFER, SEND_BUFFER = 64 << 20, 8 << 20
MAX_FRAME = 10 + 14 + 4 + 65536  # vnet header, Ethernet with a tag, the largest IPv4 super-segment
RECEIVE_BATCH, SEND_BATCH = 16, 16
"""Frames read or sent on one side before the other side has its turn."""
SPIN = 0.0001
STEP_SECONDS = 1.0
REALTIME_PRIORITY = 1
_TIMESPEC, _STATISTICS = struct.Struct("@qq"), struct.Struct("=II")


def wall_to_monotonic() -> float:
    """What to add to a time on the wall clock, on which the kernel stamps frames.

    Who is held up between reading the two clocks may pass a frame on too late, but in this order never too early.
    """
    wall = time.time()
    return time.monotonic() - wall


class Relay:
    """Carries frames between two packet sockets until SIGTERM."""

    def __init__(self, first: socket.socket, second: socket.socket, control: socket.socket, seed: int | None) -> None:
        self.there, self.back = Direction("there", seed, second.send), Direction("back", seed, first.send)
        self._sources = {first: self.there, second: self.back}
        self._control = control
        self._clients: list[socket.socket] = []
        self.priority = "normal"

    @property
    def directions(self) -> tuple[Direction, Direction]:
        return self.there, self.back

    def state(self) -> dict[str, Any]:
        for source, direction in self._sources.items():
            direction.missed += _dropped(source)
        return {"priority": self.priority, "directions": [direction.state() for direction in self.directions]}

    def run(self) -> None:
        """Carry frames until the process is ended."""
        # select() takes its limit in microseconds; epoll would round to milliseconds.
        gc.freeze()
        gc.disable()
        monotonic, directions = time.monotonic, self.directions
        while True:
            for direction in directions:
                direction.send_due(monotonic(), SEND_BATCH)
            heads = [direction.queue[0][0] for direction in directions if direction.queue]
            limit = max(0.0, min(heads) - monotonic() - SPIN) if heads else None
            readable, _, _ = select.select([*self._sources, self._control, *self._clients], (), (), limit)
            if not readable and heads:
                due = min(heads)
                while monotonic() < due:
                    continue
            for ready in readable:
                if ready in self._sources:
                    self._receive(ready)
                elif ready is self._control:
                    self._clients.append(self._control.accept()[0])
                else:
                    self._answer(ready)

    def _receive(self, source: socket.socket) -> None:
        take, receive, unpack = self._sources[source].take, source.recvmsg, _TIMESPEC.unpack_from
        to_monotonic, now = wall_to_monotonic(), time.monotonic()
        for _ in range(RECEIVE_BATCH):
            try:
                frame, ancillary, _, _ = receive(MAX_FRAME, 64)
            except BlockingIOError:
                return
            except OSError:  # interface down: nothing to carry until it is up again
                return
            arrival = now
            if ancillary:
                seconds, nanoseconds = unpack(ancillary[0][2])
                stamp = seconds + nanoseconds * 1e-9 + to_monotonic
                # Only a step of the wall clock puts the arrival long ago, or behind the time that a batch takes.
                if now - STEP_SECONDS < stamp < now + STEP_SECONDS:
                    arrival = stamp
            take(frame, arrival)

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
                self._set(request.pop("direction", None), request)
            elif operation not in ("state", "reset"):
                raise RelayError(f"unknown op {operation!r}; known: set, state, reset")
        except (ValueError, TypeError, AttributeError, LookupError) as error:
            return {"ok": False, "error": str(error)}
        state = self.state()
        if operation == "reset":
            for direction in self.directions:
                direction.reset()
        return {"ok": True, **state}

    def _set(self, number: int | None, settings: dict[str, Any]) -> None:
        for direction in self.directions if number is None else [self.directions[number]]:
            direction.set(**settings)


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


def go_first() -> str:
    """Run before other programs, as far as that is allowed; says how.

    A relay works only for frames that others send: it cannot keep the senders from running for long.
    """
    try:
        os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(REALTIME_PRIORITY))
        return "real time"
    except OSError:  # in a user namespace nobody may
        pass
    try:
        os.setpriority(os.PRIO_PROCESS, 0, -20)
        return "nice -20"
    except OSError:
        return "normal"


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
    for way in ("there", "back"):
        parser.add_argument(f"--{way}", type=json.loads, default={}, help="settings of this direction, a JSON object")
    parser.add_argument("--seed", type=int, help="of loss and jitter")
    options = parser.parse_args(arguments)
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(0))
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    ctypes.CDLL(None).prctl(PR_SET_TIMERSLACK, 1, 0, 0, 0)
    try:
        first, second = (open_interface(name) for name in options.interfaces)
        relay = Relay(first, second, _listen(options.control), options.seed)
        relay.there.set(**options.there)
        relay.back.set(**options.back)
    except (OSError, RelayError, TypeError) as error:
        print(f"relay {' '.join(options.interfaces)}: {error}", file=sys.stderr)
        return 1
    relay.priority = go_first()
    print("ready", flush=True)
    relay.run()
    return 0


if __name__ == "__main__":
    sys.exit(main())
