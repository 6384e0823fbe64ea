"""Runs the pairs: in their random order, repeating the void ones within bounds, saving after each."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import asdict
from typing import Any

from testbed.errors import TestbedError
from testbed.measure import machine
from testbed.measure.plan import Bed, Benchmark, Settings, Turn, schedule
from testbed.measure.progress import SLACK, Progress

REPEATS = 2
"""How often a void pair is measured again, as long as the benchmark has not repeated more than its number of pairs."""

Gap = Callable[[], machine.Load]
Complain = Callable[[machine.Load], "str | None"]


class Engine:
    """One run of several benchmarks into one document; `save` is called with it after every pair."""

    def __init__(
        self,
        document: dict[str, Any],
        settings: Settings,
        progress: Progress,
        save: Callable[[], None],
        *,
        before: Gap | None = None,
        after: Gap = machine.gap,
        snapshot: Callable[[], machine.Snapshot] = machine.snapshot,
        complaint: Complain = machine.complaint,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._document = document
        self._settings = settings
        self._progress = progress
        self._save = save
        # A quick run shows that things work, on whatever machine.
        self._repeats = 0 if settings.quick else REPEATS
        self._before = before or (machine.gap if settings.quick else machine.quiet_gap)
        self._after = after
        self._snapshot, self._complaint, self._clock = snapshot, complaint, clock
        self._begun = clock()

    def run(self, benchmarks: Sequence[Benchmark]) -> bool:
        """Run them all; whether each went through. An error ends its benchmark only; what an interruption leaves
        unfinished is marked so, with all pairs that were complete.
        """
        well = True
        for benchmark in benchmarks:
            entry = {
                **benchmark.described(self._settings),
                "parameters": benchmark.chosen(self._settings),
                "bed": {},
                "complete": False,
                "error": None,
                "seconds": 0.0,
                "pairs": [],
            }
            self._document["benchmarks"].append(entry)
            begun = self._clock()
            try:
                self._one(benchmark, entry)
                entry["complete"] = True
            except TestbedError as error:
                entry["error"] = str(error)
                self._progress.failed(benchmark.name, str(error))
                well = False
            except BaseException as error:
                self._document["ended"] = type(error).__name__
                raise
            finally:
                entry["seconds"] = self._clock() - begun
                self._save()
        return well

    def _one(self, benchmark: Benchmark, entry: dict[str, Any]) -> None:
        turns = schedule(benchmark.comparisons, self._settings.pairs, f"{self._settings.seed} {benchmark.name}")
        repeats_left = len(turns)
        expected, begun = benchmark.seconds(self._settings, machine.GAP_SECONDS), self._clock()
        self._progress.begin(benchmark.name, len(turns))
        with benchmark.bed(entry["parameters"], self._settings) as bed:
            entry["bed"] = dict(bed.facts())
            for done, turn in enumerate(turns):
                rest = expected * (1 - done / len(turns))
                for attempt in range(self._repeats + 1):
                    in_time = self._clock() - begun + rest < SLACK * expected
                    pair = self._pair(bed, benchmark, turn, attempt, wait=in_time)
                    last = attempt == self._repeats or repeats_left == 0 or not in_time
                    pair["used"] = pair["void"] is None or last
                    entry["pairs"].append(pair)
                    self._save()
                    self._progress.pair(turn, pair["void"], repeated=not pair["used"])
                    if pair["used"]:
                        break
                    repeats_left -= 1

    def _pair(self, bed: Bed, benchmark: Benchmark, turn: Turn, attempt: int, *, wait: bool) -> dict[str, Any]:
        pair: dict[str, Any] = {
            "comparison": benchmark.comparisons.index(turn.comparison),
            "number": turn.number,
            "attempt": attempt,
            "order": list(turn.order),
            "at": self._clock() - self._begun,
        }
        loads = {"before": self._before() if wait else self._after()}
        roles = ("reference", "subject") if turn.reference_first else ("subject", "reference")
        for role, variant in zip(roles, turn.order, strict=True):
            first = self._snapshot()
            reading = bed.measure(variant)
            loads[role] = machine.between(first, self._snapshot())
            metrics = dict(reading.metrics)
            if "bits" in metrics and "cpu_per_gigabit" not in metrics:
                metrics["cpu_per_gigabit"] = loads[role].cpu / (metrics["bits"] / 1e9)
            pair[role] = {"metrics": metrics, "samples": dict(reading.samples), "facts": dict(reading.facts)}
        loads["after"] = self._after()
        reasons = [f"{when}: {why}" for when, load in loads.items() if (why := self._complaint(load)) is not None]
        pair["void"] = "; ".join(reasons) or None
        pair["load"] = {when: asdict(load) for when, load in loads.items()}
        return pair
