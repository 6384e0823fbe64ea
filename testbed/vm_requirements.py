"""What real virtual machines need of this machine, beside what every run needs."""

from __future__ import annotations

import importlib.util
import platform
import shutil
from collections.abc import Mapping
from pathlib import Path

from testbed import sandbox
from testbed.errors import TestbedError

DIRECTORY = sandbox.ROOT / ".vm"
"""What is made once for all runs of this tree: the guest's kernel, its images, their saved states."""
KERNEL = DIRECTORY / "kernel"
QEMU = "qemu-system-x86_64"
BUSYBOX = "busybox"
PROGRAMS: Mapping[str, str] = {
    QEMU: "qemu-system-x86",
    BUSYBOX: "busybox-static",
    "mksquashfs": "squashfs-tools",
    "cpio": "cpio",
    "zstd": "zstd",
}
"""Programs, and the packages that they are in."""
REMEDY = "make setup-vm (scripts/setup-vm) installs it; without it there is the light form of VM migration"


def missing(*, machine: str | None = None, programs: Mapping[str, str] = PROGRAMS, kernel: Path = KERNEL) -> str | None:
    """Why no real VM can run here, None when one can. Looks and starts nothing."""
    architecture = machine or platform.machine()
    if architecture != "x86_64":
        return f"guests are built for x86_64, and this machine is {architecture}"
    absent = [package for program, package in programs.items() if shutil.which(program) is None]
    if absent:
        return f"no {', '.join(absent)} on this machine"
    if not (kernel / "version").exists():
        return f"no guest's kernel in {kernel}"
    if importlib.util.find_spec("qemu") is None or importlib.util.find_spec("qemu.qmp") is None:
        return "no Python package qemu.qmp"
    return None


def require() -> None:
    """Raises TestbedError where `missing` says something."""
    why = missing()
    if why is not None:
        raise TestbedError(f"real virtual machines cannot run here: {why}", REMEDY)
