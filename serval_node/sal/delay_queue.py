"""Packets that wait for a decision (slides 21 to 25; S26, S27): bounded, one notification per service.

There are three bounds: on everything that waits, on what waits for one service, and on what one sender of the network
lets wait, so that neither a popular name nor a single host keeps all others out.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable
from dataclasses import dataclass
from enum import Enum
from typing import Any

from serval_node.sal.events import Refusal
from serval_node.wire.ipv4 import Address
from serval_node.wire.serviceid import Prefix, ServiceID


@dataclass(frozen=True, slots=True)
class DelayLimits:
    """How many packets may wait, and for how long.

    total        in all; 1024 is the original's
    per_service  for one serviceID
    per_source   from one address of the network; this host's own programs have no such limit
    seconds      the longest wait
    """

    total: int = 1024
    per_service: int = 512
    per_source: int = 256
    seconds: float = 60.0


class DelayVerdict(str, Enum):
    """What becomes of what waits: it meets the rules again, is thrown away silently, or is answered by a refusal. The
    original has the first two.
    """

    RELEASE = "release"
    DROP = "drop"
    REFUSE = "refuse"


@dataclass(frozen=True, slots=True)
class Delayed:
    """A waiting packet. ``key`` is the same for retransmissions of one SYN, which take one place together.

    ``source`` is the IP sender, None for a program of this host, and so tells how the packet is taken up again;
    ``client`` is who connects, the same behind a service router; ``client_flow`` is 0 for a client without; ``prefix``
    is that of its DELAY rule.
    """

    key: Hashable
    service_id: ServiceID
    packet: bytes
    gso_size: int
    source: Address | None
    client: Address
    client_flow: int
    since: float
    prefix: Prefix

    @property
    def from_kernel(self) -> bool:
        return self.source is None


class DelayQueue:
    """Waiting packets in order of arrival."""

    def __init__(self, limits: DelayLimits) -> None:
        self.limits = limits
        self._waiting: dict[Hashable, Delayed] = {}
        self._by_service: Counter[ServiceID] = Counter()
        self._by_source: Counter[Address | None] = Counter()
        self._notified: set[ServiceID] = set()

    def holds(self, key: Hashable) -> bool:
        """Whether a copy of this packet waits already."""
        return key in self._waiting

    def obstacle(self, service_id: ServiceID, source: Address | None) -> Refusal | None:
        """Which limit keeps another packet out; None when there is room."""
        if len(self._waiting) >= self.limits.total:
            return Refusal.DELAY_FULL
        if self._by_service[service_id] >= self.limits.per_service:
            return Refusal.DELAY_SERVICE_FULL
        if source is not None and self._by_source[source] >= self.limits.per_source:
            return Refusal.DELAY_SHARE
        return None

    def put(self, delayed: Delayed) -> Refusal | None:
        """Keep a packet, or say which limit keeps it out. A retransmission keeps the place (and time) of the first
        copy.
        """
        if delayed.key in self._waiting:
            return None
        obstacle = self.obstacle(delayed.service_id, delayed.source)
        if obstacle is None:
            self._waiting[delayed.key] = delayed
            self._by_service[delayed.service_id] += 1
            self._by_source[delayed.source] += 1
        return obstacle

    def needs_notice(self, service_id: ServiceID) -> bool:
        """True once per service, until its packets have left the queue."""
        if service_id in self._notified:
            return False
        self._notified.add(service_id)
        return True

    def waiting(self) -> list[Delayed]:
        """Everything that waits, oldest first."""
        return list(self._waiting.values())

    def services(self) -> dict[ServiceID, int]:
        """How many packets wait for each service."""
        return dict(self._by_service)

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
            _count_down(self._by_service, delayed.service_id)
            _count_down(self._by_source, delayed.source)
        self._notified &= self._by_service.keys()


def _count_down(counter: Counter[Any], key: Any) -> None:
    counter[key] -= 1
    if not counter[key]:
        del counter[key]
