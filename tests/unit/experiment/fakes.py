"""A network and traffic that exist in memory only, for the runner."""

from __future__ import annotations

import time
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mininet.topo import Topo

from testbed.errors import TestbedError
from testbed.experiment import live
from testbed.experiment.traffic import Traffic
from tests.unit.experiment.made import build


@dataclass
class World:
    """What a test looks at and decides: what happened in which order, what fails."""

    happened: list[str] = field(default_factory=list)
    fail_start: Collection[int] = ()
    networks: int = 0
    flows_after: float = 0.0
    begun: dict[str, float] = field(default_factory=dict)

    def tools(self) -> live.Tools:
        return live.Tools(
            build=build,
            network=lambda topo, scene, logs, seed: Network(self),  # type: ignore[arg-type,return-value]
            start=lambda run, item: Flow(self, run, item),
            collect=lambda target: self.happened.append("logs collected"),
            observer=Observer,  # type: ignore[arg-type]
            meter=Meter,  # type: ignore[arg-type]
        )


class Network:
    """Starts, unless the world says that the n-th one does not."""

    def __init__(self, world: World) -> None:
        world.networks += 1
        self._world, self._number = world, world.networks
        self.hosts: list[Any] = []
        self.links: list[Any] = []

    def start(self) -> None:
        self._world.happened.append("network up")
        if self._number in self._world.fail_start:
            raise TestbedError("the nodes did not start", "its log is somewhere")

    def start_services(self) -> None:
        self._world.happened.append("services up")

    def stop(self) -> bool:
        self._world.happened.append("network down")
        return True


class Flow:
    """Traffic that counts up once it has begun."""

    def __init__(self, world: World, run: Any, item: Traffic) -> None:
        self._world, self._run, self._item = world, run, item
        world.happened.append(f"{item.name} made")

    def wait_ready(self) -> None:
        self._world.happened.append(f"{self._item.name} ready")

    def begin(self) -> None:
        self._world.begun[self._item.name] = time.monotonic()
        self._world.happened.append(f"{self._item.name} begins")

    def flowing(self) -> bool:
        return time.monotonic() - self._world.begun[self._item.name] >= self._world.flows_after

    def received(self) -> int:
        return int(1e6 * (time.monotonic() - self._world.begun[self._item.name]))

    def end(self) -> None:
        self._world.happened.append(f"{self._item.name} ends")

    def finish(self) -> dict[str, Any]:
        zero = self._world.begun[self._item.name] - self._run.zero
        return {"kind": self._item.kind, "bytes": 1000, "intact": True, "gaps": [], "begun": zero}

    def stop(self) -> None:
        self._world.happened.append(f"{self._item.name} stopped")


class Observer:
    def __init__(self, network: Any) -> None:
        self._network = network

    def begin(self) -> None:
        return

    def relays(self) -> dict[str, Any]:
        return {}

    def counters(self) -> dict[str, Any]:
        return {"ann": {"interfaces": {}}}

    def blackouts(self, zero: float, flows: Mapping[str, str]) -> list[dict[str, Any]]:
        return []

    def facts(self) -> dict[str, Any]:
        return {"links": {}}


class Meter:
    def begin(self) -> None:
        return

    def finish(self, relays: Any) -> dict[str, Any]:
        return {"trustworthy": True, "kinds": [], "reasons": []}

    def stop(self) -> None:
        return


@dataclass(frozen=True)
class Note:
    """An action that notes that it was done, after a while."""

    world: World
    name: str
    seconds: float = 0.0
    error: str | None = None

    def describe(self) -> str:
        return self.name

    def check(self, topology: Topo, traffic: Collection[str]) -> None:
        return

    def carry_out(self, run: Any) -> Mapping[str, Any]:
        time.sleep(self.seconds)
        if self.error is not None:
            raise TestbedError(self.error)
        self.world.happened.append(self.name)
        return {"fact": 1}


@dataclass(frozen=True)
class Moved:
    """A condition on what the flow has received."""

    count: float

    def describe(self) -> str:
        return f"flow has moved {self.count:g}"

    def check(self, topology: Topo, traffic: Collection[str]) -> None:
        return

    def holds(self, run: Any) -> bool:
        return run.traffic["flow"].received() >= self.count


def directory(tmp_path: Path) -> Path:
    place = tmp_path / "run"
    place.mkdir()
    return place
