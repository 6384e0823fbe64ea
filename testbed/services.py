"""Instances of the topology's services: unmodified servers below `serval run`."""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path

from testbed import hosts, processes, sandbox
from testbed.errors import TestbedError
from testbed.hosts import ServalHost
from topologies.declarations import Service


class Instance:
    """One server of one service on one host. Started by its constructor; raises TestbedError."""

    def __init__(self, host: ServalHost, service: Service) -> None:
        self.host = host
        self.service = service
        self._killed = False
        self.log = host.run_directory / f"{service.name}.log"
        if service.page:
            page = host.run_directory / "www" / "index.html"
            page.parent.mkdir(parents=True, exist_ok=True)
            page.write_text(service.page.format(host=host.name, service=service.name))
        program = [sys.executable, "-m", "serval_node.cli", "run", "--service", service.name, "--", *service.command]
        self._daemon = processes.start(
            f"{service.name} on {host.name}", hosts.inside(host, program), log=self.log, cwd=sandbox.ROOT
        )

    @property
    def alive(self) -> bool:
        # `serval run` ends a moment after the server below it was killed.
        return not self._killed and self._daemon.alive

    def check(self) -> None:
        """Raises TestbedError, with what it said last, when it has ended."""
        if not self.alive:
            said = self.log.read_text(errors="replace").strip().splitlines()[-1:] or ["it said nothing"]
            raise TestbedError(
                f"{self.service.name} on {self.host.name} has ended by itself: {said[0]}", f"its log is {self.log}"
            )

    def kill(self) -> int:
        """`kill -9` of the server itself, not of the `serval run` above it; returns its process id."""
        self.check()
        server = self._server()
        os.kill(server, signal.SIGKILL)
        self._killed = True
        return server

    def ask_to_end(self) -> None:
        """Does not wait; `stop` does."""
        self._daemon.ask_to_end()

    def stop(self) -> None:
        self._daemon.stop()

    def _server(self) -> int:
        children = Path(f"/proc/{self._daemon.pid}/task/{self._daemon.pid}/children").read_text().split()
        if not children:
            raise TestbedError(f"{self.service.name} on {self.host.name} has no server", f"its log is {self.log}")
        return int(children[0])
