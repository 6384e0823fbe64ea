"""The Serval nodes of a run, started through one launcher process that forks them into their hosts' namespaces."""

from __future__ import annotations

import json
import socket
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from serval_node.control.local import Client, ControlError
from testbed import processes, sandbox
from testbed.errors import TestbedError
from testbed.hosts import ServalHost

SOCKET = Path("/run/testbed/launcher.sock")
START_SECONDS = 20.0
STOP_SECONDS = 5.0
ENDING_SECONDS = 0.5
POLL_SECONDS = 0.01
MAX_REPORT = 1 << 20
EVERYTHING = "0x00/0"  # the prefix of every serviceID


def configurations(
    serval_hosts: Sequence[ServalHost],
    addresses: Mapping[str, str],
    providers: Mapping[str, int],
    controller: tuple[str, int] | None,
) -> dict[str, dict[str, Any]]:
    """What each node is told at its start, by name. `addresses` holds all hosts, `controller` is host and port.

    What else a topology says of a node is the node's to check: it refuses what it does not know.
    """
    channel = None if controller is None else {"host": controller[0], "port": controller[1]}
    return {
        host.name: {
            **host.options,
            "name": host.name,
            "node_id": number,
            "role": host.options["role"],
            "serves": list(host.options.get("serves", ())),
            "providers": dict(providers),
            "controller": channel,
            "run_dir": str(host.run_directory),
            "hosts": dict(addresses),
        }
        for number, host in enumerate(serval_hosts, 1)
    }


def appoint_router(serval_hosts: Sequence[ServalHost], name: str | None = None) -> ServalHost | None:
    """Where the topology declares no service router, make the host `name` (default: the first) one for all names.

    Returns it, None where there is one already or no Serval host. Call it before the nodes start. Raises TestbedError
    when there is no such Serval host.
    """
    if name is None and any(host.options["role"] == "router" for host in serval_hosts):
        return None
    chosen = next((host for host in serval_hosts if name in (None, host.name)), None)
    if chosen is not None:
        chosen.params["serval"] = {"role": "router", "serves": [EVERYTHING]}
    elif name is not None:
        raise TestbedError(f"no Serval host {name!r}; there are: {', '.join(host.name for host in serval_hosts)}")
    return chosen


class Launcher:
    """The launcher process and the connection on which it reports. The constructor does not wait for it."""

    def __init__(self, logs: Path) -> None:
        self._log = logs / "launcher.log"
        SOCKET.parent.mkdir(parents=True, exist_ok=True)
        argv = [sys.executable, "-m", "serval_node.daemon.launcher", "--socket", str(SOCKET)]
        self._daemon = processes.start("the nodes' launcher", argv, log=self._log, cwd=sandbox.ROOT)
        self._channel = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.pids: dict[str, int] = {}

    def wait_ready(self) -> None:
        """Wait until it listens and connect to it; raises TestbedError."""
        self._daemon.wait_ready(lambda: self._daemon.printed().endswith("ready\n"))
        try:
            self._channel.connect(str(SOCKET))
        except OSError as error:
            raise TestbedError(f"cannot reach the nodes' launcher: {error}", f"its log is {self._log}") from None

    def start(self, hosts: Sequence[ServalHost], config: Mapping[str, Mapping[str, Any]]) -> list[str]:
        """Start the nodes of all hosts at once, config by name, and wait until each is ready; returns their warnings.

        Raises TestbedError naming the node and its log.
        """
        for host in hosts:
            self._send({"op": "start", "config": dict(config[host.name]), "pid": host.pid})
        waiting = {host.name: host for host in hosts}
        warnings = []
        deadline = time.monotonic() + START_SECONDS
        while waiting:
            report = self._receive(
                deadline, f"the nodes of {', '.join(waiting)}", next(iter(waiting.values())).log_path
            )
            name, event = report.get("name", ""), report["event"]
            if event == "ready":
                host = waiting.pop(name)
                self.pids[name] = report["pid"]
                warnings += [f"{name}: {warning}" for warning in report["warnings"]]
            elif event in ("failed", "error"):
                log = waiting[name].log_path if name in waiting else self._log
                raise TestbedError(
                    f"the node of {name or 'a host'} did not start: {report['error']}", f"its log is {log}"
                )
        return warnings

    def running(self, name: str) -> bool:
        """Whether this host's node runs. Waits ENDING_SECONDS for one that has just been killed, so may be ending."""
        deadline = time.monotonic() + ENDING_SECONDS
        while name in self.pids and Path(f"/proc/{self.pids[name]}").exists():
            if time.monotonic() > deadline:
                return True
            time.sleep(POLL_SECONDS)  # it is there until the launcher has heard of its end
        return False

    def ended(self) -> list[str]:
        """The hosts whose nodes have ended by themselves since the last call."""
        gone = [name for name, pid in self.pids.items() if not Path(f"/proc/{pid}").exists()]
        for name in gone:
            del self.pids[name]
        return gone

    def stop(self) -> None:
        """End all nodes and the launcher. May be called again."""
        self._channel.close()
        self._daemon.stop(timeout=STOP_SECONDS)
        self.pids.clear()

    def _send(self, request: Mapping[str, Any]) -> None:
        try:
            self._channel.send(json.dumps(request).encode())
        except OSError as error:
            raise TestbedError(f"the nodes' launcher is gone: {error}", f"its log is {self._log}") from None

    def _receive(self, deadline: float, what: str, log: Path) -> dict[str, Any]:
        self._channel.settimeout(max(0.01, deadline - time.monotonic()))
        try:
            data = self._channel.recv(MAX_REPORT)
        except TimeoutError:
            raise TestbedError(f"{what}: not ready within {START_SECONDS:g} s", f"see {log}") from None
        except OSError as error:
            raise TestbedError(f"the nodes' launcher is gone: {error}", f"its log is {self._log}") from None
        if not data:
            raise TestbedError("the nodes' launcher has ended", f"its log is {self._log}")
        return json.loads(data)


def client(host: ServalHost) -> Client:
    """A connection to a node's control socket that stays open, for whoever must not pay for opening one. Its requests
    raise ControlError; the caller closes it.
    """
    return Client(host.control_path)


def ask(host: ServalHost, op: str, **fields: Any) -> dict[str, Any]:
    """One request to a node's control socket; raises TestbedError."""
    return request(host.control_path, f"the node of {host.name}", op, log=host.log_path, **fields)


def request(path: str, who: str, op: str, *, log: Path, **fields: Any) -> dict[str, Any]:
    """One request to a control socket (node or controller); raises TestbedError naming the log."""
    try:
        with Client(path) as client:
            return client.request(op, **fields)
    except ControlError as error:
        raise TestbedError(f"{who}: {error}", f"its log is {log}") from None
