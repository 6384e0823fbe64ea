"""From a serviceID to one target, or to all: table lookup, sticky choice, counting (slides 21 to 25 and 34)."""

from __future__ import annotations

import random
from collections import OrderedDict
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from serval_node.sal import selectors
from serval_node.sal.events import Refusal
from serval_node.sal.flow_table import RequestKey
from serval_node.sal.service_table import Action, Entry, ResolutionMode, Selector, ServiceTable, Slot, Target
from serval_node.wire.ipv4 import ICMP_HOST_UNREACHABLE, ICMP_NET_UNREACHABLE, PROTOCOL_TCP
from serval_node.wire.serviceid import ServiceID

# What a host that is no service router does with a SYN from the network: it never sends it on.
HOST_ACTIONS = frozenset((Action.DEMUX, Action.DELAY, Action.DROP))
_MODE_ACTIONS = {
    ResolutionMode.DEMUX_ONLY: HOST_ACTIONS,
    ResolutionMode.FORWARD_ONLY: frozenset((Action.FORWARD, Action.DELAY, Action.DROP)),
}

UNREACHABLE_CODES = {
    Refusal.NO_RULE: ICMP_NET_UNREACHABLE,
    Refusal.NO_ROUTE: ICMP_NET_UNREACHABLE,
    Refusal.DROP_RULE: ICMP_HOST_UNREACHABLE,
    Refusal.DELAY_EXPIRED: ICMP_HOST_UNREACHABLE,
    Refusal.DELAY_DROPPED: ICMP_HOST_UNREACHABLE,
    Refusal.DELAY_FULL: ICMP_HOST_UNREACHABLE,
    Refusal.DELAY_SERVICE_FULL: ICMP_HOST_UNREACHABLE,
    Refusal.DELAY_SHARE: ICMP_HOST_UNREACHABLE,
}
"""By which ICMP error a program's connect() fails at once (S28, S29)."""

_STICKY_LIMIT = 65536
_STICKY_SECONDS = 180.0


@dataclass(slots=True)
class Verdict:
    """The entry that a serviceID met, and the targets chosen from it: one, but for multicast (selector ``ALL``)."""

    entry: Entry
    slots: tuple[Slot, ...]
    selector: Selector

    @property
    def slot(self) -> Slot:
        return self.slots[0]

    @property
    def action(self) -> Action:
        return self.slot.target.action

    def each(self) -> Iterator[Verdict]:
        """One verdict for each copy of the packet."""
        return (Verdict(self.entry, (slot,), self.selector) for slot in self.slots)


def resolve(
    table: ServiceTable,
    service_id: ServiceID,
    *,
    size: int,
    key: Callable[[Entry], bytes],
    rng: random.Random,
    now: float,
    sticky: Target | None = None,
    actions: frozenset[Action] | None = None,
    mode: ResolutionMode = ResolutionMode.ANYCAST,
    protocol: int = PROTOCOL_TCP,
) -> Verdict | None:
    """The target for one packet of ``size`` bytes, counted; None when no rule matches. Where the rule or ``mode`` wants
    it, a copy goes to each of them: the entry counts the packet once, each target its copy.

    ``key`` is asked for what Maglev and ring hash: the client's address. ``sticky`` is the choice for an earlier
    copy of the packet: it holds while that target is in the rule. ``actions`` restricts the lookup to entries
    with such targets, and the choice to these; so does ``protocol``, the packet's transport: a TCP listener is no
    target for datagrams.
    """
    entry = table.lookup(service_id, accept=lambda candidate: admits(candidate, actions, protocol))
    if entry is None:
        return None
    slots, selector = admitted(entry, actions, mode, protocol)
    chosen: tuple[Slot, ...]
    if selector is Selector.ALL:
        chosen = selectors.copies(slots, rng)
    else:
        slot = None if sticky is None else entry.slot_of(sticky)
        if slot is None or not _usable(slot.target, actions, protocol):
            slot = _choose(entry, slots, key, rng)
        chosen = (slot,)
    dropped = chosen[0].target.action is Action.DROP
    for counters in (table.totals, entry.counters, *(slot.counters for slot in chosen)):
        if dropped:
            counters.dropped(size)
        else:
            counters.resolved(size)
    for slot in chosen:
        slot.used = now
    return Verdict(entry, chosen, selector)


def program_actions(mode: ResolutionMode) -> frozenset[Action] | None:
    """What a SYN of this host's own programs may meet; None: everything."""
    return _MODE_ACTIONS.get(mode)


def network_actions(mode: ResolutionMode, *, forwarding: bool) -> frozenset[Action] | None:
    """What a SYN from the network may meet: at a service router what the mode says, else all but FORWARD: a host
    serves in every mode, as the original does.
    """
    return _MODE_ACTIONS.get(mode) if forwarding else HOST_ACTIONS


def network_mode(mode: ResolutionMode, *, forwarding: bool) -> ResolutionMode:
    """The mode for a SYN from the network: a service router's own; a host's is for what its programs send."""
    return mode if forwarding else ResolutionMode.ANYCAST


def _usable(target: Target, actions: frozenset[Action] | None, protocol: int) -> bool:
    return (actions is None or target.action in actions) and target.protocol in (None, protocol)


def admits(entry: Entry, actions: frozenset[Action] | None, protocol: int = PROTOCOL_TCP) -> bool:
    """Whether a packet of this transport protocol may be given to one of the targets that can be chosen."""
    return any(_usable(slot.target, actions, protocol) for slot in entry.selectable)


def admitted(
    entry: Entry,
    actions: frozenset[Action] | None,
    mode: ResolutionMode = ResolutionMode.ANYCAST,
    protocol: int = PROTOCOL_TCP,
) -> tuple[list[Slot], Selector]:
    """The slots of an entry that are chosen from, and by which selector: who may not use all of a rule's targets
    chooses among the others by weight.
    """
    copies = mode is not ResolutionMode.ANYCAST or entry.selector is Selector.ALL
    usable = [slot for slot in entry.selectable if _usable(slot.target, actions, protocol)]
    if len(usable) < len(entry.selectable):
        return usable, Selector.ALL if copies else Selector.WEIGHTED_RANDOM
    return entry.selectable, Selector.ALL if copies else entry.selector


def _choose(entry: Entry, slots: list[Slot], key: Callable[[Entry], bytes], rng: random.Random) -> Slot:
    if slots is not entry.selectable:
        return selectors.by_weight(slots, rng)
    return selectors.choose(entry, key(entry) if entry.selector in selectors.HASHED else b"", rng)


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
