"""The result file: versioned JSON with everything that was read, from which tables and plots are made again later.

    {"format": "serval-testbed measurement", "version": 1, "created": "2026-11-21T13:00:00+00:00",
     "settings": {"pairs", "seed", "quick"}, "command": [...], "environment": {...}, "ended": null,
     "benchmarks": [{"name", "title", "comparisons": [...], "figures": [...], "parameters": {...}, "bed": {...},
                     "complete", "error", "seconds", "pairs": [PAIR, ...]}]}

A PAIR: {"comparison": index, "number", "attempt", "order": [variant, variant], "void": null or the reason, "used",
         "at": seconds since the start, "subject": READING, "reference": READING, "load": {"before", "subject",
         "reference", "after"}}; a READING: {"metrics", "samples", "facts"}, SI units.
"""

from __future__ import annotations

import errno
import itertools
import json
import os
import shutil
from collections.abc import Mapping
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from testbed.errors import TestbedError
from testbed.ownership import make_directory, owned_by_caller

FORMAT, VERSION = "serval-testbed measurement", 1
FILE_NAME = "result.json"
NEEDED_BYTES = 32 << 20
"""Free space asked for before anything is measured: a default run leaves about a megabyte."""

_REQUIRED = ("created", "settings", "environment", "benchmarks")


def prepare(parent: Path, name: str) -> Path:
    """Make the directory of one run, its own even if another began in the same second, and prove that it can be
    written; raises TestbedError that says what to do.
    """
    directory = parent / name
    try:
        make_directory(parent)
        directory = _own_directory(parent, name)
        probe = directory / ".probe"
        with probe.open("wb") as file:
            owned_by_caller(probe)
            file.write(bytes(1 << 16))
            file.flush()
            os.fsync(file.fileno())
        probe.unlink()
        free = shutil.disk_usage(directory).free
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise _full(directory) from None
        raise TestbedError(
            f"cannot write results to {directory}: {error.strerror}", "make it writable, or choose with --results DIR"
        ) from None
    if free < NEEDED_BYTES:
        raise _full(directory, free)
    return directory


def _own_directory(parent: Path, name: str) -> Path:
    for number in itertools.count(1):
        directory = parent / (name if number == 1 else f"{name}-{number}")
        try:
            directory.mkdir()
            return owned_by_caller(directory)
        except FileExistsError:
            continue
    raise AssertionError("the count has no end")


def _full(directory: Path, free: int = 0) -> TestbedError:
    return TestbedError(
        f"the disk of {directory} is full: {free >> 20} MiB free, {NEEDED_BYTES >> 20} MiB needed",
        "make room (everything below results/ can be deleted), or choose another disk with --results DIR",
    )


def new(settings: Mapping[str, Any], environment: Mapping[str, Any], command: list[str]) -> dict[str, Any]:
    """A document without benchmarks. `ended` is set when the run did not end by itself."""
    return {
        "format": FORMAT,
        "version": VERSION,
        "created": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "command": command,
        "settings": dict(settings),
        "environment": dict(environment),
        "ended": None,
        "benchmarks": [],
    }


def save(document: Mapping[str, Any], path: Path) -> None:
    """Write it so that at any moment there is a whole file, the old or the new; raises TestbedError."""
    temporary = path.with_suffix(".tmp")
    try:
        temporary.write_text(json.dumps(document, indent=1) + "\n")
        owned_by_caller(temporary)
        temporary.replace(path)
    except OSError as error:
        raise TestbedError(f"cannot write {path}: {error.strerror}", "what was saved before is still there") from None


def load(path: Path) -> dict[str, Any]:
    """Read a result file; raises TestbedError when it is none, or of a version that is not known here."""
    try:
        document = json.loads(path.read_text())
    except OSError as error:
        raise TestbedError(f"cannot read {path}: {error.strerror}") from None
    except ValueError as error:
        raise TestbedError(f"{path} is no result file: {error}") from None
    if not isinstance(document, dict) or document.get("format") != FORMAT:
        raise TestbedError(f"{path} is no result file of this project", f"one is {FILE_NAME} below results/bench/")
    if document.get("version") != VERSION:
        raise TestbedError(
            f"{path} has version {document.get('version')!r} of the format; this program reads {VERSION}"
        )
    missing = [key for key in _REQUIRED if key not in document]
    if missing:
        raise TestbedError(f"{path} lacks {missing[0]!r}")
    return document
