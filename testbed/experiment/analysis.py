"""From a result file to what may be said: medians with intervals, paired differences, verdicts, acceptance. Pure.

The interval of a median is the exact, distribution-free one of `testbed.measure.statistics`: with ten runs it holds at
least what it promises, which a bootstrap of ten values does not. The bootstrap interval stands beside it, and is the
one of a ratio of two medians, for which there is no exact one; its rows are whole repetitions.

Everything here is in a metric's shown unit: value * scale.
"""

from __future__ import annotations

import statistics
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from testbed.experiment import result
from testbed.experiment.specification import EVERY, HIGHER
from testbed.measure.statistics import ENOUGH, Interval, bootstrap, interval
from testbed.words import counted

BETTER, WORSE, NOT_DISTINGUISHABLE, TOO_FEW = "better", "worse", "not distinguishable", "too few"
HELD, NOT_HELD, CANNOT_TELL = "held", "not held", "cannot tell"

Document = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Estimate:
    """What values say of their median. `exact` is None below ENOUGH of them, and so is `bootstrap`: (low, high)."""

    values: tuple[float, ...]
    median: float | None
    exact: Interval | None
    bootstrap: tuple[float, float] | None

    @classmethod
    def of(cls, values: Sequence[float]) -> Estimate:
        found = tuple(values)
        median = statistics.median(found) if found else None
        return cls(found, median, interval(found), bootstrap(found, statistics.median))

    @property
    def count(self) -> int:
        return len(self.values)


@dataclass(frozen=True, slots=True)
class Summary:
    """One metric of one contender at one point, over its runs. `without`: runs that went through and have no value;
    `failed`: runs that did not; `doubtful`: runs with a value that the fidelity meter doubts.
    """

    metric: str
    label: str
    unit: str
    better: str | None
    contender: str
    contender_label: str
    setting: int
    point: Mapping[str, float]
    estimate: Estimate
    without: int
    failed: int
    doubtful: int


@dataclass(frozen=True, slots=True)
class Comparison:
    """One contender beside `against`: the differences (contender - against) within repetitions, and what they mean for
    the contender. `verdict` is None for a metric of which neither more nor less is better.
    """

    metric: str
    label: str
    unit: str
    better: str | None
    matters: float
    contender: str
    contender_label: str
    against: str
    against_label: str
    setting: int
    point: Mapping[str, float]
    estimate: Estimate
    verdict: str | None


@dataclass(frozen=True, slots=True)
class Judgement:
    """An acceptance at one point. `value`: the median (a ratio of medians where `times_of`), or the worst value of
    all; low, high: its interval; `why`: what stands in the way where nothing can be told.
    """

    text: str
    metric: str
    label: str
    unit: str
    contender: str
    times_of: str | None
    over: str
    at_least: float | None
    at_most: float | None
    setting: int
    point: Mapping[str, float]
    verdict: str
    value: float | None
    low: float | None
    high: float | None
    count: int
    doubtful: int
    why: str | None


@dataclass(frozen=True, slots=True)
class Trust:
    """What the fidelity meters of all runs say together. `reasons`: in words -> in how many runs."""

    runs: int
    doubtful: int
    reasons: Mapping[str, int]
    calibration: tuple[str, ...]

    @property
    def trustworthy(self) -> bool:
        return not self.doubtful and not self.calibration


def summaries(document: Document) -> list[Summary]:
    """All metrics, in their order; of each, point by point, all contenders."""
    found = []
    for metric in document["experiment"]["metrics"]:
        for setting, point in enumerate(document["points"]):
            for contender in document["experiment"]["contenders"]:
                runs = result.runs_of(document, contender["name"], setting)
                having = [run for run in runs if _has(run.data, metric["name"])]
                found.append(
                    Summary(
                        metric=metric["name"],
                        label=metric["label"],
                        unit=metric["unit"],
                        better=metric["better"],
                        contender=contender["name"],
                        contender_label=contender["label"],
                        setting=setting,
                        point=point,
                        estimate=Estimate.of([_value(run.data, metric) for run in having]),
                        without=len(runs) - len(having),
                        failed=_failed(document, contender["name"], setting),
                        doubtful=_doubtful(run.data for run in having),
                    )
                )
    return found


