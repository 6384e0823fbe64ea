"""Goodput over one link, shaped and unshaped, and what a gigabit costs.

An upload of `seconds`; goodput is what the receiver read per second from `settle` seconds on. The bound of a shaped
link is its rate x payload / frame of a full segment, from the real headers of that connection: Ethernet 14, IPv4 20,
UDP 8 (Serval inside UDP only), SAL 12 (Serval only), TCP 20 and 12 more with time stamps.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from testbed.errors import TestbedError
from testbed.measure.plan import DIFFERENCE, LOWER, RATIO, Benchmark, Comparison, Figure, Reading, Settings

TCP, PLAIN, SERVAL, INSIDE, BOUNCE = "tcp", "tcp-single", "serval", "serval-udp", "bounce"
"""Kernel TCP with segmentation offload, without (single frames), Serval over raw IP, inside UDP, the calibration."""
ETHERNET, IPV4, UDP, SAL, TCP_HEADER, TIMESTAMPS = 14, 20, 8, 12, 20, 12
CALIBRATIONS = 6
LOOSE = 8
"""Bytes that a full segment may lack of the MTU, for padding of options."""


def frame_bytes(mss: int, *, timestamps: bool, serval: bool, inside_udp: bool = False) -> int:
    """A full segment's frame as a link's rate counts it, without preamble and checksum."""
    between = (UDP if inside_udp else 0) + (SAL if serval else 0)
    return ETHERNET + IPV4 + between + TCP_HEADER + (TIMESTAMPS if timestamps else 0) + mss


def goodput(marks: list[list[float]], begun: float, ended: float, settle: float) -> float:
    """Bit/s that the receiver read between `begun` + `settle` and `ended`; raises TestbedError without two marks."""
    counted = [mark for mark in marks if begun + settle <= mark[0] <= ended]
    if len(counted) < 2:
        raise TestbedError(f"only {len(marks)} marks in an upload of {ended - begun:.1f} s")
    (first, low), (last, high) = counted[0], counted[-1]
    return (high - low) * 8 / (last - first)


class Upload:
    """The bed: two hosts on a link."""

    def __init__(self, lan: Any, parameters: Mapping[str, Any]) -> None:
        from experiments.benchmarks import lan as place

        self._lan, self._parameters = lan, parameters
        address = lan.server.addresses()[0]
        self._targets = {
            TCP: [address, place.SINK_PORT],
            PLAIN: [address, place.SINK_PORT],
            SERVAL: lan.virtual(place.BULK, place.SINK_PORT),
            INSIDE: lan.virtual(place.BULK, place.SINK_PORT),
            BOUNCE: [place.SERVER_BOUNCE, place.SINK_PORT],
        }
        self._congestion = place.CONGESTION_CONTROL

    def facts(self) -> Mapping[str, Any]:
        return self._lan.facts()

    def measure(self, variant: str, seconds: float | None = None) -> Reading:
        """One upload, of the benchmark's `seconds` unless given."""
        seconds = self._parameters["seconds"] if seconds is None else seconds
        if variant == PLAIN:
            self._lan.offloads(False)
        if variant == INSIDE:
            self._lan.inside_udp(True)
        try:
            told = self._lan.order("upload", target=self._targets[variant], seconds=seconds)
        finally:
            if variant == PLAIN:
                self._lan.offloads(True)
            if variant == INSIDE:
                self._lan.inside_udp(False)
        if told["congestion"] != self._congestion:
            raise TestbedError(f"{variant} ran with congestion control {told['congestion']}, not {self._congestion}")
        marks = told.pop("marks")
        rate = goodput(marks, told["begun"], told["ended"], self._parameters["settle"])
        metrics = {"goodput": rate, "bits": marks[-1][1] * 8.0, "rtt": told["rtt"], "retransmits": told["retransmits"]}
        if self._parameters["rate"] is not None and variant != BOUNCE:
            frame = frame_bytes(
                told["mss"],
                timestamps=told["timestamps"],
                serval=variant in (SERVAL, INSIDE),
                inside_udp=variant == INSIDE,
            )
            expected = self._parameters["mtu"] + ETHERNET
            if not expected - LOOSE <= frame <= expected:
                raise TestbedError(f"a full frame of {variant} has {frame} bytes and should have {expected}")
            metrics["share"] = rate / (self._parameters["rate"] * 1e6 * told["mss"] / frame)
        facts = {name: told[name] for name in ("mss", "timestamps", "congestion")}
        samples = {"at": [mark[0] - told["begun"] for mark in marks], "received": [mark[1] for mark in marks]}
        return Reading(metrics, samples, facts)


