"""Starting sandboxes from outside, and looking for what they leave behind."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
TESTBED = [sys.executable, "-m", "testbed"]
NAMESPACES = ("net", "mnt", "pid", "ipc", "uts")
CLOCK_TICK = os.sysconf("SC_CLK_TCK")

PAYLOAD = """
import json, os, signal, subprocess, sys, time
out, mode = sys.argv[1:]
def orderly(signum, frame):
    with open(out + ".orderly", "w") as file:
        file.write(str(signum))
    sys.exit(0)
signal.signal(signal.SIGTERM, orderly)
if mode == "stubborn":
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
daemon = subprocess.Popen(
    [sys.executable, "-c", "import signal, time\\n"
     "signal.signal(signal.SIGTERM, signal.SIG_IGN); signal.signal(signal.SIGHUP, signal.SIG_IGN)\\n"
     "print(flush=True); time.sleep(600)"],
    start_new_session=True, stdout=subprocess.PIPE)
daemon.stdout.readline()
subprocess.run(["ip", "link", "add", "left", "type", "veth", "peer", "name", "right"], check=True)
facts = {name: os.readlink("/proc/self/ns/" + name) for name in ("net", "mnt", "pid", "ipc", "uts")}
with open(out + ".new", "w") as file:
    json.dump(facts, file)
os.rename(out + ".new", out)
while True:
    time.sleep(60)
"""
"""A command that leaves a stubborn daemon and interfaces behind, tells its namespaces, and notes an end in order."""


def eventually(condition: Callable[[], Any], *, within: float = 10.0, what: str = "") -> Any:
    """Waits until the condition is true and returns it; fails after `within` seconds."""
    deadline = time.monotonic() + within
    while not (value := condition()):
        assert time.monotonic() < deadline, f"not within {within:g} s: {what or condition}"
        time.sleep(0.01)
    return value


def _read(path: str) -> bytes:
    try:
        return Path(path).read_bytes()
    except OSError:  # the process has ended meanwhile
        return b""


def pids() -> Iterator[int]:
    """All processes that can be seen."""
    return (int(entry) for entry in os.listdir("/proc") if entry.isdigit())


def processes_with(token: str) -> list[int]:
    """The living processes that were started with this token in their environment."""
    return [pid for pid in pids() if token.encode() in _read(f"/proc/{pid}/environ")]


def _started(pid: int) -> float:
    """Seconds since boot; infinite for what has ended, also if its parent (after a SIGKILL: init) has not reaped it."""
    fields = _read(f"/proc/{pid}/stat").rpartition(b") ")[2].split()
    return int(fields[19]) / CLOCK_TICK if fields and fields[0] != b"Z" else float("inf")


def holders(namespaces: set[str], before: float) -> list[str]:
    """What keeps one of the namespaces: processes in it, open descriptors and mounts of it.

    Only processes older than `before` (seconds since boot): the kernel uses the numbers of namespaces again.
    """
    found = []
    for pid in pids():
        if _started(pid) > before:
            continue
        for directory in ("ns", "fd"):
            try:
                links = os.listdir(f"/proc/{pid}/{directory}")
            except OSError:  # it has ended
                continue
            for link in links:
                try:
                    target = os.readlink(f"/proc/{pid}/{directory}/{link}")
                except OSError:  # closed meanwhile
                    continue
                if target in namespaces:
                    found.append(f"{pid} {_read(f'/proc/{pid}/cmdline')!r}: {directory}/{link} {target}")
    mounts = Path("/proc/self/mountinfo").read_text()
    return found + [name for name in namespaces if name in mounts]


class Host:
    """What a run must leave as it was: mounts, interfaces, addresses, sysctls."""

    SYSCTLS = (
        "net/ipv4/ip_forward",
        "net/ipv4/conf/*/rp_filter",
        "net/ipv4/conf/*/forwarding",
        "net/ipv4/tcp_[rw]mem",
        "net/ipv4/neigh/default/gc_thresh*",
        "net/core/*mem_*",
        "net/core/netdev_max_backlog",
        "kernel/pid_max",
        "kernel/hostname",
        "fs/file-max",
        "vm/swappiness",
    )

    @classmethod
    def state(cls) -> dict[str, Any]:
        """A snapshot that can be compared."""
        base = Path("/proc/sys")
        addresses = subprocess.run(["ip", "-j", "address"], capture_output=True, check=True).stdout
        return {
            "mounts": Path("/proc/self/mountinfo").read_text(),
            "links": [
                (link["ifname"], link["flags"], [a["local"] for a in link["addr_info"]])
                for link in json.loads(addresses)
            ],
            "sysctls": {str(p): p.read_text() for pattern in cls.SYSCTLS for p in sorted(base.glob(pattern))},
            # sudo makes its directory when it is asked for the first time.
            "run": sorted(set(os.listdir("/run")) - {"sudo"}),
        }


class Run:
    """A sandbox that the test started, below the programs in `above`, with the stubborn PAYLOAD in it."""

    def __init__(self, directory: Path, above: Sequence[str] = (), mode: str = "polite") -> None:
        self.token = f"token-{uuid.uuid4()}"
        self.out = directory / f"{self.token}.json"
        command = [*TESTBED, "exec", "--name", self.token, "--", sys.executable, "-c", PAYLOAD, str(self.out), mode]
        self.process = subprocess.Popen(
            [*above, *command], env={**os.environ, "TOKEN": self.token}, cwd=ROOT, stdin=subprocess.DEVNULL
        )

    def wait_ready(self) -> None:
        """Waits until the payload has made its daemon and interfaces."""
        eventually(self.out.exists, what="the payload is ready")
        self.namespaces = set(json.loads(self.out.read_text()).values())

    @property
    def orderly(self) -> bool:
        """Whether the payload was asked to end and could."""
        return Path(f"{self.out}.orderly").exists()

    @property
    def init(self) -> int:
        """PID 1, seen from here."""
        return self._only(lambda pid: b"testbed-sandbox\0" in _read(f"/proc/{pid}/cmdline"))

    @property
    def outer(self) -> int:
        """The process outside, the parent of PID 1."""
        return int(_read(f"/proc/{self.init}/stat").rpartition(b") ")[2].split()[1])

    def above(self, name: str) -> int:
        """The process of this run with that name."""
        return self._only(lambda pid: _read(f"/proc/{pid}/comm").strip() == name.encode())

    def _only(self, condition: Callable[[int], bool]) -> int:
        (pid,) = (pid for pid in processes_with(self.token) if condition(pid))
        return pid

    def assert_gone(self, within: float = 5.0) -> None:
        """Fails if a process, namespace or mount of it is left after `within` seconds."""
        now = time.clock_gettime(time.CLOCK_BOOTTIME)
        eventually(lambda: not processes_with(self.token), within=within, what=f"no process of {self.token}")
        if hasattr(self, "namespaces"):
            eventually(lambda: not holders(self.namespaces, now), within=1, what=f"{holders(self.namespaces, now)}")

    def close(self) -> None:
        """Kills what a failed test has left."""
        for pid in processes_with(self.token):
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                pass  # it went with another one
        self.process.wait()


def execute(*command: str, timeout: float = 30.0, **options: Any) -> subprocess.CompletedProcess[str]:
    """Runs `testbed exec -- command` to its end."""
    return subprocess.run(
        [*TESTBED, "exec", "--", *command],
        cwd=options.pop("cwd", ROOT),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=timeout,
        check=False,
        **options,
    )
