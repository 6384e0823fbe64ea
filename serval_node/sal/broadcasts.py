"""SYNs that come by broadcast, at a host in ad hoc mode: answered, or flooded (slide 38, S44).

A relay sends what it does not serve itself on over its other links. Such a flood ends by itself in three ways. Copies
of a SYN that came a moment ago are dropped; the SOURCE list of a copy that comes later tells whether it was here
before; and it crosses no more links than the hop limits of the client (the packet's TTL) and of the relays (the length
of SOURCE) allow. A SYN that the client's TCP repeats looks like a copy, and is a new flood because it comes later than
copies are remembered.
"""

from __future__ import annotations

from collections import OrderedDict

from serval_node.sal.context import Context
from serval_node.sal.events import Refusal, SynFlooded
from serval_node.sal.flow_table import RequestKey
from serval_node.sal.forwarding import noted, obstacle, onward
from serval_node.sal.service_table import Action
from serval_node.wire.ipv4 import Address, Ipv4Header
from serval_node.wire.sal_header import SalPacket

# What a SYN that everyone on the link gets may meet: nobody asked this host in particular.
BROADCAST_ACTIONS = frozenset((Action.DEMUX, Action.DROP))

MEMORY_SECONDS = 0.5
"""Below the second after which TCP repeats a SYN, and far above the time that a flood takes."""
MEMORY_LIMIT = 4096


class RecentSyns:
    """The SYNs that came by broadcast in the last MEMORY_SECONDS. Bounded."""

    def __init__(self, limit: int = MEMORY_LIMIT, seconds: float = MEMORY_SECONDS) -> None:
        self._limit = limit
        self._seconds = seconds
        self._first_seen: OrderedDict[RequestKey, float] = OrderedDict()

    def is_copy(self, key: RequestKey, now: float) -> bool:
        """Whether this SYN came before; a new one is remembered from now on, if there is room."""
        seen = self._first_seen
        while seen and seen[next(iter(seen))] + self._seconds <= now:
            seen.popitem(last=False)
        if key in seen:
            return True
        if len(seen) < self._limit:
            seen[key] = now
        return False

    def holds(self, key: RequestKey) -> bool:
        """Whether there was room for it."""
        return key in self._first_seen

    def __len__(self) -> int:
        return len(self._first_seen)


class Broadcasts:
    """What becomes of them; what is done with them is counted in the context's ``activity``."""

    def __init__(self, context: Context) -> None:
        self._context = context
        self._recent = RecentSyns()

    def admits(self, header: Ipv4Header, packet: SalPacket, key: RequestKey, now: float) -> bool:
        """Whether a SYN is to be looked at: it came by one of the links, and not before."""
        context = self._context
        if header.destination not in context.adhoc.links:
            context.refuse_syn(Refusal.BROADCAST, now, packet.services[0], key[0], packet.src_flow)
            return False
        if context.environment.is_local(packet.source[-1] if packet.source else header.source):
            # Linux gives a host what it broadcasts itself.
            return False
        if self._recent.is_copy(key, now) or context.environment.is_local(key[0]):
            context.refuse(Refusal.FLOOD_COPY, now)
            return False
        return True

    def pass_on(self, header: Ipv4Header, packet: SalPacket, key: RequestKey, now: float) -> None:
        """A SYN for a service that is not here: to the other links, if this is a relay."""
        context, adhoc = self._context, self._context.adhoc
        context.activity["adhoc_syns_not_served"] += 1
        targets = tuple(target for target in adhoc.links if target != header.destination)
        if not adhoc.relay or not targets:
            return
        refusal = self._obstacle(header, packet, key)
        if refusal is not None:
            context.refuse(refusal, now)
            return
        own = adhoc.links[header.destination]
        sources = noted(packet.source, header.source, own)
        context.outputs += [onward(header, packet, target, sources) for target in targets]
        context.activity["adhoc_syns_relayed"] += len(targets)
        crossed = _links_crossed(packet.source)
        context.events.append(SynFlooded(now, key[0], packet.src_flow, packet.services[0], own, targets, crossed))

    def _obstacle(self, header: Ipv4Header, packet: SalPacket, key: RequestKey) -> Refusal | None:
        """Why a SYN is not relayed."""
        context = self._context
        if any(context.environment.is_local(address) for address in packet.source):
            return Refusal.ROUTING_LOOP
        if header.ttl <= 1 or _links_crossed(packet.source) >= context.adhoc.hops:
            return Refusal.FLOOD_HOPS
        if not self._recent.holds(key):
            # What cannot be told from its copies would come back from every neighbour.
            return Refusal.FLOOD_FULL
        return obstacle(packet.source, header.destination)


def _links_crossed(sources: tuple[Address, ...]) -> int:
    """SOURCE holds the client and then a relay between each two links; the first link needs none."""
    return max(1, len(sources))
