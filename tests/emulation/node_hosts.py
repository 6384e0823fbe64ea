"""Serval hosts in network namespaces on one bridge, started by the real launcher: the node's tests without Mininet."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from serval_node.control.local import Client, ControlError

ROOT = Path(__file__).resolve().parents[2]
HOSTS_DIR = Path("/run/testbed/hosts")
LAUNCHER = "/run/testbed/launcher.sock"
BRIDGE = "br-hosts"
PROVIDERS = {"example": 0x9C1185}
START_LIMIT = 20.0
WAIT_LIMIT = 10.0


def wait_for(what: str, condition: Callable[[], Any], limit: float = WAIT_LIMIT) -> Any:
    """The first true value of `condition`, asked until `limit` seconds have passed."""
    deadline = time.monotonic() + limit
    while True:
        value = condition()
        if value:
            return value
        if time.monotonic() > deadline:
            raise AssertionError(f"{what} did not happen within {limit:g} s (last: {value!r})")
        time.sleep(0.01)


def command(*words: str) -> None:
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{' '.join(words)}: {done.stderr}"


@dataclass
class Host:
    """One emulated host. `shell` is the process whose namespaces it has."""

    name: str
    address: str
    shell: subprocess.Popen[bytes]
    started: list[subprocess.Popen[Any]] = field(default_factory=list)

    @property
    def run_dir(self) -> Path:
        return HOSTS_DIR / self.name

    def words(self, words: tuple[str, ...]) -> list[str]:
        return ["nsenter", "--target", str(self.shell.pid), "--net", "--mount", "--wd=" + str(ROOT), "--", *words]

    def run(
        self, *words: str, limit: float = 30.0, check: bool = True, **options: Any
    ) -> subprocess.CompletedProcess[str]:
        done = subprocess.run(self.words(words), capture_output=True, text=True, timeout=limit, check=False, **options)
        assert not check or done.returncode == 0, f"{self.name}: {' '.join(words)}: {done.returncode}\n{done.stderr}"
        return done

    def popen(self, *words: str, **options: Any) -> subprocess.Popen[Any]:
        options.setdefault("stdin", subprocess.DEVNULL)
        process = subprocess.Popen(self.words(words), start_new_session=True, **options)
        self.started.append(process)
        return process

    def python(self, program: str, *arguments: str, **options: Any) -> subprocess.CompletedProcess[str]:
        return self.run(sys.executable, "-c", program, *arguments, **options)

    def serval(self, *words: str, **options: Any) -> subprocess.CompletedProcess[str]:
        return self.run(sys.executable, "-m", "serval_node.cli", *words, **options)

    def serve(self, service: str, *words: str, main: int | None = None, **options: Any) -> subprocess.Popen[Any]:
        """`serval run` in the background."""
        extra = ["--main", str(main)] if main is not None else []
        return self.popen(
            sys.executable, "-m", "serval_node.cli", "run", "--service", service, *extra, "--", *words, **options
        )

    def ask(self, op: str, **fields: Any) -> dict[str, Any]:
        with Client(str(self.run_dir / "control.sock")) as client:
            return client.request(op, **fields)

    def forward(self, service: str, *addresses: str, selector: str = "weighted-random") -> None:
        """A hand-made FORWARD rule."""
        targets = [{"action": "forward", "address": address} for address in addresses]
        self.ask("rule_set", prefix=service, targets=targets, selector=selector)

    def rules(self, service: str) -> list[dict[str, Any]]:
        """The targets of the rules whose service's text is `service`."""
        return [
            target
            for entry in self.ask("table")["entries"]
            if entry["service"] == service
            for target in entry["targets"]
        ]

    def counters(self) -> dict[str, int]:
        return self.ask("stat")["counters"]

    def log(self) -> str:
        return (self.run_dir / "servald.log").read_text()


