"""The choice of one target per SYN (slide 34): made where the SYN is, from the rule alone.

Two choices compares what the controller last reported as a target's load plus the SYNs sent there since, divided by
its weight (Mitzenmacher, "The power of two choices", 2001). The hash selector looks a key up in a table filled as in
"Maglev" (NSDI 2016, section 3.4), so that a leaving target moves hardly any key but its own.
"""

from __future__ import annotations

import hashlib
import random

from serval_node.sal.service_table import Action, Entry, Selector, Slot

# A prime; about a hundred places for each of 40 targets.
HASH_PLACES = 4099


def choose(entry: Entry, key: bytes, rng: random.Random) -> Slot:
    """One of the entry's selectable slots. ``key`` is what the hash selector hashes: the client's address, so that
    all connections of a client meet the same instance.
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
    if entry.selector is Selector.HASH:
        return slots[_hash_table(entry)[_hash(key, b"key") % HASH_PLACES]]
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


def _hash_table(entry: Entry) -> list[int]:
    if entry.hash_table is None:
        entry.hash_table = fill_hash_table([(_name(slot), slot.target.weight) for slot in entry.selectable])
    return entry.hash_table


def fill_hash_table(targets: list[tuple[bytes, int]], places: int = HASH_PLACES) -> list[int]:
    """For each place the index of its target. ``targets`` are (name, weight); their order does not matter.

    Each target walks through the places in an order of its own and takes the next free one when it is its turn;
    turns are as frequent as weights.
    """
    order = sorted(range(len(targets)), key=lambda index: targets[index][0])
    walks = [(_hash(name, b"start") % places, _hash(name, b"step") % (places - 1) + 1) for name, _ in targets]
    steps = [0] * len(targets)
    credit = [0.0] * len(targets)
    heaviest = max(weight for _, weight in targets)
    table = [-1] * places
    taken = 0
    while True:
        for index in order:
            credit[index] += targets[index][1] / heaviest
            if credit[index] < 1:
                continue
            credit[index] -= 1
            start, step = walks[index]
            place = (start + steps[index] * step) % places
            while table[place] >= 0:
                steps[index] += 1
                place = (start + steps[index] * step) % places
            table[place] = index
            steps[index] += 1
            taken += 1
            if taken == places:
                return table


def _name(slot: Slot) -> bytes:
    return repr(slot.target.identity).encode()


def _hash(data: bytes, purpose: bytes) -> int:
    return int.from_bytes(hashlib.blake2b(data, digest_size=8, person=purpose).digest(), "big")
