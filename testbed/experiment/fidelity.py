"""How far the machine can have spoilt a run: cores that were busy all the time, others' load, stolen time, a scheduler
that was late, relays that were late or lost frames.

    {"trustworthy": false, "kinds": ["a core was busy"], "reasons": ["a core was busy: in 40 % of the time ..."],
     "cores": [share of the run in which each was busy], "saturated": share of the windows in which one was,
     "others": share of all CPU time, "steal": likewise, "lag": {"median", "p99", "max"} in seconds,
     "relays": {"ann-s1": [{"frames", "late", "late_mean", "late_max", "dropped"}, one for each direction]}}

`judge` is pure; `Meter` measures. Limits are stated in docs/experiments.md.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from testbed.experiment.traffic import BIN_SECONDS
from testbed.measure import machine
from testbed.measure.machine import Load, Snapshot
from testbed.measure.statistics import percentile

WINDOW_SECONDS = 0.25
BUSY = 0.95
SATURATED_LIMIT = 0.10
"""A core counts as saturated in a window from BUSY on; so large a share of such windows makes a run doubtful."""
LAG_SECONDS = 0.005
"""The meter sleeps so long, again and again, and notes how late it is woken."""
LAG_LIMIT = BIN_SECONDS
"""Later than a bin at the 99th percentile: then bins hold what belongs into others."""
LATE_LIMIT = 0.01
"""Share of a relay's frames that may leave late (testbed.link.direction.LATE)."""
LATE_MEAN_LIMIT = 0.0005

CORE, LAG, RELAY_LATE, RELAY_LOST = (
    "a core was busy",
    "the scheduler was late",
    "a relay was late",
    "a relay lost frames",
)
BUSY_MACHINE = "the machine was busy with something else"

_TICK = os.sysconf("SC_CLK_TCK")


@dataclass(slots=True)
class Observed:
    """What the meter saw. Of each window of `windows` the busy share of each core; `lags` in seconds."""

    load: Load
    windows: list[list[float]] = field(default_factory=list)
    lags: list[float] = field(default_factory=list)
    relays: dict[str, list[dict[str, float]]] = field(default_factory=dict)


def judge(seen: Observed) -> dict[str, Any]:
    """The entry "fidelity" of a run's record."""
    found: list[tuple[str, str]] = []
    cores = [_mean(shares) for shares in zip(*seen.windows, strict=True)] if seen.windows else []
    saturated = _mean([float(max(window) >= BUSY) for window in seen.windows])
    if saturated > SATURATED_LIMIT:
        busiest = max(range(len(cores)), key=cores.__getitem__)
        found.append(
            (
                CORE,
                f"in {100 * saturated:.0f} % of the time a core was at {100 * BUSY:.0f} % or more;"
                f" core {busiest} was busy for {100 * cores[busiest]:.0f} %",
            )
        )
    if (why := machine.complaint(seen.load)) is not None:
        found.append((BUSY_MACHINE, why))
    lag = {"median": percentile(seen.lags, 50), "p99": percentile(seen.lags, 99), "max": max(seen.lags, default=0.0)}
    if lag["p99"] > LAG_LIMIT:
        found.append((LAG, f"{1e3 * lag['p99']:.1f} ms at the 99th percentile, {1e3 * lag['max']:.1f} ms at most"))
    found += _of_relays(seen.relays)
    return {
        "trustworthy": not found,
        "kinds": [kind for kind, _ in found],
        "reasons": [f"{kind}: {words}" for kind, words in found],
        "cores": cores,
        "saturated": saturated,
        "others": seen.load.others_share,
        "steal": seen.load.steal_share,
        "lag": lag,
        "relays": seen.relays,
    }


