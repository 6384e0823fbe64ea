"""From a result file to figures: medians, intervals, noise widths, verdicts. Pure; the file is all it needs."""

from __future__ import annotations

import statistics
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from testbed.measure.plan import DIFFERENCE, HIGHER, RATE, RATIO, VALUE
from testbed.measure.statistics import CLAIM, CONFIDENCE, Interval, interval, noise_width, poisson_interval, verdict

QUICK = " (quick)"


@dataclass(frozen=True, slots=True)
class Outcome:
    """One figure, in its own unit. `noise` too; `multiple` of the calibration. `count` is the number of values.
    `median` is the rate, where it is one.
    """

    benchmark: str
    label: str
    unit: str
    values: tuple[float, ...]
    median: float | None
    interval: Interval | None
    noise: float | None
    better: str
    aim: float | None
    verdict: str
    multiple: float | None
    doubtful: str | None
    equal_pairs: int
    quick: bool

    @property
    def count(self) -> int:
        return len(self.values)

    @property
    def strength(self) -> str:
        """ "claim" where the documentation may state it, else "indicative"; a quick run's figures are neither."""
        if self.quick:
            return "quick"
        return "claim" if min(self.count, self.equal_pairs) >= CLAIM and self.doubtful is None else "indicative"


def outcomes(document: Mapping[str, Any]) -> list[Outcome]:
    """All figures of a document, in its order."""
    return [outcome for entry in document["benchmarks"] for outcome in of_benchmark(document, entry)]


def quick(document: Mapping[str, Any]) -> bool:
    """Whether the runs were as short as they go, to see that it works: such figures speak of nothing else."""
    return bool(document["settings"].get("quick", False))


def heading(document: Mapping[str, Any], entry: Mapping[str, Any]) -> str:
    """A benchmark's title as tables and plots carry it."""
    return f"{entry['title']}{QUICK if quick(document) else ''}"


def of_benchmark(document: Mapping[str, Any], entry: Mapping[str, Any]) -> Iterator[Outcome]:
    """The figures of one of the document's benchmarks."""
    doubt = doubtful(entry)
    for figure in entry["figures"]:
        scale = figure["scale"] if figure["how"] != RATIO else 1.0
        values = tuple(value * scale for value in figure_values(entry, figure))
        found = _rate(entry, figure, scale) if figure["how"] == RATE else interval(values)
        noise = _noise(entry, figure)
        yield Outcome(
            benchmark=entry["name"],
            label=figure["label"],
            unit=figure["unit"],
            values=values,
            median=_middle(figure["how"], values, found),
            interval=found,
            noise=noise,
            better=figure["better"],
            aim=figure["aim"],
            verdict=verdict(found, noise, figure["aim"], higher_is_better=figure["better"] == HIGHER),
            multiple=_multiple(entry, figure, values, scale),
            doubtful=doubt,
            equal_pairs=len(values if figure["how"] == RATE else _equal(entry, figure)),
            quick=quick(document),
        )


def doubtful(entry: Mapping[str, Any]) -> str | None:
    """Why the figures of a benchmark are doubtful, None when they are not."""
    void = [pair for pair in entry["pairs"] if pair["void"] is not None]
    used = sum(1 for pair in void if pair["used"])
    good = len(entry["pairs"]) - len(void)
    if used:
        return f"{used} of {good + used} pairs were measured on a busy machine"
    if len(void) > good:
        return f"{len(void)} pairs were void for {good} good ones"
    return None


def void_count(entry: Mapping[str, Any]) -> int:
    return sum(1 for pair in entry["pairs"] if pair["void"] is not None)


def figure_values(entry: Mapping[str, Any], figure: Mapping[str, Any]) -> list[float]:
    """The values of a figure, unscaled: one for each used pair, for VALUE and RATE one for each run of the subject in
    them.
    """
    metric, subject, reference = figure["metric"], figure["subject"], figure["reference"]
    if figure["how"] == VALUE:
        return variant_values(entry, subject, metric)
    if figure["how"] == RATE:
        return [count / seconds for count, seconds in _counts(entry, figure)]
    return _compared(figure["how"], pair_values(entry, subject, reference, metric))


