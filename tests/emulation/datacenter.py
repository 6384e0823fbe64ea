"""The slides' figure, running: the datacenter with controller and plain routers, and what tests do in it.

The service router's link has a delay of its own, so that a way over it is seen in every round-trip time.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from serval_node.capture.pcap import read_ipv4
from serval_node.wire.encapsulation import open_packet
from serval_node.wire.errors import DropReason, WireError
from serval_node.wire.ipv4 import Ipv4Header, address_text
from serval_node.wire.sal_header import SalPacket, decode
from serval_node.wire.transport import TcpHeader
from testbed import hosts, nodes
from testbed.capture import Capture
from testbed.network import ServalNetwork
from topologies.datacenter import Datacenter
from topologies.declarations import Service

ROOT = Path(__file__).resolve().parents[2]
WAIT_LIMIT = 10.0
DETOUR_SECONDS = 0.010
"""One way on the service router's link."""

ANSWER = """
import sys
from serval_node import socket as serval
with serval.create_server(sys.argv[1], backlog=256) as server:
    print("up", flush=True)
    while True:
        conn, _ = server.accept()
        with conn: conn.sendall(sys.argv[2].encode())
"""
"""Says its host's name to everyone."""

TOGETHER = """
import asyncio, collections, json, sys
from serval_node import socket as serval
async def one():
    reader, writer = await serval.open_connection(sys.argv[1])
    name = (await reader.read()).decode()
    writer.close()
    return name
async def main():
    names = await asyncio.gather(*(one() for _ in range(int(sys.argv[2]))))
    print(json.dumps(collections.Counter(names)))
asyncio.run(main())
"""


class Figure(Datacenter):
    """The datacenter without services, its service router reached over a delay."""

    def build(self, **parameters: Any) -> None:
        super().build(**parameters)
        self.services: list[Service] = []

    def _add_serval(self, name: str, address: str, gateway: str, switch: str, serval: Mapping[str, object]) -> None:
        before = self._link
        if serval["role"] == "router":
            self._link = {**before, "delay": f"{DETOUR_SECONDS * 1000:g}ms"}
        super()._add_serval(name, address, gateway, switch, serval)
        self._link = before


@dataclass(frozen=True)
class Seen:
    """A captured Serval packet: Unix seconds, the whole IPv4 packet, and what it says."""

    time: float
    packet: bytes
    ip: Ipv4Header
    sal: SalPacket

    @property
    def way(self) -> tuple[str, str]:
        return address_text(self.ip.source), address_text(self.ip.destination)

    @property
    def flags(self) -> int:
        control = self.sal.control
        return control.flags if control is not None else 0

    @property
    def nonce(self) -> bytes:
        control = self.sal.control
        return control.nonce if control is not None else b""

    @property
    def tcp(self) -> TcpHeader:
        return TcpHeader.decode(self.sal.payload)

    @property
    def data(self) -> bytes:
        """The application's bytes in it."""
        return self.sal.payload[self.tcp.header_length :] if self.sal.payload else b""

    @property
    def header_length(self) -> int:
        """Of the SAL header with its extensions."""
        return self.packet[self.ip.header_length + 8] * 4


def serval_packets(path: Path) -> list[Seen]:
    """The Serval packets of a pcap file, raw and inside UDP."""
    found = []
    for record in read_ipv4(path):
        try:
            header, payload = open_packet(record.data)
        except WireError as error:
            if error.reason is not DropReason.UNKNOWN_PROTOCOL:
                raise
            continue
        found.append(Seen(record.time, record.data[: header.total_length], header, decode(payload)))
    return found


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


def say(process: subprocess.Popen[str], text: str = "") -> None:
    """A line to a program's standard input."""
    assert process.stdin is not None
    process.stdin.write(text + "\n")
    process.stdin.flush()


def heard(process: subprocess.Popen[str]) -> str:
    """The next line of a program's standard output, without its end; a program that says nothing is killed."""
    assert process.stdout is not None
    limit = threading.Timer(2 * WAIT_LIMIT, process.kill)
    limit.start()
    try:
        return process.stdout.readline().rstrip("\n")
    finally:
        limit.cancel()


def end(process: subprocess.Popen[str]) -> None:
    """Kill a program and all that it started."""
    if process.poll() is None:
        try:
            os.killpg(process.pid, signal.SIGKILL)
        except ProcessLookupError:
            pass  # it ended between the two calls
    process.wait()
    for stream in (process.stdin, process.stdout, process.stderr):
        if stream is not None:
            stream.close()


