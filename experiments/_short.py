"""How a row of experiments fits into a given time: contenders and points are left out, and what does not fit even so;
never repetitions. Pure.
"""

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
    def name(self) -> str:
        return self.plan.experiment.name

    @property
    def seconds(self) -> float:
        return self.plan.total_seconds()

    def words(self) -> list[str]:
        """The options of its command."""
        settings = self.plan.settings
        words = ["--runs", str(settings.runs), "--seed", str(settings.seed), "--points", str(settings.points)]
        return [*words, *(["--contenders", ",".join(settings.contenders)] if settings.contenders else [])]


def fit(
    experiments: Sequence[Experiment], seconds: float, settings: Settings, build: BuildTopology
) -> tuple[list[Short], list[Short]]:
    """(those that run, those that do not fit at their shortest), each in the order given.

    As many as possible run, at first as short as they go; then one after the other takes the most of itself that the
    rest of the time allows: both ends of its sweep or its first point, all contenders or the first ones.
    """
    choices = {one.name: [Short(laid) for laid in _choices(one, settings, build)] for one in experiments}
    chosen: dict[str, Short] = {}
    for name in sorted(choices, key=lambda name: choices[name][-1].seconds):
        if _total(chosen) + choices[name][-1].seconds <= seconds:
            chosen[name] = choices[name][-1]
    for name in [name for name in choices if name in chosen]:
        rest = seconds - _total(chosen) + chosen[name].seconds
        chosen[name] = next(one for one in choices[name] if one.seconds <= rest)
    return (
        [chosen[name] for name in choices if name in chosen],
        [found[-1] for name, found in choices.items() if name not in chosen],
    )


def _total(chosen: dict[str, Short]) -> float:
    return sum(one.seconds for one in chosen.values())


def _choices(experiment: Experiment, settings: Settings, build: BuildTopology) -> list[Plan]:
    """From the longest to the shortest: at the ends of the sweep and at its first point, everybody down to the first
    FEW contenders.
    """
    found = []
    for points in (ENDS, FIRST):
        everybody = plan.make(experiment, replace(settings, points=points), build)
        names = [contender.name for contender in everybody.contenders]
        found.append(everybody)
        found += [
            plan.make(experiment, replace(settings, points=points, contenders=tuple(names[:count])), build)
            for count in range(FEW, len(names))
        ]
    # Of two that take the same, the one with more contenders says more.
    return sorted(found, key=lambda one: (-round(one.total_seconds()), -len(one.contenders)))
