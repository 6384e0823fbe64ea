"""A guest's image: kernel, initial and root file system, built in seconds and kept for as long as nothing changes.

The key of an image covers everything that it is made of, so that a changed servald is in the next guest by itself.
"""

from __future__ import annotations

import fcntl
import gzip
import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from testbed import processes, sandbox, symptoms, vm_requirements
from testbed.errors import TestbedError
from testbed.ownership import make_directory, owned_by_caller
from testbed.vm import kernel, tree

KEPT = 3
"""So many images are kept, the ones used last; a tree that is worked on would fill the disk."""
LOCK_SECONDS = 180.0
BUILD_SECONDS = 120.0
_POLL_SECONDS = 0.05


@dataclass(frozen=True)
class Image:
    """A directory with all that QEMU starts a guest from."""

    directory: Path

    @property
    def kernel(self) -> Path:
        return self.directory / "vmlinuz"

    @property
    def initial(self) -> Path:
        return self.directory / "initial.gz"

    @property
    def root(self) -> Path:
        return self.directory / "root.squashfs"


def current(say: Callable[[str], None] = lambda line: None, directory: Path = vm_requirements.DIRECTORY) -> Image:
    """The image of what this tree holds now, built if there is none; raises TestbedError."""
    vm_requirements.require()
    guest_kernel = kernel.find()
    image = Image(directory / "images" / key(tree.sources(), [guest_kernel.version, sys.version]))
    with lock(directory):
        if not image.directory.exists():
            say("building the guest's image")
            _build(image.directory, guest_kernel)
        _forget_old(image.directory)
    return image


def key(files: Iterable[Path], facts: Iterable[str], relative_to: Path = sandbox.ROOT) -> str:
    """Changes with the name or content of a file and with each fact; 16 hexadecimal digits."""
    digest = hashlib.sha256()
    for path in files:
        name = os.path.relpath(path, relative_to)
        digest.update(f"{name}\0{hashlib.sha256(path.read_bytes()).hexdigest()}\0".encode())
    for fact in facts:
        digest.update(f"{fact}\0".encode())
    return digest.hexdigest()[:16]


@contextmanager
def lock(directory: Path) -> Iterator[None]:
    """One process at a time builds; raises TestbedError when another one takes too long."""
    try:
        make_directory(directory)
        handle = os.open(directory, os.O_RDONLY | os.O_CLOEXEC)
    except OSError as error:
        raise _unwritable(directory, error) from None
    try:
        deadline = time.monotonic() + LOCK_SECONDS
        while True:
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() > deadline:
                    raise TestbedError(
                        f"another run has been building a guest's image for {LOCK_SECONDS:g} s",
                        f"`fuser -v {directory}` shows which process",
                    ) from None
                time.sleep(_POLL_SECONDS)
        yield
    finally:
        os.close(handle)


def _build(target: Path, guest_kernel: kernel.Kernel) -> None:
    try:
        make_directory(target.parent)
        with tempfile.TemporaryDirectory(dir=target.parent, prefix=".building-") as name:
            work = Path(name)
            made = work / "image"
            made.mkdir()
            tree.root(work / "root")
            squash = ["mksquashfs", str(work / "root"), str(made / "root.squashfs"), "-comp", "lz4", "-all-root"]
            processes.run([*squash, "-quiet", "-no-progress"], timeout=BUILD_SECONDS)
            tree.initial(work / "initial", guest_kernel)
            (made / "initial.gz").write_bytes(gzip.compress(_archive(work / "initial"), 1))
            shutil.copy(guest_kernel.image, made / "vmlinuz")
            made.rename(target)
        owned_by_caller(target, recursive=True)
    except OSError as error:
        raise _unwritable(target.parent, error) from None


def _archive(directory: Path) -> bytes:
    """The directory as the kernel unpacks it."""
    names = "".join(f"{path.relative_to(directory)}\n" for path in sorted(directory.rglob("*")))
    done = subprocess.run(
        ["cpio", "-o", "-H", "newc", "-R", "0:0", "--quiet"],
        cwd=directory,
        input=names.encode(),
        capture_output=True,
        check=False,
    )
    if done.returncode:
        raise TestbedError(f"cpio failed: {done.stderr.decode(errors='replace').strip()}")
    return done.stdout


def _forget_old(used: Path) -> None:
    """Remove all but the images used last. A guest that runs from one of them keeps its open files."""
    try:
        os.utime(used)
    except PermissionError:
        return  # another user's tree, whose images are that user's to remove
    found = [path for path in used.parent.iterdir() if path.is_dir() and not path.name.startswith(".")]
    for old in sorted(found, key=lambda path: path.stat().st_mtime)[:-KEPT]:
        shutil.rmtree(old, ignore_errors=True)


def _unwritable(directory: Path, error: OSError) -> TestbedError:
    text = f"cannot write the guest's image in {directory}: {error.strerror or error}"
    return TestbedError(text, symptoms.hint(text) or f"make {directory} writable, or remove it: make setup-vm")
