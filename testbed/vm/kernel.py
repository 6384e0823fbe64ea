"""The guest's kernel, as scripts/setup-vm has unpacked it: the kernel itself, and the modules that a guest loads."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from testbed import vm_requirements
from testbed.errors import TestbedError

EARLY = ("virtio_pci", "virtio_blk", "squashfs")
"""What it takes to mount the root file system, in this order."""
LATE = ("virtio_net", "virtio_console", "tun", "inet_diag", "tcp_diag", "udp_diag")
"""What servald and the agent need."""


@dataclass(frozen=True)
class Kernel:
    """`modules` are the files to load, in order: relative to `directory`/modules."""

    version: str
    directory: Path
    modules: tuple[str, ...]

    @property
    def image(self) -> Path:
        return self.directory / "vmlinuz"

    def module(self, name: str) -> Path:
        return self.directory / "modules" / name


def find(directory: Path = vm_requirements.KERNEL) -> Kernel:
    """The kernel in a directory; raises TestbedError when it is not whole."""
    try:
        version = (directory / "version").read_text().strip()
        dependencies = parse_dependencies((directory / "modules" / "modules.dep").read_text())
        builtin = {_name(line) for line in (directory / "modules" / "modules.builtin").read_text().split()}
        modules = load_order((*EARLY, *LATE), dependencies, builtin)
    except (OSError, KeyError) as error:
        raise TestbedError(
            f"the guest's kernel in {directory} is not whole: {error}", f"rm -r {directory}, then make setup-vm"
        ) from None
    return Kernel(version, directory, modules)


def parse_dependencies(text: str) -> dict[str, tuple[str, ...]]:
    """modules.dep: a module's file -> the files that it needs, each file before those that it needs itself."""
    found = {}
    for line in text.splitlines():
        module, _, needed = line.partition(":")
        found[module] = tuple(needed.split())
    return found


def load_order(names: Iterable[str], dependencies: Mapping[str, tuple[str, ...]], builtin: set[str]) -> tuple[str, ...]:
    """The files to load for modules of these names, each after what it needs; what is built in is left out.

    Raises KeyError for a name that this kernel does not have.
    """
    files = {_name(path): path for path in dependencies}
    order: list[str] = []
    for name in names:
        if name in builtin:
            continue
        module = files[name]
        for path in (*reversed(dependencies[module]), module):
            if path not in order:
                order.append(path)
    return tuple(order)


def _name(path: str) -> str:
    return path.rpartition("/")[2].partition(".")[0].replace("-", "_")
