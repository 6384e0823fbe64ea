"""A stream in pieces of a millisecond, byte-checked at its receiver: both ends, as helper programs of a benchmark.

    python -m experiments.benchmarks.stream serve PORT MPTCP_PORT     the far end, over TCP and over MPTCP
    python -m experiments.benchmarks.stream client PATH               the near end: takes orders on a unix socket

An order {"op": "stream", "target": [address, port], "mptcp", "direction": "down" or "up", "rate": bit/s, "seconds"} is
answered by two lines: {"ok", "started"} when data begins to flow, and {"ok", "times", "bytes", "congestion"} at the
end: the monotonic times at which the receiver got something, wherever that is. Data moves down to the client or up to
the server. What is received is compared byte by byte with what was to be sent; a difference is an error.
"""

from __future__ import annotations

import gc
import json
import socket
import sys
import threading
import time
from collections.abc import Callable
from typing import Any

from testbed.traffic import mptcp
from testbed.traffic.flow import read_line, write_line
from testbed.traffic.mptcp import IPPROTO_MPTCP
from testbed.traffic.orders import serve_orders
from testbed.traffic.pattern import Source, Verifier, WrongData

DOWN, UP = "down", "up"
PIECE_SECONDS = 0.001
LIMIT = 60.0
"""Longest silence of a connection, in seconds."""


def pieces(rate: float, seconds: float) -> tuple[int, int]:
    """How many pieces a stream has, and of how many bytes each is."""
    return round(seconds / PIECE_SECONDS), round(rate / 8 * PIECE_SECONDS)


def send(connection: socket.socket, rate: float, seconds: float) -> float:
    """Send the stream, each piece at its time or as soon after it as the connection takes it; when it began."""
    count, size = pieces(rate, seconds)
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    begun = time.monotonic()
    source = Source()
    for number in range(count):
        wait = begun + number * PIECE_SECONDS - time.monotonic()
        if wait > 0:
            time.sleep(wait)
        while (left := (number + 1) * size - source.position) > 0:
            piece = source.piece(left)
            connection.sendall(piece)
            source.sent(len(piece))
    connection.shutdown(socket.SHUT_WR)
    return begun


def receive(connection: socket.socket, first: Callable[[float], None] | None = None) -> dict[str, Any]:
    """Receive to the end and check every byte; `first(time)` hears of the first data. Raises WrongData."""
    verifier, times = Verifier(), []
    while count := connection.recv_into(verifier.space()):
        times.append(time.monotonic())
        verifier.came(count)
        if len(times) == 1 and first is not None:
            first(times[0])
    verifier.check()
    return {"times": times, "bytes": verifier.position}


# -- the far end


def serve_one(connection: socket.socket) -> None:
    """One stream: a line says what is wanted, another one that it may begin."""
    with connection:
        connection.settimeout(LIMIT)
        try:
            wanted = read_line(connection)
            write_line(connection, {})
            read_line(connection)
            if wanted["direction"] == DOWN:
                send(connection, wanted["rate"], wanted["seconds"])
                connection.recv(1)
            else:
                connection.sendall(json.dumps(_told(receive, connection)).encode())
        except (OSError, ValueError) as error:  # the near end says what it made of it
            print(f"{type(error).__name__}: {error}", file=sys.stderr, flush=True)


def _told(operation: Callable[..., dict[str, Any]], *arguments: Any) -> dict[str, Any]:
    try:
        return operation(*arguments)
    except WrongData as error:
        return {"wrong": str(error)}


def listen(port: int, protocol: int) -> None:
    listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM, protocol)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listener.bind(("0.0.0.0", port))
    listener.listen()

    def accept() -> None:
        while True:
            threading.Thread(target=serve_one, args=(listener.accept()[0],), daemon=True).start()

    threading.Thread(target=accept, daemon=True).start()


# -- the near end


def stream(order: dict[str, Any], tell: Callable[[dict[str, Any]], None]) -> dict[str, Any]:
    """Carry out an order; `tell` gives the line in between."""
    protocol = IPPROTO_MPTCP if order["mptcp"] else 0
    wanted = {name: order[name] for name in ("direction", "rate", "seconds")}
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM, protocol) as connection:
        connection.settimeout(LIMIT)
        connection.connect(tuple(order["target"]))
        write_line(connection, wanted)
        read_line(connection)
        if order["mptcp"]:
            mptcp.await_subflow(connection)
        write_line(connection, {})
        congestion = connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_CONGESTION, 16).rstrip(b"\0").decode()

        def started(at: float) -> None:
            tell({"ok": True, "started": at})

        if order["direction"] == DOWN:
            result = receive(connection, started)
        else:
            started(time.monotonic())
            send(connection, order["rate"], order["seconds"])
            result = json.loads(_everything(connection))
    if "wrong" in result:
        raise WrongData(result["wrong"])
    count, size = pieces(order["rate"], order["seconds"])
    if result["bytes"] != count * size:
        raise WrongData(f"{result['bytes']} bytes came of {count * size}")
    return {**result, "congestion": congestion}


def _everything(connection: socket.socket) -> bytes:
    told = bytearray()
    while data := connection.recv(1 << 16):
        told += data
    return bytes(told)


def main() -> None:
    kind, *words = sys.argv[1:]
    gc.freeze()
    gc.disable()  # a collection is milliseconds; what a stream makes is gone with its references
    if kind == "client":
        serve_orders(words[0], {"stream": stream})
        return
    listen(int(words[0]), 0)
    if mptcp.missing() is None:
        listen(int(words[1]), IPPROTO_MPTCP)
    print("ready", flush=True)
    threading.Event().wait()


if __name__ == "__main__":
    main()
