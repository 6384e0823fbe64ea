"""Result files on disk: each run's directory, a file that is whole at any moment, and a check of what is read back."""

from __future__ import annotations

import contextlib
import errno
import itertools
import json
import os
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from testbed.errors import TestbedError
from testbed.ownership import make_directory, owned_by_caller

FILE_NAME = "result.json"
LATEST = "latest"
NEEDED_BYTES = 32 << 20
"""Free space asked for before anything is measured, where nothing better is known."""


@dataclass(frozen=True, slots=True)
class Format:
    """A kind of result file: what stands under "format" and "version", and the keys that it has in any case.

    place  where such files usually are, for the message about one that is none
    """

    name: str
    version: int
    required: tuple[str, ...]
    place: str

    def head(self) -> dict[str, Any]:
        """The first two entries of such a file."""
        return {"format": self.name, "version": self.version}


def prepare(parent: Path, name: str, *, needed: int = NEEDED_BYTES) -> Path:
    """Make the directory of one run, its own even if another began in the same second, and prove that it can be
    written and that `needed` bytes are free; raises TestbedError that says what to do.
    """
    directory, made = parent / name, None
    try:
        make_directory(parent)
        directory = made = _own_directory(parent, name)
        probe = directory / ".probe"
        with probe.open("wb") as file:
            owned_by_caller(probe)
            file.write(bytes(1 << 16))
            file.flush()
            os.fsync(file.fileno())
        probe.unlink()
        free = shutil.disk_usage(directory).free
    except OSError as error:
        _take_back(made)
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise _full(directory, 0, needed) from None
        raise TestbedError(
            f"cannot write results to {directory}: {error.strerror}", "make it writable, or choose with --results DIR"
        ) from None
    if free < needed:
        _take_back(made)
        raise _full(directory, free, needed)
    return directory


def _take_back(directory: Path | None) -> None:
    """The directory of a run that will not be, if it was made."""
    if directory is not None:
        shutil.rmtree(directory, ignore_errors=True)


def _own_directory(parent: Path, name: str) -> Path:
    for number in itertools.count(1):
        directory = parent / (name if number == 1 else f"{name}-{number}")
        try:
            directory.mkdir()
            return owned_by_caller(directory)
        except FileExistsError:
            continue
    raise AssertionError("the count has no end")


def _full(directory: Path, free: int, needed: int) -> TestbedError:
    return TestbedError(
        f"the disk of {directory} is full: {free >> 20} MiB free, {needed >> 20} MiB needed",
        "make room (everything below results/ can be deleted), or choose another disk with --results DIR",
    )


def point_latest_to(directory: Path) -> None:
    """`latest` beside the results of a kind is the one that is being made."""
    link = directory.parent / LATEST
    try:
        link.unlink(missing_ok=True)
        link.symlink_to(directory.name)
        owned_by_caller(link)
    except OSError:
        return  # on a file system without links there is none


def save(document: Mapping[str, Any], path: Path, *, indent: int | None = 1) -> None:
    """Write it so that at any moment there is a whole file, the old or the new; raises TestbedError."""
    try:
        write_whole(path, json.dumps(document, indent=indent) + "\n")
    except OSError as error:
        raise TestbedError(f"cannot write {path}: {error.strerror}", "what was saved before is still there") from None


def write_whole(path: Path, text: str) -> None:
    """The old file stays until the new one is whole; raises OSError, and leaves no part of the new one then."""
    temporary = path.with_suffix(".tmp")
    try:
        temporary.write_text(text, encoding="utf-8")
        owned_by_caller(temporary)
        temporary.replace(path)
    except OSError:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)
        raise


def load(path: Path, wanted: Format) -> dict[str, Any]:
    """Read a result file; raises TestbedError when it is none, or of a version that is not known here."""
    try:
        document = json.loads(path.read_text())
    except OSError as error:
        raise TestbedError(f"cannot read {path}: {error.strerror}") from None
    except ValueError as error:
        raise TestbedError(f"{path} is no result file: {error}") from None
    if not isinstance(document, dict) or document.get("format") != wanted.name:
        raise TestbedError(
            f"{path} is no result file of this project", f"one is {FILE_NAME} in a directory below {wanted.place}/"
        )
    if document.get("version") != wanted.version:
        raise TestbedError(
            f"{path} has version {document.get('version')!r} of the format; this program reads {wanted.version}"
        )
    missing = [key for key in wanted.required if key not in document]
    if missing:
        raise TestbedError(f"{path} lacks {missing[0]!r}")
    return document
