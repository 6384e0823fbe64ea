"""How late the link relay is, idle and under load, and how much it carries; a plain link beside it.

    ann ---- link ----- eve       10.8.0.0/24: a veth pair; what the method itself adds is seen here
        ---- relay ----           10.8.1.0/24: the same with a relay of `delay_ms`

Lateness is one-way delay less what was asked for, from the kernel's stamps where a probe leaves the sender's interface
and where it comes in at the receiver's. The load goes the same way as the probes, on the same link.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from testbed.errors import TestbedError
from testbed.measure.plan import LOWER, Benchmark, Comparison, Figure, Reading, Settings

LINK, RELAY = "link", "relay"
NO_LOAD, OFFLOADED, FRAMES = "none", "offloaded segments", "single frames"
ADDRESSES = {LINK: ("10.8.0.1", "10.8.0.2"), RELAY: ("10.8.1.1", "10.8.1.2")}
PORT = 5777
BUFFERS = "4096 131072 134217728"
"""TCP's smallest, first and largest buffer: the kernel's own largest would bound the goodput on a long link."""
LATE_MEDIAN_MS, LATE_P99_MS, BULK_GBIT = 0.2, 0.5, 4.0
_INTERVALS = 3
_LOAD_TAIL = 30.0


class Lateness:
    """The bed: two hosts, two links."""

    def __init__(self, place: Place, parameters: Mapping[str, Any], probes: Mapping[str, Any]) -> None:
        self._place, self._parameters, self._probes = place, parameters, probes

    def facts(self) -> Mapping[str, Any]:
        return self._place.facts()

    def measure(self, variant: str) -> Reading:
        from testbed.link.one_way import quantile

        count, interval = self._parameters["probes"], self._parameters["interval"]
        with self._place.load(variant, self._parameters["load"], self._parameters["rate"]) as carried:
            found = self._probes[variant].measure(count, interval, patience=1.0)
        asked = self._parameters["delay_ms"] / 1e3 if variant == RELAY else 0.0
        if not found.delays:
            raise TestbedError(f"no probe came through the {variant}", f"see {self._place.logs}")
        late = [delay - asked for delay in found.delays]
        metrics = {
            "median": quantile(late, 0.5),
            "p99": quantile(late, 0.99),
            "most": max(late),
            "lost": float(found.lost),
            "load": carried(),
        }
        return Reading(metrics, {"late": late})


class Bulk:
    """The bed: the same for as much as it carries."""

    def __init__(self, place: Place, parameters: Mapping[str, Any]) -> None:
        self._place, self._parameters = place, parameters

    def facts(self) -> Mapping[str, Any]:
        return self._place.facts()

    def measure(self, variant: str) -> Reading:
        with self._place.load(variant, OFFLOADED, None) as carried:
            time.sleep(self._parameters["seconds"])
        return Reading({"goodput": carried()})


class Place:
    """The two hosts and what runs between them."""

    def __init__(self, parameters: Mapping[str, Any], logs: Path, stack: ExitStack) -> None:
        from mininet.net import Mininet

        from testbed import hosts
        from testbed.hosts import PlainHost
        from testbed.link.emulated import EmulatedLink

        self.logs = logs
        self.source, self.target = PlainHost("ann"), PlainHost("eve")
        for node in (self.source, self.target):
            stack.callback(node.terminate)
        self.links = {}
        for variant, options in ((LINK, {}), (RELAY, {"delay": f"{parameters['delay_ms']:g}ms", "impairable": True})):
            macs = {"addr1": Mininet.randMac(), "addr2": Mininet.randMac()}
            link = self.links[variant] = EmulatedLink(self.source, self.target, **macs, **options)
            stack.callback(link.stop)
            for interface, address in zip(link.ends, ADDRESSES[variant], strict=True):
                interface.setIP(f"{address}/24")
        for node in (self.source, self.target):
            node.configure()
            hosts.script(node, [f"sysctl -q -w net.ipv4.tcp_rmem='{BUFFERS}' net.ipv4.tcp_wmem='{BUFFERS}'"])
        for link in self.links.values():
            link.apply(userspace_switches=False, logs=logs)
            link.wait_ready()

    def facts(self) -> dict[str, Any]:
        relay = self.links[RELAY].relay
        assert relay is not None
        return {"relay": str(self.links[RELAY].shape), "priority": relay.request("state")["priority"]}

    @contextmanager
    def load(self, variant: str, kind: str, rate: float | None) -> Iterator[Callable[[], float]]:
        """TCP of so many Mbit/s (None: as much as it goes) while the block runs, seen to flow before. Behind the block
        the given function says how many bit/s came in at the target's interface during it.
        """
        from testbed.link import end

        if kind == NO_LOAD:
            yield lambda: 0.0
            return
        link = self.links[variant]
        for interface in link.ends:
            end.single_frames(interface, kind == FRAMES)
        with self._stream(ADDRESSES[variant][1], rate):
            first = self._received(link.intf2)
            last = first
            try:
                yield lambda: (last[1] - first[1]) * 8 / (last[0] - first[0])
            finally:
                last = self._received(link.intf2)
        for interface in link.ends:
            end.single_frames(interface, False)

    @contextmanager
    def _stream(self, address: str, rate: float | None) -> Iterator[None]:
        from testbed import hosts, processes

        argv = ["iperf3", "-s", "-1", "-p", str(PORT), "--forceflush"]
        server = processes.start("iperf3", hosts.inside(self.target, argv), log=self.logs / "iperf3-server.log")
        try:
            server.wait_ready(lambda: "Server listening" in server.printed())
            argv = ["iperf3", "-c", address, "-p", str(PORT), "-C", hosts.CONGESTION_CONTROL, "-t", str(_LOAD_TAIL)]
            argv += ["-i", "0.1", "--forceflush", *([] if rate is None else ["--fq-rate", f"{rate:g}M"])]
            client = processes.start("iperf3", hosts.inside(self.source, argv), log=self.logs / "iperf3-client.log")
            try:
                client.wait_ready(lambda: client.printed().count("bits/sec") > _INTERVALS)
                yield
                if not client.alive:
                    raise TestbedError("the load ended before the measurement", f"see {client.log}")
            finally:
                client.stop()
        finally:
            server.stop()

    def _received(self, interface: Any) -> tuple[float, int]:
        from testbed import hosts

        path = f"/sys/class/net/{interface.name}/statistics/rx_bytes"
        return time.monotonic(), int(hosts.run(interface.node, ["cat", path]))


@contextmanager
def lateness_bed(parameters: Mapping[str, Any], settings: Settings) -> Iterator[Lateness]:
    from testbed.link.one_way import Probes

    with ExitStack() as stack:
        place = Place(parameters, settings.logs, stack)
        probes = {
            variant: stack.enter_context(Probes(place.source, place.target, settings.logs, address=there))
            for variant, (_, there) in ADDRESSES.items()
        }
        yield Lateness(place, parameters, probes)


@contextmanager
def bulk_bed(parameters: Mapping[str, Any], settings: Settings) -> Iterator[Bulk]:
    with ExitStack() as stack:
        yield Bulk(Place(parameters, settings.logs, stack), parameters)


def _lateness(name: str, load: str, rate: float | None) -> Benchmark:
    shown: dict[str, Any] = {"unit": "ms", "scale": 1e3, "better": LOWER, "noise_absolute": True}
    figures = [
        Figure("relay, median", "median", RELAY, aim=LATE_MEDIAN_MS, **shown),
        Figure("relay, 99 of 100 within", "p99", RELAY, aim=LATE_P99_MS, **shown),
        Figure("relay, latest", "most", RELAY, **shown),
        Figure("plain link, median", "median", LINK, noise=RELAY, **shown),
        Figure("plain link, 99 of 100 within", "p99", LINK, noise=RELAY, **shown),
    ]
    figures += [Figure("load, relay", "load", RELAY, unit="Mbit/s", scale=1e-6)] if rate else []
    under = f"under {{rate:g}} Mbit/s of {load}" if rate else "idle"
    return Benchmark(
        name=f"relay-{name}",
        title=f"Lateness of the link relay, {{delay_ms:g}} ms, {under}: {{probes}} probes",
        comparisons=(Comparison(RELAY, LINK), Comparison(RELAY, RELAY)),
        figures=tuple(figures),
        bed=lateness_bed,
        parameters={"delay_ms": 10.0, "load": load, "rate": rate, "probes": 500, "interval": 0.002},
        quick={"probes": 50, "run_seconds": 0.5},
        run_seconds=1.6 if rate else 1.1,
        by_name=True,
    )


def _bulk() -> Benchmark:
    shown: dict[str, Any] = {"unit": "Gbit/s", "scale": 1e-9}
    return Benchmark(
        name="relay-bulk",
        title="TCP in offloaded segments through the link relay, {delay_ms:g} ms, in {seconds:g} s",
        comparisons=(Comparison(RELAY, LINK), Comparison(RELAY, RELAY)),
        figures=(
            Figure("relay", "goodput", RELAY, aim=BULK_GBIT, **shown),
            Figure("plain link", "goodput", LINK, noise=RELAY, **shown),
        ),
        bed=bulk_bed,
        parameters={"delay_ms": 10.0, "seconds": 1.0},
        quick={"seconds": 0.2, "run_seconds": 0.7},
        run_seconds=1.6,
        by_name=True,
    )


BENCHMARKS = (
    _lateness("idle", NO_LOAD, None),
    _lateness("offloaded", OFFLOADED, 500.0),
    _lateness("frames", FRAMES, 500.0),
    _bulk(),
)
