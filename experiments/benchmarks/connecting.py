"""What a connection costs: the time to connect, one byte there and back, many connections at once.

Each variant asks for a connected socket, socket() included, from the same server process:

    tcp             connect() to the server's own address
    name            an ordinary socket, connect() to the virtual address of the name; the rule leads to the server
    socket          serval_node.socket.create_connection(name)
    name-routed, socket-routed    the same, and the SYN goes over a service router
    bounce          TCP over the calibration
"""

from __future__ import annotations

import statistics
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from testbed.errors import TestbedError
from testbed.measure.plan import DIFFERENCE, LOWER, Benchmark, Comparison, Figure, Reading, Settings

TCP, NAME, SOCKET, NAME_ROUTED, SOCKET_ROUTED, BOUNCE = (
    "tcp", "name", "socket", "name-routed", "socket-routed", "bounce"
)  # fmt: skip
CALIBRATIONS = 6
AIM_MS = 0.4
WAYS = {
    NAME: "an ordinary socket adds",
    SOCKET: "serval_node.socket adds",
    NAME_ROUTED: "an ordinary socket over a service router adds",
    SOCKET_ROUTED: "serval_node.socket over a service router adds",
}


class Connecting:
    """The bed: a client, a server and a service router around an IP router."""

    def __init__(self, lan: Any, parameters: Mapping[str, Any]) -> None:
        from experiments.benchmarks import lan as place

        self.lan, self.parameters = lan, parameters
        self.targets = {
            TCP: [lan.server.addresses()[0], place.PORT],
            NAME: lan.virtual(place.DIRECT, place.PORT),
            SOCKET: place.DIRECT,
            NAME_ROUTED: lan.virtual(place.ROUTED, place.PORT),
            SOCKET_ROUTED: place.ROUTED,
            BOUNCE: [place.SERVER_BOUNCE, place.PORT],
        }
        self._congestion = place.CONGESTION_CONTROL

    def facts(self) -> Mapping[str, Any]:
        return self.lan.facts()

    def measure(self, variant: str) -> Reading:
        wanted = {name: self.parameters[name] for name in ("count", "exchanges", "pause")}
        told = self.lan.order("connects", target=self.targets[variant], **wanted)
        if told["congestion"] != self._congestion:
            raise TestbedError(f"{variant} ran with congestion control {told['congestion']}, not {self._congestion}")
        metrics = {name: statistics.median(told[name]) for name in ("connect", "exchange")}
        metrics["connect_p95"] = statistics.quantiles(told["connect"], n=20)[-1]
        return Reading(metrics, {name: told[name] for name in ("connect", "exchange")})


class Parallel(Connecting):
    """The same bed, all connections at once."""

    def measure(self, variant: str) -> Reading:
        wanted = {name: self.parameters[name] for name in ("count", "size")}
        seconds = self.lan.order("parallel", target=self.targets[variant], **wanted)["seconds"]
        bits = 8.0 * self.parameters["count"] * self.parameters["size"]
        return Reading(
            {"seconds": max(seconds), "median": statistics.median(seconds), "bits": bits}, {"seconds": seconds}
        )


@contextmanager
def bed(parameters: Mapping[str, Any], settings: Settings) -> Iterator[Connecting]:
    # Mininet is needed only here: the list of benchmarks loads without it.
    from experiments.benchmarks.lan import lan

    shape: dict[str, Any] = {"delay": f"{parameters['rtt_ms'] / 2:g}ms"} if parameters["rtt_ms"] else {}
    with lan(settings.logs, routed=True, **shape) as network:
        if "size" in parameters:
            yield Parallel(network, parameters)
            return
        connecting = Connecting(network, parameters)
        for target in connecting.targets.values():  # once unmeasured: ARP, first use of code
            network.order("connects", target=target, count=3, exchanges=1, pause=0.0)
        yield connecting


def _sequential(rtt_ms: int, count: int, run_seconds: float) -> Benchmark:
    shown: dict[str, Any] = {"unit": "ms", "scale": 1e3, "better": LOWER}
    figures = [
        Figure("connect, kernel TCP", "connect", TCP, **shown),
        *(
            Figure(f"connect: {text}", "connect", way, TCP, DIFFERENCE, aim=AIM_MS, calibration=BOUNCE, **shown)
            for way, text in WAYS.items()
        ),
        Figure("1 byte there and back, kernel TCP", "exchange", TCP, **shown),
        Figure("1 byte there and back: Serval adds", "exchange", NAME, TCP, DIFFERENCE, calibration=BOUNCE, **shown),
    ]
    return Benchmark(
        name=f"connect-{rtt_ms}ms",
        title="{count} connections one after the other, RTT {rtt_ms} ms",
        comparisons=(
            *(Comparison(way, TCP) for way in WAYS),
            Comparison(TCP, TCP),
            Comparison(BOUNCE, TCP, most=CALIBRATIONS),
        ),
        figures=tuple(figures),
        bed=bed,
        parameters={"rtt_ms": rtt_ms, "count": count, "exchanges": 5, "pause": 0.002},
        quick={"count": 5, "run_seconds": 0.1 + run_seconds / 5},
        run_seconds=run_seconds,
    )


def _parallel() -> Benchmark:
    shown: dict[str, Any] = {"unit": "s", "better": LOWER}
    return Benchmark(
        name="parallel",
        title="{count} connections at once, {size:,} bytes each: seconds until all are complete",
        comparisons=(
            Comparison(NAME, TCP),
            Comparison(SOCKET, TCP),
            Comparison(TCP, TCP),
            Comparison(BOUNCE, TCP, most=CALIBRATIONS),
        ),
        figures=(
            Figure("kernel TCP", "seconds", TCP, **shown),
            Figure("ordinary sockets", "seconds", NAME, noise=TCP, calibration=BOUNCE, **shown),
            Figure("serval_node.socket", "seconds", SOCKET, noise=TCP, calibration=BOUNCE, **shown),
            Figure("ordinary sockets add", "seconds", NAME, TCP, DIFFERENCE, **shown),
            Figure("serval_node.socket adds", "seconds", SOCKET, TCP, DIFFERENCE, **shown),
        ),
        bed=bed,
        parameters={"rtt_ms": 0, "count": 200, "size": 100_000},
        quick={"count": 20, "run_seconds": 0.2},
        run_seconds=0.8,
    )


BENCHMARKS = (_sequential(0, 40, 0.25), _sequential(10, 15, 1.2), _parallel())
