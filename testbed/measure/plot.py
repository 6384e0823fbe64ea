"""Plots of a result file: one picture per benchmark, a line per figure with its values, median and interval."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from testbed.measure import analysis, canvas
from testbed.measure.analysis import Outcome

_VALUES, _MEDIAN, _AIM = "#9aa5b1", "#1f5fa8", "#c2410c"


def draw(document: Mapping[str, Any], directory: Path) -> list[Path]:
    """Write BENCHMARK.svg and .png for each benchmark with values; returns the paths. Raises TestbedError."""
    written = []
    for entry in document["benchmarks"]:
        found = [outcome for outcome in analysis.of_benchmark(document, entry) if outcome.values]
        if not found:
            continue
        figure = canvas.new(9, 1.1 + 0.85 * len(found))
        panels = figure.subplots(len(found), 1, squeeze=False)[:, 0]
        for panel, outcome in zip(panels, found, strict=True):
            _panel(panel, outcome)
        figure.suptitle(
            analysis.heading(document, entry) + (" (DOUBTFUL)" if analysis.doubtful(entry) else ""), fontsize=10
        )
        figure.supxlabel(
            "dots: values; bar: median and 95 % interval; dashed: aim, shaded: noise around it", fontsize=7
        )
        written += canvas.save(figure, directory, entry["name"])
    return written


def _panel(panel: Any, outcome: Outcome) -> None:
    panel.plot(outcome.values, [0.0] * outcome.count, "o", color=_VALUES, markersize=4, alpha=0.6)
    if outcome.interval is not None:
        panel.plot([outcome.interval.low, outcome.interval.high], [0, 0], "-", color=_MEDIAN, linewidth=3)
    panel.plot([outcome.median], [0], "|", color=_MEDIAN, markersize=16, markeredgewidth=3)
    if outcome.aim is not None:
        panel.axvline(outcome.aim, color=_AIM, linestyle="--", linewidth=1)
        if outcome.noise is not None:
            panel.axvspan(outcome.aim - outcome.noise, outcome.aim + outcome.noise, color=_AIM, alpha=0.12)
    panel.set_yticks([])
    panel.set_ylim(-1, 1)
    unit = f" [{outcome.unit}]" if outcome.unit else ""
    panel.set_title(f"{outcome.label}{unit}, n = {outcome.count}", fontsize=8, loc="left", pad=2)
    panel.tick_params(labelsize=7)
    panel.margins(x=0.08)
