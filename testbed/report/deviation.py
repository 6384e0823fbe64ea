"""How far a result is from what a slide or a paper says, in words. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from testbed.experiment.analysis import Estimate
from testbed.experiment.plan import point_words
from testbed.experiment.specification import SERVAL, SERVAL_UDP, Reference
from testbed.experiment.summary import between
from testbed.measure.table import number
from testbed.report.plots import Bars, restored
from testbed.report.view import Results, within


@dataclass(frozen=True, slots=True)
class Deviation:
    """A median beside what it should be, both in the metric's shown unit."""

    label: str
    unit: str
    contender: str
    point: Mapping[str, float]
    estimate: Estimate
    reference: Reference

    @property
    def said(self) -> str:
        """ "slide 46 has 2.000, read off by eye"."""
        return f"{self.reference.source} has {self._figure(self.reference.value)}{self._eye}"

    @property
    def measured(self) -> str:
        """ "2.026 (1.964 .. 2.034), n = 6"."""
        found = self.estimate
        if found.median is None:
            return "no value"
        return f"{self._figure(found.median)}{between(found)}, n = {found.count}"

    @property
    def difference(self) -> str:
        """ "1.3 % more", and whether the interval encloses the slide's figure."""
        found, wanted = self.estimate, self.reference.value
        if found.median is None:
            return "nothing to compare"
        if wanted > 0 and found.median >= 2 * wanted:
            words = f"{found.median / wanted:.1f} times as much"
        elif wanted:
            share = 100 * (found.median - wanted) / abs(wanted)
            words = "the same" if round(share, 1) == 0 else f"{abs(share):.1f} % {'more' if share > 0 else 'less'}"
        else:
            words = f"{self._figure(found.median)} more than nothing" if found.median else "the same"
        if found.exact is None:
            return f"{words}; too few runs for an interval"
        inside = found.exact.low <= wanted <= found.exact.high
        return f"{words}; {'within' if inside else 'outside'} the interval"

    def words(self) -> str:
        """One line for the terminal."""
        place = f" at {point_words(self.point)}" if self.point else ""
        return f"{self.label}, {self.contender}{place}: {self.measured}; {self.said}: {self.difference}"

    @property
    def _eye(self) -> str:
        return ", read off by eye" if self.reference.by_eye else ""

    def _figure(self, value: float) -> str:
        return f"{number(value)} {self.unit}".rstrip()


def deviations(results: Results) -> list[Deviation]:
    """Of the references of metrics for all that is Serval, and of those that a plot has for a contender."""
    found: dict[str, Deviation] = {}
    for metric, contenders, point, reference in _wanted(results):
        item = results.metric(metric)
        for summary in results.summaries:
            if summary.metric == metric and summary.contender in contenders and within(summary.point, point):
                deviation = Deviation(
                    item["label"],
                    item["unit"],
                    summary.contender_label,
                    summary.point,
                    summary.estimate,
                    reference,
                )
                found.setdefault(deviation.words(), deviation)
    return list(found.values())


def _wanted(results: Results) -> Iterator[tuple[str, list[str], Mapping[str, float], Reference]]:
    """(metric, contenders, the point that it speaks of, reference)."""
    contenders: list[Mapping[str, Any]] = results.experiment["contenders"]
    serval = [item["name"] for item in contenders if item["transport"] in (SERVAL, SERVAL_UDP)]
    every = [item["name"] for item in contenders]
    for metric, reference in results.experiment["references"].items():
        yield metric, serval or every, {}, Reference(**reference)
    for described in results.experiment["plots"]:
        picture = restored(described)
        if isinstance(picture, Bars):
            for contender, reference in picture.references.items():
                yield picture.metric, [contender], picture.point, reference
