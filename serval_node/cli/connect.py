"""`serval connect`: a small netcat by service name, and a way to see which instances answer."""

from __future__ import annotations

import os
import socket as _socket
import sys
import threading
import time
from typing import Any

from serval_node import socket as serval
from serval_node.cli.errors import CommandError
from serval_node.cli.output import milliseconds, print_json
from serval_node.control.local import Client, ControlError

_CHUNK = 1 << 16


def open_service(name: str, timeout: float | None) -> tuple[serval.ServalSocket, float]:
    """A connection and the seconds that connect() took; raises CommandError."""
    sock = new_socket()
    try:
        return sock, connect_socket(sock, name, timeout)
    except BaseException:
        sock.close()
        raise


def new_socket() -> serval.ServalSocket:
    """An unconnected socket, which has its flowID already; raises CommandError."""
    try:
        return serval.socket()
    except OSError as error:
        raise CommandError(error.strerror or str(error)) from None


def connect_socket(sock: serval.ServalSocket, name: str, timeout: float | None) -> float:
    """Connect, and say how many seconds that took; raises CommandError."""
    sock.settimeout(timeout)
    start = time.monotonic()
    try:
        sock.connect(name)
    except TimeoutError:
        waited = f"{timeout:g}" if timeout is not None else f"{time.monotonic() - start:.0f}"
        raise CommandError(f"no answer from {name} within {waited} s") from None
    except OSError as error:
        raise CommandError(error.strerror or str(error)) from None
    return time.monotonic() - start


def instance(client: Client, sock: serval.ServalSocket) -> dict[str, Any]:
    """Which instance a connection leads to: {"host", "peer", "flow_id", "peer_flow"}; raises CommandError."""
    address, port = sock.kernel_peer()
    try:
        return client.request("connected", local_port=sock.kernel_name()[1], address=address, port=port)
    except ControlError as error:
        raise CommandError(str(error)) from None


def netcat(name: str, timeout: float | None) -> int:
    """Copy standard input to the service and what it sends to standard output, until the service has ended."""
    sock, _ = open_service(name, timeout)
    with sock:
        sock.settimeout(None)
        if sys.stdin.isatty():
            # Otherwise it looks hung: the service may wait for us to say something.
            print(f"connected to {name}; type, then Ctrl-D to end (Ctrl-C at once)", file=sys.stderr, flush=True)
        threading.Thread(target=_send_input, args=(sock,), daemon=True).start()
        try:
            while data := sock.recv(_CHUNK):
                sys.stdout.buffer.write(data)
                sys.stdout.buffer.flush()
        except BrokenPipeError:
            raise  # whoever reads our output has gone: the caller's business
        except OSError as error:
            raise CommandError(f"{name}: {error.strerror}") from None
    return 0


def _send_input(sock: serval.ServalSocket) -> None:
    try:
        while data := os.read(0, _CHUNK):
            sock.sendall(data)
        sock.shutdown(_socket.SHUT_WR)
    except OSError:
        return  # the service closed meanwhile; the reading side reports what there is to report


def repeat(client: Client, name: str, count: int, interval: float, timeout: float | None, *, as_json: bool) -> int:
    """Connect `count` times and tell which instance answered; the status is 1 when any attempt failed.

    Raises ControlError when the text names no service.
    """
    client.request("address", name=name)
    results: list[dict[str, Any]] = []
    split: dict[str, int] = {}
    for number in range(1, count + 1):
        if number > 1 and interval:
            time.sleep(interval)
        try:
            sock, seconds = open_service(name, timeout)
            with sock:
                where = instance(client, sock)
        except CommandError as error:
            results.append({"number": number, "error": str(error)})
            if not as_json:
                print(f"{number:4}  {error}", flush=True)
            continue
        host = where["host"] or where["peer"]
        split[host] = split.get(host, 0) + 1
        results.append({"number": number, "host": host, "peer": where["peer"], "seconds": seconds})
        if not as_json:
            print(f"{number:4}  {host}  {where['peer']}  {milliseconds(seconds)}", flush=True)
    failed = count - sum(split.values())
    if as_json:
        print_json({"connects": results, "split": split, "failed": failed})
    else:
        parts = [f"{host} {number}" for host, number in sorted(split.items())]
        print(f"{name}: " + ", ".join([*parts, *([f"failed {failed}"] if failed else [])]))
    return 1 if failed else 0
