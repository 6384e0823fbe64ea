"""Hosts and virtual machines that move to another network."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import asdict, dataclass
from typing import Any, ClassVar

from mininet.topo import Topo

from testbed.experiment import machines
from testbed.experiment.actions import places
from testbed.experiment.run import Run
from testbed.experiment.schedule import BY_LINK, SpecificationError
from testbed.mobility import replug
from testbed.traffic import transports
from testbed.vm_migration import LIGHT, MoveRecord
from topologies.declarations import Bridge


@dataclass(frozen=True, slots=True, kw_only=True)
class MoveInterface:
    """A host's interface leaves its network and joins another, with an address and a gateway there.

    host, interface  "ann", "eth0"; at its other end is a plain bridge
    to               the bridge of the other network
    address          "10.2.0.1/24"
    gap              seconds in no network: its carrier is gone
    silent           it keeps its carrier, as a virtual machine's does
    """

    notice: ClassVar[str] = BY_LINK
    host: str
    interface: str
    to: str
    address: str
    gateway: str
    gap: float = 0.0
    silent: bool = False

    def describe(self) -> str:
        return f"{self.host}'s {self.interface} moves to {self.to}"

    def check(self, topology: Topo, traffic: Collection[str]) -> None:
        end = places.find_end(topology, self.host, self.interface, self.describe())
        for name in (end.other, self.to):
            if not topology.isSwitch(name) or topology.nodeInfo(name).get("cls") is not Bridge:
                there = ", ".join(_bridges(topology)) or "none"
                raise SpecificationError(f"{self.describe()}: {name} is no plain bridge; there are: {there}")
        if self.gap < 0:
            raise SpecificationError(f"{self.describe()}: the gap cannot be {self.gap:g} s")
        machines.check_in_subnet(topology, self.host, self.address, self.gateway, self.to, self.describe())

    def carry_out(self, run: Run) -> Mapping[str, Any]:
        moments = replug.move(
            run.network,
            self.host,
            f"{self.host}-{self.interface}",
            self.to,
            address=self.address,
            gateway=self.gateway,
            gap=self.gap,
            silent=self.silent,
        )
        transports.follow(run, run.network.find(self.host))
        since_zero = {name: moment - run.zero for name, moment in asdict(moments).items()}
        return {"at": since_zero["unplugged"], **since_zero}


@dataclass(frozen=True, slots=True, kw_only=True)
class MoveVm:
    """A virtual machine of the network, of either form, moves to another host, where it has another address. All its
    parts are on record as events, and the move with its form among the run's facts, "moves". That there is such a
    machine is the scene's to check (`machines`).
    """

    notice: ClassVar[str] = BY_LINK
    vm: str
    to: str
    address: str
    gateway: str

    def describe(self) -> str:
        return f"{self.vm} moves to {self.to}"

    def check(self, topology: Topo, traffic: Collection[str]) -> None:
        places.check_host(topology, self.to, self.describe())
        on = [end.other for end in places.ends_of(topology, self.to) if end.other in _bridges(topology)]
        if not on:
            raise SpecificationError(
                f"{self.describe()}: {self.to} has no bridge that a machine could be plugged in at"
            )
        machines.check_in_subnet(topology, self.vm, self.address, self.gateway, on[0], self.describe())

    def carry_out(self, run: Run) -> Mapping[str, Any]:
        record = run.network.vm(self.vm).move(self.to, address=self.address, gateway=self.gateway)
        if record.form == LIGHT:
            transports.follow(run, run.network.find(self.vm))
        found = _since(record, run.zero)
        run.facts.setdefault("moves", []).append({"vm": self.vm, **found})
        for moment in ("stopped", "resumed", "asked", "answered", "data"):
            if found[moment] is not None:
                run.log(f"{self.vm} {moment}", at=found[moment], source="vm")
        return {"at": found["ordered"], "form": record.form, "parts": record.parts()}


def _since(record: MoveRecord, zero: float) -> dict[str, Any]:
    """A record with its moments in seconds after zero."""
    found = record.to_json()
    for moment in ("ordered", "stopped", "resumed", "asked", "answered", "data"):
        found[moment] = None if found[moment] is None else found[moment] - zero
    return found


def _bridges(topology: Topo) -> list[str]:
    return [name for name in topology.switches() if topology.nodeInfo(name).get("cls") is Bridge]
