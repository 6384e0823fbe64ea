"""Hosts with several interfaces: what leaves from an address goes by that address's interface and gateway. Pure.

Each such interface has a routing table of its own, and a rule by source address that leads there; without, all packets
would leave by the one default route, and a gateway that looks at sources would drop them. The main table has a default
route by each, the first interface's before the others: it decides where connections begin that have no address yet.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from ipaddress import IPv4Interface

DEFAULT = "default"
FIRST_TABLE = 101
PREFERENCE = 1000
METRIC_STEP = 100


@dataclass(frozen=True)
class Home:
    """One interface: its name, address, prefix length and gateway."""

    interface: str
    address: str
    prefix: int
    gateway: str

    @property
    def network(self) -> str:
        return str(IPv4Interface(f"{self.address}/{self.prefix}").network)


def routes(homes: Sequence[Home]) -> list[tuple[str, str]]:
    """The destination and the way of each route, in the form of `EmulatedNode.routes`."""
    return [route for number, home in enumerate(homes) for route in _routes(number, home)]


def _routes(number: int, home: Home) -> Iterator[tuple[str, str]]:
    table = f"table {FIRST_TABLE + number}"
    yield DEFAULT, f"via {home.gateway} dev {home.interface}" + (f" metric {METRIC_STEP * number}" if number else "")
    yield home.network, f"dev {home.interface} {table}"
    yield DEFAULT, f"via {home.gateway} dev {home.interface} {table}"


def rules(homes: Sequence[Home]) -> list[str]:
    """Commands of `ip -batch`, once per host: the rules outlive links that go down."""
    return [
        f"rule add from {home.address} lookup {FIRST_TABLE + number} pref {PREFERENCE}"
        for number, home in enumerate(homes)
    ]
