"""Where an end of a flow is found in the network."""

from __future__ import annotations

from typing import NamedTuple

from serval_node.wire.ipv4 import Address, UdpPorts


class Place(NamedTuple):
    """An address and, for packets inside UDP, the ports; ``ports`` is None for raw ones."""

    address: Address
    ports: UdpPorts | None = None
