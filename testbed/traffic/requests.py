"""Requests while they are made: the requester in its host, and where none is declared a responder at the target."""

from __future__ import annotations

from typing import Any

from testbed.errors import TestbedError
from testbed.experiment.run import Run
from testbed.experiment.traffic import Requests
from testbed.traffic import transports
from testbed.traffic.programs import DIRECTORY, Program, Worker, file_name
from testbed.traffic.samples import Progress

LIMIT = 5.0
"""Seconds until a request without an answer has failed, unless the contender's option `limit` says so."""
DRAIN_SECONDS = 1.0
DECLARED_PORT = 80
"""Where declared instances listen, unless the contender's option `port` says so."""


class FlowingRequests:
    """Its programs run from the constructor on. See `testbed.experiment.run.Running`."""

    def __init__(self, run: Run, item: Requests, port: int) -> None:
        self.item = item
        self._run, self._source = run, run.network.find(item.source)
        services = run.network.services if run.scene.services else ()
        self._declared = next((service for service in services if service.name == item.service), None)
        self._port = port if self._declared is None else int(run.contender.options.get("port", DECLARED_PORT))
        self._server: Program | None = None
        if self._declared is None:
            target = run.network.find(item.target)
            words = ["testbed.traffic.responder", str(port), item.target, str(transports.protocol(run))]
            self._server = Program(f"{file_name(item.name)}-responder", target, words, run.logs)
        name = f"{file_name(item.name)}-requester"
        progress = DIRECTORY / f"{name}.progress"
        self._progress = Progress(progress)
        try:
            self._worker = Worker(name, self._source, ["testbed.traffic.requester"], run.logs, more=[str(progress)])
        except TestbedError:
            if self._server is not None:
                self._server.stop()
            raise

    def wait_ready(self) -> None:
        """The requester takes orders; whoever answers can be reached."""
        item, network = self.item, self._run.network
        self._worker.wait_ready()
        if self._server is not None:
            self._server.wait_ready()
            transports.serve(self._run, item, self._port)
        elif transports.named(self._run):
            network.wait_service(item.service, network.running(item.service))

    def begin(self) -> None:
        """Requests are made from now on."""
        self._worker.order(
            "begin",
            target=transports.target(self._run, self.item, self._port),
            protocol=transports.protocol(self._run),
            congestion=transports.congestion(self._run),
            rate=self.item.rate,
            size=self.item.size,
            count=self.item.count,
            hold=self.item.hold,
            limit=self._limit,
        )

    def flowing(self) -> bool:
        """Whether one has been answered; of those that are held, whether the requester has been told to begin."""
        return self.item.hold > 0 or self.received() > 0

    def received(self) -> int:
        """How many were answered."""
        return self._progress.total()

    def port(self) -> None:
        """Requests have many connections, and so none."""

    def end(self) -> None:
        """No new ones; what is held is answered."""
        self._worker.order("end")

    def finish(self) -> dict[str, Any]:
        """What is to be kept of them (`testbed.experiment.record`)."""
        told = self._worker.order("finish", zero=self._run.zero, within=DRAIN_SECONDS + self._limit)
        return {"kind": self.item.kind, "requests": told["requests"]}

    def stop(self) -> None:
        """End its programs."""
        self._worker.close()
        self._worker.stop()
        if self._server is not None:
            self._server.stop()

    @property
    def _limit(self) -> float:
        return float(self._run.contender.options.get("limit", LIMIT))
