"""Runs a plan: every run in its order, failed ones again within bounds, the result saved after each."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, Protocol

from testbed.errors import TestbedError
from testbed.experiment.plan import Plan, Turn
from testbed.experiment.record import RunRecord
from testbed.experiment.specification import Metric

REPEATS = 1
"""How often a failed run is repeated,"""
REPEATS_SHARE = 0.25
"""and how many repeats there are, as a share of all runs; at least REPEATS_LEAST."""
REPEATS_LEAST = 2

NONE = "this run has none"
"""Why a metric that has nothing to say of a run has no value."""

CarryOut = Callable[[Turn, int], dict[str, Any]]
"""(turn, attempt) -> the record of the run, its metrics still missing."""


class Told(Protocol):
    """Who hears how it goes: `testbed.experiment.progress.RunProgress`."""

    def begin(self, turn: Turn, attempt: int) -> None: ...

    def done(self, turn: Turn, failed: str | None, *, again: bool) -> None: ...


class Runner:
    """One plan into one document; `save` is called after every run."""

    def __init__(
        self, plan: Plan, document: dict[str, Any], carry_out: CarryOut, told: Told, save: Callable[[], None]
    ) -> None:
        self._plan, self._document = plan, document
        self._carry_out, self._told, self._save = carry_out, told, save
        self._repeats_left = max(REPEATS_LEAST, int(REPEATS_SHARE * len(plan.turns)))

    def run(self) -> bool:
        """Run them all; whether each went through in the end. What an interruption leaves is saved, and marked."""
        try:
            well = [self._one(turn) for turn in self._plan.turns]
            return all(well)
        except BaseException as error:
            self._document["ended"] = str(error) if isinstance(error, TestbedError) else type(error).__name__
            raise
        finally:
            self._save()

    def _one(self, turn: Turn) -> bool:
        for attempt in range(REPEATS + 1):
            self._told.begin(turn, attempt)
            record = self._carry_out(turn, attempt)
            if record["failed"] is None:
                record["metrics"], record["without"] = compute(self._plan.experiment.metrics, record)
            self._document["runs"].append(record)
            failed = record["failed"]
            again = failed is not None and attempt < REPEATS and self._repeats_left > 0
            self._save()
            self._told.done(turn, failed, again=again)
            if not again:
                return failed is None
            self._repeats_left -= 1
        raise AssertionError("the last attempt is not repeated")


def compute(metrics: tuple[Metric, ...], record: dict[str, Any]) -> tuple[dict[str, float | None], dict[str, str]]:
    """What each metric makes of a record, and why it makes nothing of it."""
    values: dict[str, float | None] = {}
    without: dict[str, str] = {}
    for metric in metrics:
        try:
            found = metric.compute(RunRecord(record))
        # What the run does not have: a traffic or an event that this contender lacks, an empty series. Or a mistake in
        # the metric, which must not end what still measures; the summary says it.
        except Exception as error:  # noqa: BLE001
            values[metric.name], without[metric.name] = None, f"{type(error).__name__}: {error}"
            continue
        good = found is not None and math.isfinite(found)
        values[metric.name] = float(found) if found is not None and good else None
        if not good:
            without[metric.name] = NONE if found is None else f"{found} is no figure"
    return values, without
