"""Answers requests, and says who it is: `python -m testbed.traffic.responder PORT [NAME]`.

A request is a line {"size", "hold"}. The answer is a line {"instance": NAME}. With "hold" each byte that comes next
comes back, until a newline. Then follow `size` bytes (`pattern.leading`), and the end. Without NAME it is that of the
host's Serval node: so this can stand in a topology as the command of a service.
"""

from __future__ import annotations

import asyncio
import json
import socket
import sys

from testbed.traffic.pattern import leading

BACKLOG = 1024


class Answer(asyncio.Protocol):
    """One connection."""

    def __init__(self, instance: str) -> None:
        self._name = json.dumps({"instance": instance}).encode() + b"\n"
        self._transport: asyncio.Transport | None = None
        self._request = b""
        self._size: int | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        assert self._transport is not None
        if self._size is not None:
            self._held(data)
            return
        self._request += data
        line, newline, rest = self._request.partition(b"\n")
        if not newline:
            return
        wanted = json.loads(line)
        self._size = int(wanted["size"])
        self._transport.write(self._name)
        self._held(rest if wanted["hold"] else b"\n")

    def _held(self, data: bytes) -> None:
        assert self._transport is not None and self._size is not None
        echoed, newline, _ = data.partition(b"\n")
        if echoed:
            self._transport.write(echoed)
        if newline:
            self._transport.write(leading(self._size))
            self._transport.close()


async def answer(listener: socket.socket, instance: str) -> None:
    loop = asyncio.get_running_loop()
    server = await loop.create_server(lambda: Answer(instance), sock=listener, backlog=BACKLOG)
    await server.serve_forever()


def own_name() -> str:
    """Of this host's Serval node. Raises ControlError."""
    from serval_node.control.local import Client

    with Client() as client:
        return str(client.request("status")["name"])


def main() -> None:
    port, *more = sys.argv[1:]
    instance = more[0] if more else own_name()
    protocol = int(more[1]) if len(more) > 1 else 0
    listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM, protocol)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listener.bind(("0.0.0.0", int(port)))
    listener.listen(BACKLOG)
    print("ready", flush=True)
    asyncio.run(answer(listener, instance))


if __name__ == "__main__":
    main()
