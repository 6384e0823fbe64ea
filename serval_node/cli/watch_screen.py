"""How `serval watch` looks: the tables of a model as one screen of rich.

Imported only when `watch` fills a screen, because it imports rich: nothing else pays for that. What changed is marked
by a character, and by a style that differs in weight and brightness, not only in colour.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from serval_node.cli.watch_changes import Mark, Shown
from serval_node.cli.watch_lines import TITLES
from serval_node.cli.watch_model import Model
from serval_node.cli.watch_options import EVENTS
from serval_node.cli.watch_tables import COLUMNS, Columns

STYLES = {Mark.NEW: "bold cyan", Mark.CHANGED: "bold yellow", Mark.GONE: "dim strike", Mark.SAME: ""}
KEYS = "q quit  s f e a: service, flow, events, all  arrows, page keys: scroll"
LEGEND = "+ new  * changed  - gone"
# Above the rows of a table: its title and the column header.
_HEAD_LINES = 2
_LEAST_ROWS = 1
# Beside the text of a cell: the mark behind it, and the space to the next one.
_MARK_AND_GAP = 2
_WIDE_LEAST = 24


@dataclass(frozen=True, slots=True)
class View:
    """What the user chose to see: tables, and how many rows of them are scrolled away."""

    tables: tuple[str, ...]
    scroll: int = 0


def share_lines(wanted: Sequence[int], available: int) -> list[int]:
    """How many of `available` lines each table gets: what it wants, or a fair part of what there is.

    A table that wants less than its part leaves the rest to the others. Pure.
    """
    given = [0] * len(wanted)
    waiting = sorted(range(len(wanted)), key=lambda index: wanted[index])
    left = max(0, available)
    for position, index in enumerate(waiting):
        given[index] = min(wanted[index], left // (len(waiting) - position))
        left -= given[index]
    return given


def screen(
    model: Model, view: View, *, now: float, size: tuple[int, int], interval: float, clock: str
) -> RenderableType:
    """The whole screen of `size` (columns, lines); `interval` in seconds is only told."""
    parts: list[RenderableType] = [_header(model, now, interval, clock)]
    rows = {table: model.shown(table, now) for table in view.tables}
    between = len(view.tables) - 1
    room = size[1] - 2 - between - _HEAD_LINES * len(view.tables)
    lines = share_lines([max(len(rows[table]), _LEAST_ROWS) for table in view.tables], room)
    for number, (table, height) in enumerate(zip(view.tables, lines, strict=True)):
        if number:
            parts.append(Text(""))
        parts += _table(table, rows[table], height, view.scroll, size[0])
    parts.append(Text(f"{LEGEND}  |  {KEYS}", style="dim", no_wrap=True, overflow="ellipsis"))
    return Group(*parts)


def _header(model: Model, now: float, interval: float, clock: str) -> Text:
    line = Text(no_wrap=True, overflow="ellipsis")
    name, role = model.status.get("name"), model.status.get("role")
    line.append(f"{name} ({role})" if name else "serval watch", style="bold")
    if model.trouble is not None:
        line.append(f"  ! no answer, waiting since {now - model.trouble_since:.0f} s", style="bold reverse")
        line.append(f"  {model.trouble}")
        return line
    if model.status:
        controller = model.status["controller"]
        up = "up" if model.status["controller_up"] else "not connected"
        line.append("  controller: " + ("none" if controller is None else up))
    line.append(f"  every {interval:g} s  {clock}")
    return line


def _table(table: str, rows: Sequence[Shown], height: int, scroll: int, width: int) -> list[RenderableType]:
    columns = COLUMNS[table]
    first, last = _window(table, len(rows), height, scroll)
    hidden = [*rows[:first], *rows[last:]]
    there = sum(shown.mark is not Mark.GONE for shown in rows)
    title = Text(f"{TITLES[table]}: {there}", style="bold", no_wrap=True, overflow="ellipsis")
    if hidden:
        changed = sum(shown.mark is not Mark.SAME for shown in hidden)
        title.append(f", {len(hidden)} not on the screen", style="not bold")
        title.append(f" ({changed} of these changed)" if changed else "", style="bold")
    kept = fitting(columns, [shown.row.cells for shown in rows[first:last]], width)
    out = Table(box=None, pad_edge=False, padding=(0, 1, 0, 0), show_edge=False, header_style="dim", width=width)
    out.add_column("", width=1, no_wrap=True)
    for index in kept:
        name, right = columns.names[index], index in columns.numbers
        # One more place in each column: the mark of a changed cell.
        out.add_column(
            f"{name} ",
            justify="right" if right else "left",
            no_wrap=True,
            overflow="ellipsis",
            ratio=1 if index == columns.wide else None,
        )
    for shown in rows[first:last]:
        cells = _cells(shown)
        out.add_row(Text(shown.mark.value, style=STYLES[shown.mark]), *(cells[index] for index in kept))
    return [title, out]


def fitting(columns: Columns, rows: Sequence[Sequence[str]], width: int) -> list[int]:
    """The numbers of the columns for which `width` has room, the wide one with a part of its text at least. Pure."""
    needs = [max(map(len, texts)) + _MARK_AND_GAP for texts in zip(columns.names, *rows, strict=True)]
    needs[columns.wide] = min(needs[columns.wide], _WIDE_LEAST)
    kept = list(range(len(columns.names)))
    for spare in columns.spare:
        if _MARK_AND_GAP + sum(needs[index] for index in kept) <= width:
            break
        kept.remove(spare)
    return kept


def _cells(shown: Shown) -> list[Text]:
    if shown.mark is Mark.CHANGED:
        return [
            Text(f"{cell}*", style=STYLES[Mark.CHANGED]) if index in shown.columns else Text(f"{cell} ")
            for index, cell in enumerate(shown.row.cells)
        ]
    return [Text(f"{cell} ", style=STYLES[shown.mark]) for cell in shown.row.cells]


def _window(table: str, total: int, height: int, scroll: int) -> tuple[int, int]:
    """Which rows are on the screen. Of events the last ones, from which scrolling leads back."""
    height = max(0, height)
    most = max(0, total - height)
    first = max(0, most - scroll) if table == EVENTS else min(scroll, most)
    return first, min(total, first + height)
