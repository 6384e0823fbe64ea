"""Flows that are told to move, and what is known of the flows that run: conditions for triggered events."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from mininet.topo import Topo

from testbed import hosts, nodes
from testbed.errors import TestbedError
from testbed.experiment import specification as kinds
from testbed.experiment.actions import places
from testbed.experiment.run import Run
from testbed.experiment.schedule import BY_ORDER, SpecificationError
from testbed.experiment.traffic import Requests, Traffic

TOLD = (kinds.SERVAL, kinds.SERVAL_UDP, kinds.MPTCP, kinds.MPTCP_TUNED)
"""Transports that can be told to move. Plain TCP cannot; the event log says so then."""


@dataclass(frozen=True, slots=True)
class Migrate:
    """A flow is told to move to another interface ("eth1") of the host that is its source, or of `host`, its target.

    Serval: a request to the host's node, as `serval migrate flow` makes it. MPTCP: the other paths become backups, for
    all its connections of that host. TCP cannot be told; nothing happens, and the event's facts say so.
    """

    notice: ClassVar[str] = BY_ORDER
    flow: str
    to: str
    host: str | None = None

    def describe(self) -> str:
        return f"{self.flow} moves to {self.to if self.host is None else places.spoken(self.host, self.to)}"

    def check(self, topology: Topo, traffic: Mapping[str, Traffic]) -> None:
        places.check_flow(traffic, self.flow, self.describe())
        item = traffic[self.flow]
        host = item.source if self.host is None else self.host
        places.check_host(topology, host, self.describe())
        if host not in (item.source, item.target):
            raise SpecificationError(f"{self.describe()}: it goes from {item.source} to {item.target}")
        places.find_end(topology, host, self.to, self.describe())

    def carry_out(self, run: Run) -> Mapping[str, Any]:
        item = next(item for item in run.scene.traffic if item.name == self.flow)
        host = item.source if self.host is None else self.host
        interface = f"{host}-{self.to}"
        transport = run.contender.transport
        if transport not in TOLD:
            return {"moved": False, "why": f"{transport} cannot be told to move"}
        if transport in (kinds.MPTCP, kinds.MPTCP_TUNED):
            return {"moved": True, "backups": _prefer(run, host, interface), "at": run.now()}
        row = _flow_of(run, item.source, self.flow)
        flow_id = int(row["flow_id"] if host == item.source else row["peer_flow"])
        asked = run.now()
        (row,) = nodes.ask(run.network.serval_host(host), "migrate", flow_id=flow_id, to=interface)["flows"]
        if row["refusal"]:
            raise TestbedError(f"{self.describe()}: refused: {row['refusal']}")
        return {"moved": True, "flow_id": flow_id, "at": asked}


@dataclass(frozen=True, slots=True)
class MovedBytes:
    """A flow's receiver has so many bytes."""

    flow: str
    count: int

    def describe(self) -> str:
        return f"{self.flow} has moved {self.count / 1e6:g} MB"

    def check(self, topology: Topo, traffic: Mapping[str, Traffic]) -> None:
        places.check_flow(traffic, self.flow, self.describe())
        if isinstance(traffic[self.flow], Requests):
            raise SpecificationError(f"{self.describe()}: {self.flow} are requests; of these one waits for answers")
        if self.count <= 0:
            raise SpecificationError(f"{self.describe()}: a number of bytes more than 0")

    def holds(self, run: Run) -> bool:
        return run.traffic[self.flow].received() >= self.count


@dataclass(frozen=True, slots=True)
class Answered:
    """So many of the requests of this name have been answered."""

    requests: str
    count: int

    def describe(self) -> str:
        return f"{self.count} of {self.requests} are answered"

    def check(self, topology: Topo, traffic: Mapping[str, Traffic]) -> None:
        places.check_flow(traffic, self.requests, self.describe())
        if not isinstance(traffic[self.requests], Requests):
            raise SpecificationError(f"{self.describe()}: {self.requests} is no requests; of it one waits for bytes")
        if self.count <= 0:
            raise SpecificationError(f"{self.describe()}: a number of answers more than 0")

    def holds(self, run: Run) -> bool:
        return run.traffic[self.requests].received() >= self.count


def _flow_of(run: Run, host: str, name: str) -> dict[str, Any]:
    """The row of a connection in the flow table of its source; raises TestbedError."""
    port = run.traffic[name].port()
    rows = nodes.ask(run.network.serval_host(host), "flows")["flows"]
    found = [row for row in rows if port is not None and row["socket"].endswith(f":{port}")]
    if not found:
        raise TestbedError(f"{name} has no flow at {host} to be moved", f"see: {host} serval flows")
    return dict(found[-1])


def _prefer(run: Run, host: str, interface: str) -> list[int]:
    """Make all MPTCP endpoints of a host backups but the one at an interface; the others' ids. Raises TestbedError."""
    node = run.network.find(host)
    endpoints = json.loads(hosts.run(node, ["ip", "-json", "mptcp", "endpoint", "show"]) or "[]")
    if interface not in [endpoint.get("dev") for endpoint in endpoints]:
        raise TestbedError(f"MPTCP of {host} has no endpoint at {interface}", "look at: ip mptcp endpoint show")
    others = [endpoint["id"] for endpoint in endpoints if endpoint.get("dev") != interface]
    used = [endpoint["id"] for endpoint in endpoints if endpoint.get("dev") == interface]
    lines = [f"mptcp endpoint change id {number} nobackup" for number in used]
    lines += [f"mptcp endpoint change id {number} backup" for number in others]
    hosts.script(node, [hosts.batch("ip", lines)])
    return others