def _counts(entry: Mapping[str, Any], figure: Mapping[str, Any]) -> list[tuple[float, float]]:
    """What each run of the subject counted, and in how many seconds."""
    names = (figure["metric"], "seconds")
    return list(zip(*(variant_values(entry, figure["subject"], name) for name in names), strict=True))


def _rate(entry: Mapping[str, Any], figure: Mapping[str, Any], scale: float) -> Interval | None:
    """The rate of all runs together."""
    counts = _counts(entry, figure)
    count, seconds = round(sum(count for count, _ in counts)), sum(seconds for _, seconds in counts)
    if not seconds:
        return None
    low, high = poisson_interval(count)
    each = scale / seconds
    return Interval(count * each, low * each, high * each, CONFIDENCE)


def _middle(how: str, values: Sequence[float], found: Interval | None) -> float | None:
    if how == RATE:
        return None if found is None else found.median
    return statistics.median(values) if values else None


def variant_values(entry: Mapping[str, Any], variant: str, metric: str) -> list[float]:
    """What every run of a variant in a used pair gave."""
    return [
        pair[role]["metrics"][metric]
        for pair in entry["pairs"]
        if pair["used"]
        for role in ("subject", "reference")
        if entry["comparisons"][pair["comparison"]][role] == variant and metric in pair[role]["metrics"]
    ]


def pair_values(entry: Mapping[str, Any], subject: str, reference: str, metric: str) -> list[tuple[float, float]]:
    """(subject's, reference's) of each used pair."""
    wanted = [
        index
        for index, comparison in enumerate(entry["comparisons"])
        if (comparison["subject"], comparison["reference"]) == (subject, reference)
    ]
    return [
        (pair["subject"]["metrics"][metric], pair["reference"]["metrics"][metric])
        for pair in entry["pairs"]
        if pair["used"] and pair["comparison"] in wanted and metric in pair["subject"]["metrics"]
    ]


def _compared(how: str, pairs: list[tuple[float, float]]) -> list[float]:
    if how == DIFFERENCE:
        return [subject - reference for subject, reference in pairs]
    # Too little CPU time to be counted in clock ticks gives no ratio.
    return [subject / reference for subject, reference in pairs if reference]


def _equal(entry: Mapping[str, Any], figure: Mapping[str, Any]) -> list[tuple[float, float]]:
    variant = figure["noise"] or figure["reference"] or figure["subject"]
    return pair_values(entry, variant, variant, figure["metric"])


def _noise(entry: Mapping[str, Any], figure: Mapping[str, Any]) -> float | None:
    """Of a DIFFERENCE in its unit; of a RATIO as a ratio; of a VALUE as that share of its aim or its median, or in its
    unit where the figure says so.
    """
    if figure["how"] == RATE:
        return None  # its interval says all that there is
    equal = _equal(entry, figure)
    if figure["how"] == DIFFERENCE or figure.get("noise_absolute", False):
        width = noise_width(_compared(DIFFERENCE, equal))
        return None if width is None else width * figure["scale"]
    width = noise_width(_compared(RATIO, equal))
    if width is None or figure["how"] == RATIO:
        return width
    values = figure_values(entry, figure)
    size = figure["aim"] if figure["aim"] is not None else statistics.median(values) * figure["scale"] if values else 0
    return width * abs(size)


def _multiple(
    entry: Mapping[str, Any], figure: Mapping[str, Any], values: tuple[float, ...], scale: float
) -> float | None:
    if figure["calibration"] is None or not values:
        return None
    calibration = [value * scale for value in figure_values(entry, {**figure, "subject": figure["calibration"]})]
    against = statistics.median(calibration) if calibration else 0.0
    return statistics.median(values) / against if against else None
