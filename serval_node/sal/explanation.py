"""What a SYN would meet here, without one: the decisions of `resolution`, `kernel_side` and `network_side`, read only.

Nothing is counted, no turn is used up, nothing random is drawn. Left out is the choice that a router remembers for a
repeated SYN.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

from serval_node.sal import selectors
from serval_node.sal.context import Context
from serval_node.sal.events import Refusal
from serval_node.sal.forwarding import noted, obstacle
from serval_node.sal.resolution import (
    UNREACHABLE_CODES,
    admits,
    admitted,
    network_actions,
    network_mode,
    program_actions,
)
from serval_node.sal.service_table import Action, Entry, Selector, Slot
from serval_node.wire.ipv4 import ICMP_HOST_UNREACHABLE, ICMP_NET_UNREACHABLE, PROTOCOL_TCP, Address
from serval_node.wire.sal_header import MAX_SOURCES
from serval_node.wire.serviceid import ServiceID

# What Linux makes of an ICMP error about a SYN.
_ERRNO = {ICMP_NET_UNREACHABLE: "ENETUNREACH", ICMP_HOST_UNREACHABLE: "EHOSTUNREACH"}
_NO_ANSWER = "ETIMEDOUT"


@dataclass(frozen=True, slots=True)
class Arrival:
    """A SYN from the network: its client, the own address that it comes to, its SOURCE list (empty: no router yet)."""

    client: Address
    received_at: Address
    sources: tuple[Address, ...] = ()


class Place(str, Enum):
    """Where a matching rule stands: it decides, is shorter than the one that does, or has no target that may be used
    (a host sends on nothing from the network; a node's mode may leave out FORWARD or DEMUX).
    """

    WINS = "wins"
    SHORTER = "shorter"
    PASSED_OVER = "passed-over"


class Standing(str, Enum):
    """Whether a target can be chosen, and if not why: others have a higher priority, or it may not be used."""

    CANDIDATE = "candidate"
    LOWER_PRIORITY = "lower-priority"
    NOT_FOR_HOSTS = "not-for-hosts"
    OTHER_TRANSPORT = "other-transport"


@dataclass(frozen=True, slots=True)
class TargetOutlook:
    """One target of the rule that decides.

    share    its part of the SYNs, None where it depends on loads; 1 for each where all get a copy
    taken    whether this very SYN, coming now, gets it; None where chance decides
    refusal  why it comes to nothing, None when it does not; errno: how connect() ends then
    wait     DELAY: the longest wait in seconds
    client, sources   FORWARD: the packet's sender and its SOURCE list on the way to the target
    everyone  FORWARD: the target is a link's broadcast address, in ad hoc mode
    """

    slot: Slot
    standing: Standing
    share: float | None = None
    taken: bool | None = False
    refusal: Refusal | None = None
    errno: str | None = None
    wait: float | None = None
    client: Address | None = None
    sources: tuple[Address, ...] = ()
    everyone: bool = False


@dataclass(frozen=True, slots=True)
class RuleOutlook:
    """A rule whose prefix matches; `selector` is the one that really chooses. Targets: of the deciding rule only."""

    entry: Entry
    place: Place
    selector: Selector
    targets: tuple[TargetOutlook, ...] = ()


@dataclass(frozen=True, slots=True)
class Outlook:
    """Every matching rule, longest first. `refusal` and `errno` are set when none decides; `reset`: by an answer."""

    rules: tuple[RuleOutlook, ...]
    refusal: Refusal | None = None
    errno: str | None = None
    reset: bool = False


def explain(context: Context, service_id: ServiceID, arrival: Arrival | None, protocol: int = PROTOCOL_TCP) -> Outlook:
    """What becomes of a SYN for a service: of a program of this host, or of one that arrives from the network."""
    forwarding, mode = context.forwarding, context.mode
    if arrival is None:
        actions = program_actions(mode)
    else:
        actions = network_actions(mode, forwarding=forwarding)
        mode = network_mode(mode, forwarding=forwarding)
    rules = []
    winner: Entry | None = None
    for entry in context.service_table.matches(service_id):
        if winner is not None:
            rules.append(RuleOutlook(entry, Place.SHORTER, entry.selector))
        elif not admits(entry, actions, protocol):
            rules.append(RuleOutlook(entry, Place.PASSED_OVER, entry.selector))
        else:
            winner = entry
            slots, selector = admitted(entry, actions, mode, protocol)
            targets = _targets(context, service_id, entry, slots, selector, arrival, protocol)
            rules.append(RuleOutlook(entry, Place.WINS, selector, targets))
    if winner is not None:
        return Outlook(tuple(rules))
    if arrival is None:
        return Outlook(tuple(rules), Refusal.NO_RULE, _ERRNO[UNREACHABLE_CODES[Refusal.NO_RULE]])
    return Outlook(tuple(rules), Refusal.NO_RULE, "ECONNREFUSED" if forwarding else _NO_ANSWER, forwarding)


def _targets(
    context: Context,
    service_id: ServiceID,
    entry: Entry,
    slots: list[Slot],
    selector: Selector,
    arrival: Arrival | None,
    protocol: int,
) -> tuple[TargetOutlook, ...]:
    chances = _copied(slots) if selector is Selector.ALL else _chosen_from(context, entry, slots, selector, arrival)
    found = []
    for slot in entry.slots:
        if slot not in slots:
            standing = Standing.NOT_FOR_HOSTS if slot in entry.selectable else Standing.LOWER_PRIORITY
            if slot.target.protocol not in (None, protocol):
                standing = Standing.OTHER_TRANSPORT
            found.append(TargetOutlook(slot, standing))
            continue
        found.append(_candidate(context, service_id, slot, *chances[slot], arrival))
    return tuple(found)


# The share of each slot, and whether the next SYN gets it.
_Chances = dict[Slot, tuple[float | None, bool | None]]


def _copied(slots: list[Slot]) -> _Chances:
    """Each gets a copy, but of this host's own listeners one only."""
    listeners = [slot for slot in slots if slot.target.action is Action.DEMUX]
    total = sum(slot.target.weight for slot in listeners)
    chances: _Chances = dict.fromkeys(slots, (1.0, True))
    if len(listeners) > 1:
        chances.update({slot: (slot.target.weight / total, None) for slot in listeners})
    return chances


def _chosen_from(
    context: Context, entry: Entry, slots: list[Slot], selector: Selector, arrival: Arrival | None
) -> _Chances:
    total = sum(slot.target.weight for slot in slots)
    proportional = len(slots) == 1 or selector is not Selector.TWO_CHOICES
    chosen = _foretold(context, entry, slots, arrival)
    return {
        slot: (slot.target.weight / total if proportional else None, None if chosen is None else slot is chosen)
        for slot in slots
    }


def _foretold(context: Context, entry: Entry, slots: list[Slot], arrival: Arrival | None) -> Slot | None:
    if len(slots) < len(entry.selectable):
        return slots[0] if len(slots) == 1 else None
    return selectors.foretell(entry, context.own_address(entry) if arrival is None else arrival.client)


def _candidate(
    context: Context,
    service_id: ServiceID,
    slot: Slot,
    share: float | None,
    taken: bool | None,
    arrival: Arrival | None,
) -> TargetOutlook:
    """What the SYN meets when it gets this target."""
    target = slot.target
    refusal: Refusal | None = None
    wait = client = None
    sources: tuple[Address, ...] = ()
    if target.action is Action.DROP:
        refusal = Refusal.DROP_RULE
    elif target.action is Action.DELAY:
        refusal = context.delay_queue.obstacle(service_id, None if arrival is None else arrival.client)
        if refusal is None:
            # Whoever is to decide may not; then it ends like this.
            refusal, wait = Refusal.DELAY_EXPIRED, context.config.delay.seconds
    elif arrival is None:
        if target.address is not None:
            own_there = context.adhoc.links.get(target.address)
            client = own_there or context.environment.source_address(target.address)
            refusal = Refusal.NO_ROUTE if client is None else None
    elif target.address is not None:
        refusal = obstacle(arrival.sources, arrival.received_at)
        client, sources = arrival.client, noted(arrival.sources, arrival.client, arrival.received_at)
    elif len(arrival.sources) >= MAX_SOURCES:
        refusal = Refusal.SOURCE_FULL
    errno = None
    if refusal is not None:
        errno = _NO_ANSWER if arrival is not None else _ERRNO[UNREACHABLE_CODES[refusal]]
    everyone = target.address in context.adhoc.links
    return TargetOutlook(slot, Standing.CANDIDATE, share, taken, refusal, errno, wait, client, sources, everyone)
