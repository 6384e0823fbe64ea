"""From a client to a target, so that few clients change hands when targets come or go. Pure, and the same everywhere.

Two ways, and both depend on nothing but the names and weights of the targets: every router with the same rule agrees,
whatever order its targets came in, and a router that begins anew chooses as before.

    MaglevTable  a table of places, each with its target: "Maglev" (NSDI 2016, section 3.4). Shares are even to the
                 place; of ten targets one may leave, and beside its own clients less than 1 % of the others move
    HashRing     points on a ring, a client belongs to the next one: Karger et al. (STOC 1997). Only the clients of the
                 leaving target move; shares differ by some per cent
"""

from __future__ import annotations

import hashlib
from array import array
from bisect import bisect_right
from collections.abc import Sequence

Targets = Sequence[tuple[bytes, int]]
"""(name, weight from 1 on) of each target. Their order does not matter, but that a choice is an index into it."""

PLACES = 65537
"""A prime; some hundred targets have more than a hundred places each."""

POINTS = 512
"""On the ring, of a target with weight 1."""

MOST_POINTS = 1 << 17
"""On the ring, of all targets together: what is more would take too long to make."""

_POINT_BYTES = 8
_POINTS_PER_HASH = 8


class MaglevTable:
    """Each target walks through the places in an order of its own and takes the next free one when it is its turn;
    turns are as frequent as weights. Making one of 65537 places takes some 30 ms.
    """

    __slots__ = ("places",)

    def __init__(self, targets: Targets, places: int = PLACES) -> None:
        """``places`` is a prime, larger than the number of targets."""
        self.places = array("H", _fill(targets, places))

    def choose(self, key: bytes) -> int:
        return self.places[_hash(key, b"key") % len(self.places)]


class HashRing:
    """Sorted points; those of a target stay where they are whatever the others do."""

    __slots__ = ("_owners", "_points")

    def __init__(self, targets: Targets) -> None:
        total = sum(weight for _, weight in targets) * POINTS
        # Halved until they fit: a target's fewer points are the first of its many.
        halvings = max(0, (total - 1).bit_length() - (MOST_POINTS - 1).bit_length())
        points = sorted(
            (point, name, index)
            for index, (name, weight) in enumerate(targets)
            for point in _ring_points(name, max(1, weight * POINTS >> halvings))
        )
        self._points = [point for point, _, _ in points]
        self._owners = array("H", (index for _, _, index in points))

    def choose(self, key: bytes) -> int:
        # Beyond the last point the ring begins again.
        return self._owners[bisect_right(self._points, _hash(key, b"key")) % len(self._owners)]


def _fill(targets: Targets, places: int) -> list[int]:
    order = sorted(range(len(targets)), key=lambda index: targets[index][0])
    position = [_hash(name, b"start") % places for name, _ in targets]
    steps = [_hash(name, b"step") % (places - 1) + 1 for name, _ in targets]
    weights = [weight for _, weight in targets]
    heaviest, credit = max(weights), [0] * len(targets)
    table = [-1] * places
    taken = 0
    while True:
        for index in order:
            credit[index] += weights[index]
            if credit[index] < heaviest:
                continue
            credit[index] -= heaviest
            place, step = position[index], steps[index]
            while table[place] >= 0:
                place += step
                if place >= places:
                    place -= places
            table[place], position[index] = index, place
            taken += 1
            if taken == places:
                return table


def _ring_points(name: bytes, count: int) -> list[int]:
    found: list[int] = []
    while len(found) < count:
        salt = (len(found) // _POINTS_PER_HASH).to_bytes(8, "big")
        digest = hashlib.blake2b(name, salt=salt, person=b"ring").digest()
        found += (int.from_bytes(digest[at : at + _POINT_BYTES], "big") for at in range(0, len(digest), _POINT_BYTES))
    return found[:count]


def _hash(data: bytes, purpose: bytes) -> int:
    return int.from_bytes(hashlib.blake2b(data, digest_size=_POINT_BYTES, person=purpose).digest(), "big")
