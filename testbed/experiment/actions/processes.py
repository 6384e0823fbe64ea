"""What is done to processes: servers and nodes killed, instances started and stopped, hosts frozen, the controller."""

from __future__ import annotations

import os
import signal
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

from mininet.topo import Topo

from testbed.experiment.actions import places
from testbed.experiment.run import Run
from testbed.experiment.schedule import SpecificationError
from testbed.mobility import freezer

NODE = "servald"


@dataclass(frozen=True, slots=True)
class Kill:
    """`kill -9` of a process on a host: `what` is the service whose server dies, or "servald", the host's node."""

    host: str
    what: str = NODE

    def describe(self) -> str:
        return f"{self.what} on {self.host} is killed"

    def check(self, topology: Topo, traffic: Collection[str]) -> None:
        if self.what == NODE:
            places.check_serval_host(topology, self.host, self.describe())
        else:
            places.check_service(topology, self.what, self.host, self.describe())

    def carry_out(self, run: Run) -> Mapping[str, Any]:
        if self.what == NODE:
            process = run.network.node_process(self.host)
            os.kill(process, signal.SIGKILL)
        else:
            process = run.network.instance(self.what, self.host).kill()
        return {"process": process, "at": run.now()}


@dataclass(frozen=True, slots=True)
class RestartNode:
    """The Serval node of a host is started again after its end, until the controller knows it."""

    host: str

    def describe(self) -> str:
        return f"the node of {self.host} starts again"

    def check(self, topology: Topo, traffic: Collection[str]) -> None:
        places.check_serval_host(topology, self.host, self.describe())

    def carry_out(self, run: Run) -> Mapping[str, Any]:
        run.network.restart_node(self.host)
        return {}


@dataclass(frozen=True, slots=True)
class StartInstance:
    """An instance of a declared service is started on a host; others are not waited for."""

    service: str
    host: str

    def describe(self) -> str:
        return f"{self.service} starts on {self.host}"

    def check(self, topology: Topo, traffic: Collection[str]) -> None:
        places.check_service(topology, self.service, self.host, self.describe())

    def carry_out(self, run: Run) -> Mapping[str, Any]:
        asked = run.now()
        run.network.start_instance(self.service, self.host)
        known = run.network.wait_service(self.service, run.network.running(self.service))
        return {"at": asked, "known_after": known}


@dataclass(frozen=True, slots=True)
class StopInstance:
    """The instance of a service on a host is ended in order, by SIGTERM."""

    service: str
    host: str

    def describe(self) -> str:
        return f"{self.service} on {self.host} ends"

    def check(self, topology: Topo, traffic: Collection[str]) -> None:
        places.check_service(topology, self.service, self.host, self.describe())

    def carry_out(self, run: Run) -> Mapping[str, Any]:
        asked = run.now()
        run.network.instance(self.service, self.host).stop()
        return {"at": asked}


@dataclass(frozen=True, slots=True)
class Freeze:
    """All processes of a host stand still, its Serval node included; its kernel runs on. Thaw ends it."""

    host: str

    def describe(self) -> str:
        return f"{self.host} freezes"

    def check(self, topology: Topo, traffic: Collection[str]) -> None:
        places.check_host(topology, self.host, self.describe())

    def carry_out(self, run: Run) -> Mapping[str, Any]:
        node = run.network.find(self.host)
        run.network.undo_at_stop(f"the processes of {self.host}", lambda: freezer.thaw(node))
        stopped = freezer.freeze(node)
        return {"processes": len(stopped), "at": run.now()}


@dataclass(frozen=True, slots=True)
class Thaw:
    """The processes of a frozen host go on."""

    host: str

    def describe(self) -> str:
        return f"{self.host} thaws"

    def check(self, topology: Topo, traffic: Collection[str]) -> None:
        places.check_host(topology, self.host, self.describe())

    def carry_out(self, run: Run) -> Mapping[str, Any]:
        return {"processes": len(freezer.thaw(run.network.find(self.host))), "at": run.now()}


@dataclass(frozen=True, slots=True)
class StopController:
    """The controller ends in order. Nodes and switches go on with the rules that they have (S58)."""

    def describe(self) -> str:
        return "the controller stops"

    def check(self, topology: Topo, traffic: Collection[str]) -> None:
        _check_controller(topology, self.describe())

    def carry_out(self, run: Run) -> Mapping[str, Any]:
        run.network.stop_controller()
        return {"at": run.now()}


@dataclass(frozen=True, slots=True)
class CrashController:
    """`kill -9` of the controller."""

    def describe(self) -> str:
        return "the controller crashes"

    def check(self, topology: Topo, traffic: Collection[str]) -> None:
        _check_controller(topology, self.describe())

    def carry_out(self, run: Run) -> Mapping[str, Any]:
        run.network.stop_controller(crash=True)
        return {"at": run.now()}


@dataclass(frozen=True, slots=True)
class StartController:
    """The controller is started again, until it listens."""

    def describe(self) -> str:
        return "the controller starts again"

    def check(self, topology: Topo, traffic: Collection[str]) -> None:
        _check_controller(topology, self.describe())

    def carry_out(self, run: Run) -> Mapping[str, Any]:
        run.network.start_controller()
        return {"at": run.now()}


def _check_controller(topology: Topo, what: str) -> None:
    if not getattr(topology, "has_controller", True):
        raise SpecificationError(f"{what}: this topology has no controller")
