"""A client with two interfaces, a service router and a server around one IP router; and a run of an experiment there.

        10.60.0.0/24
    +-----------------+     10.62.0.0/24
ann                     r --------------- dan
    +-----------------+   |
        10.61.0.0/24      +--- cleo       10.63.0.0/24
"""

from __future__ import annotations

import random
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from testbed import hosts
from testbed.experiment.run import Running
from testbed.experiment.specification import Contender, Scene
from testbed.experiment.traffic import Traffic
from testbed.network import ServalNetwork
from testbed.traffic import start
from topologies.declarations import Declared, IpRouter

FIRST, SECOND, SERVER = "10.60.0.1", "10.61.0.1", "10.62.0.1"
LIMIT = 10.0


class TwoPaths(Declared):
    """All links 100 Mbit/s."""

    def build(self) -> None:
        self.providers = {"example": 0x5E7A1E}
        self.addHost("r", cls=IpRouter, ip=None)
        for name, role in (("ann", {"role": "host"}), ("dan", {"role": "host"}), ("cleo", {"role": "router"})):
            serves = {"serves": ["example"]} if role["role"] == "router" else {}
            network = {"ann": 60, "dan": 62, "cleo": 63}[name]
            self.addHost(name, ip=None, defaultRoute=f"via 10.{network}.0.254", serval={**role, **serves})
        for name, network in (("ann", 60), ("ann", 61), ("dan", 62), ("cleo", 63)):
            ends = {"params1": {"ip": f"10.{network}.0.1/24"}, "params2": {"ip": f"10.{network}.0.254/24"}}
            self.addLink(name, "r", bw=100, **ends)


@contextmanager
def two_paths() -> Iterator[ServalNetwork]:
    with ServalNetwork(TwoPaths()) as network:
        script = [f"ip rule add from {SECOND} lookup 101"]
        hosts.script(network.find("ann"), script)
        restore(network)
        yield network


def restore(network: ServalNetwork) -> None:
    """Both of the client's paths, whatever became of them."""
    ann, congestion = network.find("ann"), f"congctl {hosts.CONGESTION_CONTROL}"
    first, second = (interface.name for interface in ann.intfList())
    lines = [
        f"ip link set {first} up",
        f"ip route replace default via 10.60.0.254 dev {first} {congestion}",
        f"ip route replace default via 10.61.0.254 dev {second} metric 100 {congestion}",
        f"ip route replace default via 10.61.0.254 dev {second} table 101 {congestion}",
    ]
    hosts.script(ann, lines)
    for address in (FIRST, SECOND):
        hosts.run(ann, ["ping", "-q", "-n", "-c", "1", "-W", "2", "-I", address, SERVER])


@dataclass
class OneRun:
    """A run as far as traffic sees it (`testbed.experiment.run.Run`)."""

    network: ServalNetwork
    scene: Scene
    contender: Contender
    logs: Path
    values: Mapping[str, float] = field(default_factory=dict)
    chance: random.Random = field(default_factory=lambda: random.Random(1))
    zero: float = 0.0
    traffic: dict[str, Running] = field(default_factory=dict)
    facts: dict[str, Any] = field(default_factory=dict)
    events: list[str] = field(default_factory=list)

    def now(self) -> float:
        return time.monotonic() - self.zero

    def log(self, name: str, *, at: float | None = None, source: str = "schedule", **facts: Any) -> None:
        self.events.append(name)


@contextmanager
def flowing(
    network: ServalNetwork, logs: Path, *items: Traffic, transport: str, seconds: float, **options: Any
) -> Iterator[OneRun]:
    """All these items, flowing. Programs end with the block."""
    scene = Scene(topology="two-paths", traffic=items, seconds=seconds)
    run = OneRun(network, scene, Contender(name=transport, label="", transport=transport, options=options), logs)
    try:
        for item in items:
            run.traffic[item.name] = start(run, item)
        for running in run.traffic.values():
            running.wait_ready()
        for running in run.traffic.values():
            running.begin()
        deadline = time.monotonic() + LIMIT
        while not all(running.flowing() for running in run.traffic.values()):
            assert time.monotonic() < deadline, "nothing flows"
            time.sleep(0.005)
        run.zero = time.monotonic()
        yield run
    finally:
        for running in run.traffic.values():
            running.stop()


def finished(run: OneRun) -> dict[str, dict[str, Any]]:
    """Wait until the run is over, and what is on record then."""
    time.sleep(max(0.0, run.scene.seconds - run.now()))
    for running in run.traffic.values():
        running.end()
    return {name: running.finish() for name, running in run.traffic.items()}
