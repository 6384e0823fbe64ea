"""The command that makes the two ends of a cable."""

from __future__ import annotations

import itertools

FIRST_INDEX = 10_000
"""Above those that the kernel gives by itself, in any namespace."""
_indexes = itertools.count(FIRST_INDEX)


def command(name: str, address: str, peer: str) -> list[str]:
    """`ip link add` of a veth pair; what follows is about the peer: its address, its network namespace.

    Each end has an index of its own in the whole run. By itself the kernel counts in each namespace from the start, and
    an end whose index is that of its peer counts as hardware: news of its carrier are then held back for up to a
    second after those before (net/core/link_watch.c, linkwatch_urgent_event).
    """
    first, second = str(next(_indexes)), str(next(_indexes))
    own = ["ip", "link", "add", "name", name, "index", first, "address", address]
    return [*own, "type", "veth", "peer", "name", peer, "index", second]