def _of_relays(relays: Mapping[str, Sequence[Mapping[str, float]]]) -> list[tuple[str, str]]:
    found = []
    for name, directions in relays.items():
        for counted in directions:
            frames = counted["frames"]
            if counted["late_mean"] > LATE_MEAN_LIMIT or counted["late"] > LATE_LIMIT * frames:
                share = 100 * counted["late"] / frames if frames else 0.0
                words = f"{name}: {1e3 * counted['late_mean']:.2f} ms in the mean, {share:.1f} % of its frames too late"
                found.append((RELAY_LATE, words))
            if counted["dropped"]:
                found.append((RELAY_LOST, f"{name}: {counted['dropped']:.0f} that came faster than it took them"))
    return found


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values) if values else 0.0


def parse_cores(text: str) -> list[tuple[float, float]]:
    """(busy, all) seconds of each core since boot, from /proc/stat (proc(5)); stolen time counts as busy."""
    found = []
    for line in text.splitlines():
        name, *words = line.split()
        if name.startswith("cpu") and name != "cpu":
            ticks = [float(word) / _TICK for word in words[:8]]
            idle = ticks[3] + ticks[4]
            found.append((sum(ticks) - idle, sum(ticks)))
    return found


def busy_shares(first: Sequence[tuple[float, float]], last: Sequence[tuple[float, float]]) -> list[float]:
    """Of each core between two looks; 0 for one that was not there or did not count."""
    shares = []
    for (busy, total), (busy_then, total_then) in zip(first, last, strict=False):
        passed = total_then - total
        shares.append(min(1.0, max(0.0, (busy_then - busy) / passed)) if passed > 0 else 0.0)
    return shares


def relay_growth(
    before: Mapping[str, Sequence[Mapping[str, Any]]], after: Mapping[str, Sequence[Mapping[str, Any]]]
) -> dict[str, list[dict[str, float]]]:
    """What each relay did between two states (`testbed.link.relay`), by direction; `late_max` is since its start."""
    grown = {}
    for name, directions in after.items():
        then = before.get(name, [{}] * len(directions))
        grown[name] = [_one_direction(old, new) for old, new in zip(then, directions, strict=True)]
    return grown


def _one_direction(old: Mapping[str, Any], new: Mapping[str, Any]) -> dict[str, float]:
    frames, late, dropped = (
        sum(float(new.get(key, 0)) - float(old.get(key, 0)) for key in keys)
        for keys in (("forwarded",), ("late",), ("missed", "overflowed"))
    )
    late_sum = new["late_mean"] * new["forwarded"] - old.get("late_mean", 0.0) * old.get("forwarded", 0)
    return {
        "frames": frames,
        "late": late,
        "late_mean": late_sum / frames if frames else 0.0,
        "late_max": float(new["late_max"]),
        "dropped": dropped,
    }


class Meter:
    """Looks on while a run goes on, from a thread that sleeps nearly all of the time."""

    def __init__(self) -> None:
        self._windows: list[list[float]] = []
        self._lags: list[float] = []
        self._first: Snapshot | None = None
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="fidelity", daemon=True)

    def begin(self) -> None:
        self._first = machine.snapshot()
        self._thread.start()

    def finish(self, relays: dict[str, list[dict[str, float]]]) -> dict[str, Any]:
        """What it saw since `begin`, judged; `relays`: what `relay_growth` says of them."""
        self.stop()
        assert self._first is not None
        load = machine.between(self._first, machine.snapshot())
        return judge(Observed(load, self._windows, self._lags, relays))

    def stop(self) -> None:
        """End the thread; may be called again."""
        self._ended.set()
        if self._thread.is_alive():
            self._thread.join()

    def _watch(self) -> None:
        cores, at = _cores(), time.monotonic()
        while not self._ended.is_set():
            begun = time.monotonic()
            time.sleep(LAG_SECONDS)
            now = time.monotonic()
            self._lags.append(now - begun - LAG_SECONDS)
            if now - at >= WINDOW_SECONDS:
                then, cores, at = cores, _cores(), now
                self._windows.append(busy_shares(then, cores))


def _cores() -> list[tuple[float, float]]:
    return parse_cores(Path("/proc/stat").read_text())
