"""How often a path that works is taken for a silent one: a stream over a path that loses packets, or whose ends share
their processors with others, and nothing else happens.

A run is one stream, towards the client and from it in turns. Both ends judge the path, and the verdicts of both count;
`asked` are the probes that were sent, each check up to three of them. The variants are the machine alone and "busy":
beside two processes that compute all the time for each of its processors.
"""

from __future__ import annotations

import itertools
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from experiments.benchmarks.stream import DOWN, UP
from testbed.measure.plan import LOWER, RATE, Benchmark, Comparison, Figure, Reading, Settings

ALONE, BUSY = "alone", "busy"
ROUND_TRIPS_MS, LOSSES = (0, 20), (0, 2)
PER_PROCESSOR = 2


class FalseAlarms:
    """The bed: a client with two interfaces, so that a false alarm also moves its flow."""

    def __init__(self, network: Any, spinner: Any, parameters: Mapping[str, Any]) -> None:
        from experiments.benchmarks import multihomed as place
        from testbed import nodes

        self._network, self._spinner, self._place = network, spinner, place
        self._rate, self._seconds = parameters["rate"] * 1e6, parameters["seconds"]
        self._directions = itertools.cycle((DOWN, UP))
        self._clients = [nodes.client(host) for host in (network.client, network.server)]
        answer = self._clients[0].request("address", name=place.SERVICE, port=place.PORT)
        self._target = [answer["address"], answer["port"]]

    def facts(self) -> Mapping[str, Any]:
        return {**self._network.facts(), "busy_processes": PER_PROCESSOR * (os.cpu_count() or 1)}

    def close(self) -> None:
        for client in self._clients:
            client.close()

    def measure(self, variant: str) -> Reading:
        direction = next(self._directions)
        before = self._counted()
        if variant == BUSY:
            processes = PER_PROCESSOR * (os.cpu_count() or 1)
            self._spinner.give("spin", processes=processes, seconds=self._seconds)
        wanted = {"direction": direction, "rate": self._rate, "seconds": self._seconds}
        self._network.streams.give("stream", target=self._target, mptcp=False, **wanted)
        begun = self._network.streams.answer()["started"]
        told = self._network.streams.answer()
        if variant == BUSY:
            self._spinner.answer()
        alarms, asked = (after - earlier for after, earlier in zip(self._counted(), before, strict=True))
        metrics = {"alarms": alarms, "asked": asked, "seconds": told["times"][-1] - begun}
        return Reading(metrics, {}, {"direction": direction})

    def _counted(self) -> tuple[float, float]:
        counters = [client.request("stat")["counters"] for client in self._clients]
        return sum(one["paths_silent"] for one in counters), sum(one["probes_sent"] for one in counters)


@contextmanager
def bed(parameters: Mapping[str, Any], settings: Settings) -> Iterator[FalseAlarms]:
    # Mininet is needed only here: the list of benchmarks loads without it.
    from experiments.benchmarks.multihomed import multihomed
    from testbed.traffic.programs import Worker

    with multihomed(settings.logs, delay=parameters["rtt_ms"] / 2e3, loss=parameters["loss"]) as network:
        spinner = Worker("spinner", network.server, ["experiments.benchmarks.busy"], settings.logs)
        try:
            spinner.wait_ready()
            alarms = FalseAlarms(network, spinner, parameters)
            try:
                yield alarms
            finally:
                alarms.close()
        finally:
            spinner.close()
            spinner.stop()


def _figures() -> Iterator[Figure]:
    for variant, text in ((ALONE, "machine alone"), (BUSY, "machine busy")):
        shown: dict[str, Any] = {"how": RATE, "scale": 60.0, "unit": "per minute", "better": LOWER}
        yield Figure(f"false alarms, {text}", "alarms", variant, **shown)
        yield Figure(f"probes, {text}", "asked", variant, **shown)


def _benchmark(round_trip_ms: int, loss: int) -> Benchmark:
    lossy = f"-{loss}loss" if loss else ""
    return Benchmark(
        name=f"false-alarms-{round_trip_ms}ms{lossy}",
        title="Paths that work and were taken for silent, {rate:g} Mbit/s for {seconds:g} s a run, "
        + f"RTT {round_trip_ms} ms, {loss} % loss each way",
        comparisons=(Comparison(BUSY, ALONE), Comparison(ALONE, ALONE, most=1)),
        figures=tuple(_figures()),
        bed=bed,
        parameters={"rtt_ms": round_trip_ms, "loss": loss, "rate": 2.0, "seconds": 6.0},
        quick={"seconds": 1.0, "run_seconds": 1.5},
        run_seconds=6.5,
        setup_seconds=6.0,
        by_name=True,
    )


BENCHMARKS = tuple(_benchmark(rtt, loss) for rtt in ROUND_TRIPS_MS for loss in LOSSES)
