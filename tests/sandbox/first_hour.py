"""Machines that lack something: a mount namespace in which it is gone, below which the testbed is started as ever."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tests.sandbox.support import ROOT, TESTBED

SMALL = ("--racks", "1", "--hosts", "1", "--clients", "1")
RUN = (*TESTBED, "run", "datacenter", *SMALL, "--no-calibration")
LAUNCH = (*TESTBED, "launch", "datacenter", *SMALL, "--no-calibration")
"""The same inside a sandbox that is there already."""
NO_HTB = 'case "$*" in *htb*) echo "Error: Specified qdisc kind is unknown." >&2; exit 2;; esac; exec /usr/sbin/tc "$@"'
"""A program `tc` on a kernel without HTB."""

_CRIPPLE = """
import json, os, resource, subprocess, sys, tempfile
from testbed import linux
from tests.sandbox.reachable import make_reachable
wanted, argv = json.loads(sys.argv[1]), sys.argv[2:]
linux.unshare(linux.CLONE_NEWNS)
linux.mount("none", "/", flags=linux.MS_REC | linux.MS_PRIVATE)
scratch = wanted["scratch"]
if wanted["without"]:
    for number, directory in enumerate(("/usr/bin", "/usr/sbin")):
        real, farm = f"{scratch}/real{number}", f"{scratch}/farm{number}"
        os.mkdir(real), os.mkdir(farm)
        linux.mount(directory, real, flags=linux.MS_BIND | linux.MS_REC)
        for name in os.listdir(real):
            if name not in wanted["without"]:
                os.symlink(f"{real}/{name}", f"{farm}/{name}")
        linux.mount(farm, directory, flags=linux.MS_BIND)
for target, options in wanted["tmpfs"].items():
    linux.mount("tmpfs", target, "tmpfs", linux.MS_RDONLY if "ro" in options else 0, options.removeprefix("ro,"))
for source, target in wanted["bind"].items():
    linux.mount(source, target, flags=linux.MS_BIND)
for target in wanted["read_only"]:
    linux.mount(target, target, flags=linux.MS_BIND)
    linux.mount("none", target, flags=linux.MS_BIND | linux.MS_REMOUNT | linux.MS_RDONLY)
if wanted["nobody"]:
    make_reachable(os.getcwd())
    linux.mount("none", "/dev/net", "tmpfs")
    os.mknod("/dev/net/tun", 0o20000, os.makedev(10, 200))
    os.chmod("/dev/net/tun", int(wanted["nobody"], 8))
    os.setgroups([]); os.setresgid(65534, 65534, 65534); os.setresuid(65534, 65534, 65534)
for name, limit in wanted["limits"].items():
    resource.setrlimit(getattr(resource, name), (limit, limit))
os.environ["PYTHONDONTWRITEBYTECODE"] = "1"
os.execvpe(argv[0], argv, {**os.environ, **wanted["environment"]})
"""


def machine(
    scratch: Path,
    *,
    without: Sequence[str] = (),
    tmpfs: Mapping[str, str] | None = None,
    bind: Mapping[str, str] | None = None,
    read_only: Sequence[str] = (),
    programs: Mapping[str, str] | None = None,
    limits: Mapping[str, int] | None = None,
    nobody: str = "",
) -> list[str]:
    """The start of a command line that runs the rest of it on a machine that lacks something.

    without    programs of /usr/bin and /usr/sbin that are not there
    tmpfs      where a file system in memory is mounted, with which options ("size=64k", "ro")
    bind       what is mounted over what: {"/dev/null": "/dev/net/tun"}
    read_only  directories that cannot be written
    programs   shell scripts that come first on PATH, by name
    limits     resource limits by name
    nobody     as that user, with a tun device of this mode
    """
    first = scratch / "programs"
    first.mkdir()
    for name, text in (programs or {}).items():
        (first / name).write_text(f"#!/bin/sh\n{text}\n")
        (first / name).chmod(0o755)
    wanted: dict[str, Any] = {
        "scratch": str(scratch),
        "without": list(without),
        # What a failed run keeps must not stay in this tree.
        "tmpfs": {str(ROOT / "results"): "size=16m,mode=0777", **(tmpfs or {})},
        "bind": dict(bind or {}),
        "read_only": list(read_only),
        "limits": dict(limits or {}),
        "nobody": nobody,
        "environment": {"PATH": f"{first}:{os.environ['PATH']}"} if programs else {},
    }
    return [sys.executable, "-c", _CRIPPLE, json.dumps(wanted)]


def run(*argv: str, timeout: float = 60.0, **options: Any) -> subprocess.CompletedProcess[str]:
    """Runs a command from the project's directory to its end, standard error with standard output."""
    return subprocess.run(
        argv,
        cwd=options.pop("cwd", ROOT),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=timeout,
        check=False,
        **options,
    )


def assert_helpful(done: subprocess.CompletedProcess[str], *texts: str, status: int = 1) -> None:
    """Fails unless the run ended with the status, said all of the texts, and showed no stack trace."""
    assert "Traceback" not in done.stdout, done.stdout
    for text in texts:
        assert text in done.stdout, done.stdout
    assert done.returncode == status, done.stdout
