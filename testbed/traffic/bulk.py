"""An unmodified iperf3 while it runs, and what both of its ends say at the end.

Its intervals are of 0.1 s and count from its own beginning; that is known from the moment at which it is ended. What is
in an interval is spread over the bins that it covers.
"""

from __future__ import annotations

import json
import re
import time
from typing import Any

from testbed import hosts, processes
from testbed.experiment.run import Run
from testbed.experiment.traffic import DOWN, Bulk
from testbed.traffic import transports
from testbed.traffic.bins import spread, still
from testbed.traffic.programs import file_name

INTERVAL = 0.1
LONGEST = 86400
LOOK_SECONDS = 0.05
END_SECONDS = 3.0
_TERMINATED = "terminated"
_RECEIVED = re.compile(r"bytes_received:(\d+)")


class FlowingBulk:
    """See `testbed.experiment.run.Running`."""

    def __init__(self, run: Run, item: Bulk, port: int) -> None:
        self.item, self._run, self._port = item, run, port
        self._source, self._target = run.network.find(item.source), run.network.find(item.target)
        self._began = self._flowed = self._ended = 0.0
        self._looked, self._received = 0.0, 0
        self._logs = [run.logs / f"{file_name(item.name)}-{end}.json" for end in ("server", "client")]
        for log in self._logs:
            log.unlink(missing_ok=True)  # a log is appended to
        argv = ["iperf3", "-s", "-1", "-J", "-i", str(INTERVAL), "-p", str(port)]
        self._server = processes.start(item.name, hosts.inside(self._target, argv), log=self._logs[0])
        self._client: processes.Daemon | None = None

    def wait_ready(self) -> None:
        """The server listens, and is found."""
        self._server.wait_ready(lambda: bool(self._sockets("-ltnH")))
        transports.serve(self._run, self.item, self._port)

    def begin(self) -> None:
        """Start the client."""
        address, port = transports.target(self._run, self.item, self._port)
        argv = ["iperf3", "-c", address, "-p", str(port), "-J", "-i", str(INTERVAL), "-t", str(LONGEST)]
        argv += ["-C", transports.congestion(self._run), *(["-R"] if self.item.direction == DOWN else [])]
        self._began = time.monotonic()
        self._client = processes.start(self.item.name, hosts.inside(self._source, argv), log=self._logs[1])

    def flowing(self) -> bool:
        """Whether something has come."""
        return self.received() > 0

    def received(self) -> int:
        """Bytes that the receiver's kernel has, asked at most every LOOK_SECONDS: `ss` is what this costs."""
        now = time.monotonic()
        if now - self._looked >= LOOK_SECONDS:
            self._looked = now
            found = _RECEIVED.findall(self._sockets("-tinH"))
            # The control connection carries a few hundred bytes, the other one the data.
            self._received = max((int(count) for count in found), default=self._received)
            if self._received > 0 and self._flowed == 0:
                self._flowed = now
        return self._received

    def port(self) -> None:
        """iperf3 has two connections, and so none."""

    def end(self) -> None:
        """The client is told to end."""
        self._ended = time.monotonic()
        if self._client is not None:
            self._client.ask_to_end()

    def finish(self) -> dict[str, Any]:
        """What is to be kept of it (`testbed.experiment.record`), and both ends' own results."""
        assert self._client is not None
        self._client.stop(timeout=END_SECONDS)
        self._server.stop(timeout=END_SECONDS)
        server, client = (_result(log) for log in self._logs)
        received, sent = (client, server) if self.item.direction == DOWN else (server, client)
        zero, seconds = self._run.zero, self._run.scene.seconds
        bins = {
            name: spread(_intervals(end), begun=self._begun(end), zero=zero, seconds=seconds, size=INTERVAL)
            for name, end in (("sent", sent), ("received", received))
        }
        end = min(self._ended - zero, seconds)
        gaps = still(bins["received"], INTERVAL, end)
        return {
            "kind": self.item.kind,
            "bin": INTERVAL,
            **bins,
            "bytes": sum(count for _, _, count in _intervals(received)),
            "intact": None,
            "broken": _broken(client, gaps, end, transports.patience(self._run)),
            "connects": [{"at": self._began - zero, "seconds": None, "ok": bool(_intervals(client))}],
            "gaps": gaps,
            "iperf3": {"client": client, "server": server},
        }

    def stop(self) -> None:
        """End both."""
        for daemon in (self._client, self._server):
            if daemon is not None:
                daemon.stop()

    def _begun(self, result: dict[str, Any]) -> float:
        """When its first interval began: an iperf3 that is told to end closes its last interval then."""
        intervals = _intervals(result)
        if intervals and _TERMINATED in str(result.get("error", "")):
            return self._ended - intervals[-1][1]
        return self._flowed or self._began

    def _sockets(self, options: str) -> str:
        down = self.item.direction == DOWN and options != "-ltnH"
        host = self._source if down else self._target
        port = transports.target(self._run, self.item, self._port)[1] if down else self._port
        return hosts.run(host, ["ss", options, f"{'dport' if down else 'sport'} = :{port}"])


def _result(log: Any) -> dict[str, Any]:
    """What an iperf3 said at its end; {} when it was ended before it could."""
    try:
        return dict(json.loads(log.read_text()))
    except ValueError:
        return {}


def _intervals(result: dict[str, Any]) -> list[tuple[float, float, int]]:
    """(begin, end, bytes) of each."""
    sums = [interval["sum"] for interval in result.get("intervals", ())]
    return [(one["start"], one["end"], one["bytes"]) for one in sums]


def _broken(client: dict[str, Any], gaps: list[dict[str, float]], end: float, patience: float) -> dict[str, Any] | None:
    error = str(client.get("error", ""))
    if error and _TERMINATED not in error:
        return {"at": end, "why": f"iperf3: {error}"}
    for gap in gaps:
        if gap["at"] + gap["seconds"] >= end - INTERVAL and gap["seconds"] > patience:
            return {"at": gap["at"], "why": f"nothing came for the last {gap['seconds']:.3g} s"}
    return None
