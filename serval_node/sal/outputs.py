"""What the stack wants done. The daemon and the data path carry it out, in this order.

Values, like decoded headers: see serval_node.wire.ipv4.
"""

from __future__ import annotations

from dataclasses import dataclass

from serval_node.sal.flow_table import ForwardingState
from serval_node.wire.ipv4 import Address, UdpPorts
from serval_node.wire.serviceid import ServiceID


@dataclass(slots=True)
class Send:
    """A packet for the network: ``data`` is the SAL header and what follows. What a service router sends on is
    ``forwarded``: its ``source`` is the client's address, not an own one. With ``ports`` it goes inside UDP.
    """

    source: Address
    destination: Address
    ttl: int
    data: bytes
    forwarded: bool = False
    ports: UdpPorts | None = None


@dataclass(slots=True)
class Deliver:
    """A whole IPv4 packet for the kernel, through sal0."""

    packet: bytes


@dataclass(slots=True)
class InstallPath:
    """From now on the data path moves this flow's packets by itself; one that it has already moves to new addresses."""

    state: ForwardingState


@dataclass(slots=True)
class RemovePath:
    """From now on this flow's packets come to the stack again."""

    local_flow: int


@dataclass(slots=True)
class DoubtSent:
    """What was sent of this flow up to now may be lost: its path has gone. From now on it goes another way."""

    local_flow: int


@dataclass(slots=True)
class SendAgain:
    """What was in doubt and the peer lacks goes again, at once: all behind the number ``acknowledged`` (None: what the
    peer's packets said last) but the ranges in ``had``. In doubt is nothing afterwards.
    """

    local_flow: int
    service_id: ServiceID
    acknowledged: int | None = None
    had: tuple[tuple[int, int], ...] = ()


Output = Send | Deliver | InstallPath | RemovePath | DoubtSent | SendAgain
