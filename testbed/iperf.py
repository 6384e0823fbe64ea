"""What iperf3 measures between two hosts of a network, and what its output means. Rates in Mbit/s of payload."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from testbed import hosts, processes
from testbed.errors import TestbedError
from testbed.hosts import EmulatedNode

PORT = 5999
SETTLED_AFTER = 0.5  # seconds of slow start that do not count
START_SPREAD = 0.5  # seconds; the window that counts begins at most so much later
INTERVAL = 0.1
UDP_PAYLOAD = 1448
_PATIENCE = 10.0


def path_rate(
    source: EmulatedNode, target: EmulatedNode, logs: Path, *, seconds: float, settle: float, udp: float | None = None
) -> float:
    """What arrives at the target per second, after `settle` seconds: of TCP, or of UDP sent at `udp` Mbit/s.

    Raises TestbedError.
    """
    log = logs / f"iperf3-{source.name}.log"
    argv = ["iperf3", "-s", "-1", "-p", str(PORT), "--forceflush"]
    server = processes.start("iperf3", hosts.inside(source, argv), log=log)
    try:
        server.wait_ready(lambda: "Server listening" in server.printed())
        client = ["iperf3", "-c", source.addresses()[0], "-p", str(PORT), "-J", "-R"]
        client += ["-t", str(seconds), "-i", str(INTERVAL)]
        client += [] if udp is None else ["-u", "-b", f"{udp:.6f}M", "-l", str(UDP_PAYLOAD)]
        result = json.loads(hosts.run(target, client, timeout=seconds + _PATIENCE))
    finally:
        server.stop()
    return settled_rate(result, settle)


def settled_rate(result: dict[str, Any], settle: float = SETTLED_AFTER) -> float:
    """Mbit/s that the receiver, an `iperf3 -J -R` client, got after slow start. Raises TestbedError.

    A receiver that was not run for a moment reads in its next interval what waited in its socket, which is more than
    the path carried in that time. So of the windows that begin up to START_SPREAD after `settle` and last to the end,
    the one with the least counts: it does not begin in such a moment, and inside it nothing is counted twice.
    """
    intervals = [item["sum"] for item in result["intervals"]]
    if any(item.get("sender", False) for item in intervals):
        raise ValueError("these intervals are the sender's: what it wrote into its socket, not what arrived")
    counted = [item for item in intervals if item["start"] >= settle and item["seconds"] > INTERVAL / 2]
    starts = [number for number, item in enumerate(counted) if item["start"] <= settle + START_SPREAD]
    if not starts:
        raise TestbedError(f"iperf3 measured nothing: {result.get('error', 'its intervals are empty')}")
    windows = [counted[start:] for start in starts]
    return min(
        sum(item["bytes"] for item in window) * 8 / sum(item["seconds"] for item in window) / 1e6 for window in windows
    )


def received_rate(result: dict[str, Any]) -> float:
    """Mbit/s that the server of an `iperf3 -J` upload got, by its own bytes and its own clock, slow start included.

    From an empty path on no receiver gets more than the path carries. Raises TestbedError.
    """
    received = result.get("end", {}).get("sum_received", {})
    if not received.get("seconds"):
        raise TestbedError(f"iperf3 measured nothing: {result.get('error', 'the server said nothing')}")
    return float(received["bytes"]) * 8 / received["seconds"] / 1e6
