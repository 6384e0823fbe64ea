"""A host's part in an ad hoc network: SYNs by broadcast, without a service router (slide 38, S44).

A host whose default rule says FORWARD to all its links' broadcast addresses asks everyone there; hosts that have a
DEMUX rule for the service answer, and the client keeps the first (`opening.Client`). Only SYNs go by broadcast: SYN-ACK
and data find their way by the hosts' IP routes. What a host does with a SYN that it hears is in `broadcasts`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from serval_node.wire.ipv4 import DEFAULT_TTL, Address
from serval_node.wire.sal_header import MAX_SOURCES

HOPS = 8
MAX_HOPS = MAX_SOURCES - 1
"""SOURCE holds the client, a relay between each two links, and the instance."""


@dataclass(frozen=True, slots=True)
class AdHoc:
    """As it is made without arguments: no part at all.

    links  the broadcast address of each link that takes part -> this host's own address there
    relay  send on what comes by broadcast and is not served here
    hops   how many links a SYN of this host may cross, and one that this host relays
    """

    links: Mapping[Address, Address] = field(default_factory=dict)
    relay: bool = False
    hops: int = HOPS

    def __post_init__(self) -> None:
        if not 1 <= self.hops <= MAX_HOPS:
            raise ValueError(f"a hop limit is a number from 1 to {MAX_HOPS}, not {self.hops}")

    def ttl(self, destination: Address) -> int:
        """With which a SYN of this host leaves."""
        return self.hops if destination in self.links else DEFAULT_TTL
