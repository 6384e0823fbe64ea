"""Files made under sudo belong to whoever typed sudo."""

from __future__ import annotations

import os
from pathlib import Path

from testbed.isolation import in_user_namespace


def caller() -> tuple[int, int] | None:
    """Returns (uid, gid) of the user above sudo, None when this is not root below sudo."""
    try:
        ids = int(os.environ["SUDO_UID"]), int(os.environ["SUDO_GID"])
    except (KeyError, ValueError):
        return None
    # In a user namespace uid 0 is that user already.
    return None if os.geteuid() != 0 or in_user_namespace() else ids


def owned_by_caller(path: str | os.PathLike[str], *, recursive: bool = False) -> Path:
    """Gives a file or directory (and with `recursive` all below it) to the user above sudo, and returns its path.

    Does nothing without sudo. Links are not followed. Raises OSError.
    """
    target, ids = Path(path), caller()
    if ids is None:
        return target
    os.chown(target, *ids, follow_symlinks=False)
    if recursive and target.is_dir() and not target.is_symlink():
        for directory, directories, files in os.walk(target):
            for name in directories + files:
                os.chown(os.path.join(directory, name), *ids, follow_symlinks=False)
    return target


def make_directory(path: str | os.PathLike[str]) -> Path:
    """Makes a directory and those above it, as far as they are missing; the new ones belong to the user above sudo.

    Raises OSError, also when something else has the name already.
    """
    target = Path(path)
    missing = [parent for parent in (target, *target.parents) if not parent.is_dir()]
    for directory in reversed(missing):
        directory.mkdir(exist_ok=True)
        owned_by_caller(directory)
    return target