class Running:
    """A running figure. Programs that a test started end with it, and their rules too (`settle`)."""

    def __init__(self, net: ServalNetwork, directory: Path) -> None:
        self.net = net
        self._directory = directory
        self._captures = 0
        self._started: list[subprocess.Popen[str]] = []
        self.address = {host.name: host.addresses()[0] for host in net.serval_hosts}

    # -- programs

    def popen(self, host: str, *words: str) -> subprocess.Popen[str]:
        """A program in a host, with pipes; ended after the test."""
        process = subprocess.Popen(
            hosts.inside(self.net.find(host), words),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            start_new_session=True,
            cwd=ROOT,
        )
        self._started.append(process)
        return process

    def start(self, host: str, program: str, *arguments: str) -> subprocess.Popen[str]:
        """A Python program in a host that has said "up"."""
        process = self.popen(host, sys.executable, "-c", program, *arguments)
        assert heard(process) == "up", f"the program in {host} did not start"
        return process

    def serve(self, host: str, service: str) -> subprocess.Popen[str]:
        """An instance that tells each client its host's name."""
        return self.start(host, ANSWER, service, host)

    def python(self, host: str, program: str, *arguments: str, limit: float = 30.0) -> str:
        """What a Python program in a host prints; it must succeed."""
        return self.net.run_in(host, [sys.executable, "-c", program, *arguments], timeout=limit)

    def serval(self, host: str, *words: str, limit: float = 30.0) -> str:
        return self.net.run_in(host, [sys.executable, "-m", "serval_node.cli", *words], timeout=limit)

    def connects(self, host: str, service: str, count: int) -> dict[str, int]:
        """Instance -> how often it answered."""
        text = self.serval(host, "connect", service, "--count", str(count), "--json", limit=60.0)
        return json.loads(text)["split"]

    def connects_at_once(self, host: str, service: str, count: int) -> dict[str, int]:
        """As `connects`, but all at the same time, which is faster."""
        return json.loads(self.python(host, TOGETHER, service, str(count)))

    def ctl(self, *words: str) -> str:
        """`servicectl`, which must succeed."""
        return self.net.run_in("r1", [sys.executable, "-m", "controllers.ctl", *words])

    def inject(self, host: str, *packets: bytes) -> None:
        """Send whole IPv4 packets from a host, whatever they say."""
        program = """
import socket, sys
with socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_RAW) as raw:
    for packet in map(bytes.fromhex, sys.argv[1:]): raw.sendto(packet, (socket.inet_ntoa(packet[16:20]), 0))
"""
        self.python(host, program, *(packet.hex() for packet in packets))

    def settle(self) -> None:
        """End what was started, remove hand-made rules, and wait until no node has an instance of anything."""
        for process in self._started:
            end(process)
        self._started.clear()
        for name in self.address:
            for entry in self.ask(name, "table")["entries"]:
                if "hand" in {target["origin"] for target in entry["targets"]}:
                    self.net.controller_request("remove", node=name, service=entry["prefix"])
        wait_for("the end of all services", lambda: not self.services())

    # -- tables

    def ask(self, host: str, op: str, **fields: Any) -> dict[str, Any]:
        return nodes.ask(self.net.serval_host(host), op, **fields)

    def table(self, host: str) -> dict[str, set[str]]:
        """Service -> targets, as "ACTION where", of a host's whole service table."""
        return {
            entry["service"]: {f"{target['action'].upper()} {target['where']}".strip() for target in entry["targets"]}
            for entry in self.ask(host, "table")["entries"]
        }

    def entry(self, host: str, service: str) -> dict[str, Any]:
        """The rule of a host for a service; fails without one."""
        return next(entry for entry in self.ask(host, "table")["entries"] if entry["service"] == service)

    def services(self) -> dict[str, set[str]]:
        """The controller's directory: service -> "node address"."""
        answer = self.net.controller_request("services")
        return {
            service["name"]: {f"{item['node']} {item['address']}" for item in service["instances"]}
            for service in answer["services"]
        }

    def resolves(self, service: str, *names: str) -> None:
        """Wait until the service router's rule for a service names exactly these hosts."""
        wanted = {f"FORWARD {self.address[name]}" for name in names}
        wait_for(
            f"cleo's rule for {service} that names {names}", lambda: self.table("cleo").get(service, set()) == wanted
        )

    def flow(self, host: str, service: str) -> dict[str, Any]:
        """The one connected flow of a service at a host, waited for."""
        return wait_for(
            f"the flow of {service} at {host}",
            lambda: next((flow for flow in self.flows(host, service) if flow["state"] == "CONNECTED"), None),
        )

    def flows(self, host: str, service: str) -> list[dict[str, Any]]:
        return [flow for flow in self.ask(host, "flows")["flows"] if flow["service"] == service]

    def counter(self, host: str, name: str) -> int:
        return self.ask(host, "stat")["counters"].get(name, 0)

    # -- captures

    @contextmanager
    def capture(self, *names: str) -> Iterator[dict[str, list[Seen]]]:
        """Captures all interfaces of these nodes; interface -> Serval packets, filled at the end."""
        self._captures += 1
        result: dict[str, list[Seen]] = {}
        running = Capture([self.net.find(name) for name in names], self._directory / str(self._captures), snap=0)
        try:
            yield result
        finally:
            time.sleep(0.1)  # what was sent last is still on its way
            running.stop()
        assert running.dropped() == 0
        for interface in running.interfaces:
            result[interface] = serval_packets(running.directory / f"{interface}.pcap")
