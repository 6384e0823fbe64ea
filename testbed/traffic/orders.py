"""What a helper program in a host does with orders. It loads quickly: nothing of Mininet is needed here.

An order is a line of JSON on a unix socket, {"op": ..., ...}; each answer is a line {"ok": true, ...} or {"ok": false,
"error": "one line"}.
"""

from __future__ import annotations

import json
import socket
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

Answer = dict[str, Any]
Operation = Callable[[dict[str, Any], Callable[[Answer], None]], Answer]
"""(order, tell) -> the last answer; `tell` gives answers before it."""


def serve_orders(path: str, operations: Mapping[str, Operation]) -> None:
    """A worker's own side: listen at `path`, say that it is ready, carry out orders for ever."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as listener:
        listener.bind(path)
        listener.listen()
        print("ready", flush=True)
        while True:
            client, _ = listener.accept()
            with client, client.makefile("rwb") as stream:
                for line in stream:
                    _carry_out(json.loads(line), operations, partial(_write, stream))


def _carry_out(order: dict[str, Any], operations: Mapping[str, Operation], write: Callable[[Answer], None]) -> None:
    try:
        answer = {"ok": True, **operations[order.pop("op")](order, write)}
    except (OSError, ValueError) as error:
        answer = {"ok": False, "error": f"{type(error).__name__}: {error}"}
    write(answer)


def _write(stream: Any, answer: dict[str, Any]) -> None:
    stream.write(json.dumps(answer).encode() + b"\n")
    stream.flush()
