"""Ad hoc mode of a node (slide 38, S44): which links take part, and the default rule to their broadcast addresses."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from serval_node.io.netlink import HostNetwork, InterfaceAddress
from serval_node.sal.adhoc import AdHoc
from serval_node.sal.stack import Stack
from serval_node.wire.ipv4 import Address, address_text

_LONGEST_SUBNET = 30
"""Two addresses and a broadcast address need two bits; RFC 3021's /31 has no broadcast."""


@dataclass(frozen=True, slots=True)
class BroadcastLink:
    """A link on which everyone can be asked at once."""

    interface: str
    address: Address
    broadcast: Address


def broadcast_links(network: HostNetwork) -> list[BroadcastLink]:
    """The host's own links that are up and have a broadcast address, in the kernel's order."""
    found = []
    for entry in network.addresses:
        link = network.links.get(entry.link_index)
        if link is not None and link.up and not link.loopback and entry.prefix_length <= _LONGEST_SUBNET:
            found.append(BroadcastLink(link.name, entry.address, broadcast_address(entry)))
    return found


def broadcast_address(entry: InterfaceAddress) -> Address:
    """The highest address of an address's subnet."""
    return (int.from_bytes(entry.address, "big") | (1 << 32 - entry.prefix_length) - 1).to_bytes(4, "big")


def is_neighbour(network: HostNetwork, address: Address) -> bool:
    """Whether an address is in the subnet of one of the host's links, and not the host's own."""
    number = int.from_bytes(address, "big")
    return not network.is_local(address) and any(
        number >> 32 - entry.prefix_length == int.from_bytes(entry.address, "big") >> 32 - entry.prefix_length
        for entry in network.addresses
        if entry.address[0] != 127
    )


class AdHocMode:
    """Switched on and off; `default_rule` is told of the broadcast addresses that it is for."""

    def __init__(
        self,
        stack: Stack,
        network: HostNetwork,
        default_rule: Callable[[tuple[Address, ...]], None],
        *,
        on: bool,
        relay: bool,
        hops: int,
    ) -> None:
        self.on = on
        self._relay = relay
        self._hops = hops
        self._stack = stack
        self._network = network
        self._default_rule = default_rule
        self.network_changed()

    def set(self, *, on: bool, relay: bool | None = None, hops: int | None = None) -> None:
        """Change the mode; what is None stays. Raises ValueError for a hop limit that there cannot be."""
        part = AdHoc({}, self._relay if relay is None else relay, self._hops if hops is None else hops)
        self.on, self._relay, self._hops = on, part.relay, part.hops
        self.network_changed()

    def network_changed(self) -> None:
        """Links or addresses came, went or changed state: those that are there take part."""
        links = {link.broadcast: link.address for link in self._links()}
        self._stack.adhoc = AdHoc(links, self._relay and self.on, self._hops)
        self._default_rule(tuple(links))

    def _links(self) -> list[BroadcastLink]:
        return broadcast_links(self._network) if self.on else []

    def view(self) -> dict[str, Any]:
        """The mode as JSON, for `serval adhoc`."""
        links = [
            {
                "interface": link.interface,
                "address": address_text(link.address),
                "broadcast": address_text(link.broadcast),
            }
            for link in self._links()
        ]
        return {"on": self.on, "relay": self._relay, "hops": self._hops, "links": links}
