"""`serval watch` without a screen: one picture, or a line for each change. For logs, CI and dumb terminals."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from serval_node.cli.output import columns
from serval_node.cli.watch_changes import Change, Mark, Row
from serval_node.cli.watch_model import Model
from serval_node.cli.watch_options import EVENTS
from serval_node.cli.watch_tables import COLUMNS

TITLES = {"service": "service table", "flow": "flow table", "events": "last events"}


def picture(model: Model, now: float) -> str:
    """Every row of every table, without marks."""
    blocks = []
    for table in model.tables:
        rows = [list(shown.row.cells) for shown in model.shown(table, now) if shown.mark is not Mark.GONE]
        blocks.append(f"{TITLES[table]} of {model.status.get('name', '?')}: {len(rows)}\n{_aligned(table, rows)}")
    return "\n\n".join(blocks)


def _aligned(table: str, rows: Sequence[Sequence[str]]) -> str:
    names, numbers = COLUMNS[table].names, COLUMNS[table].numbers
    widths = [max(map(len, column), default=0) for column in zip(names, *rows, strict=True)]
    right = [
        [cell.rjust(widths[index]) if index in numbers and cell else cell for index, cell in enumerate(row)]
        for row in rows
    ]
    head = [name.rjust(widths[index]) if index in numbers else name for index, name in enumerate(names)]
    return columns(head, right)


def start_lines(model: Model, now: float, clock: str) -> list[str]:
    """What is there when watching begins, marked with =; events of before are left out."""
    return [
        f"{clock} = {table} {_all_cells(table, shown.row)}"
        for table in model.tables
        if table != EVENTS
        for shown in model.shown(table, now)
    ]


def change_lines(changes: Mapping[str, Iterable[Change]], clock: str) -> list[str]:
    """A line for each change: time, mark, table, which row, and for changed cells what they were and are."""
    lines = []
    for table, found in changes.items():
        for change in found:
            if table == EVENTS:
                if change.mark is Mark.NEW:
                    time, *cells = change.row.cells
                    lines.append(f"{time} {Mark.NEW.value} event {' '.join(cells)}")
            elif change.mark is Mark.CHANGED and change.before is not None:
                lines.append(f"{clock} * {table} {_label(table, change.row)}: {_cells(table, change)}")
            else:
                lines.append(f"{clock} {change.mark.value} {table} {_all_cells(table, change.row)}")
    return lines


def _label(table: str, row: Row) -> str:
    return " ".join(row.cells[index] for index in COLUMNS[table].label if row.cells[index])


def _all_cells(table: str, row: Row) -> str:
    label = COLUMNS[table].label
    rest = [
        f"{name} {cell}"
        for index, (name, cell) in enumerate(zip(COLUMNS[table].names, row.cells, strict=True))
        if index not in label and cell
    ]
    return ", ".join([_label(table, row), *rest])


def _cells(table: str, change: Change) -> str:
    assert change.before is not None
    names = COLUMNS[table].names
    return ", ".join(
        f"{names[index]} {change.before.cells[index] or '-'} -> {change.row.cells[index] or '-'}"
        for index in sorted(change.columns)
    )
