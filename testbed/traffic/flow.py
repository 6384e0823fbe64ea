"""Sending and receiving a stream over a connected socket, and the lines that its two ends exchange before.

The end that connects says {"direction", "rate", "elapsed", "offset", "acknowledge"}; the other one answers {"offset",
"congestion"}. `offset` is what the receiving end has already, so data goes on there; `elapsed` is how long ago the
stream began, null when it has not: then it begins with one more line, {}. The sender ends its half when the stream is
over; to end it, the near end sends a sender at the far end a byte.
"""

from __future__ import annotations

import contextlib
import json
import socket
import struct
import threading
import time
from collections.abc import Callable, Mapping
from typing import Any

from testbed.traffic.pattern import Source, Verifier
from testbed.traffic.samples import Samples

PIECE_SECONDS = 0.001
CHUNK = 1 << 16
"""Bytes of one call to send: more would show in the bins of a slow link as lumps."""
ACKNOWLEDGE_SECONDS = 0.05
_OFFSET = struct.Struct("!Q")


def pin(connection: socket.socket, congestion: str) -> str:
    """Choose the congestion control, and what it is then. Raises OSError when it is another one."""
    try:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_CONGESTION, congestion.encode())
    except PermissionError:
        pass  # the route may say so all the same (testbed.hosts.route_command); it is looked at below
    chosen = connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_CONGESTION, 16).rstrip(b"\0").decode()
    if chosen != congestion:
        raise OSError(f"the connection runs with congestion control {chosen}, not {congestion}")
    return chosen


def send(
    connection: socket.socket,
    source: Source,
    samples: Samples,
    *,
    rate: float | None,
    begun: float,
    stopped: Callable[[], bool],
) -> None:
    """Send until `stopped` says so, and end this half of the connection.

    rate     bit/s: each piece at its time or as soon after it as the connection takes it; None: as fast as it goes
    begun    when the stream began, on the monotonic clock; what is due counts from then
    """
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    while not stopped():
        if rate is None:
            _send_some(connection, source, samples, CHUNK)
            continue
        ticks = int((time.monotonic() - begun) / PIECE_SECONDS) + 1
        due = int(rate / 8 * PIECE_SECONDS * ticks) - source.position
        if due > 0:
            _send_some(connection, source, samples, min(due, CHUNK))
        else:
            time.sleep(max(0.0, begun + ticks * PIECE_SECONDS - time.monotonic()))
    connection.shutdown(socket.SHUT_WR)


def _send_some(connection: socket.socket, source: Source, samples: Samples, most: int) -> None:
    count = connection.send(source.piece(most))
    source.sent(count)
    samples.add(time.monotonic(), count)


def receive(connection: socket.socket, verifier: Verifier, samples: Samples) -> None:
    """Receive to the sender's end. Raises WrongData, BlockingIOError after the socket's patience, other OSErrors."""
    while count := connection.recv_into(verifier.space()):
        samples.add(time.monotonic(), count)
        verifier.came(count)


def be_patient(connection: socket.socket, seconds: float | None) -> None:
    """A receive that gets nothing for so long fails with BlockingIOError; None: never."""
    whole, part = divmod(seconds or 0.0, 1)
    # Not settimeout(): that would poll before each receive.
    connection.settimeout(None)
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, struct.pack("ll", int(whole), int(part * 1e6)))


def told_to_stop(connection: socket.socket) -> bool:
    """Whether the other end has sent something, or has ended; does not wait."""
    with contextlib.suppress(BlockingIOError):
        connection.recv(1, socket.MSG_DONTWAIT)
        return True
    return False


def write_line(connection: socket.socket, message: Mapping[str, Any]) -> None:
    connection.sendall(json.dumps(message).encode() + b"\n")


def read_line(connection: socket.socket) -> dict[str, Any]:
    """Byte by byte: what follows is the stream. Raises ConnectionError."""
    line = b""
    while not line.endswith(b"\n"):
        byte = connection.recv(1)
        if not byte:
            raise ConnectionError("the other end closed the connection")
        line += byte
    return dict(json.loads(line))


def acknowledging(connection: socket.socket, verifier: Verifier) -> None:
    """From now on tell the sender again and again what has come, so that it notices a dead connection."""

    def acknowledge() -> None:
        with contextlib.suppress(OSError):  # who receives on the same connection notices its end
            while True:
                connection.sendall(_OFFSET.pack(verifier.position))
                time.sleep(ACKNOWLEDGE_SECONDS)

    threading.Thread(target=acknowledge, daemon=True).start()


def await_end(connection: socket.socket) -> None:
    """Read, whatever comes, until the other end has ended its half: data that is under way survives only so.

    Raises BlockingIOError after the socket's patience, other OSErrors.
    """
    while connection.recv(CHUNK):
        continue


def give_up(connection: socket.socket) -> None:
    """End a connection, so that whoever waits for it in another thread waits no longer."""
    with contextlib.suppress(OSError):  # it has ended already
        connection.shutdown(socket.SHUT_RDWR)
