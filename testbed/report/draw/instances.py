"""Which instance answers how much of the requests, while instances come and go."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from testbed.experiment.record import RunRecord
from testbed.report.draw import parts
from testbed.report.plots import Instances
from testbed.report.view import Group, Results, doubtful

FAILED = "no answer"
_COLOURS = ("#332288", "#88ccee", "#44aa99", "#117733", "#999933", "#ddcc77", "#cc6677", "#882255", "#aa4499")
_HATCHES = ("", "///", "...", "\\\\\\")
"""After P. Tol's "muted" scheme; beyond nine instances hatching tells them apart."""


def draw(picture: Instances, results: Results) -> Any:
    groups = [group for group in results.groups(picture) if _runs(picture, group)]
    if not groups:
        return None
    made = parts.figure(1.4 + 1.95 * len(groups), results.heading(picture, groups))
    end = max(run.seconds for group in groups for run in group.runs)
    marks, named = parts.EventMarks(end), _names(picture, groups)
    panels = parts.panels(made, len(groups))
    for panel, group in zip(panels, groups, strict=True):
        runs = _runs(picture, group)
        tables = [_table(picture, run, named) for run in runs]
        index = parts.typical(runs, [[value for row in table for value in row] for table in tables])
        text = f"{group.name}: {parts.run_words(group, runs[index])}"
        panel.set_title(parts.fitted(text), fontsize=parts.TEXT, loc="left", pad=14)
        if doubtful(runs[index]):
            parts.watermark(panel)
        _stack(panel, picture, named, tables[index])
        marks.mark(panel, parts.events(runs[index], 0.0, runs[index].seconds), on_areas=True)
    parts.legend_outside(made, panels[0])
    panels[0].set_xlim(0, end)
    panels[0].set_ylim(bottom=0)
    panels[-1].set_xlabel("time [s]", fontsize=parts.TEXT)
    made.supylabel("requests [1/s]", fontsize=parts.TEXT)
    parts.below(made, [f"requests by the time at which they began, in bins of {picture.bin:g} s", *marks.words()])
    return made


def _runs(picture: Instances, group: Group) -> list[RunRecord]:
    return [run for run in group.runs if run.data["traffic"].get(picture.traffic, {}).get("requests")]


def _names(picture: Instances, groups: Sequence[Group]) -> list[str]:
    """All instances that answered anything, by name; failures last."""
    found = {
        request["instance"] if not request["error"] else FAILED
        for group in groups
        for run in _runs(picture, group)
        for request in run.data["traffic"][picture.traffic]["requests"]
    }
    return [*sorted((name for name in found if name != FAILED), key=_natural), *([FAILED] if FAILED in found else [])]


def _natural(name: str) -> list[tuple[bool, int, str]]:
    """So that host2 comes before host10."""
    return [(part.isdigit(), int(part) if part.isdigit() else 0, part) for part in re.split(r"(\d+)", name)]


def _table(picture: Instances, run: RunRecord, names: Sequence[str]) -> list[list[float]]:
    """Per instance its requests a second in each whole bin."""
    count = max(1, int(run.seconds / picture.bin + 1e-9))
    rows = {name: [0.0] * count for name in names}
    for request in run.data["traffic"][picture.traffic]["requests"]:
        at = int(request["at"] / picture.bin)
        if 0 <= at < count:
            rows[request["instance"] if not request["error"] else FAILED][at] += 1 / picture.bin
    return list(rows.values())


def _stack(panel: Any, picture: Instances, names: Sequence[str], table: Sequence[Sequence[float]]) -> None:
    base = [0.0] * len(table[0])
    edges = [picture.bin * at for at in range(len(base) + 1)]
    for index, (name, values) in enumerate(zip(names, table, strict=True)):
        top = [low + value for low, value in zip(base, values, strict=True)]
        failed = name == FAILED
        panel.stairs(
            top,
            edges,
            baseline=base,
            fill=True,
            facecolor="black" if failed else _COLOURS[index % len(_COLOURS)],
            hatch="" if failed else _HATCHES[index // len(_COLOURS) % len(_HATCHES)],
            edgecolor="white",
            linewidth=0.3,
            label=name,
        )
        base = top