def comparisons(document: Document) -> list[Comparison]:
    """Of every metric, point by point, each contender beside the one that they are compared with."""
    experiment = document["experiment"]
    labels = {contender["name"]: contender["label"] for contender in experiment["contenders"]}
    against = experiment["against"]
    found = []
    for metric in experiment["metrics"]:
        for setting, point in enumerate(document["points"]):
            for contender in labels:
                if contender == against:
                    continue
                pairs = _pairs(document, metric, setting, contender, against)
                estimate = Estimate.of([own - other for own, other in pairs])
                found.append(
                    Comparison(
                        metric=metric["name"],
                        label=metric["label"],
                        unit=metric["unit"],
                        better=metric["better"],
                        matters=metric["matters"],
                        contender=contender,
                        contender_label=labels[contender],
                        against=against,
                        against_label=labels[against],
                        setting=setting,
                        point=point,
                        estimate=estimate,
                        verdict=verdict(estimate, metric["better"], metric["matters"]),
                    )
                )
    return found


def verdict(differences: Estimate, better: str | None, matters: float) -> str | None:
    """What paired differences mean: BETTER or WORSE where the whole interval of their median is beyond what matters."""
    if better is None:
        return None
    if differences.exact is None:
        return TOO_FEW
    low, high = differences.exact.low, differences.exact.high
    if better != HIGHER:
        low, high = -high, -low
    if low > 0 and low >= matters:
        return BETTER
    if high < 0 and -high >= matters:
        return WORSE
    return NOT_DISTINGUISHABLE


def judgements(document: Document) -> list[Judgement]:
    """Every acceptance at every point that it speaks of, as far as its contender (and the other one) ran."""
    ran = {contender["name"] for contender in document["experiment"]["contenders"]}
    return [
        _judge(document, wanted, setting)
        for wanted in document["experiment"]["acceptance"]
        if {wanted["contender"], wanted["times_of"] or wanted["contender"]} <= ran
        for setting, point in enumerate(document["points"])
        if all(point.get(name) == value for name, value in wanted["point"].items())
    ]


def trust(document: Document) -> Trust:
    """Whether the machine and the links were what they had to be."""
    good = result.good_runs(document)
    reasons = Counter(reason for run in good for reason in dict.fromkeys(run.data["fidelity"]["kinds"]))
    bad = tuple(line for entry in document["calibration"] if not entry["good"] for line in _missed(entry))
    return Trust(len(good), _doubtful(run.data for run in good), dict(reasons.most_common()), bad)


def _missed(calibration: Mapping[str, Any]) -> list[str]:
    """What of a network's paths is not as it was asked for; all lines where it is not known which."""
    if calibration["error"] is not None:
        return [f"not measured: {calibration['error']}"]
    verdicts = [quantity["verdict"] for path in calibration.get("paths", ()) for quantity in path.get("quantities", ())]
    if len(verdicts) != len(calibration["lines"]):
        return list(calibration["lines"])
    return [line for line, verdict in zip(calibration["lines"], verdicts, strict=True) if verdict != "ok"]


def _has(run: Mapping[str, Any], metric: str) -> bool:
    return run["metrics"].get(metric) is not None


def _value(run: Mapping[str, Any], metric: Mapping[str, Any]) -> float:
    return float(run["metrics"][metric["name"]]) * float(metric["scale"])


def _doubtful(runs: Any) -> int:
    return sum(1 for run in runs if not run["fidelity"]["trustworthy"])


def _failed(document: Document, contender: str, setting: int) -> int:
    return sum(1 for run in result.failed_runs(document) if (run["contender"], run["setting"]) == (contender, setting))


