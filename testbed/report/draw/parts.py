"""What several kinds of pictures have in common: panels, legends, events, what a slide says."""

from __future__ import annotations

import textwrap
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from testbed.experiment.record import RunRecord
from testbed.measure import canvas
from testbed.measure.table import number
from testbed.report.plots import Shape
from testbed.report.style import FAINT, GREY, INK, SLIDE
from testbed.report.view import DOUBTFUL, Group, doubtful

WIDTH = 9.0
"""Inches; fonts below are made for it."""
TITLE, TEXT, SMALL = 11, 9, 8
_LINE_CHARACTERS = 95
_NEAR = 0.025
"""Of the time axis: nearer than that, two numbers would overlap."""
_LEGEND_CHARACTERS, _HANDLE_CHARACTERS = 140, 8
"""In a line below a picture, and what an entry takes beside its words."""


def figure(height: float, title: str) -> Any:
    """A figure with its heading, broken into lines that fit."""
    made = canvas.new(WIDTH, height)
    made.suptitle(fitted(title, 80), fontsize=TITLE, color=INK)
    return made


def fitted(text: str, characters: int = _LINE_CHARACTERS) -> str:
    """Broken into lines of at most so many characters, so that nothing is cut off."""
    return "\n".join(line for part in text.splitlines() for line in textwrap.wrap(part, characters))


def panels(made: Any, count: int) -> list[Any]:
    """Panels one above the other, on the same axes."""
    found = list(made.subplots(count, 1, sharex=True, sharey=True, squeeze=False)[:, 0])
    for panel in found:
        plain(panel)
    return found


def plain(panel: Any) -> None:
    panel.spines[["top", "right"]].set_visible(False)
    panel.tick_params(labelsize=SMALL)
    panel.grid(axis="y", color="#e5e7eb", linewidth=0.7)
    panel.set_axisbelow(True)


def below(made: Any, lines: Iterable[str]) -> None:
    """Notes under the picture, broken into lines that fit."""
    made.supxlabel(fitted("\n".join(lines), _LINE_CHARACTERS + 20), fontsize=SMALL, color=GREY, x=0.01, ha="left")


def legend(panel: Any) -> None:
    """Beside the panel, where it hides nothing."""
    handles, labels = _entries(panel)
    if handles:
        place = {"loc": "upper left", "bbox_to_anchor": (1.01, 1.0)}
        panel.legend(handles, labels, fontsize=SMALL, frameon=False, **place)


def legend_outside(made: Any, panel: Any) -> None:
    """One for the whole picture, which may be longer than a panel is high."""
    handles, labels = _entries(panel)
    if handles:
        made.legend(handles, labels, fontsize=SMALL, frameon=False, loc="outside right upper")


