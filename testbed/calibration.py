"""What was asked of a path and what it does: rate by a plain TCP transfer, round-trip time by ping.

Measured between two hosts with kernel TCP over plain IP, before any service runs, so that it speaks of links, switches
and relays and not of Serval.
"""

from __future__ import annotations

import json
import re
from collections import deque
from dataclasses import dataclass

from testbed import hosts, processes
from testbed.errors import TestbedError
from testbed.hosts import EmulatedNode
from testbed.link.emulated import EmulatedLink
from testbed.link.shape import FRAME_BYTES, Shape
from testbed.network import ServalNetwork

TCP_PAYLOAD = 1448  # of a 1514-byte frame, with time stamps
PORT = 5999
MEASURE_SECONDS = 3
SETTLED_AFTER = 0.5  # seconds of slow start that do not count
STARTS_UNTIL = 1.0  # seconds; the window that counts begins at most so late
INTERVAL = 0.1
PINGS = 5
_PING = re.compile(r"= ([\d.]+)/([\d.]+)/([\d.]+)/")
RATE_SHARE = 0.95
RTT_SLACK = 0.002
"""Achieved counts as asked from 95 % of the rate on, and up to 2 ms above the asked round-trip time."""


@dataclass(frozen=True)
class Calibration:
    """Rates in Mbit/s of TCP payload, round-trip times in seconds. `rate_asked` None: a path without a limit."""

    source: str
    target: str
    link_rate: float | None
    rate_asked: float | None
    rate_achieved: float
    rtt_asked: float
    rtt_achieved: float

    @property
    def good(self) -> bool:
        """Whether the path does what was asked of it."""
        fast = self.rate_asked is None or self.rate_achieved >= RATE_SHARE * self.rate_asked
        return fast and self.rtt_achieved <= self.rtt_asked + RTT_SLACK

    def lines(self) -> list[str]:
        if self.rate_asked is None:
            rate = f"rate   no limit asked, achieved {self.rate_achieved:.1f} Mbit/s of TCP payload"
        else:
            share = 100 * self.rate_achieved / self.rate_asked
            rate = (
                f"rate   asked {self.link_rate:g} Mbit/s of frames, {self.rate_asked:.1f} of TCP payload;"
                f" achieved {self.rate_achieved:.1f} ({share:.0f} %)"
            )
        return [rate, f"RTT    asked {self.rtt_asked * 1e3:g} ms; achieved {self.rtt_achieved * 1e3:.2f} ms (median)"]


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


def asked(shapes: list[Shape]) -> tuple[float | None, float]:
    """Frame rate in Mbit/s (None: unlimited) and round-trip time in seconds that a path of these links should have."""
    rates = [shape.rate for shape in shapes if shape.rate is not None]
    return (min(rates) if rates else None), 2 * sum(shape.delay for shape in shapes)


def calibrate(net: ServalNetwork, source: str, target: str) -> Calibration:
    """Measure the way between two hosts; takes about MEASURE_SECONDS + 1. Raises TestbedError."""
    first, second = net.find(source), net.find(target)
    rate, rtt = asked([link.shape for link in path(net, source, target)])
    payload_rate = None if rate is None else rate * TCP_PAYLOAD / FRAME_BYTES
    rtt_achieved = _median_rtt(first, second.addresses()[0])
    rate_achieved = _rate(net, first, second)
    return Calibration(source, target, rate, payload_rate, rate_achieved, rtt, rtt_achieved)


def _median_rtt(source: EmulatedNode, address: str) -> float:
    # The first one also pays for ARP and for the switches' learning.
    shown = hosts.run(source, ["ping", "-n", "-i", "0.1", "-c", str(PINGS + 1), "-W", "2", address], timeout=10)
    times = sorted(float(value) for value in re.findall(r"time=([\d.]+) ms", shown)[1:])
    if not times:
        raise TestbedError(f"{source.name} gets no answer to its pings of {address}")
    return times[len(times) // 2] / 1e3


def _rate(net: ServalNetwork, source: EmulatedNode, target: EmulatedNode) -> float:
    log = net.logs / f"calibration-{target.name}.log"
    server = processes.start(
        "iperf3", hosts.inside(target, ["iperf3", "-s", "-1", "-p", str(PORT), "--forceflush"]), log=log
    )
    try:
        server.wait_ready(lambda: "Server listening" in server.printed())
        client = ["iperf3", "-c", target.addresses()[0], "-p", str(PORT), "-J", "-R"]
        client += ["-t", str(MEASURE_SECONDS), "-i", str(INTERVAL)]
        result = json.loads(hosts.run(source, client, timeout=MEASURE_SECONDS + 10))
    finally:
        server.stop()
    return settled_rate(result)


def settled_rate(result: dict) -> float:
    """Mbit/s that the receiver, an `iperf3 -J -R` client, got after slow start. Raises TestbedError.

    A receiver that was not run for a moment reads in its next interval what waited in its socket, which is more than
    the path carried in that time. So of the windows that begin between SETTLED_AFTER and STARTS_UNTIL and last to the
    end, the one with the least counts: it does not begin in such a moment, and inside it nothing is counted twice.
    """
    intervals = [item["sum"] for item in result["intervals"]]
    if any(item.get("sender", False) for item in intervals):
        raise ValueError("these intervals are the sender's: what it wrote into its socket, not what arrived")
    counted = [item for item in intervals if item["start"] >= SETTLED_AFTER and item["seconds"] > INTERVAL / 2]
    starts = [number for number, item in enumerate(counted) if item["start"] <= STARTS_UNTIL]
    if not starts:
        raise TestbedError(f"iperf3 measured nothing: {result.get('error', 'its intervals are empty')}")
    windows = [counted[start:] for start in starts]
    return min(
        sum(item["bytes"] for item in window) * 8 / sum(item["seconds"] for item in window) / 1e6 for window in windows
    )


def received_rate(result: dict) -> float:
    """Mbit/s that the server of an `iperf3 -J` upload got, by its own bytes and its own clock, slow start included.

    From an empty path on no receiver gets more than the path carries. Raises TestbedError.
    """
    received = result.get("end", {}).get("sum_received", {})
    if not received.get("seconds"):
        raise TestbedError(f"iperf3 measured nothing: {result.get('error', 'the server said nothing')}")
    return received["bytes"] * 8 / received["seconds"] / 1e6
