"""A result as text: first what was asked and whether it held, then who was better, then the figures. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from testbed.experiment import analysis, result
from testbed.experiment.analysis import CANNOT_TELL, Comparison, Estimate, Judgement, Summary
from testbed.experiment.plan import point_words
from testbed.experiment.runner import NONE
from testbed.experiment.specification import EVERY
from testbed.measure.statistics import ENOUGH
from testbed.measure.table import aligned, number
from testbed.words import counted

Document = Mapping[str, Any]


def text(document: Document) -> str:
    """The whole summary."""
    parts = [
        heading(document),
        _section("Asked for", [acceptance_line(one) for one in analysis.judgements(document)]),
        _section("Compared", comparison_lines(document)),
        _section("Figures: median, 95 % interval, runs", figure_lines(document)),
        _section("How far to trust it", trust_lines(document)),
    ]
    return "\n\n".join(part for part in parts if part)


def heading(document: Document) -> str:
    """Title, source, and how many runs there are of how many planned."""
    experiment, settings = document["experiment"], document["settings"]
    good, planned = len(result.good_runs(document)), len(document["plan"])
    quick = " (quick: it only shows that it works)" if settings["quick"] else ""
    lines = [
        f"{experiment['title']}: {experiment['source']}{quick}",
        f"  {good} of {counted(planned, 'run')}, seed {settings['seed']}, {document['created']}"
        f" on {document['manifest'].get('summary', 'an unknown machine')}",
    ]
    if document["ended"] is not None:
        lines.append(f"  ended early: {document['ended']}")
    lines += [f"  left out: {one['label']}: {one['why']}" for one in experiment["skipped"]]
    return "\n".join(lines)


def acceptance_line(one: Judgement) -> str:
    """ "held        E2 dip  ann: median 0.020 s (0.010 .. 0.030, n = 10), asked: at most 0.030 s"."""
    place = f" at {point_words(one.point)}" if one.point else ""
    doubt = f"; {one.doubtful} of {counted(one.count, 'run')} doubtful" if one.doubtful else ""
    why = f": {one.why}" if one.why is not None and one.verdict == CANNOT_TELL else ""
    return f"{one.verdict.upper():<12} {one.text}{place}{why}\n{'':<13}{measured(one)}; asked: {asked(one)}{doubt}"


def measured(one: Judgement) -> str:
    """What was measured, with its interval."""
    if one.value is None:
        return f"{one.label}: no value"
    unit = f" {one.unit}" if one.unit else ""
    what = "worst" if one.over == EVERY else "median"
    times = f" / {one.times_of}" if one.times_of is not None else ""
    between = f"{number(one.low)} .. {number(one.high)}, " if one.low is not None else ""
    return f"{one.contender}{times}, {what} {one.label} {number(one.value)}{unit} ({between}n = {one.count})"


def asked(one: Judgement) -> str:
    """ "at least 0.95, in every run"."""
    unit = f" {one.unit}" if one.unit else ""
    unit = f" times {one.times_of}" if one.times_of is not None else unit
    words = [] if one.at_least is None else [f"at least {number(one.at_least)}{unit}"]
    words += [] if one.at_most is None else [f"at most {number(one.at_most)}{unit}"]
    return " and ".join(words) + (", in every run" if one.over == EVERY else "")


def comparison_lines(document: Document) -> list[str]:
    """One line for each verdict; a metric without a better direction has none."""
    rows = [
        [
            f"{one.contender_label} {one.verdict}",
            f"than {one.against_label}" if one.verdict in (analysis.BETTER, analysis.WORSE) else one.against_label,
            one.label,
            point_words(one.point),
            difference(one),
        ]
        for one in analysis.comparisons(document)
        if one.verdict is not None
    ]
    return aligned(rows, indent="") if rows else []


def difference(one: Comparison) -> str:
    """ "+12.0 ms (10.1 .. 13.2), n = 10"."""
    estimate = one.estimate
    if estimate.median is None:
        return "no pair"
    sign = "+" if estimate.median > 0 else ""
    unit = f" {one.unit}" if one.unit else ""
    return f"{sign}{number(estimate.median)}{unit}{between(estimate)}, n = {estimate.count}"


def between(estimate: Estimate) -> str:
    """ " (10.1 .. 13.2)", nothing without an interval."""
    found = estimate.exact
    return "" if found is None else f" ({number(found.low)} .. {number(found.high)})"


def figure_lines(document: Document) -> list[str]:
    """A table: a row for each metric, point and contender."""
    rows = [_figure_row(one) for one in analysis.summaries(document)]
    lines = aligned(rows, indent="") if rows else []
    few = any(0 < one.estimate.count < ENOUGH for one in analysis.summaries(document))
    if few:
        lines.append(f"fewer than {ENOUGH} runs: no interval")
    lines += without_lines(document)
    for name, reference in document["experiment"]["references"].items():
        label, unit = _labelled(document, name)
        eye = ", read off by eye" if reference["by_eye"] else ""
        figure = f"{number(reference['value'])} {unit}".rstrip()
        lines.append(f"{label}: {reference['source']} has {figure}{eye}")
    return lines


def without_lines(document: Document) -> list[str]:
    """Why metrics could not be computed: a mistake in an experiment shows here. Where a run simply has none, it does
    not.
    """
    found: dict[tuple[str, str], list[str]] = {}
    for run in result.good_runs(document):
        for metric, why in run.data["without"].items():
            if why != NONE:
                found.setdefault((metric, why), []).append(run.contender)
    return [
        f"{_labelled(document, metric)[0]}: no value in {counted(len(whose), 'run')}"
        f" ({', '.join(dict.fromkeys(whose))}): {why}"
        for (metric, why), whose in found.items()
    ]


def _labelled(document: Document, metric: str) -> tuple[str, str]:
    found = next(item for item in document["experiment"]["metrics"] if item["name"] == metric)
    return found["label"], found["unit"]


def _figure_row(one: Summary) -> list[str]:
    estimate = one.estimate
    unit = f" {one.unit}" if one.unit and estimate.count else ""
    notes = [f"{count} {what}" for count, what in ((one.failed, "failed"), (one.without, "without")) if count]
    notes += [f"{one.doubtful} doubtful"] if one.doubtful else []
    return [
        one.label,
        one.contender_label,
        point_words(one.point),
        number(estimate.median) + unit,
        between(estimate).strip(),
        f"n = {estimate.count}",
        ", ".join(notes),
    ]


def trust_lines(document: Document) -> list[str]:
    """The fidelity meters, calibration and failures in words; wrong bytes first."""
    trust = analysis.trust(document)
    lines = [f"WRONG BYTES: {line}" for line in wrong_bytes(document)]
    if trust.runs:
        word = "trustworthy" if trust.trustworthy else "DOUBTFUL"
        lines.append(f"{word}: {trust.runs - trust.doubtful} of {counted(trust.runs, 'run')} trustworthy")
        lines += [f"  {reason}: in {count} of {counted(trust.runs, 'run')}" for reason, count in trust.reasons.items()]
    lines += [f"  calibration: {line}" for line in trust.calibration]
    if not document["calibration"]:
        lines.append("  calibration: none was made")
    for run in result.failed_runs(document):
        lines.append(f"FAILED: run {run['number']} ({run['contender']}): {run['failed']}")
        if run["log"] is not None:
            lines.append(f"  see {run['log']}")
    return lines


def wrong_bytes(document: Document) -> list[str]:
    """What arrived damaged, out of order or twice: there must be none, ever."""
    return [
        f"run {run.data['number']} ({run.contender}), {name}"
        for run in result.good_runs(document)
        for name, item in run.data["traffic"].items()
        if item.get("intact") is False or any(_wrong(request) for request in item.get("requests", ()))
    ]


def _wrong(request: Mapping[str, Any]) -> bool:
    """Whether an answer was another one than was sent (`testbed.traffic.pattern.WrongData`)."""
    return str(request.get("error")).startswith("WrongData")


def _section(title: str, lines: Sequence[str]) -> str:
    return "\n".join([title, *(f"  {row}" for line in lines for row in line.splitlines())]) if lines else ""
