"""What was asked of a path between two hosts and what it does: rate, one-way delay, jitter, loss, each with a verdict.

Measured by plain TCP (UDP where frames get lost) and by probes over plain IP, so that it speaks of links, switches and
relays and not of Serval. A path is taken in one direction, from its source to its target, and needs about
SECONDS_PER_PATH. Tolerances:

    rate    from 95 to 102 % of the payload that the slowest link leaves
    delay   the median up to 0.2 ms above, for each link that delays and for each link and switch on the way, and not
            more than 0.2 ms below; 99 of 100 probes up to 0.5 ms above delay and jitter, for each of these
    jitter  15 % (more for fewer than 200 probes) and 0.3 ms, and 0.1 ms for each link and switch on the way; it is half
            the width of an even spread with the same standard deviation
    loss    the share asked for lies in the exact 99 % interval of the share that was lost; where none was asked for,
            no probe may be lost
"""

from __future__ import annotations

import math
import statistics
from collections import deque
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from testbed import iperf
from testbed.errors import TestbedError
from testbed.link.emulated import EmulatedLink
from testbed.link.one_way import SIZE, OneWay, Probes, quantile
from testbed.link.shape import Shape
from testbed.measure import binomial
from testbed.network import ServalNetwork

USUAL_MTU = 1500
TCP_HEADERS, FRAME_HEADER = 52, 14
"""Bytes of IP and TCP with time stamps, within the MTU; and around it."""
UDP_FRAME = iperf.UDP_PAYLOAD + 42
SECONDS_PER_PATH = 5.0
RATE_SECONDS, PROBE_SECONDS, MOST_PROBE_SECONDS = 2.5, 1.5, 4.0
RATE_LOW, RATE_HIGH = 0.95, 1.02
MEDIAN_SLACK, P99_SLACK, HOP_SLACK = 0.0002, 0.0005, 0.0002
JITTER_SHARE, JITTER_SLACK, JITTER_HOP_SLACK = 0.15, 0.0003, 0.0001
LOSS_CONFIDENCE = 0.99
FEWEST_PROBES, MOST_PROBES, SHORTEST_INTERVAL = 100, 1500, 0.001
PROBES_SHARE = 0.05
"""Of the rate that probes take at most."""
UDP_EXCESS = 1.1
OK, MISSED = "ok", "missed"


@dataclass(frozen=True)
class Asked:
    """What the links of a path ask for together. Rate in Mbit/s of frames (None: no limit), times in seconds one way,
    loss in percent. `delaying`: how many of them delay; `hops`: links and switches that only carry; `mtu`: the
    smallest of them, bytes.
    """

    rate: float | None
    delay: float
    jitter: float
    loss: float
    delaying: int
    hops: int
    mtu: int = USUAL_MTU


@dataclass(frozen=True)
class Quantity:
    """One thing that was measured, in `unit`; from `low` to `high` it counts as what was asked for. None: no bound,
    nothing asked for. `why`: what the figure is, and of a share in which interval the true one lies.
    """

    name: str
    unit: str
    asked: float | None
    achieved: float
    low: float | None
    high: float | None
    why: str = ""

    @property
    def verdict(self) -> str:
        """OK or MISSED."""
        below = self.low is not None and self.achieved < self.low
        above = self.high is not None and self.achieved > self.high
        return MISSED if below or above else OK

    def line(self) -> str:
        """For people."""
        asked = "no limit" if self.asked is None else f"{self.asked:.4g} {self.unit}"
        missed = f"; MISSED: {self._bounds()}" if self.verdict == MISSED else ""
        said = f" ({self.why})" if self.why else ""
        return f"{self.name:11} asked {asked}, achieved {self.achieved:.4g}{said}{missed}"

    def _bounds(self) -> str:
        low, high = (None if bound is None else f"{bound:.4g}" for bound in (self.low, self.high))
        return f"counts from {low} to {high}" if low and high else f"counts from {low} on" if low else f"up to {high}"


