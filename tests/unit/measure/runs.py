"""Benchmarks without a network: beds that give scripted readings, machines that are as busy as a test wants."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from testbed.measure import document
from testbed.measure.engine import Engine
from testbed.measure.machine import Load, Snapshot
from testbed.measure.plan import DIFFERENCE, RATIO, Benchmark, Comparison, Figure, Reading, Settings
from testbed.measure.progress import Progress

QUIET = Load(seconds=0.1, own=0.0, others=0.0, softirq=0.0, steal=0.0, total=0.2)
BUSY = Load(seconds=0.1, own=0.0, others=0.15, softirq=0.0, steal=0.0, total=0.2)
COMPARISONS = (Comparison("serval", "tcp"), Comparison("tcp", "tcp"))
FIGURES = (
    Figure("rate", "rate", "serval", unit="Gbit/s", scale=1e-9, aim=4.0, noise="tcp"),
    Figure("ratio", "rate", "serval", "tcp", RATIO, aim=0.5),
    Figure("added", "seconds", "serval", "tcp", DIFFERENCE, unit="ms", scale=1e3, better="lower", aim=2.0),
)
METRICS = {"serval": {"rate": 5e9, "seconds": 0.003, "bits": 2e9}, "tcp": {"rate": 10e9, "seconds": 0.001, "bits": 2e9}}


class Bed:
    """Notes which variants run; `on_run` may change the reading or raise."""

    def __init__(self, on_run: Callable[[int, str], Mapping[str, float] | None] | None = None) -> None:
        self.runs: list[str] = []
        self.open = False
        self._on_run = on_run or (lambda number, variant: None)

    def measure(self, variant: str) -> Reading:
        self.runs.append(variant)
        given = self._on_run(len(self.runs), variant)
        return Reading(given or METRICS[variant], {"raw": [1.0, 2.0]}, {"mss": 1448})

    def facts(self) -> Mapping[str, Any]:
        return {"offloads": {"tso": "on"}}

    @contextmanager
    def __call__(self, parameters: Mapping[str, Any], settings: Settings) -> Iterator[Bed]:
        self.open = True
        try:
            yield self
        finally:
            self.open = False


class Run:
    """An engine with a machine of its own: `gaps` are the loads of the gaps in their order, then it is quiet."""

    def __init__(self, *, pairs: int = 6, seed: int = 1, gaps: list[Load] | None = None, after: Load = QUIET) -> None:
        self.settings = Settings(pairs=pairs, seed=seed)
        self.document = document.new({"pairs": pairs, "seed": seed, "quick": False}, {"summary": "a test"}, ["test"])
        self.said = io.StringIO()
        self.saves = 0
        self.seconds = 0.0
        self._gaps = list(gaps or [])
        self._clock = 0.0
        progress = Progress({"one": 10.0}, self.said)
        self.engine = Engine(
            self.document,
            self.settings,
            progress,
            self._save,
            before=self._gap,
            after=lambda: after,
            snapshot=self._snapshot,
            clock=lambda: self.seconds,
        )

    def _save(self) -> None:
        self.saves += 1

    def _gap(self) -> Load:
        return self._gaps.pop(0) if self._gaps else QUIET

    def _snapshot(self) -> Snapshot:
        self._clock += 1.0
        return Snapshot(at=self._clock, program=self._clock, softirq=0.0, idle=self._clock, steal=0.0, own=self._clock)

    @property
    def entry(self) -> dict[str, Any]:
        return self.document["benchmarks"][-1]


def benchmark(bed: Bed, name: str = "one") -> Benchmark:
    return Benchmark(name, "A test", COMPARISONS, FIGURES, bed, {"seconds": 1.0}, 1.0)
