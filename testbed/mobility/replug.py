"""An interface of a host that is moved to another network: the far end of its cable goes from bridge to bridge.

In sight: the carrier goes, and comes back behind the gap, as when a host leaves one access network and joins another.
Silent: its own end notices nothing, as a virtual machine's does whose host plugs it in elsewhere; in the gap, what is
sent gets lost. Either way the host then gets its new address and gateway, as from a DHCP server, and the old address
is taken away.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Interface
from typing import TYPE_CHECKING

from mininet.link import Intf

from testbed import hosts, rtnetlink
from testbed.errors import TestbedError
from testbed.hosts import EmulatedNode
from testbed.link.emulated import EmulatedLink
from testbed.mobility import multihoming
from testbed.mobility.multihoming import Home
from testbed.switches import KernelBridge

if TYPE_CHECKING:  # it makes its virtual machines itself
    from testbed.network import ServalNetwork


@dataclass(frozen=True)
class Plug:
    """A host's interface, and the end of its cable at a bridge."""

    node: EmulatedNode
    own: Intf
    far: str


@dataclass(frozen=True)
class Moments:
    """CLOCK_MONOTONIC: out of the old network, in the new one, and with its new address."""

    unplugged: float
    plugged: float
    addressed: float


def find(network: ServalNetwork, host: str, interface: str) -> Plug:
    """The cable of a host's interface, "ann-eth0"; raises TestbedError unless a plain bridge is at its other end."""
    node = network.find(host)
    for link in network.links:
        for own, other in ((link.intf1, link.intf2), (link.intf2, link.intf1)):
            if own.name == interface and own.node is node:
                return Plug(node, own, _far(link, own, other))
    there = ", ".join(item.name for item in node.intfList())
    raise TestbedError(f"{host} has no interface {interface}; it has: {there}")


def _far(link: EmulatedLink, own: Intf, other: Intf) -> str:
    if not isinstance(other.node, KernelBridge):
        raise TestbedError(
            f"{own.name} cannot be moved: at its other end is {other.node.name}, which is no plain bridge",
            "topologies with networks to move between: mobile-client, vm-migration",
        )
    return str(other.name)


def bridge(network: ServalNetwork, name: str) -> KernelBridge:
    """Raises TestbedError that lists them."""
    bridges = {switch.name: switch for switch in network.switches if isinstance(switch, KernelBridge)}
    if name not in bridges:
        raise TestbedError(f"no network {name!r} to plug in at; there are: {', '.join(bridges) or 'none'}")
    return bridges[name]


def plug_in(plug: Plug, to: KernelBridge, *, gap: float, silent: bool) -> tuple[float, float]:
    """Out of one bridge, `gap` seconds of nothing, into another; when each was done. Raises TestbedError."""
    with rtnetlink.opened() as netlink:
        unplugged = netlink.enslave(plug.far, None) if silent else netlink.set_up(plug.far, False)
        if silent and gap == 0:
            return unplugged, netlink.enslave(plug.far, to.name)
        if not silent:
            netlink.enslave(plug.far, to.name)
        time.sleep(max(0.0, unplugged + gap - time.monotonic()))
        return unplugged, netlink.enslave(plug.far, to.name) if silent else netlink.set_up(plug.far, True)


def readdress(plug: Plug, address: str, gateway: str) -> float:
    """Give a plugged-in interface its new address ("10.2.0.10/24") and gateway in place of those it has; when it was
    done. The declared routes, which come back with a link, are the new ones from then on. Raises TestbedError.
    """
    new, old = IPv4Interface(address), plug.own
    if new.ip == IPv4Address(old.ip):
        raise TestbedError(f"{old.name} has the address {old.ip} already")
    homes = plug.node.homes()
    before, after, routes = multihoming.rules(homes), [], [(hosts.DEFAULT, f"via {gateway} dev {old.name}")]
    if homes:
        after = [_moved(home, new, gateway) if home.interface == old.name else home for home in homes]
        routes = [route for route in multihoming.routes(after) if f"dev {old.name}" in route[1]]
        plug.own.gateway = gateway
    else:
        plug.node.params["defaultRoute"] = f"via {gateway}"
    rules = multihoming.rules(after)
    commands = [rule for rule in rules if rule not in before]
    # The ways first: what leaves from the new address in its first moment would look for the old gateway, and wait.
    commands += [" ".join([*hosts.route_command("replace", *route)[1:], *_onlink(route)]) for route in routes]
    commands.append(f"address add {new} brd + dev {old.name}")
    commands += [rule.replace("rule add", "rule del") for rule in before if rule not in rules]
    commands.append(f"address del {old.ip}/{old.prefixLen} dev {old.name}")
    hosts.script(plug.node, [hosts.batch("ip", commands)])
    done = time.monotonic()
    plug.own.setIP(str(new))
    return done


def _onlink(route: tuple[str, str]) -> list[str]:
    """A gateway in a subnet that the host has no address of yet."""
    return ["onlink"] if "via" in route[1].split() else []


def _moved(home: Home, new: IPv4Interface, gateway: str) -> Home:
    return Home(home.interface, str(new.ip), new.network.prefixlen, gateway)


def move(
    network: ServalNetwork,
    host: str,
    interface: str,
    to: str,
    *,
    address: str,
    gateway: str,
    gap: float = 0.0,
    silent: bool = False,
) -> Moments:
    """Move an interface ("ann-eth0") to the bridge `to`, with a gap of so many seconds; raises TestbedError."""
    plug, target = find(network, host, interface), bridge(network, to)
    unplugged, plugged = plug_in(plug, target, gap=gap, silent=silent)
    return Moments(unplugged, plugged, readdress(plug, address, gateway))