@dataclass(frozen=True)
class Calibration:
    """One direction of a path, measured."""

    source: str
    target: str
    quantities: tuple[Quantity, ...]

    @property
    def good(self) -> bool:
        """Whether the path does what was asked of it."""
        return all(quantity.verdict == OK for quantity in self.quantities)

    def lines(self) -> list[str]:
        """For people, one for each quantity."""
        return [quantity.line() for quantity in self.quantities]

    def as_json(self) -> dict[str, Any]:
        """Plain data, for a result file."""
        quantities = [{**asdict(quantity), "verdict": quantity.verdict} for quantity in self.quantities]
        return {"source": self.source, "target": self.target, "good": self.good, "quantities": quantities}


def calibrate(net: ServalNetwork, paths: Iterable[tuple[str, str]]) -> list[Calibration]:
    """Measure the ways from the first of each two hosts to the second, one after the other, with nothing else on them.

    Raises TestbedError for a host that is not there, and where nothing comes through at all.
    """
    pairs = [(net.find(source), net.find(target)) for source, target in paths]
    return [_measure(net, source.name, target.name) for source, target in pairs]


def path(net: ServalNetwork, source: str, target: str) -> list[EmulatedLink]:
    """The links on a shortest way between two nodes; raises TestbedError."""
    before: dict[str, EmulatedLink | None] = {source: None}
    waiting = deque([source])
    while waiting:
        name = waiting.popleft()
        for link in net.links:
            ends = {link.intf1.node.name, link.intf2.node.name}
            for other in ends - before.keys() if name in ends else ():
                before[other] = link
                waiting.append(other)
    if target not in before:
        raise TestbedError(f"no way from {source} to {target} in this topology")
    found = []
    while (link := before[target]) is not None:
        found.append(link)
        target = ({link.intf1.node.name, link.intf2.node.name} - {target}).pop()
    return found[::-1]


def directions(links: Sequence[EmulatedLink], source: str) -> list[Shape]:
    """The shapes that something meets that leaves `source` over these links."""
    shapes = []
    for link in links:
        source = next(end.node.name for end in link.ends if end.node.name != source)
        shapes.append(link.shape_towards(source))
    return shapes


def asked(shapes: Sequence[Shape], mtu: int = USUAL_MTU) -> Asked:
    """What a path of these links should do; `mtu` is the smallest of them."""
    rates = [shape.rate for shape in shapes if shape.rate is not None]
    passed = math.prod(0.0 if shape.hole else 1 - shape.loss / 100 for shape in shapes)
    return Asked(
        rate=min(rates) if rates else None,
        delay=sum(shape.delay for shape in shapes),
        jitter=math.hypot(*(shape.jitter for shape in shapes)),
        loss=100 * (1 - passed),
        delaying=sum(shape.delay > 0 for shape in shapes),
        hops=2 * len(shapes) - 1,
        mtu=mtu,
    )


def payload_rate(wanted: Asked) -> float | None:
    """Mbit/s of payload that arrive where a path does what is asked of it: of TCP, of UDP where frames get lost."""
    if wanted.rate is None:
        return None
    if wanted.loss > 0:
        return wanted.rate * iperf.UDP_PAYLOAD / UDP_FRAME * (1 - wanted.loss / 100)
    return wanted.rate * (wanted.mtu - TCP_HEADERS) / (wanted.mtu + FRAME_HEADER)


def probing(wanted: Asked) -> tuple[int, float]:
    """How many probes, and how many seconds from one to the next: so far apart that jitter holds none up behind the
    one before, and that they take no more than PROBES_SHARE of the rate.
    """
    interval = max(SHORTEST_INTERVAL, 2 * wanted.jitter)
    if wanted.rate is not None:
        interval = max(interval, SIZE * 8 / (PROBES_SHARE * wanted.rate * 1e6))
    enough = wanted.jitter == 0 and FEWEST_PROBES * interval <= PROBE_SECONDS
    count = int((PROBE_SECONDS if enough else MOST_PROBE_SECONDS) / interval)
    return max(1, min(MOST_PROBES, count)), interval


def judged(wanted: Asked, found: OneWay, rate: float | None) -> tuple[Quantity, ...]:
    """The quantities of a path, from what its probes and the rate (Mbit/s of payload; None: not measured) say."""
    quantities = [] if rate is None else [_rate(wanted, rate)]
    return (*quantities, *(_delays(wanted, found.delays) if found.delays else ()), _loss(wanted, found))


