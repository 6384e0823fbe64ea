"""Lets another user reach this project wherever it lies: inside the mount namespace of the caller only."""

from __future__ import annotations

import os
from pathlib import Path

from testbed import linux


def make_reachable(project: str) -> None:
    """In a private mount namespace: where a directory above the project is closed to others (/root usually is), put an
    empty one in its place that holds nothing but the project, at its old path, and go there.
    """
    path = Path(project)
    closed = [parent for parent in path.parents if not parent.stat().st_mode & 0o001]
    if not closed:
        return
    handle = os.open(path, os.O_PATH | os.O_DIRECTORY)
    linux.mount("none", str(closed[-1]), "tmpfs", 0, "mode=0755")
    path.mkdir(parents=True, exist_ok=True)
    linux.mount(f"/proc/self/fd/{handle}", str(path), flags=linux.MS_BIND | linux.MS_REC)
    os.close(handle)
    os.chdir(path)