def _pairs(
    document: Document, metric: Mapping[str, Any], setting: int, contender: str, other: str
) -> list[tuple[float, float]]:
    """(contender's, other's) of each repetition in which both have a value."""
    both = [
        {
            run.data["repetition"]: _value(run.data, metric)
            for run in result.runs_of(document, name, setting)
            if _has(run.data, metric["name"])
        }
        for name in (contender, other)
    ]
    return [(both[0][repetition], both[1][repetition]) for repetition in sorted(both[0].keys() & both[1].keys())]


def _ratio(pairs: Sequence[tuple[float, float]]) -> float:
    """Of the medians; a median of nothing makes it infinite, or 1 where both are nothing."""
    own, other = (statistics.median(side) for side in zip(*pairs, strict=True))
    if other == 0:
        return 1.0 if own == 0 else float("inf")
    return own / other


def _judge(document: Document, wanted: Mapping[str, Any], setting: int) -> Judgement:
    metric = next(item for item in document["experiment"]["metrics"] if item["name"] == wanted["metric"])
    runs = result.runs_of(document, wanted["contender"], setting)
    having = [run.data for run in runs if _has(run.data, wanted["metric"])]
    values = [_value(run, metric) for run in having]
    value: float | None = None
    low: float | None = None
    high: float | None = None
    if wanted["times_of"] is not None:
        pairs = _pairs(document, metric, setting, wanted["contender"], wanted["times_of"])
        count = len(pairs)
        if wanted["over"] == EVERY:
            values = [_ratio([pair]) for pair in pairs]
        elif pairs:
            value = _ratio(pairs)
            low, high = bootstrap(pairs, _ratio) or (None, None)
    else:
        count = len(values)
        if wanted["over"] != EVERY:
            estimate = Estimate.of(values)
            value = estimate.median
            if estimate.exact is not None:
                low, high = estimate.exact.low, estimate.exact.high
    if wanted["over"] == EVERY and values:
        value = _worst(values, wanted)
        low, high = min(values), max(values)
    missing = _failed(document, wanted["contender"], setting) + len(runs) - len(having)
    said, why = _said(document, wanted, count, missing, low, high)
    return Judgement(
        text=wanted["text"],
        metric=wanted["metric"],
        label=metric["label"],
        unit=metric["unit"] if wanted["times_of"] is None else "",
        contender=wanted["contender"],
        times_of=wanted["times_of"],
        over=wanted["over"],
        at_least=wanted["at_least"],
        at_most=wanted["at_most"],
        setting=setting,
        point=document["points"][setting],
        verdict=said,
        value=value,
        low=low,
        high=high,
        count=count,
        doubtful=_doubtful(having),
        why=why,
    )


def _worst(values: Sequence[float], wanted: Mapping[str, Any]) -> float:
    """The value that is furthest out of bounds, or nearest to leaving them."""

    def inside(value: float) -> float:
        room = [value - wanted["at_least"]] if wanted["at_least"] is not None else []
        room += [wanted["at_most"] - value] if wanted["at_most"] is not None else []
        return min(room)

    return min(values, key=inside)


def _said(
    document: Document,
    wanted: Mapping[str, Any],
    count: int,
    missing: int,
    low: float | None,
    high: float | None,
) -> tuple[str, str | None]:
    """The verdict, and why nothing can be told. What must hold in every run is broken by one, however few there are."""
    if document["settings"]["quick"]:
        return CANNOT_TELL, "a quick run only shows that it works"
    floor = float("-inf") if wanted["at_least"] is None else wanted["at_least"]
    ceiling = float("inf") if wanted["at_most"] is None else wanted["at_most"]
    every = wanted["over"] == EVERY
    if low is not None and high is not None:
        if every and (low < floor or high > ceiling):
            return NOT_HELD, None
        if high < floor or low > ceiling:
            return NOT_HELD, None
    if count < ENOUGH or low is None or high is None:
        return CANNOT_TELL, f"too few runs: {count} of at least {ENOUGH}" if count else "no run has a value"
    if every and missing:
        return CANNOT_TELL, f"{counted(missing, 'run')} failed or gave no value"
    if floor <= low and high <= ceiling:
        return HELD, None
    return CANNOT_TELL, "the bound lies within the interval"
