"""Distributions, as steps: no bins that could hide something."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from testbed.report.draw import parts
from testbed.report.plots import Cdf
from testbed.report.style import LINES, SLIDE, Style
from testbed.report.view import DOUBTFUL, Group, Results, with_unit


def draw(picture: Cdf, results: Results) -> Any:
    found = [(group, sorted(_samples(picture, results, group))) for group in results.groups(picture)]
    found = [(group, samples) for group, samples in found if samples]
    if not found:
        return None
    made = parts.figure(parts.height_for(4.4, len(found)), results.heading(picture, [group for group, _ in found]))
    panel = made.subplots()
    parts.plain(panel)
    settings = list({group.setting: None for group, _ in found})
    for group, samples in found:
        line = LINES[settings.index(group.setting) % len(LINES)]
        _steps(panel, picture, results.styles[group.contender], line, group, samples)
    unit, label = picture.unit, picture.label or f"{picture.series}: {picture.time}"
    if picture.metric:
        metric = results.metric(picture.metric)
        unit, label = metric["unit"], picture.label or metric["label"]
        reference = results.experiment["references"].get(picture.metric)
        if reference is not None:
            words = parts.reference_words(reference, unit)
            panel.axvline(reference["value"], color=SLIDE, linestyle=(0, (4, 2)), linewidth=1.4, label=words)
    if picture.log:
        panel.set_xscale("log")
        parts.plain_ticks(panel, x=True, y=False)
    else:
        panel.set_xlim(left=min(0.0, found[0][1][0]))
    panel.set_ylim(0, 1.02)
    panel.set_xlabel(with_unit(label, unit), fontsize=parts.TEXT)
    panel.set_ylabel("share of values that are at most so large", fontsize=parts.TEXT)
    parts.legend_outside(made, panel)
    return made


def _samples(picture: Cdf, results: Results, group: Group) -> list[float]:
    if picture.metric:
        return [value for value, _ in group.values(results.metric(picture.metric))]
    samples: list[float] = []
    for run in group.runs:
        for sample in run.data["traffic"].get(picture.traffic, {}).get(picture.series, ()):
            value = sample.get(picture.time)
            if value is not None and not sample.get("error"):
                samples.append(value * picture.scale)
    return samples


def _steps(panel: Any, picture: Cdf, style: Style, line: Any, group: Group, samples: Sequence[float]) -> None:
    """`line` tells points apart, the colour contenders; the mark stands where half of the samples are."""
    count = parts.count_words(len(samples), "" if picture.metric else f"of {len(group.runs)} runs")
    doubts = f", {group.doubtful} {DOUBTFUL}" if group.doubtful else ""
    panel.ecdf(samples, color=style.colour, linestyle=line, linewidth=1.8, label=f"{group.name}, {count}{doubts}")
    panel.plot(samples[(len(samples) - 1) // 2], 0.5, marker=style.marker, color=style.colour, markersize=5)
