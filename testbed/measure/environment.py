"""What the machine and the software are, for the result: whoever reads the figures later needs it."""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
from importlib import metadata
from pathlib import Path
from typing import Any

from testbed import sandbox

PACKAGES = ("numpy", "os-ken", "pyroute2", "scapy", "matplotlib")
PROGRAMS = {
    "iproute2": ["ip", "-V"],
    "mininet": ["mn", "--version"],
    "openvswitch": ["ovs-vswitchd", "--version"],
    "iperf3": ["iperf3", "--version"],
}
_SECONDS = 5


def describe() -> dict[str, Any]:
    """Plain data; what cannot be found out is None."""
    cpu = _cpu_model()
    cores = os.cpu_count() or 0
    kernel = platform.release()
    return {
        "summary": f"{cores} cores of {cpu}, Linux {kernel}, Python {platform.python_version()}",
        "cpu": cpu,
        "cores": cores,
        "usable_cores": len(os.sched_getaffinity(0)),
        "hypervisor": "hypervisor" in _read("/proc/cpuinfo"),
        "governor": _read("/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor") or None,
        "clock": _read("/sys/devices/system/clocksource/clocksource0/current_clocksource") or None,
        "memory_bytes": os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
        "load_average": list(os.getloadavg()),
        "kernel": kernel,
        "architecture": platform.machine(),
        "system": _system(),
        "python": platform.python_version(),
        "packages": {name: _version(name) for name in PACKAGES},
        "programs": {name: _first_line(argv) for name, argv in PROGRAMS.items()},
        "commit": _commit(),
    }


def _read(path: str) -> str:
    try:
        return Path(path).read_text().strip()
    except OSError:
        return ""


def _cpu_model() -> str:
    for line in _read("/proc/cpuinfo").splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.processor() or "an unnamed processor"


def _system() -> str | None:
    try:
        return platform.freedesktop_os_release().get("PRETTY_NAME")
    except OSError:
        return None


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def _first_line(argv: list[str]) -> str | None:
    if shutil.which(argv[0]) is None:
        return None
    try:
        done = subprocess.run(argv, capture_output=True, text=True, timeout=_SECONDS, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return None
    lines = (done.stdout or done.stderr).strip().splitlines()
    return lines[0] if lines else None


def _commit() -> str | None:
    """The commit, with "+" when files differ from it; None without git or outside a clone."""
    git = ["git", "-c", "safe.directory=*", "-C", str(sandbox.ROOT)]
    found = _first_line([*git, "rev-parse", "--short=12", "HEAD"])
    if found is None or " " in found:
        return None
    return found + ("+" if _first_line([*git, "status", "--porcelain", "--untracked-files=no"]) else "")
