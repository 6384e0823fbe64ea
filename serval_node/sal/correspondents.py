"""Who sent unconnected datagrams to the sockets of this host: what an answer needs, and what recvfrom() reports."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator
from dataclasses import dataclass

from serval_node.sal.flow_table import Endpoint
from serval_node.wire.ipv4 import Address, UdpPorts
from serval_node.wire.serviceid import ServiceID

LIMIT = 4096


@dataclass(slots=True)
class Correspondent:
    """A sender as one local socket knows it.

    service_id, address, flow_id  its source serviceID, its address and its flowID
    ports                         by which its last datagram came, if inside UDP
    own_service                   the serviceID that it wrote to: the source of an answer
    kernel_local, kernel_peer     the socket, and the virtual end that stands for the sender there
    """

    service_id: ServiceID
    address: Address
    flow_id: int
    own_service: ServiceID
    kernel_local: Endpoint
    kernel_peer: Endpoint
    ports: UdpPorts | None = None


_Key = tuple[Endpoint, ServiceID, Address, int, ServiceID]


class Correspondents:
    """The last LIMIT of them; who was silent for longest gives way."""

    def __init__(self, limit: int = LIMIT) -> None:
        self._limit = limit
        self._known: OrderedDict[_Key, Correspondent] = OrderedDict()
        self._by_kernel: dict[tuple[Endpoint, Endpoint], Correspondent] = {}

    def find(
        self, local: Endpoint, service_id: ServiceID, address: Address, flow_id: int, own_service: ServiceID
    ) -> Correspondent | None:
        """The one that wrote to this socket before, now the youngest."""
        key = local, service_id, address, flow_id, own_service
        found = self._known.get(key)
        if found is not None:
            self._known.move_to_end(key)
        return found

    def add(self, correspondent: Correspondent) -> None:
        if len(self._known) >= self._limit:
            _, oldest = self._known.popitem(last=False)
            del self._by_kernel[oldest.kernel_local, oldest.kernel_peer]
        self._known[_key(correspondent)] = correspondent
        self._by_kernel[correspondent.kernel_local, correspondent.kernel_peer] = correspondent

    def by_kernel(self, local: Endpoint, peer: Endpoint) -> Correspondent | None:
        """The one behind a virtual end, as a socket of the kernel sees it."""
        return self._by_kernel.get((local, peer))

    def forget(self, port: int) -> None:
        """The sockets with this local port have gone."""
        for item in [item for item in self._known.values() if item.kernel_local[1] == port]:
            del self._known[_key(item)]
            del self._by_kernel[item.kernel_local, item.kernel_peer]

    def __iter__(self) -> Iterator[Correspondent]:
        return iter(self._known.values())

    def __len__(self) -> int:
        return len(self._known)


def _key(item: Correspondent) -> _Key:
    return item.kernel_local, item.service_id, item.address, item.flow_id, item.own_service
