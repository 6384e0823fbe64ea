"""What a topology declares beside nodes and links: provider blocks and services, as data that is checked without root.

Node options that the testbed reads (Mininet passes them through, so `mn --custom` ignores them):
    serval={"role": "host"}                         a host with a Serval node
    serval={"role": "router", "serves": ["example"]}   a service router responsible for these providers' blocks
    serval={..., "adhoc": True}                     more of serval_node.daemon.config, from its line auto_migrate on
    routes=[("10.2.0.0/16", "10.0.0.2")]             static routes of a host or an IpRouter
    vm={"on": "hal", ...}                             a virtual machine in its light form (testbed.mobility.light_vm)
    ip_forward=True                                  a host that forwards IP packets, as an IpRouter does
Link options have Mininet's names and units: bw (Mbit/s), delay and jitter ("5ms", one way), loss (percent),
max_queue_size (frames); in params1 and params2 for what leaves by that end alone. impairable=True: delay, loss and
holes may come later; mtu: bytes, both ends (docs/links.md). An end of a link also has
    params1={"ip": "10.2.0.1/24"}                    an address, for all interfaces but the first, which may have the
                                                     host's option `ip`
    params1={"ip": "10.2.0.1/24", "gateway": "10.2.0.254"}   of a host with several interfaces: what leaves from this
                                                     address goes by this interface and this gateway (policy routing);
                                                     the first interface's gateway is also the host's default router
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from mininet.node import Node, Switch
from mininet.topo import Topo

from topologies import subnets

PROVIDER_BITS = 24
ORIGINAL_BLOCKS = 0x100  # blocks 0x0000xx hold the original implementation's decimal serviceIDs
_LABEL = re.compile(r"[a-z0-9_-]{1,63}\Z")


class TopologyError(ValueError):
    """A topology that contradicts itself, or parameters that it cannot be built with; one clear line."""


@dataclass(frozen=True)
class Service:
    """One service and the hosts on which `testbed run` starts an instance of it.

    name     a service name of two or more labels, whose last label is a declared provider
    hosts    where instances run
    command  the unmodified server, started below `serval run --service NAME`
    page     text of www/index.html in the host's /run/serval, {host} and {service} filled in; empty: no page
    """

    name: str
    hosts: tuple[str, ...]
    command: tuple[str, ...]
    page: str = ""


class IpRouter(Node):
    """A stock Linux IP router: forwards packets, knows nothing of Serval (S7)."""

    def config(self, routes: list[tuple[str, str]] | None = None, **params: Any) -> dict[str, Any]:
        result: dict[str, Any] = super().config(**params)
        self.cmd("sysctl -w net.ipv4.ip_forward=1")
        for destination, gateway in routes or []:
            self.cmd(f"ip route add {destination} via {gateway}")
        return result


class Bridge(Switch):
    """A Linux bridge: a switch in the kernel that learns by itself, much faster than Open vSwitch in user space."""

    def start(self, controllers: list[Any]) -> None:
        self.cmd(f"ip link add {self.name} type bridge mcast_snooping 0")
        for interface in self.intfList():
            if interface.name != "lo":
                self.cmd(f"ip link set {interface.name} master {self.name} up")
        self.cmd(f"ip link set {self.name} up")

    def stop(self, deleteIntfs: bool = True) -> None:
        self.cmd(f"ip link del {self.name}")
        super().stop(deleteIntfs)


class Declared(Topo):
    """A Topo that says which providers and services it has. Subclasses fill `providers` and `services` in build().

    Without `has_controller` no controller is started: the switches learn by themselves, and so do the Serval nodes.
    """

    summary: ClassVar[str] = ""
    parameters: ClassVar[Mapping[str, str]] = {}
    has_controller: ClassVar[bool] = True

    def __init__(self, *args: Any, **params: Any) -> None:
        self.providers: dict[str, int] = {}
        self.services: list[Service] = []
        super().__init__(*args, **params)
        self.check()

    def serval_nodes(self) -> dict[str, dict[str, Any]]:
        """Name -> the `serval` option of every node that has one, in Mininet's natural order."""
        return {name: self.nodeInfo(name)["serval"] for name in self.hosts() if "serval" in self.nodeInfo(name)}

    def service_routers(self) -> list[str]:
        return [name for name, options in self.serval_nodes().items() if options["role"] == "router"]

    def check(self) -> None:
        """Blocks are valid and distinct; services stand on Serval hosts of declared providers; each wire has a subnet
        of its own; else TopologyError.
        """
        try:
            subnets.check(self)
        except subnets.AddressError as error:
            raise TopologyError(str(error)) from None
        self._check_providers()
        nodes = self.serval_nodes()
        for name, options in nodes.items():
            if options["role"] not in ("host", "router"):
                raise TopologyError(f"{name}: the role is 'host' or 'router', not {options['role']!r}")
            for label in options.get("serves", ()):
                if label not in self.providers:
                    raise TopologyError(f"{name} serves provider {label!r}, which the topology does not declare")
        for service in self.services:
            self._check_service(service, nodes)

    def _check_providers(self) -> None:
        blocks: dict[int, str] = {}
        for label, block in self.providers.items():
            if not _LABEL.match(label):
                raise TopologyError(f"{label!r} is no provider label")
            if not ORIGINAL_BLOCKS <= block < 1 << PROVIDER_BITS:
                raise TopologyError(f"provider {label}: block {block:#x} is not within 0x000100..0xffffff")
            if block in blocks:
                raise TopologyError(f"providers {blocks[block]} and {label} declare the same block {block:#08x}")
            blocks[block] = label

    def _check_service(self, service: Service, nodes: Mapping[str, Any]) -> None:
        labels = service.name.split(".")
        if len(labels) < 2 or not all(_LABEL.match(label) for label in labels):
            raise TopologyError(f"{service.name!r} is no service name")
        if labels[-1] not in self.providers:
            raise TopologyError(f"{service.name}: provider {labels[-1]!r} is not declared")
        if not service.hosts or not service.command:
            raise TopologyError(f"{service.name} needs at least one host and a command")
        for host in service.hosts:
            if host not in nodes:
                raise TopologyError(f"{service.name}: {host!r} is not a Serval host of this topology")
