"""What a run's network says of itself: counters of nodes and interfaces, lateness of relays, blackouts of flows, and by
which means it does what it does.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from testbed import hosts, nodes
from testbed.errors import TestbedError
from testbed.experiment.fidelity import relay_growth

if TYPE_CHECKING:  # it brings a running Mininet along
    from testbed.network import ServalNetwork

Counters = dict[str, dict[str, Any]]

_FIELDS = {"rx_bytes": 0, "rx_packets": 1, "tx_bytes": 8, "tx_packets": 9}
OFFLOADS = (
    "tx-checksumming",
    "tcp-segmentation-offload",
    "generic-segmentation-offload",
    "generic-receive-offload",
)
_BLACKOUT = ("cause", "source", "target", "detect", "decide", "signal", "recover", "rsyns")


def parse_interfaces(text: str) -> dict[str, dict[str, int]]:
    """Bytes and packets of each interface but the loopback, from /proc/net/dev (proc(5))."""
    found = {}
    for line in text.splitlines()[2:]:
        name, _, numbers = line.partition(":")
        words = numbers.split()
        if name.strip() != "lo":
            found[name.strip()] = {field: int(words[column]) for field, column in _FIELDS.items()}
    return found


def parse_offloads(text: str) -> dict[str, str]:
    """Those of OFFLOADS, "on" or "off", from what `ethtool -k` shows."""
    pairs = (line.partition(":") for line in text.splitlines())
    return {name.strip(): value.split()[0] for name, _, value in pairs if name.strip() in OFFLOADS}


def growth(before: Mapping[str, Any], after: Mapping[str, Any]) -> dict[str, Any]:
    """`after` less `before`, number by number; what was not there before counts as 0, what is no number is left out."""
    grown: dict[str, Any] = {}
    for name, value in after.items():
        if isinstance(value, Mapping):
            grown[name] = growth(before.get(name) or {}, value)
        elif isinstance(value, (int, float)) and not isinstance(value, bool):
            grown[name] = value - before.get(name, 0)
    return grown


def blackout(host: str, event: Mapping[str, Any], zero: float, flows: Mapping[str, str]) -> dict[str, Any]:
    """A node's Blackout as the record has it; `flows`: service -> name of the traffic."""
    service = str(event["service_id"])
    return {
        "host": host,
        "service": service,
        "flow": next((name for known, name in flows.items() if service.split(":")[0] == known), None),
        "at": event["happened"] - zero,
        **{name: event[name] for name in _BLACKOUT},
    }


class Observer:
    """Looks at one network before and after the schedule."""

    def __init__(self, network: ServalNetwork) -> None:
        self._network = network
        self._before: Counters = {}
        self._relays_before: dict[str, Any] = {}
        self._silent: dict[str, str] = {}

    def begin(self) -> None:
        """Just before zero."""
        self._before, self._relays_before = self._counters(), self._relays()

    def counters(self) -> Counters:
        """How much everything has grown since `begin`, by host."""
        after = self._counters()
        return {host: growth(self._before.get(host, {}), found) for host, found in after.items()}

    def relays(self) -> dict[str, list[dict[str, float]]]:
        """What the relays did since `begin`, by link."""
        return relay_growth(self._relays_before, self._relays())

    def blackouts(self, zero: float, flows: Mapping[str, str]) -> list[dict[str, Any]]:
        """All since zero, in their order; a node that does not answer any more has taken its own along."""
        found = []
        for host in self._network.serval_hosts:
            answer = self._ask(host, "events", since=zero, kinds=["Blackout"])
            found += [blackout(host.name, event, zero, flows) for event in answer.get("events", ())]
        return sorted(found, key=lambda one: float(one["at"]))

    def facts(self) -> dict[str, Any]:
        """By which means the network is what it is, and which nodes did not answer."""
        links = {
            f"{link.intf1.name}-{link.intf2.name}": {"shape": link.described, "mechanism": link.mechanism}
            for link in self._network.links
        }
        return {
            "links": links,
            "offloads": self._offloads(),
            "warnings": list(self._network.warnings),
            "silent_nodes": dict(self._silent),
        }

    def _offloads(self) -> dict[str, dict[str, str]]:
        """Of the first interface of each host."""
        found = {}
        for host in self._network.hosts:
            name = host.defaultIntf().name
            found[name] = parse_offloads(hosts.run(host, ["ethtool", "-k", name]))
        return found

    def _counters(self) -> Counters:
        found: Counters = {
            host.name: {"interfaces": parse_interfaces(Path(f"/proc/{host.pid}/net/dev").read_text())}
            for host in self._network.hosts
        }
        for host in self._network.serval_hosts:
            found[host.name]["node"] = self._ask(host, "stat").get("counters", {})
        return found

    def _relays(self) -> dict[str, Any]:
        return {
            f"{link.intf1.name}-{link.intf2.name}": link.relay.request("state")["directions"]
            for link in self._network.links
            if link.relay is not None
        }

    def _ask(self, host: Any, op: str, **fields: Any) -> dict[str, Any]:
        try:
            return nodes.ask(host, op, **fields)
        except TestbedError as error:  # the schedule may have killed or frozen it
            self._silent[host.name] = error.message
            return {}
