"""Packets that wait for a decision (slides 21 to 25; S26): bounded, in all and per client, one notice per service."""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable
from dataclasses import dataclass

from serval_node.sal.events import Refusal
from serval_node.wire.ipv4 import Address
from serval_node.wire.serviceid import Prefix, ServiceID

LIMIT = 1024
# One client on the network may not take the places of all others.
CLIENT_LIMIT = LIMIT // 4


@dataclass(frozen=True, slots=True)
class Delayed:
    """A waiting packet. ``key`` is the same for retransmissions of one SYN, which take one place together.

    ``from_kernel`` tells where it came from and so how it is taken up again; ``client_flow`` is 0 for a ``client``
    without; ``prefix`` is that of its DELAY rule.
    """

    key: Hashable
    service_id: ServiceID
    packet: bytes
    gso_size: int
    from_kernel: bool
    since: float
    client: Address
    client_flow: int
    prefix: Prefix


class DelayQueue:
    """Waiting packets in order of arrival."""

    def __init__(self, limit: int = LIMIT, client_limit: int = CLIENT_LIMIT) -> None:
        self._limit = limit
        self._client_limit = client_limit
        self._held: Counter[Address] = Counter()
        self._waiting: dict[Hashable, Delayed] = {}
        self._notified: set[ServiceID] = set()

    def put(self, delayed: Delayed) -> Refusal | None:
        """Why there is no place for it, if there is none. A retransmission keeps the place (and time) of the first
        copy.
        """
        if delayed.key in self._waiting:
            return None
        if len(self._waiting) >= self._limit:
            return Refusal.DELAY_FULL
        if not delayed.from_kernel:
            if self._held[delayed.client] >= self._client_limit:
                return Refusal.DELAY_SHARE
            self._held[delayed.client] += 1
        self._waiting[delayed.key] = delayed
        return None

    def needs_notice(self, service_id: ServiceID) -> bool:
        """True once per service, until its packets have left the queue."""
        if service_id in self._notified:
            return False
        self._notified.add(service_id)
        return True

    def services(self) -> dict[ServiceID, int]:
        """How many packets wait for each service."""
        found: dict[ServiceID, int] = {}
        for delayed in self._waiting.values():
            found[delayed.service_id] = found.get(delayed.service_id, 0) + 1
        return found

    def take(self, prefix: Prefix) -> list[Delayed]:
        """Remove and return everything that waits for a service of ``prefix``, oldest first."""
        taken = [delayed for delayed in self._waiting.values() if prefix.covers(delayed.service_id)]
        self._remove(taken)
        return taken

    def expired(self, before: float) -> list[Delayed]:
        """Remove and return what has waited since ``before`` or longer."""
        taken = [delayed for delayed in self._waiting.values() if delayed.since <= before]
        self._remove(taken)
        return taken

    def oldest(self) -> float | None:
        """Since when the first packet waits."""
        for delayed in self._waiting.values():
            return delayed.since
        return None

    def __len__(self) -> int:
        return len(self._waiting)

    def _remove(self, taken: list[Delayed]) -> None:
        for delayed in taken:
            del self._waiting[delayed.key]
            if not delayed.from_kernel:
                self._held[delayed.client] -= 1
        self._held += Counter()
        left = {delayed.service_id for delayed in self._waiting.values()}
        self._notified &= left
