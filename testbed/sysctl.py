"""Sysctls of the network namespace that this process is in; the host's own are out of reach."""

from __future__ import annotations

from pathlib import Path

from testbed.errors import TestbedError


def _path(name: str) -> Path:
    parts = name.split(".")
    if parts[0] != "net" or ".." in name or "/" in name:
        raise TestbedError(f"sysctl {name} belongs to no network namespace", "only net.* can be set in a sandbox")
    return Path("/proc/sys", *parts)


def read(name: str) -> str:
    """Returns the value of a net.* sysctl. Raises TestbedError for any other name, OSError when there is none."""
    return _path(name).read_text().strip()


def write(name: str, value: str | int) -> None:
    """Sets a net.* sysctl of this namespace. Raises TestbedError for any other name, OSError when it is refused.

    An interface's name with a dot in it cannot be part of `name`.
    """
    _path(name).write_text(str(value))
