"""`serval bind`: give a name to a socket that listens already, or be a small server oneself."""

from __future__ import annotations

import sys
import threading

from serval_node import socket as serval
from serval_node.cli.errors import CommandError
from serval_node.cli.output import print_json
from serval_node.control.local import Client, ControlError

_CHUNK = 1 << 16


def bind_port(client: Client, name: str, port: int, *, udp: bool, as_json: bool) -> int:
    """Name whatever listens on a kernel port of this host, or has bound it for UDP; the rule lives as long as that."""
    try:
        answer = client.request("bind", service=name, port=port, protocol=_protocol(udp))
    except ControlError as error:
        raise CommandError(str(error)) from None
    if as_json:
        print_json(answer)
        return 0
    for warning in answer["warnings"]:
        print(f"serval: warning: {warning}", file=sys.stderr)
    where = f"UDP port {port} as long as it is open" if udp else f"port {port} as long as it listens"
    print(f"{answer['service']} ({answer['prefix']}) is served by {where}")
    return 0


def unbind_port(client: Client, name: str, port: int, *, udp: bool) -> int:
    """Take a name back from a port, which goes on listening."""
    try:
        client.request("unbind", service=name, port=port, protocol=_protocol(udp))
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


def serve_datagrams(name: str, answer: str | None) -> int:
    """Serve a name with datagrams: send back what comes, or `answer` to each. Ends with Ctrl-C."""
    try:
        sock = serval.datagram_socket(name)
    except OSError as error:
        raise CommandError(error.strerror or str(error)) from None
    with sock:
        print(f"{name} is served here with datagrams; Ctrl-C ends it", file=sys.stderr, flush=True)
        while True:
            data, sender = sock.recvfrom(_CHUNK)
            try:
                sock.sendto(data if answer is None else answer.encode(), sender)
            except OSError as error:
                print(f"serval: a client gets no answer: {error.strerror}", file=sys.stderr)


def _protocol(udp: bool) -> str:
    return "udp" if udp else "tcp"


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
