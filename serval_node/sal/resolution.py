"""From a serviceID to one target: table lookup, sticky choice, counting (slides 21 to 25 and 34)."""

from __future__ import annotations

import random
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass

from serval_node.sal import selectors
from serval_node.sal.events import Refusal
from serval_node.sal.flow_table import RequestKey
from serval_node.sal.service_table import Action, Entry, Selector, ServiceTable, Slot, Target
from serval_node.wire.ipv4 import ICMP_HOST_UNREACHABLE, ICMP_NET_UNREACHABLE
from serval_node.wire.serviceid import ServiceID

# What a host that is no service router does with a SYN from the network: it never sends it on.
HOST_ACTIONS = frozenset((Action.DEMUX, Action.DELAY, Action.DROP))

UNREACHABLE_CODES = {
    Refusal.NO_RULE: ICMP_NET_UNREACHABLE,
    Refusal.NO_ROUTE: ICMP_NET_UNREACHABLE,
    Refusal.DROP_RULE: ICMP_HOST_UNREACHABLE,
    Refusal.DELAY_EXPIRED: ICMP_HOST_UNREACHABLE,
    Refusal.DELAY_DROPPED: ICMP_HOST_UNREACHABLE,
    Refusal.DELAY_FULL: ICMP_HOST_UNREACHABLE,
}
"""By which ICMP error a program's connect() fails at once (S28, S29)."""

_STICKY_LIMIT = 65536
_STICKY_SECONDS = 180.0


@dataclass(slots=True)
class Verdict:
    """The entry that a serviceID met, and the target chosen from it."""

    entry: Entry
    slot: Slot

    @property
    def action(self) -> Action:
        return self.slot.target.action


def resolve(
    table: ServiceTable,
    service_id: ServiceID,
    *,
    size: int,
    key: Callable[[Entry], bytes],
    rng: random.Random,
    sticky: Target | None = None,
    actions: frozenset[Action] | None = None,
) -> Verdict | None:
    """The target for one packet of ``size`` bytes, counted; None when no rule matches.

    ``key`` is asked for what the hash selector hashes: the client's address. ``sticky`` is the choice for an earlier
    copy of the packet: it holds while that target is in the rule. ``actions`` restricts the lookup to entries
    with such targets, and the choice to these.
    """
    entry = table.lookup(service_id, accept=None if actions is None else lambda candidate: candidate.has(actions))
    if entry is None:
        return None
    slot = None if sticky is None else entry.slot_of(sticky)
    if slot is None or (actions and slot.target.action not in actions):
        slot = _choose(entry, key, rng, actions)
    for counters in (entry.counters, slot.counters):
        if slot.target.action is Action.DROP:
            counters.dropped(size)
        else:
            counters.resolved(size)
    return Verdict(entry, slot)


def network_actions(*, forwarding: bool) -> frozenset[Action] | None:
    """What a SYN from the network may meet: anything at a service router, else no FORWARD."""
    return None if forwarding else HOST_ACTIONS


def admitted(entry: Entry, actions: frozenset[Action] | None) -> tuple[list[Slot], Selector]:
    """The slots of an entry that are chosen from, and by which selector: a host that may not use all of a rule's
    targets chooses among the others by weight.
    """
    if actions is not None:
        usable = [slot for slot in entry.selectable if slot.target.action in actions]
        if len(usable) < len(entry.selectable):
            return usable, Selector.WEIGHTED_RANDOM
    return entry.selectable, entry.selector


def _choose(entry: Entry, key: Callable[[Entry], bytes], rng: random.Random, actions: frozenset[Action] | None) -> Slot:
    slots, selector = admitted(entry, actions)
    if slots is not entry.selectable:
        return selectors.by_weight(slots, rng)
    return selectors.choose(entry, key(entry) if selector is Selector.HASH else b"", rng)


class StickyChoices:
    """A router's memory of which target a SYN was given, for the SYN's retransmissions (S43). Bounded."""

    def __init__(self, limit: int = _STICKY_LIMIT, seconds: float = _STICKY_SECONDS) -> None:
        self._limit = limit
        self._seconds = seconds
        self._choices: OrderedDict[RequestKey, tuple[Target, float]] = OrderedDict()

    def get(self, key: RequestKey, now: float) -> Target | None:
        found = self._choices.get(key)
        return found[0] if found is not None and found[1] + self._seconds > now else None

    def put(self, key: RequestKey, target: Target, now: float) -> None:
        self._choices[key] = (target, now)
        self._choices.move_to_end(key)
        while self._choices:
            oldest = next(iter(self._choices))
            if len(self._choices) <= self._limit and self._choices[oldest][1] + self._seconds > now:
                return
            del self._choices[oldest]

    def __len__(self) -> int:
        return len(self._choices)
