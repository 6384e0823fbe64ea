"""What the machine is short of when something fails: disk, processes, open files, memory; and what to do about it."""

from __future__ import annotations

import errno
import os
import re
import resource
from collections.abc import Iterable
from pathlib import Path

from testbed.errors import TestbedError

FULL_BYTES = 64 << 10
"""A file system with less room than this counts as full."""
FEW_PROCESSES = 1024
"""A limit of processes below this is worth a word when something could not be started or did not answer."""
PRIVATE = (Path("/run"), Path("/dev/shm"))
"""In memory, and the sandbox's own."""

_DISK = re.compile(rf"{os.strerror(errno.ENOSPC)}|{os.strerror(errno.EDQUOT)}")
_FILES = re.compile(os.strerror(errno.EMFILE))
_PROCESSES = re.compile(rf"{os.strerror(errno.EAGAIN)}|can't start new thread|[Cc]annot fork")
_MEMORY = re.compile(rf"{os.strerror(errno.ENOMEM)}|MemoryError|std::bad_alloc")
_PORT = re.compile(os.strerror(errno.EADDRINUSE))
_SLOW = re.compile(r"was not (ready|done) within|not ready within")


def hint(said: str) -> str | None:
    """What to do about what a program said, or the system on its behalf; None where it tells of no shortage."""
    if _DISK.search(said):
        return disk_hint()
    if _FILES.search(said):
        return files_hint()
    if _PROCESSES.search(said):
        return processes_hint()
    if _MEMORY.search(said):
        return "memory is used up: end other programs, take a smaller network, or raise the limit (ulimit -v)"
    if _PORT.search(said):
        return "another program of this sandbox has that port: `ss -ltnp`, in the same sandbox, shows which; end it"
    if _SLOW.search(said) and process_limit() < FEW_PROCESSES:
        return processes_hint()  # Open vSwitch waits for ever for a thread that it may not start
    return None


def explained(error: OSError | MemoryError) -> TestbedError:
    """The error of a system call in words, with what to do where that is known."""
    if isinstance(error, MemoryError):
        return TestbedError("no memory is left", hint("MemoryError"))
    where = f"{error.filename}: " if error.filename else ""
    message = f"{where}{error.strerror or error}"
    return TestbedError(message, hint(message))


def disk_hint(places: Iterable[Path] = ()) -> str:
    """Names what is full, of the places given and those where a run writes unasked."""
    full = full_places(places)
    if not full:
        return "a disk or a quota is full: make room (df -h shows where), then start again"
    kept_in_memory = " (in memory)" if full[0] in map(str, PRIVATE) else ""
    return f"make room in {', '.join(full)}{kept_in_memory} (df -h), then start again"


def full_places(places: Iterable[Path] = ()) -> list[str]:
    """Those without room, of the places given and those where a run writes unasked."""
    # tempfile.gettempdir() would pass over a full one.
    candidates = (*places, Path(os.environ.get("TMPDIR", "/tmp")), *PRIVATE)
    return list(dict.fromkeys(str(place) for place in candidates if room(place) < FULL_BYTES))


def room(place: Path) -> float:
    """Bytes that may be written there, infinite where that cannot be found out."""
    try:
        found = os.statvfs(next(path for path in (place, *place.parents) if path.exists()))
    except (OSError, StopIteration):
        return float("inf")
    return found.f_bavail * found.f_frsize if found.f_blocks else float("inf")


def files_hint() -> str:
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    return (
        f"the limit of open files is {hard}; raise it (ulimit -n 4096, as root where it is refused), then start again"
    )


def processes_hint() -> str:
    limit = process_limit()
    named = "reached" if limit == float("inf") else f"{limit:g}"
    return f"the limit of processes is {named}: end other programs, or raise it (ulimit -u 4096), then start again"


def process_limit() -> float:
    soft, _ = resource.getrlimit(resource.RLIMIT_NPROC)
    return float("inf") if soft == resource.RLIM_INFINITY else float(soft)
