"""A Stream while it flows: its two ends in their hosts, and what both of them saw."""

from __future__ import annotations

import time
from typing import Any

from testbed import nodes
from testbed.errors import TestbedError
from testbed.experiment.run import Run
from testbed.experiment.traffic import BIN_SECONDS, DOWN, Stream
from testbed.hosts import EmulatedNode
from testbed.traffic import transports
from testbed.traffic.guests import GuestFar
from testbed.traffic.programs import DIRECTORY, Worker, file_name
from testbed.traffic.samples import Progress

DRAIN_SECONDS = 0.5
SOURCE = "traffic"
"""Of what it puts into the event log."""
MOVE_SECONDS = 5.0
POLL_SECONDS = 0.005


class FlowingStream:
    """Its programs run from the constructor on. See `testbed.experiment.run.Running`."""

    def __init__(self, run: Run, item: Stream, port: int) -> None:
        self.item = item
        self._run, self._port = run, port
        self._source = run.network.find(item.source)
        self._begun = self._ended = 0.0
        self._congestion: str | None = None
        near, far = (self._progress(end) for end in ("near", "far"))
        self._progresses = Progress(near), Progress(far)
        words = ["testbed.traffic.near"], ["testbed.traffic.far"]
        settings = [str(port), str(transports.protocol(run)), transports.congestion(run), str(far)]
        self._near = self._worker("near", self._source, words[0], [str(near)])
        try:
            vm = transports.guest(run, item.target)
            self._far: Worker | GuestFar
            if vm is not None:
                self._far = GuestFar(run, vm, item, port)
            else:
                self._far = self._worker("far", run.network.find(item.target), words[1], settings)
        except TestbedError:
            self._near.stop()
            raise

    def _worker(self, end: str, host: EmulatedNode, words: list[str], more: list[str]) -> Worker:
        name = f"{file_name(self.item.name)}-{end}"
        return Worker(name, host, words, self._run.logs, more=more)

    def _progress(self, end: str) -> Any:
        return DIRECTORY / f"{file_name(self.item.name)}-{end}.progress"

    # -- life

    def wait_ready(self) -> None:
        """Both ends listen and take orders; a stream that starts at 0 is connected."""
        self._far.wait_ready()
        self._near.wait_ready()
        transports.serve(self._run, self.item, self._port)
        if self.item.start == 0:
            answer = self._near.order("connect", **self._connect_order())
            self._congestion = answer["congestion"]
            if transports.named(self._run) and self.item.address is not None:
                self._go(answer["local"][1], self.item.address)

    def begin(self) -> None:
        """Data flows; a stream that starts later than at 0 connects now."""
        later = {} if self.item.start == 0 else {"connect": self._connect_order()}
        self._begun = time.monotonic()
        self._near.order("begin", **later)

    def flowing(self) -> bool:
        """Whether something has come."""
        return self.received() > 0

    def received(self) -> int:
        """Bytes that the receiver has."""
        return self._progresses[0 if self.item.direction == DOWN else 1].total()

    def port(self) -> int | None:
        """The kernel's port of its connection at the source; None while there is no connection."""
        port = self._near.order("port")["port"]
        return None if port is None else int(port)

    def end(self) -> None:
        """The sender stops."""
        self._ended = time.monotonic()
        self._near.order("stop")

    def finish(self) -> dict[str, Any]:
        """What is to be kept of it (`testbed.experiment.record`)."""
        receiver, sender = (self._near, self._far) if self.item.direction == DOWN else (self._far, self._near)
        receiver.order("drain", seconds=DRAIN_SECONDS)
        zero, seconds = self._run.zero, self._run.scene.seconds
        begin, end = max(zero, self._begun), min(zero + seconds, self._ended)
        order = {"zero": zero, "seconds": seconds, "bin": BIN_SECONDS, "begin": begin, "end": end}
        received, sent = (side.order("finish", **order) for side in (receiver, sender))
        connects = (received if receiver is self._near else sent)["connects"]
        broke = broken(received, sent, end - zero, transports.patience(self._run))
        for again in connects[1:]:
            if again["ok"] and again["at"] > 0:
                self._run.log(f"{self.item.name} has connected anew", at=again["at"], source=SOURCE)
        if broke is not None:
            self._run.log(f"{self.item.name} is broken", at=broke["noticed"], source=SOURCE, why=broke["why"])
        return {
            "kind": self.item.kind,
            "bin": BIN_SECONDS,
            "sent": sent["bins"],
            "received": received["bins"],
            "bytes": received["bytes"],
            "intact": received["wrong"] is None,
            "wrong": received["wrong"],
            "broken": broke,
            "connects": connects,
            "gaps": received["silences"],
            "ended": received["ended"],
            "congestion_control": self._congestion,
        }

    def stop(self) -> None:
        """End its programs."""
        for worker in (self._near, self._far):
            worker.close()
            worker.stop()

    # -- connecting

    def _connect_order(self) -> dict[str, Any]:
        address = None if self.item.address is None else transports.address_of(self._source, self.item.address)
        many = transports.protocol(self._run) != 0 and transports.paths(self._run, self.item) > 1
        return {
            "target": transports.target(self._run, self.item, self._port),
            # Serval's sockets are bound to sal0; where a flow is, its node says.
            "bind": None if transports.named(self._run) else address,
            "protocol": transports.protocol(self._run),
            "subflow": many,
            "congestion": transports.congestion(self._run),
            "direction": self.item.direction,
            "rate": None if self.item.rate is None else self.item.rate * 1e6,
            "reconnect": transports.reconnect(self._run),
            "within": transports.READY_SECONDS,
        }

    def _go(self, local_port: int, place: str) -> None:
        """Move the flow to where it is to start, unless it is there."""
        source = self._run.network.serval_host(self.item.source)
        address, port = transports.target(self._run, self.item, self._port)
        asked = {"address": address, "port": port, "local_port": local_port}
        wanted = transports.address_of(source, place)
        found = nodes.ask(source, "connected", **asked)
        if found["local"] == wanted:
            return
        (row,) = nodes.ask(source, "migrate", flow_id=found["flow_id"], to=wanted)["flows"]
        if row["refusal"]:
            raise TestbedError(f"{self.item.name} cannot start from {wanted}: {row['refusal']}")
        deadline = time.monotonic() + MOVE_SECONDS
        while nodes.ask(source, "connected", **asked)["local"] != wanted:
            if time.monotonic() > deadline:
                raise TestbedError(f"{self.item.name} did not get to {wanted} within {MOVE_SECONDS:g} s")
            time.sleep(POLL_SECONDS)


def broken(received: dict[str, Any], sent: dict[str, Any], end: float, patience: float) -> dict[str, Any] | None:
    """Why and when a stream broke, from what its two ends told; None when it did not. end: when it was ended.

    "noticed" is when an application would know: at its error, or when its patience was over.
    """
    errors = [end["error"] for end in (received, sent) if end["error"] is not None]
    if errors:
        first = min(errors, key=lambda error: float(error["at"]))
        return {**first, "noticed": first["at"]}
    last = received["last"]
    if last is None or end - last > patience:
        at = 0.0 if last is None else last
        why = f"nothing came for the last {end - at:.3g} s (time-out {patience:g} s)"
        return {"at": at, "why": why, "noticed": min(at + patience, end)}
    return None
