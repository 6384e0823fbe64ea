"""What the stack asks about its host: routing, own addresses, and the services behind virtual addresses."""

from __future__ import annotations

from collections.abc import Callable

from serval_node.daemon.names import HostNames
from serval_node.io.fast_flow import FlowCounters
from serval_node.io.netlink import HostNetwork
from serval_node.sal.context import Progress
from serval_node.wire.ipv4 import Address
from serval_node.wire.serviceid import ServiceID


class HostEnvironment:
    """The stack's Environment on a real host."""

    def __init__(self, network: HostNetwork, names: HostNames, counters: Callable[[int], FlowCounters | None]) -> None:
        """``counters`` are the data path's, by local flowID."""
        self.source_address = network.source_address
        self.is_local = network.is_local
        self._network = network
        self._names = names
        self._counters = counters

    def service_for(self, address: Address, port: int) -> ServiceID | None:
        return self._names.service_for(address, port)

    def link_mtu(self, address: Address) -> int:
        link = self._network.link_of(address)
        return self._network.smallest_mtu() if link is None else link.mtu

    def progress(self, local_flow: int) -> Progress | None:
        numbers = self._counters(local_flow)
        if numbers is None:
            return None
        return Progress(numbers.sent_next, numbers.peer_ack, numbers.own_ack, numbers.own_window, numbers.own_options)
