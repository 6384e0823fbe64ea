"""How a row of experiments fits into a given time: contenders and points are left out, never repetitions. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from testbed.experiment import plan
from testbed.experiment.plan import ENDS, Plan, Settings
from testbed.experiment.specification import BuildTopology, Experiment

FEW = 2
FIRST = "1"


@dataclass(frozen=True, slots=True)
class Short:
    """One experiment of the row, and what is left of it."""

    plan: Plan

    @property
    def seconds(self) -> float:
        return self.plan.total_seconds()

    def words(self) -> list[str]:
        """The options of its command."""
        settings = self.plan.settings
        words = ["--runs", str(settings.runs), "--seed", str(settings.seed), "--points", str(settings.points)]
        return [*words, *(["--contenders", ",".join(settings.contenders)] if settings.contenders else [])]


def fit(experiments: Sequence[Experiment], seconds: float, settings: Settings, build: BuildTopology) -> list[Short]:
    """Each gets an equal share of what is left of the time, and takes the most of itself that fits: both ends of its
    sweep or its first point, all contenders or the first ones. One that fits nowhere runs as short as it goes.
    """
    found: list[Short] = []
    for number, experiment in enumerate(experiments):
        share = (seconds - sum(one.seconds for one in found)) / (len(experiments) - number)
        choices = [Short(one) for one in _choices(experiment, settings, build)]
        found.append(next((one for one in choices if one.seconds <= share), choices[-1]))
    return found


def _choices(experiment: Experiment, settings: Settings, build: BuildTopology) -> list[Plan]:
    """From the most to the least."""
    everybody = plan.make(experiment, replace(settings, points=ENDS), build)
    few = tuple(contender.name for contender in everybody.contenders[:FEW])
    less = [(ENDS, few), (FIRST, ()), (FIRST, few)]
    return [
        everybody,
        *(plan.make(experiment, replace(settings, points=points, contenders=names), build) for points, names in less),
    ]
