"""What the stack asks about its host: routing, own addresses, and the services behind virtual addresses."""

from __future__ import annotations

from serval_node.daemon.names import HostNames
from serval_node.io.netlink import HostNetwork
from serval_node.wire.ipv4 import Address
from serval_node.wire.serviceid import ServiceID


class HostEnvironment:
    """The stack's Environment on a real host."""

    def __init__(self, network: HostNetwork, names: HostNames) -> None:
        self.source_address = network.source_address
        self.is_local = network.is_local
        self._network = network
        self._names = names

    def service_for(self, address: Address, port: int) -> ServiceID | None:
        return self._names.service_for(address, port)

    def link_mtu(self, address: Address) -> int:
        link = self._network.link_of(address)
        return self._network.smallest_mtu() if link is None else link.mtu
