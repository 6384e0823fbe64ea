"""Two hosts on one emulated link, without switches: what a link does is seen here."""

from __future__ import annotations

import itertools
import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from mininet.net import Mininet

from testbed import hosts, processes
from testbed.hosts import PlainHost
from testbed.link.emulated import EmulatedLink

LEFT, RIGHT = "10.8.0.1", "10.8.0.2"
PORT = 5777


class Pair:
    """`left` and `right`, 10.8.0.1 and 10.8.0.2, and the `link` between them."""

    def __init__(self, left: PlainHost, right: PlainHost, link: EmulatedLink, logs: Path) -> None:
        self.left, self.right, self.link, self._logs = left, right, link, logs
        self._numbers = itertools.count(1)

    def ping(self, count: int = 20, interval: float = 0.02) -> list[float]:
        """Round-trip times in seconds of the pings that were answered, without the first (ARP)."""
        words = ["ping", "-n", "-c", str(count + 1), "-i", str(interval), "-W", "1", RIGHT]
        shown = hosts.run(self.left, ["sh", "-c", '"$@" || true', "-", *words], timeout=30)
        return [float(ms) / 1e3 for ms in re.findall(r"icmp_seq=(?!1 )\d+ .*time=([\d.]+) ms", shown)]

    def iperf(self, *options: str, seconds: float = 2) -> dict[str, Any]:
        """The `iperf3 -J` result of a transfer from left to right."""
        log = self._logs / f"iperf3-{next(self._numbers)}.log"
        argv = ["iperf3", "-s", "-1", "-p", str(PORT), "--forceflush"]
        server = processes.start("iperf3", hosts.inside(self.right, argv), log=log)
        try:
            server.wait_ready(lambda: "Server listening" in log.read_text())
            client = ["iperf3", "-c", RIGHT, "-p", str(PORT), "-J", "-C", "cubic", "-t", str(seconds), *options]
            return json.loads(hosts.run(self.left, client, timeout=seconds + 20))
        finally:
            server.stop()


@contextmanager
def pair(logs: Path, *, seed: int | None = None, **shape: Any) -> Iterator[Pair]:
    """Two hosts on a link with Mininet's options bw, delay, loss."""
    nodes = [PlainHost("left"), PlainHost("right")]
    try:
        link = EmulatedLink(*nodes, addr1=Mininet.randMac(), addr2=Mininet.randMac(), **shape)
        try:
            for node, address in zip(nodes, (LEFT, RIGHT), strict=True):
                node.defaultIntf().setIP(f"{address}/24")
                node.configure()
            link.apply(userspace_switches=False, logs=logs, seed=seed)
            link.wait_ready()
            yield Pair(*nodes, link, logs)
        finally:
            link.stop()
    finally:
        for node in nodes:
            node.terminate()
