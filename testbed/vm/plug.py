"""How a guest is plugged into an emulated host: a bridge in the host, of which the host's uplink and a TAP are ports.

The bridge takes over the uplink's hardware address, addresses and routes; for the network around nothing changes. It
stays until the host ends. What shapes the uplink shapes the guest's traffic too, and that of its migration.
"""

from __future__ import annotations

import json
from typing import Any

from testbed import hosts
from testbed.errors import TestbedError
from testbed.hosts import EmulatedNode

LONGEST_NAME = 15


def bridge_name(node: EmulatedNode) -> str:
    return _fitting(f"{node.name}-br", node)


def tap_name(node: EmulatedNode, guest: str) -> str:
    return _fitting(f"{node.name}-{guest}", node)


def check_uplink(node: EmulatedNode) -> None:
    """Raises TestbedError when the host has no address that a guest could be beside."""
    if not node.intfList() or node.defaultIntf().ip is None:
        raise TestbedError(f"{node.name} has no interface with an address, so no guest can be plugged in there")


def make_bridge(node: EmulatedNode) -> None:
    """Make the host's bridge, unless it is there already; raises TestbedError."""
    bridge = bridge_name(node)
    if any(link["ifname"] == bridge for link in _links(node)):
        return
    uplink = node.defaultIntf().name
    (link,) = [link for link in _links(node) if link["ifname"] == uplink]
    commands = [
        f"link add {bridge} address {link['address']} mtu {link['mtu']} type bridge stp_state 0 mcast_snooping 0",
        f"address flush dev {uplink}",
        f"link set {uplink} master {bridge}",
        f"link set {bridge} up",
    ]
    for address in link["addr_info"]:
        if address["family"] == "inet":
            commands.append(f"address add {address['local']}/{address['prefixlen']} brd + dev {bridge}")
    commands += [" ".join(hosts.route_command("replace", *route)[1:]) for route in node.routes()]
    hosts.script(node, [hosts.batch("ip", commands)])


def make_tap(node: EmulatedNode, guest: str) -> str:
    """A TAP for a guest, plugged into the host's bridge; returns its name. Raises TestbedError."""
    name, bridge = tap_name(node, guest), bridge_name(node)
    # With vnet_hdr the guest's large segments pass as they are, and checksums are left to the end that needs them.
    commands = [f"tuntap add dev {name} mode tap vnet_hdr", f"link set {name} mtu {mtu(node)} master {bridge} up"]
    hosts.script(node, [hosts.batch("ip", commands)])
    return name


def remove_tap(node: EmulatedNode, name: str) -> None:
    """Raises TestbedError."""
    hosts.run(node, ["ip", "link", "del", name])


def mtu(node: EmulatedNode) -> int:
    """Of the host's uplink; raises TestbedError."""
    uplink = node.defaultIntf().name
    return next(link["mtu"] for link in _links(node) if link["ifname"] == uplink)


def _links(node: EmulatedNode) -> list[dict[str, Any]]:
    return json.loads(hosts.run(node, ["ip", "-json", "address", "show"]))


def _fitting(name: str, node: EmulatedNode) -> str:
    if len(name) > LONGEST_NAME:
        raise TestbedError(
            f"{name!r} is too long for an interface's name ({LONGEST_NAME} characters)",
            f"take a shorter name than {node.name!r} for the host, or for the guest",
        )
    return name
