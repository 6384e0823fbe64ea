"""`serval bind`: give a name to a socket that listens already, or be a small server oneself."""

from __future__ import annotations

import sys
import threading

from serval_node import socket as serval
from serval_node.cli.errors import CommandError
from serval_node.cli.output import print_json
from serval_node.control.local import Client, ControlError

_CHUNK = 1 << 16


def bind_port(client: Client, name: str, port: int, *, as_json: bool) -> int:
    """Name whatever listens on a kernel port of this host; the rule lives as long as it listens."""
    try:
        answer = client.request("bind", service=name, port=port)
    except ControlError as error:
        raise CommandError(str(error)) from None
    if as_json:
        print_json(answer)
        return 0
    for warning in answer["warnings"]:
        print(f"serval: warning: {warning}", file=sys.stderr)
    print(f"{answer['service']} ({answer['prefix']}) is served by port {port} as long as it listens")
    return 0


def unbind_port(client: Client, name: str, port: int) -> int:
    """Take a name back from a port, which goes on listening."""
    try:
        client.request("unbind", service=name, port=port)
    except ControlError as error:
        raise CommandError(str(error)) from None
    return 0


def serve(name: str, answer: str | None) -> int:
    """Serve a name: echo what comes, or send `answer` to everyone. Ends with Ctrl-C."""
    try:
        server = serval.create_server(name)
    except OSError as error:
        raise CommandError(error.strerror or str(error)) from None
    with server:
        print(f"{name} is served here; Ctrl-C ends it", file=sys.stderr, flush=True)
        while True:
            conn, _ = server.accept()
            threading.Thread(target=_serve_one, args=(conn, answer), daemon=True).start()


def _serve_one(conn: serval.ServalSocket, answer: str | None) -> None:
    with conn:
        try:
            if answer is not None:
                conn.sendall(answer.encode() + b"\n")
                return
            while data := conn.recv(_CHUNK):
                conn.sendall(data)
        except OSError as error:
            print(f"serval: a client went away: {error.strerror}", file=sys.stderr)
