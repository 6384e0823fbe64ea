"""The client of all variants: `python -m experiments.benchmarks.worker PATH` takes orders on a unix socket.

One process serves a whole benchmark, so that no run pays for the start of a program. An order is a JSON object with
"op" and the arguments of the function of that name; where to connect is `target`: ["address", port], or the name of a
service for `serval_node.socket`. Times in seconds.
"""

from __future__ import annotations

import asyncio
import json
import socket
import sys
import time
from collections.abc import Callable
from typing import Any

from serval_node import socket as serval
from testbed.traffic.orders import Operation, serve_orders

LIMIT = 30.0
BLOCK = bytes(1 << 20)
_TIMESTAMPS = 1  # TCPI_OPT_TIMESTAMPS of linux/tcp.h
_INFO_OPTIONS, _INFO_MSS, _INFO_RTT, _INFO_RETRANSMITS = 5, 16, 68, 100  # offsets in struct tcp_info

Target = str | tuple[str, int]


def open_connection(target: Target) -> socket.socket:
    if isinstance(target, str):
        return serval.create_connection(target, timeout=LIMIT)
    connection = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    connection.settimeout(LIMIT)
    connection.connect(target)
    return connection


def connects(target: Target, count: int, exchanges: int, pause: float) -> dict[str, Any]:
    """`count` connections one after the other, each with `exchanges` of one byte there and one back.

    A connection is over before the next one begins: both sides have closed, and `pause` seconds have passed.
    """
    connect_seconds, exchange_seconds = [], []
    for _ in range(count):
        begun = time.perf_counter()
        connection = open_connection(target)
        connect_seconds.append(time.perf_counter() - begun)
        with connection:
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            for _ in range(exchanges):
                begun = time.perf_counter()
                connection.send(b"e")
                if connection.recv(1) != b"e":
                    raise ConnectionError("the server closed the connection")
                exchange_seconds.append(time.perf_counter() - begun)
            congestion = congestion_control(connection)
            connection.shutdown(socket.SHUT_WR)
            connection.recv(1)
        time.sleep(pause)
    return {"connect": connect_seconds, "exchange": exchange_seconds, "congestion": congestion}


def parallel(target: Target, count: int, size: int) -> dict[str, Any]:
    """`count` simultaneous connections that each fetch `size` bytes; the seconds until each was complete."""
    return {"seconds": asyncio.run(_fetch_all(target, count, size))}


async def _fetch_all(target: Target, count: int, size: int) -> list[float]:
    begun = time.perf_counter()

    async def fetch() -> float:
        if isinstance(target, str):
            reader, writer = await serval.open_connection(target)
        else:
            reader, writer = await asyncio.open_connection(*target)
        writer.write(b"G" + size.to_bytes(8, "big"))
        got = await reader.read(-1)
        if len(got) != size:
            raise ConnectionError(f"a connection gave {len(got)} bytes of {size}")
        seconds = time.perf_counter() - begun
        writer.close()
        return seconds

    return list(await asyncio.wait_for(asyncio.gather(*(fetch() for _ in range(count))), LIMIT))


def upload(target: Target, seconds: float) -> dict[str, Any]:
    """Send for so long; what the sink says about it, and what the kernel says about the connection."""
    with open_connection(target) as connection:
        connection.setblocking(True)
        begun = time.monotonic()
        while time.monotonic() - begun < seconds:
            connection.sendall(BLOCK)
        ended = time.monotonic()
        info = connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 192)
        congestion = congestion_control(connection)
        connection.shutdown(socket.SHUT_WR)
        connection.settimeout(LIMIT)
        told = bytearray()
        while data := connection.recv(1 << 16):
            told += data
    return {
        "begun": begun,
        "ended": ended,
        "marks": json.loads(told),
        "congestion": congestion,
        "mss": int.from_bytes(info[_INFO_MSS : _INFO_MSS + 4], sys.byteorder),
        "timestamps": bool(info[_INFO_OPTIONS] & _TIMESTAMPS),
        "rtt": int.from_bytes(info[_INFO_RTT : _INFO_RTT + 4], sys.byteorder) / 1e6,
        "retransmits": int.from_bytes(info[_INFO_RETRANSMITS : _INFO_RETRANSMITS + 4], sys.byteorder),
    }


def congestion_control(connection: socket.socket) -> str:
    return connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_CONGESTION, 16).rstrip(b"\0").decode()


def _operation(carry_out: Callable[..., dict[str, Any]]) -> Operation:
    def operation(order: dict[str, Any], _tell: object) -> dict[str, Any]:
        target = order.pop("target")
        try:
            return carry_out(tuple(target) if isinstance(target, list) else target, **order)
        except asyncio.TimeoutError:  # no OSError before Python 3.11
            raise TimeoutError(f"{target}: not all within {LIMIT:g} s") from None

    return operation


def main() -> None:
    (path,) = sys.argv[1:]
    serve_orders(path, {carry_out.__name__: _operation(carry_out) for carry_out in (connects, parallel, upload)})


if __name__ == "__main__":
    main()
