"""What serves all variants in a benchmark: `python -m experiments.benchmarks.server answers|sink PORT`.

answers: a client's bytes are requests. b"e" is answered by one byte, b"G" and eight bytes by as many bytes as these say
and the end of the connection.

sink: reads until the client's end, then tells in JSON when it had read how much: [[monotonic seconds, bytes], ...], a
mark about every MARK_SECONDS. It is a process of its own, so that nothing of its work falls into the times of answers.
"""

from __future__ import annotations

import asyncio
import json
import socket
import sys
import time

MARK_SECONDS = 0.02
SINK_BUFFER = 1 << 20
_BLOCK = bytes(1 << 20)


class Answers(asyncio.Protocol):
    """Echo and downloads."""

    def __init__(self) -> None:
        self._transport: asyncio.Transport | None = None
        self._request = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        assert self._transport is not None
        if data == b"e" and not self._request:
            self._transport.write(b"e")
            return
        self._request += data
        if len(self._request) >= 9:
            size = int.from_bytes(self._request[1:9], "big")
            self._transport.write(_BLOCK[:size] if size <= len(_BLOCK) else bytes(size))
            self._transport.close()


def sink(listener: socket.socket) -> None:
    """Serve one upload after the other."""
    buffer = bytearray(SINK_BUFFER)
    while True:
        connection, _ = listener.accept()
        with connection:
            marks, total = [[time.monotonic(), 0]], 0
            try:
                while count := connection.recv_into(buffer):
                    total += count
                    now = time.monotonic()
                    if now - marks[-1][0] >= MARK_SECONDS:
                        marks.append([now, total])
                connection.sendall(json.dumps(marks).encode())
            except ConnectionError:
                continue  # the client gave up, and says why itself


async def answer(listener: socket.socket) -> None:
    loop = asyncio.get_running_loop()
    server = await loop.create_server(Answers, sock=listener, backlog=1024)
    await server.serve_forever()


def main() -> None:
    kind, port = sys.argv[1:]
    listener = socket.create_server(("0.0.0.0", int(port)), backlog=1024)
    print("ready", flush=True)
    if kind == "sink":
        sink(listener)
    asyncio.run(answer(listener))


if __name__ == "__main__":
    main()
