"""A verified stream between two hosts of a running network, outside experiments: what tours and tests move about.

The programs are those of experiments (`testbed.traffic`); here they carry one stream without a schedule.
"""

from __future__ import annotations

import random
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from testbed import nodes, traffic
from testbed.errors import TestbedError
from testbed.experiment.run import Flowing, Run, Running
from testbed.experiment.specification import Contender, Scene
from testbed.experiment.traffic import DOWN, Stream
from testbed.network import ServalNetwork

START_SECONDS = 10.0
POLL_SECONDS = 0.01
LONGEST_SECONDS = 600.0
NAME = "stream"


class _Alone:
    """As much of a `testbed.experiment.run.Run` as one stream wants."""

    def __init__(self, network: ServalNetwork, item: Stream) -> None:
        self.network = network
        self.scene = Scene(topology="", traffic=(item,), seconds=LONGEST_SECONDS)
        self.contender = Contender(name="serval", label="Serval")
        self.values: Mapping[str, float] = {}
        self.chance = random.Random(0)
        self.zero = time.monotonic()
        self.logs: Path = network.logs
        self.traffic: Mapping[str, Flowing] = {}
        self.facts: dict[str, Any] = {}

    def now(self) -> float:
        return time.monotonic() - self.zero

    def log(self, name: str, *, at: float | None = None, source: str = "", **facts: Any) -> None:
        """Nobody keeps it."""


class Streaming:
    """A stream that flows. Raises TestbedError."""

    def __init__(self, network: ServalNetwork, run: Run, running: Running, item: Stream) -> None:
        self._network, self._run, self._running, self.item = network, run, running, item
        self.result: dict[str, Any] = {}

    def flow(self, host: str) -> dict[str, Any]:
        """The row of its flow at one of its ends, as `serval flows` has it."""
        port = self._running.port()
        source = nodes.ask(self._network.serval_host(self.item.source), "flows")["flows"]
        found = [row for row in source if port is not None and row["socket"].endswith(f":{port}")]
        if found and host != self.item.source:
            rows = nodes.ask(self._network.serval_host(host), "flows")["flows"]
            found = [row for row in rows if row["flow_id"] == found[-1]["peer_flow"]]
        if not found:
            raise TestbedError(f"the stream has no flow at {host}", f"see: {host} serval flows")
        return found[-1]

    def place(self, host: str) -> str:
        """The address at which its flow is, at one of its ends."""
        return str(self.flow(host)["local"])

    def wait_place(self, host: str, address: str) -> None:
        """Wait until the flow is at an address and more data has come."""
        log = self._network.serval_host(host).log_path
        self._network.wait(f"the stream is at {address}", lambda: self.place(host) == address, log=log)
        self.wait_more()

    def wait_more(self, size: int = 100_000) -> None:
        """Wait until so many bytes more have come."""
        wanted = self.received() + size
        log = self._network.logs / f"{NAME}-near.log"
        self._network.wait("more of the stream comes", lambda: self.received() >= wanted, log=log)

    def received(self) -> int:
        return self._running.received()

    def finish(self) -> dict[str, Any]:
        """End it, and what its two ends say of it (`testbed.experiment.record`)."""
        if not self.result:
            self._running.end()
            self.result = self._running.finish()
        return self.result


@contextmanager
def streaming(
    network: ServalNetwork, source: str, target: str, *, rate: float, direction: str = DOWN
) -> Iterator[Streaming]:
    """A stream of `rate` Mbit/s from its first byte to the end of the block; raises TestbedError."""
    item = Stream(
        name=NAME, source=source, target=target, service=f"{NAME}.{_provider(network)}", rate=rate, direction=direction
    )
    run: Any = _Alone(network, item)
    running = traffic.start(run, item)
    try:
        running.wait_ready()
        running.begin()
        network.wait("the stream flows", running.flowing, log=network.logs / f"{NAME}-near.log", timeout=START_SECONDS)
        yield Streaming(network, run, running, item)
    finally:
        running.stop()


def _provider(network: ServalNetwork) -> str:
    if not network.providers:
        raise TestbedError("the topology declares no provider, so a stream would have no name")
    return next(iter(network.providers))
