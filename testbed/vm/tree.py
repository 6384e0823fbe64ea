"""The files of a guest's root and initial file systems, copied from this machine's own programs and packages."""

from __future__ import annotations

import gzip
import importlib.util
import lzma
import os
import re
import shutil
import stat
import subprocess
import sys
import sysconfig
from collections.abc import Iterable
from pathlib import Path

from testbed import processes, sandbox, vm_requirements
from testbed.errors import TestbedError
from testbed.vm.kernel import Kernel

GUEST = Path(__file__).parent / "guest"
PYTHON = "/usr/bin/python3"
PACKAGES = ("serval_node",)
"""Of this project, whole."""
LIBRARIES = ("dnslib",)
"""What servald imports from elsewhere. Not numpy: without it servald leaves segmentation offload off, which is what an
emulated processor does best with (docs/vm-migration.md).
"""
OPTIONAL_PROGRAMS = ("ip", "ss", "ping", "iperf3")
DIRECTORIES = ("proc", "sys", "dev", "tmp", "run", "bin", "sbin", "etc", "usr/bin", "usr/local/bin", "site", "root")
APPLETS = ("sh", "cat", "ls", "sleep", "ps", "kill", "mount", "mkdir", "dmesg", "free", "grep", "ln", "env")
LEFT_OUT = frozenset(
    {
        "test",
        "tests",
        "idlelib",
        "tkinter",
        "turtledemo",
        "lib2to3",
        "ensurepip",
        "pydoc_data",
        "distutils",
        "sqlite3",
        "curses",
        "dbm",
        "venv",
        "xmlrpc",
        "wsgiref",
        "msilib",
        "site-packages",
        "dist-packages",
        "lib-dynload",
        "__pycache__",
        "EXTERNALLY-MANAGED",
    }
)
"""Of the standard library; lib-dynload is copied by itself."""
_EXTENSIONS_LEFT_OUT = re.compile(
    r"_tkinter|_dbm|_gdbm|nis|readline|_curses|_sqlite3|_codecs_|_test|_xx|xx|ossaudio|audioop"
)
_LIBRARY = re.compile(r"(/\S+\.so\S*) \(0x")


def root(target: Path) -> None:
    """Make the root file system's tree below `target`; raises TestbedError or OSError."""
    for name in DIRECTORIES:
        (target / name).mkdir(parents=True, exist_ok=True)
    _busybox(target)
    for applet in APPLETS:
        (target / "bin" / applet).symlink_to("busybox")
    programs = [Path(found) for name in OPTIONAL_PROGRAMS if (found := shutil.which(name)) is not None]
    for program in programs:
        shutil.copy(program, target / "usr/bin" / program.name)
    interpreter = Path(os.path.realpath(sys.executable))
    shutil.copy(interpreter, target / "usr/bin/python3")
    extensions = _python_library(target)
    _libraries(target, [interpreter, *programs, *extensions])
    _site(target / "site")
    _script(target / "usr/local/bin/serval", f'#!/bin/sh\nexec {PYTHON} -S -m serval_node.cli "$@"\n')
    _script(target / "sbin/init", (GUEST / "init").read_text())
    # servald writes both below /run/serval; the root file system itself cannot be written.
    (target / "etc/resolv.conf").symlink_to("/run/serval/resolv.conf")
    (target / "etc/hosts").symlink_to("/run/serval/hosts")
    (target / "etc/passwd").write_text("root:x:0:0:root:/tmp:/bin/sh\n")
    _compile(target)


def initial(target: Path, kernel: Kernel) -> None:
    """Make the initial file system's tree below `target`; raises TestbedError or OSError."""
    for name in ("bin", "dev", "modules"):
        (target / name).mkdir(parents=True)
    _busybox(target)
    names = []
    for path in kernel.modules:
        module = kernel.module(path)
        name = module.name.partition(".")[0] + ".ko"
        (target / "modules" / name).write_bytes(_plain(module))
        names.append(name)
    (target / "modules/order").write_text("\n".join(names) + "\n")
    _script(target / "init", (GUEST / "init.early").read_text())


