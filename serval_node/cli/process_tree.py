"""Which processes descend from this one, and which sockets they hold: how `serval run` knows a server's
listening sockets.

Being a subreaper, `serval run` stays the ancestor of daemons that detach from their parents; reading
/proc/PID/fd needs nothing of the program, so that statically linked and pre-fork servers are followed like any
other.
"""

from __future__ import annotations

import ctypes
import os
from collections.abc import Iterable
from pathlib import Path

PR_SET_CHILD_SUBREAPER = 36
_SOCKET = "socket:["


def become_subreaper() -> None:
    """Inherit orphans among the descendants; raises OSError."""
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))


def descendants(root: int) -> set[int]:
    """The processes below `root`, without it, zombies included."""
    children: dict[int, list[int]] = {}
    for entry in os.listdir("/proc"):
        if entry.isdigit():
            parent = _parent(int(entry))
            if parent:
                children.setdefault(parent, []).append(int(entry))
    found: set[int] = set()
    waiting = [root]
    while waiting:
        for child in children.get(waiting.pop(), ()):
            if child not in found:
                found.add(child)
                waiting.append(child)
    return found


def _parent(pid: int) -> int:
    try:
        text = Path(f"/proc/{pid}/stat").read_text()
    except OSError:  # it ended meanwhile
        return 0
    # The command's name may hold spaces and parentheses; the state and the parent follow its last one.
    return int(text[text.rindex(")") + 1 :].split()[1])


def held(pids: Iterable[int], inodes: Iterable[int]) -> set[int]:
    """Those of `inodes` that are sockets open in one of the processes `pids`."""
    wanted = set(inodes)
    found: set[int] = set()
    for pid in pids:
        if not wanted - found:
            break
        found |= _sockets(pid) & wanted
    return found


def _sockets(pid: int) -> set[int]:
    inodes: set[int] = set()
    try:
        names = os.listdir(f"/proc/{pid}/fd")
    except OSError:  # ended meanwhile, or another user's
        return inodes
    for name in names:
        try:
            target = os.readlink(f"/proc/{pid}/fd/{name}")
        except OSError:  # closed meanwhile
            continue
        if target.startswith(_SOCKET):
            inodes.add(int(target[len(_SOCKET) : -1]))
    return inodes
