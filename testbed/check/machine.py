"""What is seen of a machine without changing anything: system, processors, programs, Python packages."""

from __future__ import annotations

import importlib.util
import os
import platform
import re
import shutil
import sys
from collections.abc import Iterator
from importlib import metadata

from testbed import frameworks, isolation, requirements, vm_requirements
from testbed.check.findings import ABSENT, MISSING, OK, Finding
from testbed.errors import TestbedError

PYTHONS = ((3, 10), (3, 13))
REHEARSED = {("debian", "12"), ("debian", "13")}
FEW_CORES, LITTLE_MEMORY = 2, 2 << 30
_PROJECT = "serval-testbed"
_OPTIONAL = {
    "tshark": ("tshark", "captures are read with scapy or elsewhere"),
    "qemu-system-x86_64": ("qemu-system-x86", "virtual machines move in the light form only"),
}
"""program -> its package, and what is done without it."""


def look() -> Iterator[Finding]:
    """Everything here, in the order in which it is told."""
    yield _system()
    yield _python()
    yield _size()
    yield _programs()
    yield from _optional_programs()
    yield _packages()
    yield _ryu()
    yield _real_vms()


def _system() -> Finding:
    try:
        release = platform.freedesktop_os_release()
    except OSError:
        release = {}
    said = f"{release.get('PRETTY_NAME', 'a system without a name')}, Linux {platform.release()}, {platform.machine()}"
    if (release.get("ID"), release.get("VERSION_ID")) in REHEARSED:
        return Finding("system", OK, said)
    return Finding("system", OK, f"{said} (not among those on which it was rehearsed: see README.md)")


def _python() -> Finding:
    said = f"{platform.python_version()} at {sys.executable}"
    oldest, newest = PYTHONS
    if oldest <= sys.version_info[:2] <= newest:
        return Finding("Python", OK, said)
    return Finding(
        "Python", MISSING, said, "the testbed runs on Python 3.10 to 3.13: make clean setup uses the system's"
    )


def _size() -> Finding:
    cores = len(os.sched_getaffinity(0))
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    said = f"{cores} cores, {memory / (1 << 30):.1f} GiB of memory"
    if cores < FEW_CORES or memory < LITTLE_MEMORY:
        said += " (with fewer than 2 cores or 2 GiB, figures will often be marked as doubtful)"
    return Finding("size", OK, said)


def _programs() -> Finding:
    wanted = [requirements.MEASURING, requirements.CAPTURING, requirements.TOUR]
    try:
        requirements.missing_programs(wanted)
    except TestbedError as error:
        return Finding("programs", MISSING, error.message, error.hint or "")
    count = len({name for table in (requirements.PROGRAMS, *wanted) for name in table})
    return Finding("programs", OK, f"all {count} are there, among them mnexec, ovs-vswitchd, tc, iperf3, tcpdump")


def _optional_programs() -> Iterator[Finding]:
    for program, (package, instead) in _OPTIONAL.items():
        if shutil.which(program) is not None:
            yield Finding(program, OK, "there")
        else:
            remedy = f"sudo apt-get install --no-install-recommends {package}"
            yield Finding(program, ABSENT, instead, remedy)


def _packages() -> Finding:
    try:
        wanted = [line for line in metadata.requires(_PROJECT) or [] if "extra ==" not in line]
    except metadata.PackageNotFoundError:
        return Finding("Python packages", MISSING, f"{_PROJECT} is not installed in this Python", "make setup")
    names = [re.split(r"[^\w.-]", line, maxsplit=1)[0] for line in wanted]
    versions, missing = [], []
    for name in names:
        try:
            versions.append(f"{name} {metadata.version(name)}")
        except metadata.PackageNotFoundError:
            missing.append(name)
    if not _has_mininet():
        missing.append("mininet (the distribution's)")
    if missing:
        return Finding("Python packages", MISSING, f"not there: {', '.join(missing)}", "make clean setup")
    return Finding("Python packages", OK, ", ".join(versions))


def _has_mininet() -> bool:
    try:
        return importlib.util.find_spec("mininet.net") is not None
    except ModuleNotFoundError:
        return False


def _ryu() -> Finding:
    if frameworks.RYU_PYTHON.exists():
        return Finding("original Ryu", OK, "in .venv-ryu, chosen by CONTROLLER=ryu")
    obstacle = frameworks.ryu_obstacle()
    said = obstacle or "its environment .venv-ryu has not been made; os-ken, its continuation, is used"
    return Finding("original Ryu", ABSENT, said, "" if obstacle else "scripts/setup-ryu")


def _real_vms() -> Finding:
    absent = vm_requirements.missing()
    if absent is None:
        return Finding("real virtual machines", OK, "QEMU and a guest's kernel are there")
    return Finding("real virtual machines", ABSENT, f"{absent}; their light form does without", "make setup-vm")


def sandbox_missing(error: TestbedError) -> Finding:
    """What is to be said when no sandbox can be made."""
    return Finding("sandbox", MISSING, error.message, (error.hint or "").replace("\n", " "))


def sandbox_there() -> Finding:
    """Said from inside."""
    how = "in a user namespace, without root" if isolation.in_user_namespace() else "as root"
    return Finding("sandbox", OK, f"network, mount and PID namespaces of its own, {how}")
