"""Requests whose third ACK has not come yet: bounded, and a flood of them pushes out its own rather than others'.

When the table is full, someone has to give way. The oldest would be fair among equals only: one client with a thousand
requests pushes out all others. So a few are drawn, and of these the one whose client holds the most gives way, among
equals the oldest. A flood from one address meets itself; one from many forged addresses meets those that have waited
longest, and an honest client, who needs one round trip, is neither. Each choice costs the same, however many there are.
"""

from __future__ import annotations

import random
from collections import Counter

from serval_node.sal.flow_table import Flow
from serval_node.wire.ipv4 import Address

DRAWN = 8


class HalfOpen:
    """The half-open flows of one host."""

    def __init__(self, limit: int, rng: random.Random) -> None:
        self._limit = limit
        self._rng = rng
        self._flows: list[Flow] = []
        self._places: dict[int, int] = {}
        self._held: Counter[Address] = Counter()

    def __len__(self) -> int:
        return len(self._flows)

    def held_by(self, client: Address) -> int:
        """How many requests of one client address there are."""
        return self._held[client]

    @property
    def full(self) -> bool:
        return len(self._flows) >= self._limit

    def add(self, flow: Flow) -> None:
        """A flow with its ``request_key``. Whether there is room is the caller's to ask."""
        self._places[flow.local_flow] = len(self._flows)
        self._flows.append(flow)
        self._held[_client(flow)] += 1

    def discard(self, flow: Flow) -> None:
        """No longer half-open; unknown flows are ignored."""
        place = self._places.pop(flow.local_flow, None)
        if place is None:
            return
        last = self._flows.pop()
        if last is not flow:
            self._flows[place] = last
            self._places[last.local_flow] = place
        client = _client(flow)
        self._held[client] -= 1
        if not self._held[client]:
            del self._held[client]

    def victim(self) -> Flow:
        """Who gives way; there must be one."""
        drawn = self._rng.getrandbits(32 * DRAWN)  # at once: each draw is a system call
        count = len(self._flows)
        candidates = [self._flows[(drawn >> 32 * number & 0xFFFFFFFF) % count] for number in range(DRAWN)]
        return max(candidates, key=lambda flow: (self._held[_client(flow)], -flow.created))


def _client(flow: Flow) -> Address:
    assert flow.request_key is not None
    return flow.request_key[0]