class HostNet:
    """Hosts on a bridge in the namespace of the tests, and the launcher of their daemons."""

    def __init__(self) -> None:
        self.hosts: dict[str, Host] = {}
        self._pids: dict[str, int] = {}
        self.launcher = subprocess.Popen(
            [sys.executable, "-m", "serval_node.daemon.launcher"], stdout=subprocess.PIPE, text=True, cwd=ROOT
        )
        assert self.launcher.stdout is not None
        if self.launcher.stdout.readline() != "ready\n":
            self.launcher.stdout.close()
            raise AssertionError(f"the launcher did not start: exit status {self.launcher.wait(10)}")
        command("ip", "link", "add", BRIDGE, "type", "bridge")
        command("ip", "link", "set", BRIDGE, "up")
        self.channel = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.channel.settimeout(START_LIMIT)
        self.channel.connect(LAUNCHER)

    def add(self, name: str, **config: Any) -> Host:
        """A host 10.9.0.N with a running node."""
        host = self.add_plain(name)
        self.start_node(host, **config)
        return host

    def add_plain(self, name: str) -> Host:
        shell = subprocess.Popen(
            ["unshare", "--net", "--mount", "--propagation", "private", "sh", "-c", "echo; exec sleep infinity"],
            stdout=subprocess.PIPE,
            stdin=subprocess.DEVNULL,
        )
        assert shell.stdout is not None
        shell.stdout.readline()
        host = Host(name, f"10.9.0.{len(self.hosts) + 1}", shell)
        self.hosts[name] = host
        shutil.rmtree(host.run_dir, ignore_errors=True)  # what an earlier test module left for reading
        port = f"p-{name}"
        command("ip", "link", "add", port, "type", "veth", "peer", "name", "eth0", "netns", str(shell.pid))
        command("ip", "link", "set", port, "master", BRIDGE, "up")
        host.run("ip", "link", "set", "lo", "up")
        host.run("ip", "address", "add", f"{host.address}/24", "dev", "eth0")
        host.run("ip", "link", "set", "eth0", "up")
        host.run("ip", "route", "add", "default", "via", "10.9.0.254")
        return host

    def start_node(self, host: Host, **config: Any) -> dict[str, Any]:
        """Start (or start again) a host's node and wait until it is ready."""
        settings = {
            "name": host.name,
            "node_id": int(host.address.rpartition(".")[2]),
            "providers": PROVIDERS,
            "run_dir": str(host.run_dir),
            "hosts": {other.name: other.address for other in self.hosts.values()},
            **config,
        }
        self.send({"op": "start", "config": settings, "pid": host.shell.pid})
        report = self.report(host.name, "ready")
        self._pids[host.name] = report["pid"]
        return report

    def node_pid(self, host: Host) -> int:
        return self._pids[host.name]

    def stop_node(self, host: Host) -> int:
        """SIGTERM; the exit status."""
        self.send({"op": "stop", "name": host.name})
        return self.report(host.name, "exit")["status"]

    def kill_node(self, host: Host) -> None:
        os.kill(self._pids[host.name], signal.SIGKILL)
        self.report(host.name, "exit")

    def send(self, request: dict[str, Any]) -> None:
        self.channel.send(json.dumps(request).encode())

    def receive(self) -> dict[str, Any]:
        return json.loads(self.channel.recv(1 << 20))

    def report(self, name: str, event: str) -> dict[str, Any]:
        while True:
            message = self.receive()
            if message.get("name") == name and message["event"] == event:
                return message
            assert message["event"] not in ("failed", "error"), message

    def close(self) -> None:
        for host in self.hosts.values():
            for process in host.started:
                _end(process)
        self.launcher.terminate()
        self.launcher.wait(10)
        assert self.launcher.stdout is not None
        self.launcher.stdout.close()
        self.channel.close()
        # The kernel removes them some time after the last process; the next module may use their names at once.
        for port in _ports():
            command("ip", "link", "delete", port)
        for host in self.hosts.values():
            host.shell.kill()
            host.shell.wait()
            assert host.shell.stdout is not None
            host.shell.stdout.close()
        command("ip", "link", "delete", BRIDGE)


def _ports() -> list[str]:
    """The interfaces at the bridge; deleting one deletes the host's end of it."""
    shown = subprocess.run(
        ["ip", "-json", "link", "show", "master", BRIDGE], capture_output=True, text=True, check=True
    )
    return [port["ifname"] for port in json.loads(shown.stdout)]


def _end(process: subprocess.Popen[Any]) -> None:
    if process.poll() is None:
        try:
            os.killpg(process.pid, signal.SIGKILL)
        except ProcessLookupError:
            pass  # it ended between the two calls
    process.wait()
    for stream in (process.stdin, process.stdout, process.stderr):
        if stream is not None:
            stream.close()


@contextmanager
def host_net() -> Iterator[HostNet]:
    net = HostNet()
    try:
        yield net
    finally:
        net.close()


def refusal(host: Host, op: str, **fields: Any) -> str:
    """The error line of a request that must be refused."""
    try:
        host.ask(op, **fields)
    except ControlError as error:
        return str(error)
    raise AssertionError(f"{op} was not refused")
