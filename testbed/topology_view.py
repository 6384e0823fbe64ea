"""Topologies as a person looks at them: the picture and what is behind it, in the terminal and as a drawing. Pure.

The picture in the terminal is the one at the head of the topology's module; its tables, and the drawing, are made from
the topology as built with the given options.
"""

from __future__ import annotations

import inspect
import sys
import textwrap
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from testbed.link.shape import shapes
from topologies import TOPOLOGIES
from topologies.declarations import Bridge, Declared, IpRouter
from topologies.subnets import places_of

HOST, SERVICE_ROUTER, PLAIN_HOST, IP_ROUTER, SWITCH, BRIDGE, VM = (
    "Serval host", "service router", "host without Serval", "IP router", "OpenFlow switch", "bridge", "virtual machine"
)  # fmt: skip
UNLIMITED = "unlimited"


def kind(topo: Declared, name: str) -> str:
    """What a node is."""
    info = topo.nodeInfo(name)
    if topo.isSwitch(name):
        return BRIDGE if info.get("cls") is Bridge else SWITCH
    if info.get("cls") is IpRouter:
        return IP_ROUTER
    if "serval" not in info:
        return PLAIN_HOST
    if "vm" in info:
        return VM
    return SERVICE_ROUTER if info["serval"]["role"] == "router" else HOST


def addresses(topo: Declared) -> dict[str, list[str]]:
    """Node -> "10.1.0.1/24" of each interface, in their order."""
    found: dict[str, list[tuple[str, str]]] = {}
    for place in places_of(topo):
        name, _, interface = place.name.rpartition("-")
        found.setdefault(name, []).append((interface, str(place.address)))
    return {name: [address for _, address in sorted(items)] for name, items in found.items()}


def picture(topology: type[Declared]) -> str:
    """The first indented block of the module's docstring."""
    lines = (inspect.getdoc(sys.modules[topology.__module__]) or "").splitlines()
    begin = next((number for number, line in enumerate(lines) if line.startswith("    ")), len(lines))
    end = next((number for number, line in enumerate(lines) if number > begin and line and line[0] != " "), len(lines))
    return textwrap.dedent("\n".join(lines[begin:end])).rstrip()


def listing() -> Iterator[str]:
    """All topologies: name, summary and picture."""
    for name, topology in TOPOLOGIES.items():
        yield f"{name}: {topology.summary}"
        yield textwrap.indent(picture(topology), "    ")
        yield ""
    yield "testbed topologies NAME shows nodes, links and parameters of one; make topo-NAME builds it"


def page(name: str, topo: Declared) -> Iterator[str]:
    """One topology as built: its picture, nodes, links, services, parameters."""
    yield f"{name}: {topo.summary}"
    yield ""
    yield textwrap.indent(picture(type(topo)), "    ")
    yield ""
    own = addresses(topo)
    yield from _table(
        ("NODE", "KIND", "ADDRESSES"),
        [(node, kind(topo, node), ", ".join(own.get(node, []))) for node in (*topo.hosts(), *topo.switches())],
    )
    yield ""
    yield from _table(
        ("LINK", "EACH DIRECTION"),
        [(f"{info['node1']}-{info['node2']}", shape(info)) for _, _, info in topo.links(withInfo=True)],
    )
    yield ""
    yield from _table(
        ("SERVICE", "ON"), [(service.name, ", ".join(service.hosts)) for service in topo.services] or [("none", "")]
    )
    yield ""
    options = [(f"--{option.replace('_', '-')}", text) for option, text in topo.parameters.items()]
    yield from _table(("OPTION", "MEANING (DEFAULT)"), options)


def shape(info: Mapping[str, Any]) -> str:
    """ "50 Mbit/s, 5 ms"; of a link with two different directions both."""
    one, other = shapes(info)
    return str(one) if one == other else f"{one} from {info['node1']}; {other} from {info['node2']}"


def _table(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> Iterator[str]:
    widths = [max(len(row[column]) for row in (heads, *rows)) for column in range(len(heads))]
    for row in (heads, *rows):
        yield "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
