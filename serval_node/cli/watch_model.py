"""What `serval watch` knows of a node: its tables so far, and whether it answers. Pure: answers and times come in."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping, Sequence
from typing import Any

from serval_node.cli.event_text import EventWords
from serval_node.cli.watch_changes import Change, History, Shown
from serval_node.cli.watch_options import EVENTS, FLOW, SERVICE
from serval_node.cli.watch_tables import COLUMNS, event_rows, flow_rows, service_rows

HOLD_SECONDS = 1.0
KEEP_SECONDS = 3.0
EVENTS_KEPT = 200
# An event is logged a moment after the time that it bears: what a snapshot just missed comes with a later one.
_OVERLAP_SECONDS = 1.0


class Model:
    """The tables of one node. `tables` are those to be looked at, in the order in which they are shown."""

    def __init__(self, tables: Sequence[str], *, hold: float = HOLD_SECONDS) -> None:
        self.tables = tuple(tables)
        self.status: Mapping[str, Any] = {}
        self.trouble: str | None = None
        self.trouble_since = 0.0
        self._words = EventWords({})
        self._events: deque[Mapping[str, Any]] = deque(maxlen=EVENTS_KEPT)
        self._seen_until = 0.0
        # What makes seconds of the epoch of the node's times; kept, or else old events would seem to change.
        self._wall: float | None = None
        keep = {SERVICE: KEEP_SECONDS, FLOW: KEEP_SECONDS, EVENTS: 0.0}
        self._histories = {table: History(hold, max(keep[table], hold if keep[table] else 0)) for table in self.tables}

    def name_hosts(self, hosts: Mapping[str, str]) -> None:
        """`hosts`: addresses by name, as the control socket's `hosts` gives them."""
        self._words = EventWords({address: name for name, address in hosts.items()})

    def request(self) -> dict[str, Any]:
        """The fields of the next `snapshot` request."""
        parts = [COLUMNS[table].part for table in self.tables]
        return {"parts": parts, "since": max(0.0, self._seen_until - _OVERLAP_SECONDS), "last": EVENTS_KEPT}

    def take(self, answer: Mapping[str, Any], now: float, wall: float) -> dict[str, list[Change]]:
        """A snapshot that came at monotonic time `now`, `wall` in seconds of the epoch; what changed in each table."""
        if answer["status"].get("boot") != self.status.get("boot"):
            self._events.clear()  # another daemon's log says nothing about this one's
        self.status = answer["status"]
        self.trouble = None
        if self._wall is None:
            self._wall = wall - answer["now"]
        changes = {}
        for table in self.tables:
            data = answer[COLUMNS[table].part]
            if table == SERVICE:
                rows = service_rows(data, self._words)
            elif table == FLOW:
                rows = flow_rows(data, self._words)
            else:
                self._events.extend(event for event in data if event not in self._events)
                rows = event_rows(list(self._events), self._words, self._wall)
            changes[table] = self._histories[table].update(rows, now)
        self._seen_until = answer["now"]
        return changes

    def lose(self, reason: str, now: float) -> bool:
        """The node does not answer; True when that is news."""
        news = self.trouble is None
        if news:
            self.trouble_since = now
        self.trouble = reason
        # A node that comes back has a log of its own.
        self._seen_until = 0.0
        return news

    def shown(self, table: str, now: float) -> list[Shown]:
        """The rows of a table with their marks."""
        return self._histories[table].shown(now)
