"""What keys do in `serval watch`. Pure."""

from __future__ import annotations

from collections.abc import Iterable

from serval_node.cli.watch_options import EVENTS, FLOW, SERVICE, TABLES
from serval_node.cli.watch_screen import View

_TABLE_KEYS = {"s": (SERVICE,), "f": (FLOW,), "e": (EVENTS,), "a": TABLES}


class Keyboard:
    """Turns keys into what is to be seen. Tables that are not watched cannot be chosen."""

    def __init__(self, tables: tuple[str, ...]) -> None:
        self._tables = tables
        self.view = View(tables)

    def press(self, keys: Iterable[str], *, page: int) -> bool:
        """Take keys in their order; True when one of them ends it. `page` is the number of rows of a page."""
        for key in keys:
            if key in ("q", "Q", "\x03"):
                return True
            self._press(key, page)
        return False

    def _press(self, key: str, page: int) -> None:
        steps = {"up": -1, "k": -1, "down": 1, "j": 1, "page up": -page, "page down": page, " ": page}
        if key in _TABLE_KEYS:
            chosen = tuple(table for table in self._tables if table in _TABLE_KEYS[key])
            if chosen:
                self.view = View(chosen)
        elif key in steps:
            self.view = View(self.view.tables, max(0, self.view.scroll + steps[key]))
        elif key == "home":
            self.view = View(self.view.tables)
