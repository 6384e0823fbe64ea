"""The choice of one target per SYN (slide 34): made where the SYN is, from the rule alone.

Two choices compares what the controller last reported as a target's load plus the SYNs sent there since, divided by
its weight (Mitzenmacher, "The power of two choices", 2001). Maglev and ring are in `consistent_hashing`.
"""

from __future__ import annotations

import random

from serval_node.sal.consistent_hashing import HashRing, MaglevTable
from serval_node.sal.service_table import Action, Entry, Selector, Slot

HASHED = frozenset((Selector.MAGLEV, Selector.RING))
"""These choose by the client's address, and by nothing else."""


def choose(entry: Entry, key: bytes, rng: random.Random) -> Slot:
    """One of the entry's selectable slots. ``key`` is what Maglev and ring hash: the client's address, so that all
    connections of a client meet the same instance.
    """
    slots = entry.selectable
    chosen = foretell(entry, key)
    if chosen is None:
        chosen = _two_choices(slots, rng) if entry.selector is Selector.TWO_CHOICES else by_weight(slots, rng)
    elif entry.selector is Selector.ROUND_ROBIN:
        _pay(slots, chosen)
    chosen.sent_since_load += 1
    return chosen


def foretell(entry: Entry, key: bytes) -> Slot | None:
    """The slot that `choose` is bound to take for the next SYN; None where chance has a part in it. Changes nothing."""
    slots = entry.selectable
    if len(slots) == 1:
        return slots[0]
    if entry.selector is Selector.ROUND_ROBIN:
        # Each turn everyone gains its weight and the richest pays for all: turns follow the weights, evenly spread.
        return max(slots, key=lambda slot: slot.current_weight + slot.target.weight)
    if entry.selector in HASHED:
        return slots[_hashed(entry).choose(key)]
    return None


def copies(slots: list[Slot], rng: random.Random) -> tuple[Slot, ...]:
    """Multicast: every target, but of this host's own listeners one only, because a SYN opens one connection there."""
    listeners = [slot for slot in slots if slot.target.action is Action.DEMUX]
    chosen = [slot for slot in slots if slot.target.action is not Action.DEMUX]
    if listeners:
        chosen.insert(0, by_weight(listeners, rng) if len(listeners) > 1 else listeners[0])
    for slot in chosen:
        slot.sent_since_load += 1
    return tuple(chosen)


def by_weight(slots: list[Slot], rng: random.Random) -> Slot:
    """One by chance, in proportion to the weights."""
    return rng.choices(slots, [slot.target.weight for slot in slots])[0]


def _pay(slots: list[Slot], chosen: Slot) -> None:
    for slot in slots:
        slot.current_weight += slot.target.weight
    chosen.current_weight -= sum(slot.target.weight for slot in slots)


def _two_choices(slots: list[Slot], rng: random.Random) -> Slot:
    first, second = rng.sample(slots, 2)
    return min(first, second, key=lambda slot: (slot.target.load + slot.sent_since_load) / slot.target.weight)


def _hashed(entry: Entry) -> MaglevTable | HashRing:
    """Made when it is first needed, and again after each change of the rule."""
    if entry.hashed is None:
        targets = [(repr(slot.target.identity).encode(), slot.target.weight) for slot in entry.selectable]
        entry.hashed = MaglevTable(targets) if entry.selector is Selector.MAGLEV else HashRing(targets)
    return entry.hashed
