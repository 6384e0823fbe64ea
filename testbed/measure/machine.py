"""How busy the machine was during a run, and with what of it was ours.

A sandbox has a PID namespace of its own: what /proc shows there are the run's own processes, and the rest of what
/proc/stat counts is others'. The kernel's work for network packets (softirq) has no owner; depending on the kernel's
configuration it is part of a process's time or not. So `others` is what remains of user and system time only, a lower
bound while we load the machine ourselves; the gaps before and after each pair, in which we do nothing, show the rest.
"""

from __future__ import annotations

import os
import time
from dataclasses import dataclass
from pathlib import Path

STEAL_LIMIT = 0.02
OTHERS_LIMIT = 0.10
"""Shares of the whole machine's CPU time from which on a pair is void."""
GAP_SECONDS = 0.1
QUIET_SECONDS = 3.0
"""How long a pair waits for a quiet machine before it begins anyway."""
_TICK = os.sysconf("SC_CLK_TCK")
_TICKS_NOISE = 3.0
"""A gap counts few ticks: so many of them may be chance."""


@dataclass(frozen=True, slots=True)
class Snapshot:
    """CPU seconds since boot: of the machine (softirq and irq together), and of the run's own processes."""

    at: float
    program: float
    softirq: float
    idle: float
    steal: float
    own: float


@dataclass(frozen=True, slots=True)
class Load:
    """CPU seconds between two snapshots. `cpu` is what the run used, softirq included."""

    seconds: float
    own: float
    others: float
    softirq: float
    steal: float
    total: float

    @property
    def cpu(self) -> float:
        return self.own + self.softirq

    @property
    def others_share(self) -> float:
        return self.others / self.total if self.total else 0.0

    @property
    def steal_share(self) -> float:
        return self.steal / self.total if self.total else 0.0


def parse_stat(text: str) -> tuple[float, float, float, float]:
    """(user and system, irq and softirq, idle, steal) in seconds, from the first line of /proc/stat (proc(5))."""
    words = text.split("\n", 1)[0].split()
    user, nice, system, idle, iowait, irq, softirq, steal = (float(word) / _TICK for word in words[1:9])
    # guest and guest_nice are part of user and nice already.
    return user + nice + system, irq + softirq, idle + iowait, steal


def parse_process(text: str) -> float:
    """User and system seconds from /proc/PID/stat, with those of the children it has waited for."""
    fields = text.rpartition(")")[2].split()
    return sum(int(value) for value in fields[11:15]) / _TICK


def own_seconds(proc: Path = Path("/proc")) -> float:
    """CPU seconds of all processes in sight; of those that have ended too, if another one has waited for them."""
    total = 0.0
    for name in os.listdir(proc):
        if name.isdigit():
            try:
                total += parse_process((proc / name / "stat").read_text())
            except (FileNotFoundError, ProcessLookupError):
                continue  # it ended after listdir
    return total


def snapshot() -> Snapshot:
    program, softirq, idle, steal = parse_stat(Path("/proc/stat").read_text())
    return Snapshot(time.monotonic(), program, softirq, idle, steal, own_seconds())


def between(first: Snapshot, last: Snapshot) -> Load:
    """What happened from one snapshot to the next."""
    program, softirq = last.program - first.program, last.softirq - first.softirq
    steal, idle = last.steal - first.steal, last.idle - first.idle
    own = last.own - first.own
    others = max(0.0, program - own)
    # Where softirq is part of a process's time, what the processes have beyond user and system time is that part.
    softirq = max(0.0, softirq - max(0.0, own - program))
    return Load(last.at - first.at, own, others, softirq, steal, program + last.softirq - first.softirq + idle + steal)


def gap(seconds: float = GAP_SECONDS) -> Load:
    """The load while we do nothing."""
    first = snapshot()
    time.sleep(seconds)
    return between(first, snapshot())


def quiet_gap(limit: float = QUIET_SECONDS) -> Load:
    """The load while we do nothing, once there is nothing to complain about, or after `limit` seconds as it is."""
    deadline = time.monotonic() + limit
    while complaint(load := gap()) is not None and time.monotonic() < deadline:
        continue
    return load


def complaint(load: Load) -> str | None:
    """Why a run under this load is void, None when it is not."""
    chance = _TICKS_NOISE / _TICK
    if load.steal - chance > STEAL_LIMIT * load.total:
        return f"the hypervisor took {100 * load.steal_share:.0f} % of the CPU time"
    if load.others - chance > OTHERS_LIMIT * load.total:
        return f"others used {100 * load.others_share:.0f} % of the CPU time"
    return None
