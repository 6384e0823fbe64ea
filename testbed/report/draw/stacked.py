"""Parts of a whole, one after the other in time: the phases of a blackout, what a migration is made of."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from testbed.experiment.analysis import Estimate
from testbed.measure.table import number
from testbed.report.draw import parts
from testbed.report.draw.bars import MARGIN, rows
from testbed.report.plots import PHASES, BlackoutPhases, Parts
from testbed.report.style import INK
from testbed.report.style import PHASES as COLOURS
from testbed.report.view import DOUBTFUL, Group, Results, with_unit

_MILLISECONDS = 1e3


@dataclass(frozen=True, slots=True)
class _Stack:
    """A bar: of each run its parts and their sum, in the shown unit; of how many wholes in all, if not one a run."""

    group: Group
    parts: list[list[float]]
    sums: list[float]
    counted: str = ""


def draw_blackouts(picture: BlackoutPhases, results: Results) -> Any:
    stacks = [_blackouts(picture, group) for group in results.groups(picture)]
    return _draw(picture, results, stacks, PHASES, "time from the event on [ms]")


def draw_parts(picture: Parts, results: Results) -> Any:
    metrics = [results.metric(name) for name in picture.parts]
    stacks = []
    for group in results.groups(picture):
        values = [[run.data["metrics"].get(metric["name"]) for metric in metrics] for run in group.runs]
        whole = [
            [value * metric["scale"] for value, metric in zip(row, metrics, strict=True)]
            for row in values
            if None not in row
        ]
        stacks.append(_Stack(group, whole, [sum(row) for row in whole]))
    unit = metrics[0]["unit"] if metrics else ""
    return _draw(picture, results, stacks, [metric["label"] for metric in metrics], with_unit("time", unit))


def _blackouts(picture: BlackoutPhases, group: Group) -> _Stack:
    """Of each run the medians of its blackouts: those of one run have too much in common to count one by one. Phases
    that a blackout does not have (nothing had to be detected) took no time.
    """
    every = [
        [
            [(blackout.get(phase) or 0.0) * _MILLISECONDS for phase in PHASES]
            for blackout in run.blackouts
            if picture.host in ("", blackout["host"]) and picture.cause in blackout["cause"]
        ]
        for run in group.runs
    ]
    runs = [wholes for wholes in every if wholes]
    count = sum(len(wholes) for wholes in runs)
    return _Stack(
        group,
        [[statistics.median(column) for column in zip(*wholes, strict=True)] for wholes in runs],
        [statistics.median(sum(whole) for whole in wholes) for wholes in runs],
        "" if count == len(runs) else f"runs, {count} blackouts",
    )


def _draw(
    picture: BlackoutPhases | Parts,
    results: Results,
    stacks: Sequence[_Stack],
    names: Sequence[str],
    label: str,
) -> Any:
    shown = [stack for stack in stacks if stack.sums]
    if not shown:
        return None
    groups = [stack.group for stack in shown]
    made = parts.figure(1.7 + 0.42 * len(shown), results.heading(picture, groups))
    panel = made.subplots()
    parts.plain(panel)
    panel.grid(axis="y", visible=False)
    panel.grid(axis="x", color="#e5e7eb", linewidth=0.7)
    places = rows(groups)
    for place, stack in zip(places, shown, strict=True):
        _stack(panel, place, stack, names if place == 0 else None)
    panel.set_yticks(places, [parts.fitted(group.name, 42) for group in groups])
    panel.set_ylim(places[-1] + MARGIN, -MARGIN)
    panel.set_xlim(left=0)
    panel.set_xlabel(label, fontsize=parts.TEXT)
    parts.legend_below(made, panel)
    return made


def _stack(panel: Any, place: float, stack: _Stack, labels: Sequence[str] | None) -> None:
    left = 0.0
    for index in range(len(stack.parts[0])):
        median = statistics.median(run[index] for run in stack.parts)
        colour, hatch = COLOURS[index % len(COLOURS)]
        panel.barh(
            place,
            median,
            left=left,
            height=0.62,
            color=colour,
            hatch=hatch,
            edgecolor="white",
            linewidth=0.5,
            label=f"{labels[index]} (median)" if labels else None,
        )
        left += median
    estimate = Estimate.of(stack.sums)
    middle, within = estimate.median, estimate.exact
    ends = None if within is None else [[within.median - within.low], [within.high - within.median]]
    words = "their sum: median and 95 % interval" if labels else None
    panel.errorbar(middle, place, xerr=ends, fmt="D", color=INK, markersize=4, capsize=4, label=words, zorder=4)
    doubts = f", {stack.group.doubtful} {DOUBTFUL}" if stack.group.doubtful else ""
    panel.annotate(
        f"{number(middle)}, {parts.count_words(estimate.count, stack.counted)}{doubts}",
        (1.0, place),
        xycoords=("axes fraction", "data"),
        xytext=(4, 0),
        textcoords="offset points",
        va="center",
        fontsize=parts.SMALL,
        color=INK,
    )
