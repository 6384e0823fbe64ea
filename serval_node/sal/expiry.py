"""Rules that end by themselves: idle and hard time-outs (protocol notes 6.1, where the messages have them).

The original's stack ignores them. Here the rule goes, the next shorter prefix takes its serviceIDs, and an event tells
of it with the rule's final counters.
"""

from __future__ import annotations

from serval_node.sal.context import Context
from serval_node.sal.events import RuleExpired
from serval_node.sal.service_table import Entry, Slot


class Expiry:
    """Ends rules when their time has come."""

    def __init__(self, context: Context) -> None:
        self._context = context
        # Packets only put the end off, so that this is never too late; it is computed anew when it comes.
        self._next: float | None = None
        context.service_table.on_change(self._note_change)

    def _note_change(self) -> None:
        if self._next is not None or self._context.service_table.timed():
            self._next = 0.0

    def next_timer(self) -> float | None:
        """When ``run`` has something to do; 0 for at once."""
        return self._next

    def run(self, now: float) -> None:
        """Begin the time of new rules, and end those whose time is over."""
        if self._next is None or self._next > now:
            return
        ends = []
        for entry in self._context.service_table.timed():
            for origin in dict.fromkeys(slot.origin for slot in entry.slots if slot.timed):
                end, cause = _end([slot for slot in entry.slots if slot.origin == origin], now)
                if end <= now:
                    self._expire(entry, origin, cause, now)
                else:
                    ends.append(end)
        self._next = min(ends, default=None)

    def _expire(self, entry: Entry, origin: str, cause: str, now: float) -> None:
        slots = [slot for slot in entry.slots if slot.origin == origin]
        self._context.service_table.remove_rule(entry.prefix, origin)
        counters = [slot.counters for slot in slots]
        self._context.events.append(
            RuleExpired(
                time=now,
                prefix=entry.prefix,
                origin=origin,
                cause=cause,
                seconds=now - min(slot.since for slot in slots if slot.since is not None),
                packets=sum(item.packets for item in counters),
                bytes=sum(item.bytes for item in counters),
                dropped_packets=sum(item.dropped_packets for item in counters),
                dropped_bytes=sum(item.dropped_bytes for item in counters),
            )
        )


def _end(slots: list[Slot], now: float) -> tuple[float, str]:
    """When a rule ends as things are, and by which of its time-outs. Begins the time of slots that are new."""
    for slot in slots:
        if slot.since is None:
            slot.since = now
    since = min(slot.since for slot in slots if slot.since is not None)
    used = max(max(slot.used for slot in slots), since)
    idle, hard = slots[0].idle, slots[0].hard
    ends = [(since + hard, "hard")] if hard else []
    if idle:
        ends.append((used + idle, "idle"))
    return min(ends)