def legend_below(made: Any, panel: Any) -> None:
    """Below the picture, in as many columns as fit."""
    handles, labels = panel.get_legend_handles_labels()
    columns = max(1, _LEGEND_CHARACTERS // (max(len(label) for label in labels) + _HANDLE_CHARACTERS))
    place = {"loc": "outside lower center", "ncols": min(columns, len(labels))}
    made.legend(handles, labels, fontsize=SMALL, frameon=False, **place)


def height_for(height: float, entries: int) -> float:
    """Inches that a picture needs so that a legend of so many entries of up to three lines fits."""
    return max(height, 1.0 + 0.46 * entries)


def _entries(panel: Any) -> tuple[list[Any], list[str]]:
    handles, labels = panel.get_legend_handles_labels()
    return handles, [textwrap.fill(label, 28) for label in labels]


def watermark(panel: Any) -> None:
    """Across a panel that shows one doubtful run."""
    place = {"ha": "center", "va": "center", "transform": panel.transAxes}
    panel.text(0.5, 0.5, DOUBTFUL, fontsize=26, color=FAINT, alpha=0.6, zorder=0.5, **place)


def said_by_slide(shape: Shape) -> str:
    return f"{shape.label} ({shape.source}{', read off by eye' if shape.by_eye else ''})"


def reference_words(reference: Mapping[str, Any], unit: str) -> str:
    """ "slide 46: 500 Mbit/s (read off by eye)"."""
    by_eye = " (read off by eye)" if reference.get("by_eye") else ""
    return f"{reference['source']}: {number(reference['value'])} {unit}".rstrip() + by_eye


def draw_shape(panel: Any, shape: Shape) -> None:
    x, y = zip(*shape.points, strict=True)
    panel.plot(x, y, color=SLIDE, linestyle=(0, (4, 2)), linewidth=1.4, label=said_by_slide(shape), zorder=1.5)


def typical(runs: Sequence[RunRecord], series: Sequence[Sequence[float]]) -> int:
    """The index of the run that is nearest to the median of all, moment by moment; a trustworthy one if there is."""
    import numpy as np

    length = min(len(values) for values in series)
    table = np.array([values[:length] for values in series], dtype=float)
    distances = np.abs(table - np.median(table, axis=0)).sum(axis=1)
    return min(range(len(runs)), key=lambda index: (doubtful(runs[index]), distances[index], index))


def events(run: RunRecord, begin: float, end: float) -> list[tuple[float, str]]:
    """What the schedule did within a time."""
    return [
        (float(event["at"]), event["name"])
        for event in run.data["events"]
        if event["source"] == "schedule" and begin <= event["at"] <= end
    ]


class EventMarks:
    """Events as numbered lines; the same words have the same number in all panels of a picture.

    span  seconds of the time axis: numbers that would stand in each other's place share one mark
    """

    def __init__(self, span: float) -> None:
        self._near = _NEAR * span
        self._numbers: dict[str, int] = {}
        self._times: dict[str, set[float]] = {}

    def mark(self, panel: Any, happened: Sequence[tuple[float, str]], *, on_areas: bool = False) -> None:
        """`on_areas`: what is shown is filled, and dark in places."""
        groups: list[list[tuple[float, int]]] = []
        for at, name in sorted(happened):
            number = self._numbers.setdefault(name, len(self._numbers) + 1)
            self._times.setdefault(name, set()).add(at)
            if on_areas:
                panel.axvline(at, color="white", linewidth=2.4, zorder=2.4)
            panel.axvline(at, color=INK, linewidth=0.9, linestyle=(0, (2, 2)), zorder=2.5 if on_areas else 1)
            if groups and at - groups[-1][-1][0] < self._near:
                groups[-1].append((at, number))
            else:
                groups.append([(at, number)])
        for group in groups:
            self._number(panel, group)

    def _number(self, panel: Any, group: Sequence[tuple[float, int]]) -> None:
        numbers = list(dict.fromkeys(number for _, number in group))
        panel.annotate(
            ", ".join(str(number) for number in numbers),
            (sum(at for at, _ in group) / len(group), 1.0),
            xycoords=("data", "axes fraction"),
            xytext=(0, 1),
            textcoords="offset points",
            fontsize=SMALL,
            ha="center",
            va="bottom",
            color=INK,
            bbox={
                "boxstyle": "circle,pad=0.15" if len(numbers) == 1 else "round,pad=0.2",
                "facecolor": "white",
                "edgecolor": INK,
                "linewidth": 0.7,
            },
        )

    def words(self) -> list[str]:
        """ "(1) flow1 moves to eth1, at 6 s", in the order of their numbers."""
        return [f"({number}) {name}, at {_moments(self._times[name])}" for name, number in self._numbers.items()]


def _moments(times: Iterable[float]) -> str:
    """Each run has its own by some milliseconds: "1.50 s" of one, "about 1.5, 2.5 s" of several."""
    ordered = sorted(times)
    tenths = sorted({round(at, 1) for at in ordered})
    if len(ordered) == 1:
        return f"{ordered[0]:.2f} s"
    if len(tenths) <= 6:
        return f"about {', '.join(f'{at:.1f}' for at in tenths)} s"
    return f"{len(tenths)} moments from {ordered[0]:.2f} to {ordered[-1]:.2f} s"


def _of_how_many(count: int) -> str:
    return "only one" if count == 1 else f"nearest to the median of {count}"


def run_words(group: Group, run: RunRecord) -> str:
    """ "run 7, the nearest to the median of 10", and why it is doubtful if it is."""
    kinds = "; ".join(dict.fromkeys(run.data["fidelity"]["kinds"]))  # the page has the whole reasons
    place = f"run {run.data['number']}, the {_of_how_many(len(group.runs))}"
    return f"{place}, {DOUBTFUL}: {kinds}" if doubtful(run) else place


def count_words(count: int | str, what: str = "") -> str:
    """ "n = 6", in one piece wherever a line is broken."""
    return f"n = {count} {what}".rstrip().replace(" ", "\N{NO-BREAK SPACE}")


def plain_ticks(panel: Any, *, x: bool, y: bool) -> None:
    """Logarithmic axes with 1, 2, 5, 10 instead of powers."""
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

    for chosen, axis in ((x, panel.xaxis), (y, panel.yaxis)):
        if chosen:
            axis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
            axis.set_major_formatter(FuncFormatter(lambda value, place: f"{value:g}"))
            axis.set_minor_formatter(NullFormatter())