def _rate(wanted: Asked, achieved: float) -> Quantity:
    unit = f"Mbit/s of {'UDP' if wanted.loss > 0 else 'TCP'} payload"
    payload = payload_rate(wanted)
    if payload is None:
        return Quantity("rate", unit, None, achieved, None, None)
    share = f"{100 * achieved / payload:.0f} % of what the links leave"
    return Quantity("rate", unit, payload, achieved, RATE_LOW * payload, RATE_HIGH * payload, share)


def _delays(wanted: Asked, delays: Sequence[float]) -> Iterable[Quantity]:
    slack = MEDIAN_SLACK * wanted.delaying + HOP_SLACK * wanted.hops
    # Where delays are spread, the median of so many probes is itself uncertain: by 1.25 standard errors of a mean.
    chance = 3 * 1.25 * wanted.jitter / math.sqrt(3 * len(delays))
    low, high = wanted.delay - MEDIAN_SLACK - chance, wanted.delay + slack + chance
    yield _time("delay", wanted.delay, quantile(delays, 0.5), low, high, "one way, median")
    latest = wanted.delay + wanted.jitter
    slack = P99_SLACK * (wanted.delaying + wanted.hops)
    yield _time("delay, late", latest, quantile(delays, 0.99), None, latest + slack, "99 of 100 within")
    spread = math.sqrt(3) * statistics.pstdev(_without_outliers(delays))
    share = JITTER_SHARE * max(1.0, math.sqrt(200 / len(delays)))
    slack = JITTER_SLACK + JITTER_HOP_SLACK * wanted.hops
    low = max(0.0, wanted.jitter * (1 - share) - slack)
    yield _time("jitter", wanted.jitter, spread, low, wanted.jitter * (1 + share) + slack, "of an even spread")


def _time(name: str, asked: float, achieved: float, low: float | None, high: float, why: str) -> Quantity:
    low = None if low is None else low * 1e3
    return Quantity(name, "ms", asked * 1e3, achieved * 1e3, low, high * 1e3, why)


def _without_outliers(delays: Sequence[float]) -> list[float]:
    """Without the latest hundredth, which has a quantity of its own, and as many of the earliest."""
    low, high = quantile(delays, 0.01), quantile(delays, 0.99)
    return [delay for delay in delays if low <= delay <= high]


def _loss(wanted: Asked, found: OneWay) -> Quantity:
    achieved = 100 * found.lost / found.sent
    low, high = (100 * bound for bound in binomial.interval(found.lost, found.sent, LOSS_CONFIDENCE))
    why = f"{found.lost} of {found.sent} probes; the true share is from {low:.2g} to {high:.2g} %"
    if wanted.loss == 0:
        return Quantity("loss", "%", 0.0, achieved, None, 0.0, why)
    fewest, most = binomial.expected(wanted.loss / 100, found.sent, LOSS_CONFIDENCE)
    return Quantity("loss", "%", wanted.loss, achieved, 100 * fewest / found.sent, 100 * most / found.sent, why)


def _measure(net: ServalNetwork, source: str, target: str) -> Calibration:
    links = path(net, source, target)
    wanted = asked(directions(links, source), min(link.mtu or USUAL_MTU for link in links))
    first, last = net.find(source), net.find(target)
    count, interval = probing(wanted)
    with Probes(first, last, net.logs) as probes:
        probes.measure(1, 0.0, patience=1.0 + wanted.delay)  # ARP and the switches' learning
        found = probes.measure(count, interval, patience=0.5 + interval + wanted.delay + wanted.jitter)
    if not found.delays and wanted.loss < 100:
        raise TestbedError(f"nothing of {found.sent} probes from {source} came in at {target}")
    if wanted.loss == 100:
        return Calibration(source, target, judged(wanted, found, None))
    settle = iperf.SETTLED_AFTER + 10 * 2 * wanted.delay
    offered = payload_rate(wanted)
    udp = None if offered is None or wanted.loss == 0 else UDP_EXCESS * offered / (1 - wanted.loss / 100)
    seconds = RATE_SECONDS + settle - iperf.SETTLED_AFTER
    rate = None
    if wanted.loss == 0 or udp is not None:
        rate = iperf.path_rate(first, last, net.logs, seconds=seconds, settle=settle, udp=udp)
    return Calibration(source, target, judged(wanted, found, rate))
