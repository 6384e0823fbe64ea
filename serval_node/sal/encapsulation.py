"""Which packets go inside UDP: by the host's choice, by that for a peer's network, or because raw ones get no answer.

What comes is answered in its own form, whatever is chosen here: the choice is made for a first packet, a SYN or the
RSYN of a flow that has moved. With AUTO the first try is raw. Every further one goes in both forms, raw first, and the
answer that comes first decides, so that a lost packet alone does not change the form. Where raw ones were not answered
and encapsulated ones were, this is remembered for a while, and next time there is no wait.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum

from serval_node.wire.encapsulation import TO_SERVER
from serval_node.wire.ipv4 import Address, UdpPorts

REMEMBERED = 600.0
_MOST_REMEMBERED = 4096


class Encapsulation(str, Enum):
    """What a host, or a network of peers, gets."""

    RAW = "raw"
    UDP = "udp"
    AUTO = "auto"

    def __str__(self) -> str:
        return self.value


@dataclass(frozen=True, slots=True)
class Network:
    """An IPv4 prefix, as the key of a choice."""

    address: Address
    bits: int

    def covers(self, address: Address) -> bool:
        shift = 32 - self.bits
        return int.from_bytes(self.address, "big") >> shift == int.from_bytes(address, "big") >> shift


@dataclass(slots=True)
class Choices:
    """The choice of one host; times are those passed in with packets.

    default   for every peer that no network below covers
    networks  the longest prefix that covers a peer's address decides
    """

    default: Encapsulation = Encapsulation.RAW
    networks: dict[Network, Encapsulation] = field(default_factory=dict)
    _until: dict[Address, float] = field(default_factory=dict)

    def of(self, peer: Address) -> Encapsulation:
        """What is chosen for a peer, without what was learned."""
        if peer[0] == 127:
            return Encapsulation.RAW  # within this host
        covering = [network for network in self.networks if network.covers(peer)]
        return self.networks[max(covering, key=lambda network: network.bits)] if covering else self.default

    def forms(self, peer: Address, tries: int, now: float) -> tuple[UdpPorts | None, ...]:
        """How to send a first packet to a peer, in this order; None stands for raw. ``tries`` were made before."""
        chosen = self.of(peer)
        if chosen is Encapsulation.AUTO:
            if self.needed(peer, now):
                # Raw ones may pass again one day: the last to be tried, and only when this fails too.
                return (TO_SERVER, None) if tries else (TO_SERVER,)
            return (None, TO_SERVER) if tries else (None,)
        return (TO_SERVER,) if chosen is Encapsulation.UDP else (None,)

    def answered(self, peer: Address, ports: UdpPorts | None, tries: int, now: float) -> bool:
        """A peer has answered a first packet in this form after so many tries; whether that is news worth telling."""
        if self.of(peer) is not Encapsulation.AUTO:
            return False
        if ports is None:
            self._until.pop(peer, None)
            return False
        known = self.needed(peer, now)
        if tries > 1 or known:
            if len(self._until) >= _MOST_REMEMBERED:
                del self._until[next(iter(self._until))]
            self._until[peer] = now + REMEMBERED
        return tries > 1 and not known

    def needed(self, peer: Address, now: float) -> bool:
        """Whether raw packets to this peer were in vain not long ago."""
        until = self._until.get(peer)
        if until is None or until > now:
            return until is not None
        del self._until[peer]
        return False

    def learned(self, now: float) -> tuple[Address, ...]:
        """The peers that raw packets do not reach, as far as is remembered."""
        return tuple(peer for peer, until in self._until.items() if until > now)

    def forget(self) -> None:
        """The host's links or choices have changed: what was learned may be wrong."""
        self._until.clear()
