"""A metric against a swept parameter."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from testbed.report.draw import parts
from testbed.report.plots import Curve
from testbed.report.style import SLIDE
from testbed.report.view import Group, Results, with_unit


def draw(picture: Curve, results: Results) -> Any:
    metric = results.metric(picture.metric)
    groups = [group for group in results.groups(picture) if group.values(metric) and picture.x in group.point]
    if not groups:
        return None
    made = parts.figure(parts.height_for(4.6, len(groups)), results.heading(picture, groups))
    panel = made.subplots()
    parts.plain(panel)
    for contender in {group.contender: None for group in groups}:
        own = [group for group in groups if group.contender == contender]
        _line(panel, picture, results, sorted(own, key=lambda group: group.point[picture.x]), metric)
    for shape in picture.shapes:
        parts.draw_shape(panel, shape)
    reference = results.experiment["references"].get(picture.metric)
    if reference is not None:
        words = parts.reference_words(reference, metric["unit"])
        panel.axhline(reference["value"], color=SLIDE, linestyle=(0, (4, 2)), linewidth=1.2, label=words)
    if picture.log_x:
        panel.set_xscale("log")
    if picture.log_y:
        panel.set_yscale("log")
    else:
        panel.set_ylim(bottom=0)
    if picture.log_x or picture.log_y:
        parts.plain_ticks(panel, x=picture.log_x, y=picture.log_y)
    parameter = results.experiment["parameters"].get(picture.x, {})
    panel.set_xlabel(with_unit(parameter.get("text", picture.x), parameter.get("unit", "")), fontsize=parts.TEXT)
    panel.set_ylabel(with_unit(metric["label"], metric["unit"]), fontsize=parts.TEXT)
    parts.legend_outside(made, panel)
    parts.below(made, ["marks: medians; bars: their 95 % intervals, none below 6 runs; hollow: runs are DOUBTFUL"])
    return made


def _line(panel: Any, picture: Curve, results: Results, groups: list[Group], metric: Mapping[str, Any]) -> None:
    style = results.styles[groups[0].contender]
    where = [group.point[picture.x] for group in groups]
    estimates = [results.estimate(metric["name"], group) for group in groups]
    medians = [estimate.median for estimate in estimates]
    counts = sorted({estimate.count for estimate in estimates})
    count = str(counts[0]) if len(counts) == 1 else f"{counts[0]} to {counts[-1]}"
    label = f"{groups[0].label} ({parts.count_words(count, 'each')})"
    panel.plot(
        where, medians, color=style.colour, linestyle=style.line, linewidth=1.5, label=label, marker=style.marker
    )
    for x, estimate, group in zip(where, estimates, groups, strict=True):
        within = estimate.exact
        if within is not None:
            ends = [[within.median - within.low], [within.high - within.median]]
            panel.errorbar(x, within.median, yerr=ends, color=style.colour, capsize=3)
        if group.doubtful:
            panel.plot(
                [x], [estimate.median], marker=style.marker, color=style.colour, markerfacecolor="white", zorder=5
            )
