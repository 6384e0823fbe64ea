"""How a row of experiments fits into a given time: contenders and points are left out, and what does not fit even so;
never repetitions. Pure.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from testbed.experiment import plan
from testbed.experiment.plan import ENDS, Plan, Settings
from testbed.experiment.specification import BuildTopology, Contender, Experiment

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

    As many as possible run, at first as short as they go: a rival and Serval that meets the same, at one point. Then
    they take turns, each a step more of itself where the rest of the time allows it: one contender more, and when all
    of them run, both ends of its sweep.
    """
    steps = {one.name: [Short(laid) for laid in _steps(one, settings, build)] for one in experiments}
    chosen: dict[str, Short] = {}
    for name in sorted(steps, key=lambda name: steps[name][0].seconds):
        if _total(chosen) + steps[name][0].seconds <= seconds:
            chosen[name] = steps[name][0]
    growing = [name for name in steps if name in chosen]
    for number in range(1, max(map(len, steps.values()), default=0)):
        for name in list(growing):
            more = steps[name][number] if number < len(steps[name]) else None
            if more is None or _total(chosen) - chosen[name].seconds + more.seconds > seconds:
                growing.remove(name)
            else:
                chosen[name] = more
    return (
        [chosen[name] for name in steps if name in chosen],
        [found[0] for name, found in steps.items() if name not in chosen],
    )


def _total(chosen: dict[str, Short]) -> float:
    return sum(one.seconds for one in chosen.values())


def _steps(experiment: Experiment, settings: Settings, build: BuildTopology) -> list[Plan]:
    """From the shortest to the longest: a pair of contenders, then one more at a time, where it is shortest, and
    everybody at the ends of the sweep.
    """
    everywhere = plan.make(experiment, replace(settings, points=ENDS), build)
    first = plan.make(experiment, replace(settings, points=FIRST), build)
    # Ends that are one point are what the experiment holds to be its best short run.
    shortest = min(everywhere, first, key=lambda one: round(one.total_seconds()))
    pair = _pair(shortest.contenders)
    kept = [*pair, *(contender for contender in shortest.contenders if contender not in pair)]
    names = [contender.name for contender in kept]
    found = [
        plan.make(experiment, replace(shortest.settings, contenders=tuple(names[:count])), build)
        for count in range(len(pair), len(names))
    ]
    return [*found, shortest] if shortest is everywhere else [*found, shortest, everywhere]


def _pair(contenders: Sequence[Contender]) -> list[Contender]:
    """A rival and one of ours, the first that meet the same; else the first of each. Without both, the first FEW."""
    pairs = [(ours, rival) for rival in contenders if rival.rival for ours in contenders if not ours.rival]
    if not pairs:
        return list(contenders[:FEW])
    chosen = next((pair for pair in pairs if pair[0].options == pair[1].options), pairs[0])
    return [contender for contender in contenders if contender in chosen]
