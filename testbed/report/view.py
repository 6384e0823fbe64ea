"""A result as pictures and pages see it: what ran, under which names, and with what doubts. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from testbed.experiment import analysis, result
from testbed.experiment.analysis import Estimate
from testbed.experiment.plan import point_words
from testbed.experiment.record import RunRecord
from testbed.report.plots import Picture
from testbed.report.style import Style, styles

DOUBTFUL = "DOUBTFUL"


@dataclass(frozen=True, slots=True)
class Group:
    """The good runs of one contender at one point; `place` tells it from the others of its picture."""

    contender: str
    label: str
    setting: int
    point: Mapping[str, float]
    place: str
    runs: tuple[RunRecord, ...]

    @property
    def doubtful(self) -> int:
        """How many of the runs are doubtful."""
        return sum(1 for run in self.runs if doubtful(run))

    @property
    def name(self) -> str:
        """ "Serval, rtt_ms=20"."""
        return ", ".join(word for word in (self.label, self.place) if word)

    def values(self, metric: Mapping[str, Any]) -> list[tuple[float, bool]]:
        """(value in the shown unit, whether its run is doubtful) of each run that has one."""
        found = ((run.data["metrics"].get(metric["name"]), doubtful(run)) for run in self.runs)
        return [(value * metric["scale"], doubt) for value, doubt in found if value is not None]


@dataclass(frozen=True)
class Results:
    """One result file."""

    document: Mapping[str, Any]

    @property
    def experiment(self) -> Mapping[str, Any]:
        return self.document["experiment"]

    @property
    def quick(self) -> bool:
        return bool(self.document["settings"]["quick"])

    @cached_property
    def styles(self) -> dict[str, Style]:
        # Those that were left out too: a colour does not depend on what a machine can do.
        every = (*self.experiment["contenders"], *self.experiment["skipped"])
        return styles((item["name"], item.get("transport", "")) for item in every)

    @cached_property
    def summaries(self) -> list[analysis.Summary]:
        return analysis.summaries(self.document)

    def estimate(self, metric: str, group: Group) -> Estimate:
        """Median and interval of a metric in a group."""
        return next(
            item.estimate
            for item in self.summaries
            if (item.metric, item.contender, item.setting) == (metric, group.contender, group.setting)
        )

    def metric(self, name: str) -> Mapping[str, Any]:
        """Raises KeyError."""
        for item in self.experiment["metrics"]:
            if item["name"] == name:
                return item
        raise KeyError(f"the result has no metric {name!r}")

    def groups(self, picture: Picture) -> Iterator[Group]:
        """What a picture shows: point by point, contender by contender; without those of which nothing ran."""
        for setting, point in enumerate(self.document["points"]):
            if not within(point, picture.point):
                continue
            place = point_words({name: value for name, value in point.items() if name not in picture.point})
            for contender in self.experiment["contenders"]:
                name = contender["name"]
                if picture.contenders and name not in picture.contenders:
                    continue
                runs = tuple(result.runs_of(self.document, name, setting))
                if runs:
                    yield Group(name, contender["label"], setting, point, place, runs)

    def heading(self, picture: Picture, groups: Sequence[Group]) -> str:
        """A picture's title, with what has to be known before any of its figures is believed."""
        runs = sum(len(group.runs) for group in groups)
        doubts = sum(group.doubtful for group in groups)
        words = f"{picture.title} (quick run)" if self.quick else picture.title
        return f"{words}\n{DOUBTFUL}: {doubts} of {runs} runs" if doubts else words


def within(point: Mapping[str, float], chosen: Mapping[str, float]) -> bool:
    """Whether a point has the chosen values, as far as they are swept."""
    return all(point.get(name, value) == value for name, value in chosen.items())


def doubtful(run: RunRecord) -> bool:
    return not run.data["fidelity"]["trustworthy"]


def with_unit(label: str, unit: str) -> str:
    """ "goodput [Mbit/s]"."""
    return f"{label} [{unit}]" if unit else label