@contextmanager
def bed(parameters: Mapping[str, Any], settings: Settings) -> Iterator[Upload]:
    # Mininet is needed only here: the list of benchmarks loads without it.
    from experiments.benchmarks.lan import lan

    shape = {} if parameters["rate"] is None else {"bw": parameters["rate"]}
    with lan(settings.logs, mtu=parameters["mtu"], **shape) as network:
        upload = Upload(network, parameters)
        for variant in (TCP, SERVAL, INSIDE):  # once unmeasured: ARP, first use of code
            upload.measure(variant, seconds=parameters["settle"] + 0.2)
        yield upload


def _shaped() -> Benchmark:
    bound = "of the bound"
    figures = (
        Figure(f"kernel TCP, {bound}", "share", TCP),
        Figure(f"kernel TCP without segmentation offload, {bound}", "share", PLAIN, noise=TCP),
        Figure(f"Serval, {bound}", "share", SERVAL, aim=0.99, noise=TCP),
        Figure(f"Serval inside UDP, {bound}", "share", INSIDE, aim=0.99, noise=TCP),
        Figure("Serval / kernel TCP", "goodput", SERVAL, TCP, RATIO, calibration=BOUNCE),
        Figure("Serval inside UDP / kernel TCP", "goodput", INSIDE, TCP, RATIO),
        Figure("Serval / kernel TCP without offload", "goodput", SERVAL, PLAIN, RATIO, noise=TCP),
        *_costs(),
    )
    return Benchmark(
        name="goodput",
        title="Goodput on a link of {rate:g} Mbit/s (HTB), as share of rate x payload / frame, in {seconds:g} s",
        comparisons=(
            Comparison(SERVAL, TCP),
            Comparison(INSIDE, TCP),
            Comparison(SERVAL, PLAIN),
            Comparison(TCP, TCP),
            Comparison(BOUNCE, TCP, most=CALIBRATIONS),
        ),
        figures=figures,
        bed=bed,
        parameters={"rate": 1000.0, "mtu": 1500, "seconds": 1.6, "settle": 0.4},
        quick={"seconds": 0.5, "settle": 0.2, "run_seconds": 0.6},
        run_seconds=1.8,
    )


def _unshaped(mtu: int, aim: float, aim_inside: float) -> Benchmark:
    figures = (
        Figure("kernel TCP", "goodput", TCP, unit="Gbit/s", scale=1e-9),
        Figure("Serval", "goodput", SERVAL, unit="Gbit/s", scale=1e-9, aim=aim, noise=TCP, calibration=BOUNCE),
        Figure("Serval inside UDP", "goodput", INSIDE, unit="Gbit/s", scale=1e-9, aim=aim_inside, noise=TCP),
        Figure("Serval / kernel TCP", "goodput", SERVAL, TCP, RATIO),
        Figure("Serval inside UDP / kernel TCP", "goodput", INSIDE, TCP, RATIO),
        *_costs(),
    )
    return Benchmark(
        name=f"unshaped-{mtu}",
        title="Goodput over a veth pair without a rate, MTU {mtu}, in {seconds:g} s",
        comparisons=(
            Comparison(SERVAL, TCP),
            Comparison(INSIDE, TCP),
            Comparison(TCP, TCP),
            Comparison(BOUNCE, TCP, most=CALIBRATIONS),
        ),
        figures=figures,
        bed=bed,
        parameters={"rate": None, "mtu": mtu, "seconds": 1.2, "settle": 0.3},
        quick={"seconds": 0.5, "settle": 0.2, "run_seconds": 0.6},
        run_seconds=1.4,
    )


def _costs() -> tuple[Figure, ...]:
    return (
        Figure("CPU of kernel TCP", "cpu_per_gigabit", TCP, unit="s/Gbit", better=LOWER),
        Figure("CPU of Serval", "cpu_per_gigabit", SERVAL, unit="s/Gbit", better=LOWER, noise=TCP, calibration=BOUNCE),
        Figure("CPU of Serval inside UDP", "cpu_per_gigabit", INSIDE, unit="s/Gbit", better=LOWER, noise=TCP),
        Figure("CPU that Serval adds", "cpu_per_gigabit", SERVAL, TCP, DIFFERENCE, unit="s/Gbit", better=LOWER),
    )


BENCHMARKS = (_shaped(), _unshaped(1500, 3.5, 5.7), _unshaped(9000, 5.5, 6.9))
