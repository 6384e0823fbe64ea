"""The make and sudo above this process: what the user typed, whose end must end the run too."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

_WRAPPERS = frozenset({"make", "gmake", "sudo", "sudo-rs", "doas"})
_SHELLS = frozenset({"sh", "dash", "bash", "ash", "busybox", "ksh", "mksh", "zsh", "fish"})


@dataclass(frozen=True)
class Process:
    """What /proc tells of one process."""

    pid: int
    parent: int
    name: str
    arguments: tuple[str, ...]

    @property
    def is_wrapper(self) -> bool:
        """True for make, sudo and the like."""
        return self.name in _WRAPPERS

    @property
    def is_shell(self) -> bool:
        """True for any shell, also one that runs a script, which then gives the process its name."""
        program = os.path.basename(self.arguments[0]).lstrip("-") if self.arguments else ""
        return self.name in _SHELLS or program in _SHELLS

    @property
    def is_interactive_shell(self) -> bool:
        """True for a shell that runs neither -c nor a script: what is above it was not typed now."""
        return self.is_shell and all(argument.startswith(("-i", "-l", "--")) for argument in self.arguments[1:])


def read_process(pid: int) -> Process | None:
    """Returns what is known of the process, None when it has gone."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text(errors="replace")
        raw = Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:  # it has gone, or /proc hides the processes of others
        return None
    name = stat[stat.index("(") + 1 : stat.rindex(")")]
    parent = int(stat[stat.rindex(")") + 2 :].split()[1])
    arguments = tuple(part.decode(errors="replace") for part in raw.split(b"\0")[:-1])
    return Process(pid, parent, name, arguments)


def watch() -> list[tuple[int, str]]:
    """Returns (pidfd, name) of each make and sudo above this process and of each shell that runs a command for them.

    The search ends at the interactive shell. The descriptors become readable when their process ends.
    """
    chain: list[tuple[int, Process]] = []
    child = os.getpid()
    while True:
        found = _open_parent(child)
        if found is None or found[1].is_interactive_shell:
            if found is not None:
                os.close(found[0])
            break
        chain.append(found)
        child = found[1].pid
    highest = max((index for index, (_, process) in enumerate(chain) if process.is_wrapper), default=-1)
    watched = []
    for index, (fd, process) in enumerate(chain):
        if process.is_wrapper or (process.is_shell and index < highest):
            watched.append((fd, process.name))
        else:
            os.close(fd)
    return watched


def _open_parent(child: int) -> tuple[int, Process] | None:
    """Returns a pidfd on the parent of the process and what is known of it; None at the top."""
    before = read_process(child)
    if before is None or before.parent <= 1:
        return None
    try:
        fd = os.pidfd_open(before.parent)
    except ProcessLookupError:
        return None
    after, parent = read_process(child), read_process(before.parent)
    # The number is certainly its parent's, and not a successor's, only if it still is after the descriptor was made.
    if after is None or parent is None or after.parent != before.parent:
        os.close(fd)
        return None
    return fd, parent
