"""Moves checked bytes over TCP both ways: `bulk.py server PORT COUNT` or `bulk.py client ADDRESS PORT COUNT SIZE`.

Each of COUNT simultaneous connections carries SIZE bytes up, a half-close, and other SIZE bytes down. The server puts
the SHA-256 of what it got in front of its own bytes. The client prints one line of JSON and fails if a byte differs.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import random
import sys
import time

CHUNK = 1 << 20
DIGEST = 32


def pattern(seed: int, size: int) -> bytes:
    block = random.Random(seed).randbytes(min(size, 3_000_017))  # no multiple of any segment size
    return (block * (size // len(block) + 1))[:size] if size else b""


async def serve(port: int, count: int) -> None:
    finished = asyncio.Event()
    left = count

    async def connection(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal left
        received = hashlib.sha256()
        size = 0
        while data := await reader.read(CHUNK):
            received.update(data)
            size += len(data)
        writer.write(received.digest() + pattern(size, size))
        await writer.drain()
        writer.close()
        await writer.wait_closed()
        left -= 1
        if left == 0:
            finished.set()

    server = await asyncio.start_server(connection, "0.0.0.0", port, backlog=1024, limit=4 * CHUNK)
    print("ready", flush=True)
    async with server:
        await finished.wait()


async def one(address: str, port: int, number: int, size: int) -> None:
    reader, writer = await asyncio.open_connection(address, port, limit=4 * CHUNK)
    up = pattern(1000 + number, size)
    writer.write(up)
    await writer.drain()
    writer.write_eof()
    answer = await reader.read(-1)
    writer.close()
    await writer.wait_closed()
    assert answer[:DIGEST] == hashlib.sha256(up).digest(), f"connection {number}: the server got other bytes"
    assert answer[DIGEST:] == pattern(size, size), f"connection {number}: the client got other bytes"


async def connect(address: str, port: int, count: int, size: int) -> None:
    start = time.monotonic()
    await asyncio.gather(*(one(address, port, number, size) for number in range(count)))
    print(json.dumps({"seconds": time.monotonic() - start}), flush=True)


def main() -> None:
    role, *arguments = sys.argv[1:]
    if role == "server":
        asyncio.run(serve(int(arguments[0]), int(arguments[1])))
    else:
        asyncio.run(connect(arguments[0], *map(int, arguments[1:])))


if __name__ == "__main__":
    main()
