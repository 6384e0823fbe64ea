"""Medians with intervals, and what the slide says beside them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from testbed.measure.table import number
from testbed.report.draw import parts
from testbed.report.plots import Bars
from testbed.report.style import INK, SLIDE
from testbed.report.view import Group, Results, with_unit

_ROW, _BETWEEN = 0.36, 0.45
"""Inches of a bar, and of a bar's share between two points."""
MARGIN = 0.7
"""Above the first and below the last bar, in bars."""
_DOTS = 0.14
"""How far runs and interval are apart."""


def draw(picture: Bars, results: Results) -> Any:
    metric = results.metric(picture.metric)
    groups = [group for group in results.groups(picture) if group.values(metric)]
    if not groups:
        return None
    made = parts.figure(1.5 + _ROW * len(groups), results.heading(picture, groups))
    panel = made.subplots()
    parts.plain(panel)
    panel.grid(axis="y", visible=False)
    panel.grid(axis="x", color="#e5e7eb", linewidth=0.7)
    places = rows(groups)
    far = max(value for group in groups for value, _ in group.values(metric))
    for place, group in zip(places, groups, strict=True):
        _row(panel, place, group, results, metric, log=picture.log)
    panel.set_yticks(places, [parts.fitted(group.name, 42) for group in groups])
    panel.set_ylim(places[-1] + MARGIN, -MARGIN)
    if picture.log:
        panel.set_xscale("log")
        parts.plain_ticks(panel, x=True, y=False)
    else:
        panel.set_xlim(left=0 if far > 0 else None)
    _slide(panel, picture, results, metric, groups, places)
    panel.set_xlabel(with_unit(metric["label"], metric["unit"]), fontsize=parts.TEXT)
    parts.below(made, [f"{'mark' if picture.log else 'bar'}: {NOTE}"])
    return made


NOTE = "median; line: its 95 % interval, none below 6 runs; dots: runs, hollow where DOUBTFUL; n: runs"


def rows(groups: list[Group]) -> list[float]:
    """Where each bar stands: points a little apart."""
    places, at = [], 0.0
    for index, group in enumerate(groups):
        if index and group.point != groups[index - 1].point:
            at += _BETWEEN
        places.append(at)
        at += 1.0
    return places


def _row(panel: Any, place: float, group: Group, results: Results, metric: Mapping[str, Any], *, log: bool) -> None:
    """A bar, on a logarithmic axis only its end: there its length would depend on where the axis happens to begin."""
    style = results.styles[group.contender]
    found = group.values(metric)
    estimate = results.estimate(metric["name"], group)
    median, within = estimate.median, estimate.exact
    if log:
        panel.plot([median], [place], "|", color=style.colour, markersize=17, markeredgewidth=3.5, zorder=2)
    else:
        panel.barh(place, median, height=0.66, color=style.colour, alpha=0.55, edgecolor=style.colour, zorder=2)
    for doubt in (False, True):
        shown = [value for value, mark in found if mark is doubt]
        panel.plot(
            shown,
            [place + _DOTS] * len(shown),
            linestyle="",
            marker=style.marker,
            markersize=4,
            color=style.colour,
            markerfacecolor="white" if doubt else style.colour,
            markeredgecolor="white" if not doubt else style.colour,
            markeredgewidth=0.4 if not doubt else 1.0,
            zorder=3,
        )
    words = number(median)
    if within is not None:
        panel.errorbar(
            within.median,
            place - _DOTS,
            xerr=[[within.median - within.low], [within.high - within.median]],
            color=INK,
            capsize=4,
            linewidth=1.6,
            zorder=4,
        )
        words += f" ({number(within.low)} .. {number(within.high)})"
    doubts = f", {group.doubtful} DOUBTFUL" if group.doubtful else ""
    panel.annotate(
        f"{words}, {parts.count_words(estimate.count)}{doubts}",
        (1.0, place),
        xycoords=("axes fraction", "data"),
        xytext=(4, 0),
        textcoords="offset points",
        va="center",
        fontsize=parts.SMALL,
        color=INK,
    )


def _slide(
    panel: Any,
    picture: Bars,
    results: Results,
    metric: Mapping[str, Any],
    groups: list[Group],
    places: list[float],
) -> None:
    """A line across for the metric's reference, one across its bar for a contender's."""
    said = []
    reference = results.experiment["references"].get(picture.metric)
    if reference is not None:
        panel.axvline(reference["value"], color=SLIDE, linestyle=(0, (4, 2)), linewidth=1.4, zorder=5)
        said.append(parts.reference_words(reference, metric["unit"]))
    for contender, own in picture.references.items():
        for place, group in zip(places, groups, strict=True):
            if group.contender == contender:
                ends = [place - 0.45, place + 0.45]
                panel.plot([own.value] * 2, ends, color=SLIDE, linestyle=(0, (2, 1)), linewidth=1.8, zorder=5)
        words = {"value": own.value, "source": own.source, "by_eye": own.by_eye}
        label = next((group.label for group in groups if group.contender == contender), contender)
        said.append(f"{label}: {parts.reference_words(words, metric['unit'])}")
    if said:
        panel.set_title(parts.fitted("dashed: " + "; ".join(said)), fontsize=parts.SMALL, loc="left", color=SLIDE)
