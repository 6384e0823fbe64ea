"""Addresses of a topology, checked: who shares a wire shares a subnet, and no two wires have overlapping ones."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Interface, IPv4Network
from itertools import combinations
from typing import Any

from mininet.topo import Topo


class AddressError(ValueError):
    """Addresses that contradict each other; one line that names the places."""


@dataclass(frozen=True)
class Place:
    """One interface of a host or router: its address, and the segment that it is on.

    A segment is what a broadcast reaches: a link, or all links at switches that are joined.
    """

    name: str
    address: IPv4Interface
    gateway: IPv4Address | None
    segment: str


def check(topo: Topo) -> None:
    """Raises AddressError: an address that is none or stands twice, a gateway outside its subnet, subnets that overlap
    or stand on two segments.
    """
    places = list(places_of(topo))
    owners: dict[IPv4Address, str] = {}
    subnets: dict[IPv4Network, Place] = {}
    for place in places:
        if place.address.ip in owners:
            raise AddressError(f"{owners[place.address.ip]} and {place.name} have the same address {place.address.ip}")
        owners[place.address.ip] = place.name
        if place.gateway is not None and place.gateway not in place.address.network:
            raise AddressError(
                f"{place.name}: its gateway {place.gateway} is not in its subnet {place.address.network}"
            )
        known = subnets.setdefault(place.address.network, place)
        if known.segment != place.segment:
            raise AddressError(f"{known.name} and {place.name} are both in {place.address.network}, on different wires")
    for (one, first), (other, second) in combinations(subnets.items(), 2):
        if one.overlaps(other):
            raise AddressError(f"subnets overlap: {one} of {first.name} and {other} of {second.name}")
    _check_default_routes(topo, places)


def _check_default_routes(topo: Topo, places: list[Place]) -> None:
    """ "via 10.1.0.254", as Mininet's `defaultRoute` has it, leads to one of the host's own subnets."""
    for host in topo.hosts():
        words = str(topo.nodeInfo(host).get("defaultRoute") or "").split()
        own = [place.address.network for place in places if place.name.rpartition("-")[0] == host]
        if "via" in words[:-1] and own:
            gateway = _gateway(host, words[words.index("via") + 1])
            if not any(gateway in network for network in own):
                raise AddressError(f"{host}: its gateway {gateway} is not in its subnet {', '.join(map(str, own))}")


def places_of(topo: Topo) -> Iterator[Place]:
    """All interfaces of hosts and routers that have an address, in the order of the links."""
    segments = _segments(topo)
    for number, (_, _, info) in enumerate(topo.links(withInfo=True)):
        for end, port, params in (("node1", "port1", "params1"), ("node2", "port2", "params2")):
            node = info[end]
            if topo.isSwitch(node):
                continue
            options = info.get(params) or {}
            address = options.get("ip") or _own(topo, node, info[port])
            if address is not None:
                name = f"{node}-eth{info[port]}"
                gateway = options.get("gateway")
                yield Place(name, _interface(name, address), _gateway(name, gateway), segments[number])


def _own(topo: Topo, node: str, port: int) -> str | None:
    """A host's option `ip` belongs to its first interface."""
    first = min(topo.ports[node])
    return topo.nodeInfo(node).get("ip") if port == first else None


def _segments(topo: Topo) -> list[str]:
    """The segment of each link: a switch that stands for all that are joined to it, or the link itself."""
    joined = {switch: switch for switch in topo.switches()}

    def root(switch: str) -> str:
        while joined[switch] != switch:
            switch = joined[switch]
        return switch

    for first, second in topo.links():
        if first in joined and second in joined:
            joined[root(first)] = root(second)
    return [
        root(first) if first in joined else root(second) if second in joined else f"link {number}"
        for number, (first, second) in enumerate(topo.links())
    ]


def _interface(name: str, text: Any) -> IPv4Interface:
    try:
        if "/" not in str(text):
            raise ValueError("it has no prefix length")
        return IPv4Interface(text)
    except ValueError as error:
        raise AddressError(f"{name}: {text!r} is no address with its prefix length: {error}") from None


def _gateway(name: str, text: Any) -> IPv4Address | None:
    try:
        return None if text is None else IPv4Address(text)
    except ValueError:
        raise AddressError(f"{name}: {text!r} is no gateway's address") from None
