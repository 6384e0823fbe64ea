"""What changed between two pictures of a table, and for how long that is shown. Pure: the time is passed in."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import Enum


class Mark(str, Enum):
    """How a row differs from what it was; the values are the characters that show it."""

    SAME = " "
    NEW = "+"
    CHANGED = "*"
    GONE = "-"


@dataclass(frozen=True, slots=True)
class Row:
    """One row: `key` tells which one it is from picture to picture, `cells` are its texts.

    `values` are what is compared, one for each cell: a text may be rounded.
    """

    key: str
    cells: tuple[str, ...]
    values: tuple[object, ...]


@dataclass(frozen=True, slots=True)
class Change:
    """A row that is new, changed or gone, as it is and as it was; `columns` are the numbers of its changed cells."""

    mark: Mark
    row: Row
    before: Row | None = None
    columns: frozenset[int] = frozenset()


@dataclass(frozen=True, slots=True)
class Shown:
    """A row as it is to be shown now."""

    row: Row
    mark: Mark
    columns: frozenset[int] = frozenset()


def difference(before: Sequence[Row], after: Sequence[Row]) -> list[Change]:
    """What happened between two pictures: new and changed rows in their order, then those that have gone."""
    old = {row.key: row for row in before}
    new_keys = {row.key for row in after}
    changes = []
    for row in after:
        known = old.get(row.key)
        if known is None:
            changes.append(Change(Mark.NEW, row))
        elif known.values != row.values:
            pairs = zip(known.values, row.values, strict=True)
            columns = frozenset(index for index, (was, now) in enumerate(pairs) if was != now)
            changes.append(Change(Mark.CHANGED, row, known, columns))
    return changes + [Change(Mark.GONE, row, row) for row in before if row.key not in new_keys]


@dataclass(slots=True)
class _Life:
    """What is remembered of a row: when it came, went, and when each cell last changed."""

    row: Row
    came: float | None = None
    went: float | None = None
    cells: dict[int, float] = field(default_factory=dict)


class History:
    """The pictures of one table so far. Marks stay for `hold` seconds, rows that have gone for `keep` seconds."""

    def __init__(self, hold: float, keep: float) -> None:
        self._hold = hold
        self._keep = keep
        self._rows: list[Row] | None = None
        self._lives: dict[str, _Life] = {}

    def update(self, rows: Sequence[Row], now: float) -> list[Change]:
        """Take the next picture; the changes since the one before. Of the first picture nothing is a change."""
        first = self._rows is None
        changes = [] if first else difference(self._rows or (), rows)
        for change in changes:
            self._note(change, now)
        order = self._order(rows, now)
        for row in rows:
            life = self._lives.setdefault(row.key, _Life(row))
            life.row = row
        self._lives = {key: self._lives[key] for key in order}
        self._rows = list(rows)
        return changes

    def _note(self, change: Change, now: float) -> None:
        key = change.row.key
        if change.mark is Mark.NEW:
            self._lives[key] = _Life(change.row, came=now)
        elif change.mark is Mark.GONE:
            self._lives[key].went = now
        else:
            self._lives[key].cells.update(dict.fromkeys(change.columns, now))

    def _order(self, rows: Sequence[Row], now: float) -> list[str]:
        """The keys in the picture's order; a row that has gone stays behind the one that stood before it."""
        order = [row.key for row in rows]
        present = set(order)
        behind: dict[str | None, list[str]] = {}
        last: str | None = None
        for key, life in self._lives.items():
            if key in present:
                last = key
            elif life.went is not None and now - life.went < self._keep:
                behind.setdefault(last, []).append(key)
        out = behind.get(None, [])[:]
        for key in order:
            out += [key, *behind.get(key, [])]
        return out

    def shown(self, now: float) -> list[Shown]:
        """Every row with its mark at this time."""
        return [self._shown(life, now) for life in self._lives.values()]

    def _shown(self, life: _Life, now: float) -> Shown:
        if life.went is not None:
            return Shown(life.row, Mark.GONE)
        if life.came is not None and now - life.came < self._hold:
            return Shown(life.row, Mark.NEW)
        columns = frozenset(index for index, when in life.cells.items() if now - when < self._hold)
        return Shown(life.row, Mark.CHANGED if columns else Mark.SAME, columns)
