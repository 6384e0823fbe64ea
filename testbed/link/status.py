"""A link that goes down and comes up again, as Mininet's `link ann s1 down`, with what the kernel forgets meanwhile.

The kernel removes an interface's routes when it goes down and brings back only that of its own network when it comes
up. The rest, default routes among them, was declared by the topology, and is put back here.
"""

from __future__ import annotations

from collections.abc import Sequence
from ipaddress import IPv4Address, IPv4Network

from mininet.link import Intf, Link
from mininet.node import Node

from testbed import hosts
from testbed.errors import TestbedError
from testbed.hosts import EmulatedNode


def change(links: Sequence[Link], *, up: bool) -> list[str]:
    """Take links down, or bring them up with their ends' routes. Returns "ann: default via 10.1.0.254" for each route
    that was put back; one whose destination has a route by now stays as it is. Raises TestbedError.
    """
    ends: list[Intf] = [interface for link in links for interface in (link.intf1, link.intf2)]
    for interface in ends:
        hosts.run(interface.node, ["ip", "link", "set", interface.name, "up" if up else "down"])
    if not up:
        return []
    return [f"{end.node.name}: {route}" for end in ends for route in _restored(end)]


def _restored(interface: Intf) -> list[str]:
    node = interface.node
    if not isinstance(node, EmulatedNode):
        return []  # a switch
    return [f"{to} {way}" for to, way in node.routes() if leads_by(way, interface) and _add(node, to, way)]


def leads_by(way: str, interface: Intf) -> bool:
    """Whether a declared way ("via 10.1.0.254", "dev ann-eth0") goes out by this interface."""
    words = way.split()
    named = dict(zip(words[::2], words[1::2], strict=False))
    if "dev" in named or interface.ip is None:
        return named.get("dev") == interface.name
    network = IPv4Network(f"{interface.ip}/{interface.prefixLen}", strict=False)
    return IPv4Address(named["via"]) in network


def _add(node: Node, destination: str, way: str) -> bool:
    """Whether the route was missing."""
    try:
        hosts.run(node, hosts.route_command("add", destination, way))
    except TestbedError as error:
        if "File exists" in error.message:
            return False
        raise
    return True
