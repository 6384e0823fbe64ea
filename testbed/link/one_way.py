"""One-way delay and loss between two hosts, by probes that the kernel stamps at both ends."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from testbed.hosts import EmulatedNode
from testbed.traffic.programs import Worker

PORT = 5998
SIZE = 100
"""Bytes of a probe."""
_names = itertools.count(1)


@dataclass(frozen=True)
class OneWay:
    """What became of so many probes: the delays of those that came in, in seconds, in the order in which they left."""

    sent: int
    delays: tuple[float, ...]

    @property
    def lost(self) -> int:
        return self.sent - len(self.delays)


def matched(left: Iterable[Sequence[int]], came: Iterable[Sequence[int]]) -> OneWay:
    """From the stamps of both ends: [number, nanoseconds] of each probe."""
    arrivals: dict[int, int] = {}
    for number, stamp in came:
        arrivals.setdefault(number, stamp)
    departures = [(number, stamp) for number, stamp in left]
    delays = [(arrivals[number] - stamp) / 1e9 for number, stamp in departures if number in arrivals]
    return OneWay(len(departures), tuple(delays))


def quantile(values: Sequence[float], share: float) -> float:
    """The smallest value that at least this share of the values does not exceed."""
    ordered = sorted(values)
    return ordered[max(0, math.ceil(share * len(ordered)) - 1)]


class Probes:
    """Probes from one host to another, to its first address or the given one. A context manager; raises TestbedError
    only.
    """

    def __init__(self, source: EmulatedNode, target: EmulatedNode, logs: Path, *, address: str | None = None) -> None:
        number = next(_names)
        names = (f"probe-{number}-{node.name}" for node in (source, target))
        self._address = address or target.addresses()[0]
        self._sender, self._receiver = (
            Worker(name, node, ["testbed.link.probe"], logs) for name, node in zip(names, (source, target), strict=True)
        )

    def __enter__(self) -> Probes:
        try:
            for worker in (self._sender, self._receiver):
                worker.wait_ready()
            self._receiver.order("listen", address=self._address, port=PORT)
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        for worker in (self._sender, self._receiver):
            worker.close()
            worker.stop()

    def measure(self, count: int, interval: float, *, patience: float) -> OneWay:
        """Send so many, one every `interval` seconds; one that is `patience` seconds late counts as lost."""
        self._receiver.give("collect", count=count, patience=patience)
        sent = self._sender.order("send", address=self._address, port=PORT, count=count, interval=interval, size=SIZE)
        return matched(sent["left"], self._receiver.answer()["came"])
