"""Places in a topology that actions name: hosts, interfaces, links, services. Pure.

A link is named by one of its ends: "eve", "eth1" is eve's second interface; "r1", "r2" the link between these two,
seen from r1. Where several links join two nodes, the interface has to be said.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from typing import Any

from mininet.topo import Topo

from testbed.experiment.schedule import SpecificationError
from testbed.words import did_you_mean

_INTERFACE = re.compile(r"eth(\d+)\Z")


@dataclass(frozen=True, slots=True)
class LinkEnd:
    """One end of a link, and what is at the other one."""

    node: str
    port: int
    other: str
    other_port: int

    @property
    def interface(self) -> str:
        return f"{self.node}-eth{self.port}"

    @property
    def other_interface(self) -> str:
        return f"{self.other}-eth{self.other_port}"


def check_host(topology: Topo, name: str, what: str) -> None:
    """Raises SpecificationError, beginning with `what`, when there is no such host or router."""
    _known(name, topology.hosts(), what, "host")


def check_serval_host(topology: Topo, name: str, what: str) -> None:
    """Raises SpecificationError when there is no such host, or it has no Serval node."""
    check_host(topology, name, what)
    able = [host for host in topology.hosts() if "serval" in topology.nodeInfo(host)]
    if name not in able:
        raise SpecificationError(f"{what}: {name} has no Serval node; these have one: {', '.join(able) or 'none'}")


def check_flow(traffic: Collection[str], name: str, what: str) -> None:
    """Raises SpecificationError when nothing of that name flows."""
    _known(name, sorted(traffic), what, "flow")


def check_service(topology: Topo, service: str, host: str, what: str) -> None:
    """Raises SpecificationError when there is no such Serval host, or the topology does not declare this service."""
    check_serval_host(topology, host, what)
    check_declared(topology, service, what)


def check_declared(topology: Topo, service: str, what: str) -> None:
    """Raises SpecificationError when the topology does not declare this service."""
    _known(service, [item.name for item in getattr(topology, "services", ())], what, "service")


def find_end(topology: Topo, node: str, to: str, what: str) -> LinkEnd:
    """The end of a link at `node`: `to` is its interface ("eth0") or the node at the other end.

    Raises SpecificationError, beginning with `what`.
    """
    _known(node, topology.nodes(), what, "node")
    ends = list(ends_of(topology, node))
    named = _INTERFACE.match(to)
    found = [end for end in ends if (end.port == int(named[1]) if named else end.other == to)]
    if not found:
        there = ", ".join(f"eth{end.port} to {end.other}" for end in ends) or "none"
        raise SpecificationError(f"{what}: {node} has no link {to!r}; it has: {there}")
    if len(found) > 1:
        which = " or ".join(f"eth{end.port}" for end in found)
        raise SpecificationError(f"{what}: {len(found)} links join {node} and {to}: say {which}")
    return found[0]


def ends_of(topology: Topo, node: str) -> Iterator[LinkEnd]:
    """The links at a node, seen from it, in the order of its ports."""
    ends = [end for _, _, info in topology.links(withInfo=True) for end in _ends(info) if end.node == node]
    yield from sorted(ends, key=lambda end: end.port)


def options_of(topology: Topo, end: LinkEnd) -> dict[str, Any]:
    """The options that the topology gives the link at this end."""
    return next(dict(info) for _, _, info in topology.links(withInfo=True) if end in _ends(info))


def spoken(node: str, to: str) -> str:
    """ "eve's eth1", or "r1's link to r2"."""
    return f"{node}'s {to}" if _INTERFACE.match(to) else f"{node}'s link to {to}"


def _ends(info: dict[str, Any]) -> tuple[LinkEnd, LinkEnd]:
    first, second, one, two = info["node1"], info["node2"], info["port1"], info["port2"]
    return LinkEnd(first, one, second, two), LinkEnd(second, two, first, one)


def _known(name: str, there: Collection[str], what: str, kind: str) -> None:
    if name not in there:
        near = did_you_mean(name, list(there))
        raise SpecificationError(f"{what}: there is no {kind} {name!r}{near}; there are: {', '.join(there) or 'none'}")
