"""All processes of a host stopped at once, and set going again.

By SIGSTOP: a cgroup's freezer would need a hierarchy that a user without root does not have. No process can refuse it.
What the kernel does for them goes on: TCP acknowledges what comes, and its timers run.
"""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

from mininet.node import Node

from testbed.errors import TestbedError

LIMIT_SECONDS = 2.0
_STOPPED = "T"
_GONE = "ZX"


def freeze(node: Node) -> list[int]:
    """Stop every process in a host's network namespace but Mininet's shell; returns them when all stand still.

    Raises TestbedError when some do not within LIMIT_SECONDS.
    """
    deadline = time.monotonic() + LIMIT_SECONDS
    while True:
        processes = inside(node)
        moving = [process for process in processes if state(process) not in (_STOPPED, *_GONE)]
        if not moving:
            return processes
        for process in moving:  # again and again: one may have forked meanwhile
            _send(process, signal.SIGSTOP)
        if time.monotonic() > deadline:
            raise TestbedError(f"{node.name}: processes {moving} do not stand still")


def thaw(node: Node) -> list[int]:
    """Let every process of a host go on; returns them."""
    processes = inside(node)
    for process in processes:
        _send(process, signal.SIGCONT)
    return processes


def inside(node: Node) -> list[int]:
    """The processes in a host's network namespace, Mininet's shell not among them. Raises TestbedError."""
    if not node.inNamespace:
        raise TestbedError(f"{node.name} has no namespace of its own")
    own = os.readlink(f"/proc/{node.pid}/ns/net")
    found = []
    for entry in Path("/proc").iterdir():
        if not entry.name.isdecimal() or int(entry.name) == node.pid:
            continue
        try:
            if os.readlink(entry / "ns" / "net") == own:
                found.append(int(entry.name))
        except (FileNotFoundError, ProcessLookupError, PermissionError):
            continue  # it has just ended
    return sorted(found)


def state(process: int) -> str:
    """What the kernel's /proc says: "R", "S", "T" for stopped, "Z" for ended; "X" when it is gone."""
    try:
        text = Path(f"/proc/{process}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return "X"
    # The name before it, in brackets, may hold anything.
    return text.rpartition(")")[2].split()[0]


def _send(process: int, number: signal.Signals) -> None:
    try:
        os.kill(process, number)
    except ProcessLookupError:
        pass  # it ended meanwhile
