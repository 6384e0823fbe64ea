"""What one run left behind, as metrics and plots see it: a view of one entry of the result file. Pure.

    {"number": 3, "repetition": 0, "attempt": 0, "contender": "serval", "seed": 17,
     "setting": 1, "point": {"rtt_ms": 20, ...},   which of the result's points; all parameters of the run
     "zero": 8123.4,                     CLOCK_MONOTONIC at the schedule's zero; all other times count from there
     "realtime": 1700000000.1,           CLOCK_REALTIME at the same moment: where captures show it
     "seconds": 12.0, "failed": null or why, "log": null or where to look then,
     "events": [{"at": 6.0, "name": "flow1 moves to eth1", "source": "schedule", "facts": {...}}, ...],
     "traffic": {"flow1": {"kind": "stream", "bin": 0.01,
                           "sent": [bytes per bin], "received": [bytes per bin], "bytes": 12000000,
                           ("sent": null for a sender in a virtual machine of the real form, which tells nothing)
                           "intact": true, "broken": null or why and when, "connects": [{"at", "seconds", "ok"}],
                           "gaps": [{"at", "seconds"}, ...]},      its largest silences, and the largest of each 0.1 s
                 "web": {"kind": "requests", "requests": [{"at", "connect", "seconds", "instance", "error"}, ...]}},
     "blackouts": [{"host", "service", "flow", "cause", "source", "target", "at", "detect", "decide", "signal",
                    "recover", "rsyns"}, ...],               "flow": the name of what flows there, null for nothing ours
     "counters": {"ann": {"node": {"packets": 40, ...},                          how much each grew during the run
                          "interfaces": {"ann-eth0": {"rx_bytes", "rx_packets", "tx_bytes", "tx_packets"}}}},
     "facts": {"machines": {"vic": {"form", "host", "address"}},                 as they were started (`machines`)
               "moves": [{"vm", "form", "parts", "figures", ...}], ...},         `testbed.vm_migration.MoveRecord`
     "fidelity": {"trustworthy": true, "kinds": [], "reasons": [], ...},   (`fidelity`)
     "metrics": {"dip": 0.02, ...}, "without": {"metric": why the run has none}}

A run that failed has all up to "facts" as far as it came, and no metrics.

Times in seconds, sizes in bytes. A bin belongs to the time from index * bin on; bins begin at zero.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class RunRecord:
    """One run."""

    data: Mapping[str, Any]

    @property
    def contender(self) -> str:
        return str(self.data["contender"])

    @property
    def transport(self) -> str | None:
        """That of its contender, as its hosts were told; None of a run that did not come so far."""
        told = self.facts.get("transport")
        return str(told["name"]) if told else None

    @property
    def point(self) -> Mapping[str, Any]:
        """The parameters of this run, those of its point included."""
        return self.data["point"]

    @property
    def seconds(self) -> float:
        return float(self.data["seconds"])

    @property
    def blackouts(self) -> Sequence[Mapping[str, Any]]:
        return self.data["blackouts"]

    @property
    def facts(self) -> Mapping[str, Any]:
        return self.data["facts"]

    def traffic(self, name: str) -> Mapping[str, Any]:
        """Raises KeyError when nothing of that name flowed."""
        return self.data["traffic"][name]

    def event(self, words: str) -> float:
        """When the first event whose name has these words happened. Raises KeyError."""
        for event in self.data["events"]:
            if words in event["name"]:
                return float(event["at"])
        raise KeyError(f"no event {words!r} in run {self.data['number']}")

    def bits_per_second(self, name: str, begin: float, end: float, side: str = "received") -> float:
        """Goodput of a stream between two moments, of whole bins only; begin < end."""
        item = self.traffic(name)
        size, bins = float(item["bin"]), item[side]
        # 1e-9: 0.3 / 0.01 is less than 30
        first, last = int(begin / size + 1 - 1e-9), int(end / size + 1e-9)
        if last <= first:
            raise ValueError(f"no whole bin of {size:g} s between {begin:g} and {end:g} s")
        return 8 * sum(bins[first:last]) / ((last - first) * size)

    def largest_gap(self, name: str, begin: float = 0.0, end: float | None = None) -> float:
        """The receiver's longest silence that begins between two moments, in seconds; 0 when there is none."""
        until = self.seconds if end is None else end
        return max((gap["seconds"] for gap in self.traffic(name)["gaps"] if begin <= gap["at"] <= until), default=0.0)