def sources() -> list[Path]:
    """The files of this project, and of Python packages, that a guest is made of."""
    found = [path for name in PACKAGES for path in _python_files(sandbox.ROOT / name)]
    found += [path for name in LIBRARIES for path in _python_files(_package(name))]
    return [*found, *_python_files(GUEST), GUEST / "init", GUEST / "init.early", Path(__file__)]


def _python_files(directory: Path) -> list[Path]:
    return sorted(directory.rglob("*.py"))


def _package(name: str) -> Path:
    spec = importlib.util.find_spec(name)
    if spec is None or not spec.submodule_search_locations:
        raise TestbedError(f"the Python package {name}, which a guest needs, is missing", "make setup")
    return Path(spec.submodule_search_locations[0])


def _busybox(target: Path) -> None:
    found = shutil.which(vm_requirements.BUSYBOX)
    if found is None:
        raise TestbedError("busybox is missing", vm_requirements.REMEDY)
    shutil.copy(found, target / "bin/busybox")


def _script(path: Path, text: str) -> None:
    path.write_text(text)
    path.chmod(path.stat().st_mode | stat.S_IXUSR | stat.S_IXGRP | stat.S_IXOTH)


def _python_library(target: Path) -> list[Path]:
    """Copy the standard library; the extension modules in it."""
    library = Path(sysconfig.get_path("stdlib"))
    copied = target / str(library).lstrip("/")

    def left_out(directory: str, names: list[str]) -> list[str]:
        return [name for name in names if name in LEFT_OUT or name.startswith("config-")]

    shutil.copytree(library, copied, ignore=left_out)
    extensions = []
    for path in sorted((library / "lib-dynload").glob("*.so")):
        if not _EXTENSIONS_LEFT_OUT.match(path.name):
            (copied / "lib-dynload").mkdir(exist_ok=True)
            shutil.copy(path, copied / "lib-dynload" / path.name)
            extensions.append(path)
    return extensions


def _libraries(target: Path, programs: Iterable[Path]) -> None:
    """Copy the shared libraries of these files to where the loader looks for them."""
    needed: set[str] = set()
    for program in programs:
        said = subprocess.run(["ldd", str(program)], capture_output=True, text=True, check=False).stdout
        needed.update(_LIBRARY.findall(said))
    for name in sorted(needed):
        copy = target / name.lstrip("/")
        copy.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(name, copy)


def _site(target: Path) -> None:
    for name in PACKAGES:
        shutil.copytree(sandbox.ROOT / name, target / name, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copytree(GUEST, target / "guest", ignore=shutil.ignore_patterns("__pycache__", "init*"))
    for name in LIBRARIES:
        shutil.copytree(_package(name), target / name, ignore=shutil.ignore_patterns("__pycache__", "test*"))


def _compile(target: Path) -> None:
    """Leave the compiled form of all modules only: an emulated processor compiles slowly."""
    argv = [sys.executable, "-m", "compileall", "-q", "-b", "-j", "0", "--invalidation-mode", "unchecked-hash"]
    processes.run([*argv, "-s", str(target), str(target)], timeout=60)
    for path in target.rglob("*.py"):
        path.unlink()


def _plain(module: Path) -> bytes:
    """A kernel module without its compression, which a distribution may have chosen."""
    if module.suffix == ".xz":
        return lzma.decompress(module.read_bytes())
    if module.suffix == ".gz":
        return gzip.decompress(module.read_bytes())
    if module.suffix == ".zst":
        done = subprocess.run(["zstd", "-dc", str(module)], capture_output=True, check=False)
        if done.returncode:
            raise TestbedError(f"cannot read {module}: {done.stderr.decode(errors='replace').strip()}")
        return done.stdout
    return module.read_bytes()
