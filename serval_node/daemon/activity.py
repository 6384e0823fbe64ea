"""Tells the stack which flows of the fast path had traffic, from which it judges their paths.

Not after every packet: every few milliseconds while there is traffic, and before the stack judges.
"""

from __future__ import annotations

from serval_node.io.datapath import DataPath
from serval_node.sal.probing import Probing

PERIOD = 0.010


class Activity:
    """The feed of one node."""

    def __init__(self, data_path: DataPath, probing: Probing) -> None:
        self._data_path = data_path
        self._probing = probing
        self._next = 0.0

    def tell(self, now: float, *, judged: bool) -> None:
        """Tell what is to be told now; ``judged``: the stack is about to look at its timers."""
        if not self._data_path.active or not (judged or now >= self._next):
            return
        self._next = now + PERIOD
        for flow in self._data_path.traffic():
            self._probing.traffic(
                flow.local_flow, now, heard=flow.heard, gap=flow.gap, owing=flow.owing, payload=flow.payload
            )

    def next_time(self) -> float | None:
        """When there is more to tell."""
        return self._next if self._data_path.active else None
