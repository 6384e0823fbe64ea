"""Plots of a result file: one picture per benchmark, a line per figure with its values, median and interval."""

from __future__ import annotations

import atexit
import os
import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from testbed.errors import TestbedError
from testbed.measure import analysis
from testbed.measure.analysis import Outcome
from testbed.ownership import caller, owned_by_caller

FORMATS = ("svg", "png")
_VALUES, _MEDIAN, _AIM = "#9aa5b1", "#1f5fa8", "#c2410c"


def draw(document: Mapping[str, Any], directory: Path) -> list[Path]:
    """Write BENCHMARK.svg and .png for each benchmark with values; returns the paths. Raises TestbedError."""
    _leave_home_alone()
    # Headless, and only here: the import takes longer than a short benchmark.
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure as Canvas

    written = []
    for entry in document["benchmarks"]:
        found = [outcome for outcome in analysis.of_benchmark(document, entry) if outcome.values]
        if not found:
            continue
        canvas = Canvas(figsize=(9, 1.1 + 0.85 * len(found)), layout="constrained")
        FigureCanvasAgg(canvas)
        panels = canvas.subplots(len(found), 1, squeeze=False)[:, 0]
        for panel, outcome in zip(panels, found, strict=True):
            _panel(panel, outcome)
        canvas.suptitle(
            analysis.heading(document, entry) + (" (DOUBTFUL)" if analysis.doubtful(entry) else ""), fontsize=10
        )
        canvas.supxlabel(
            "dots: values; bar: median and 95 % interval; dashed: aim, shaded: noise around it", fontsize=7
        )
        for kind in FORMATS:
            path = directory / f"{entry['name']}.{kind}"
            try:
                canvas.savefig(path, dpi=120)
                owned_by_caller(path)
            except OSError as error:
                raise TestbedError(f"cannot write {path}: {error.strerror}") from None
            written.append(path)
    return written


def _leave_home_alone() -> None:
    """Under sudo the cache of fonts would be left in the caller's home, with root as its owner."""
    if caller() is not None and "MPLCONFIGDIR" not in os.environ:
        place = tempfile.mkdtemp(prefix="matplotlib-")
        os.environ["MPLCONFIGDIR"] = place
        atexit.register(shutil.rmtree, place, ignore_errors=True)


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
