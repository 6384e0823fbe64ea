"""What the machine and the software are, for the result: whoever reads the figures later needs it."""

from __future__ import annotations

import gzip
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
KERNEL_OPTIONS = (
    "HZ",
    "NO_HZ_FULL",
    "HIGH_RES_TIMERS",
    "PREEMPT",
    "PREEMPT_DYNAMIC",
    "PREEMPT_VOLUNTARY",
    "IRQ_TIME_ACCOUNTING",
    "MPTCP",
    "NET_SCH_HTB",
    "NET_SCH_NETEM",
    "NET_SCH_FQ",
    "TCP_CONG_CUBIC",
    "TCP_CONG_BBR",
    "TUN",
    "VETH",
    "OPENVSWITCH",
)
"""Those that decide how precise time is, what carries traffic, and what shapes links."""
SYSCTLS = (
    "net.core.default_qdisc",
    "net.core.rmem_max",
    "net.core.wmem_max",
    "net.core.netdev_max_backlog",
    "net.ipv4.tcp_available_congestion_control",
    "net.ipv4.tcp_congestion_control",
    "net.ipv4.tcp_rmem",
    "net.ipv4.tcp_wmem",
    "net.ipv4.tcp_ecn",
    "net.ipv4.tcp_sack",
    "net.ipv4.tcp_timestamps",
    "net.ipv4.tcp_window_scaling",
    "net.ipv4.tcp_early_retrans",
    "net.ipv4.tcp_recovery",
    "net.ipv4.tcp_retries2",
    "net.ipv4.tcp_no_metrics_save",
    "net.ipv4.tcp_slow_start_after_idle",
    "net.ipv4.ip_forward",
    "net.mptcp.enabled",
    "net.mptcp.scheduler",
    "net.mptcp.stale_loss_cnt",
)
"""As a network namespace has them before a run sets its own."""
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
        "kernel_options": _kernel_options(kernel),
        "sysctls": {name: _read(f"/proc/sys/{name.replace('.', '/')}") or None for name in SYSCTLS},
    }


def _read(path: str) -> str:
    try:
        return Path(path).read_text().strip()
    except OSError:
        return ""


def parse_options(text: str) -> dict[str, str | None]:
    """KERNEL_OPTIONS from a kernel's configuration, None for those that are not set."""
    found: dict[str, str | None] = dict.fromkeys(KERNEL_OPTIONS)
    for line in text.splitlines():
        name, _, value = line.removeprefix("CONFIG_").partition("=")
        if name in found and value:
            found[name] = value
    return found


def _kernel_options(release: str) -> dict[str, str | None] | None:
    """From where the kernel or the distribution shows its configuration; None where neither does."""
    try:
        return parse_options(gzip.decompress(Path("/proc/config.gz").read_bytes()).decode())
    except OSError:
        text = _read(f"/boot/config-{release}")
        return parse_options(text) if text else None


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
