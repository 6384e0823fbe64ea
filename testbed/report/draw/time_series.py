"""Goodput over time."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from testbed.experiment.record import RunRecord
from testbed.report.draw import parts
from testbed.report.plots import TimeSeries
from testbed.report.style import DOTTED, INK, LINES, shade
from testbed.report.view import DOUBTFUL, Group, Results, doubtful

TOTAL = "sum"
_BITS = 8e-6
"""Of a byte, in millions."""


def draw(picture: TimeSeries, results: Results) -> Any:
    groups = [group for group in results.groups(picture) if _flows(picture, group.runs)]
    if not groups:
        return None
    picture = replace(picture, bin=width(picture, groups))
    made = parts.figure(1.4 + 1.95 * len(groups), results.heading(picture, groups))
    end = picture.end if picture.end is not None else max(run.seconds for group in groups for run in group.runs)
    marks = parts.EventMarks(end - picture.begin)
    panels = parts.panels(made, len(groups))
    for panel, group in zip(panels, groups, strict=True):
        happened = _all_runs(panel, picture, results, group) if picture.every else _one(panel, picture, results, group)
        for shape in picture.shapes:
            parts.draw_shape(panel, shape)
        marks.mark(panel, happened)
        parts.legend(panel)
    panels[0].set_xlim(picture.begin, end)
    panels[0].set_ylim(0, picture.top)
    panels[-1].set_xlabel("time [s]", fontsize=parts.TEXT)
    made.supylabel("goodput [Mbit/s]", fontsize=parts.TEXT)
    parts.below(made, [f"bytes {picture.side} per bin of {picture.bin:g} s", *marks.words()])
    return made


def width(picture: TimeSeries, groups: Sequence[Group]) -> float:
    """Seconds of a bin as shown: those asked for, or more where a flow was counted in larger ones."""
    largest = max(
        run.data["traffic"][name]["bin"]
        for group in groups
        for run in group.runs
        for name in _flows(picture, group.runs)
        if name in run.data["traffic"]
    )
    return largest * math.ceil(picture.bin / largest - 1e-9)


def binned(item: dict[str, Any], side: str, size: float) -> list[float]:
    """Mbit/s in bins of `size` seconds; what is left over at the end is no whole bin and left out."""
    count = round(size / item["bin"])
    counts = item[side]
    return [
        _BITS * sum(counts[at : at + count]) / (count * item["bin"]) for at in range(0, len(counts) - count + 1, count)
    ]


def _flows(picture: TimeSeries, runs: Sequence[RunRecord]) -> list[str]:
    """The flows to be shown, of those that some run has."""
    there = {
        name: None for run in runs for name, item in run.data["traffic"].items() if item["kind"] in ("stream", "bulk")
    }
    return [name for name in (picture.flows or tuple(there)) if name in there]


def _series(picture: TimeSeries, run: RunRecord, flows: Sequence[str]) -> dict[str, list[float]]:
    found = {
        name: binned(run.data["traffic"][name], picture.side, picture.bin)
        for name in flows
        if name in run.data["traffic"]
    }
    if picture.total and found:
        length = max(len(values) for values in found.values())
        found[TOTAL] = [sum(values[at] for values in found.values() if at < len(values)) for at in range(length)]
    return found


def _together(series: dict[str, list[float]]) -> list[float]:
    return [value for values in series.values() for value in values]


def _one(panel: Any, picture: TimeSeries, results: Results, group: Group) -> list[tuple[float, str]]:
    flows = _flows(picture, group.runs)
    every = [_series(picture, run, flows) for run in group.runs]
    index = parts.typical(group.runs, [_together(series) for series in every])
    run = group.runs[index]
    _title(panel, group, parts.run_words(group, run))
    if doubtful(run):
        parts.watermark(panel)
    for name, values in every[index].items():
        _stairs(panel, picture, results, group, name, flows, values, label=name)
    return parts.events(run, picture.begin, run.seconds if picture.end is None else picture.end)


def _all_runs(panel: Any, picture: TimeSeries, results: Results, group: Group) -> list[tuple[float, str]]:
    import numpy as np

    flows = _flows(picture, group.runs)
    every = [(run, _series(picture, run, flows)) for run in group.runs]
    _title(panel, group, _median_words(group))
    names = [*flows, TOTAL] if picture.total else flows
    for name in names:
        shown = [(run, series[name]) for run, series in every if name in series]
        length = min(len(values) for _, values in shown)
        for run, values in shown:
            _stairs(panel, picture, results, group, name, flows, values, faint=True, dotted=doubtful(run))
        middle = np.median([values[:length] for _, values in shown], axis=0)
        _stairs(panel, picture, results, group, name, flows, list(middle), label=name)
    first: dict[str, tuple[float, str]] = {}
    for run in group.runs:  # each at its own moments: one line for what happened at the same moment
        for at, name in parts.events(run, picture.begin, run.seconds if picture.end is None else picture.end):
            first.setdefault(f"{name} {round(at / picture.bin)}", (at, name))
    return sorted(first.values())


def _median_words(group: Group) -> str:
    doubts = f", dotted: {group.doubtful} {DOUBTFUL}" if group.doubtful else ""
    return f"median of {len(group.runs)} runs; each run faint{doubts}"


def _title(panel: Any, group: Group, words: str) -> None:
    panel.set_title(parts.fitted(f"{group.name}: {words}"), fontsize=parts.TEXT, loc="left", pad=14)


def _stairs(
    panel: Any,
    picture: TimeSeries,
    results: Results,
    group: Group,
    name: str,
    flows: Sequence[str],
    values: Sequence[float],
    *,
    label: str | None = None,
    faint: bool = False,
    dotted: bool = False,
) -> None:
    place = flows.index(name) if name in flows else 0
    colour = INK if name == TOTAL else shade(results.styles[group.contender].colour, place, len(flows))
    panel.stairs(
        values,
        [picture.bin * at for at in range(len(values) + 1)],
        baseline=None,
        color=colour,
        linewidth=0.6 if faint else 1.6,
        alpha=0.35 if faint else 1.0,
        linestyle=DOTTED if dotted else LINES[3 if name == TOTAL else place % 3],
        label=label,
    )
