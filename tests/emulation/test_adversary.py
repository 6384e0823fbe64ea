"""Each attack of tests.adversary, sent at a running service while a transfer goes on beside it (S10, S11, S48)."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import pytest

from tests.adversary.attacks import ATTACKS
from tests.emulation.node_hosts import Host, HostNet, host_net, wait_for

SERVER = """
import hashlib, threading
from serval_node import socket as serval
def serve(conn):
    digest = hashlib.sha256()
    with conn:
        while data := conn.recv(65536): digest.update(data)
        conn.sendall(digest.digest())
with serval.create_server("web.example", backlog=64) as server:
    print("up", flush=True)
    while True: threading.Thread(target=serve, args=(server.accept()[0],), daemon=True).start()
"""

# Sends until a line comes, then compares its own digest with the server's.
TRANSFER = """
import hashlib, sys, threading, time
from serval_node import socket as serval
conn = serval.create_connection("web.example")
stop = threading.Event()
threading.Thread(target=lambda: (sys.stdin.readline(), stop.set()), daemon=True).start()
print("up", flush=True)
digest, number = hashlib.sha256(), 0
while not stop.wait(0.005):
    block = number.to_bytes(4, "big") * 2048
    conn.sendall(block); digest.update(block); number += 1
conn.shutdown(1)
print(conn.recv(64) == digest.digest(), number, flush=True)
"""

CONNECTS = """
import hashlib, sys
from serval_node import socket as serval
for _ in range(int(sys.argv[1])):
    with serval.create_connection("web.example", 10) as conn:
        conn.shutdown(1)
        assert conn.recv(64) == hashlib.sha256(b"").digest()
print("all")
"""

# The handshake of the next connection and its last data, as this host's network sees it.
OBSERVER = """
import json, socket, sys
from serval_node.wire.ipv4 import Ipv4Header
from serval_node.wire.sal_header import decode
from serval_node.wire.transport import TcpHeader
raw = socket.socket(socket.AF_INET, socket.SOCK_RAW, 144)
raw.settimeout(20)
print("up", flush=True)
nonce = data = None
while nonce is None or data is None:
    packet = raw.recv(65536)
    header = Ipv4Header.decode(packet)
    sal = decode(header.payload(packet))
    if sal.control is not None and sal.control.flags == 0x80:
        nonce, verno, flow = sal.control.nonce.hex(), sal.control.verno, sal.src_flow
    elif nonce is not None and sal.control is None and sal.src_flow == flow:
        tcp = TcpHeader.decode(sal.payload)
        if len(sal.payload) > tcp.header_length: data = tcp.seq + len(sal.payload) - tcp.header_length, tcp.ack
print(json.dumps({"nonce": nonce, "verno": verno, "seq": data[0] % 2**32, "ack": data[1]}), flush=True)
"""

SPEAKER = """
import sys
from serval_node import socket as serval
if sys.argv[1] == "serve":
    with serval.create_server("talk.example") as server:
        print("up", flush=True)
        conn, _ = server.accept()
        while data := conn.recv(100): print(data.decode().strip(), flush=True)
else:
    conn = serval.create_connection("talk.example")
    conn.sendall(b"from ann"); print("up", flush=True); sys.stdin.readline()
"""


@pytest.fixture(scope="module")
def net() -> Iterator[HostNet]:
    with host_net() as net:
        yield net


@pytest.fixture(scope="module")
def ann(net: HostNet) -> Host:
    return net.add("ann")


@pytest.fixture(scope="module")
def dan(net: HostNet, ann: Host) -> Host:
    host = net.add("dan", role="router")
    for service in ("web.example", "talk.example"):
        ann.forward(service, host.address)
    program(host, SERVER)
    wait_for("the rule", lambda: host.rules("web.example"))
    return host


# The command line of tests.adversary, imported once.
ATTACKER = """
import json, sys
from tests.adversary.__main__ import main
print("up", flush=True)
for line in sys.stdin:
    assert main(json.loads(line)) == 0
    print("done", flush=True)
"""


class Attacker:
    """A host beside the others that sends attacks."""

    def __init__(self, host: Host) -> None:
        self._process = program(host, ATTACKER)

    def start(self, name: str, victim: Host, *words: str) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps([name, victim.address, *words]) + "\n")
        self._process.stdin.flush()

    def wait(self) -> None:
        assert self._process.stdout is not None
        while (line := self._process.stdout.readline()) != "done\n":
            assert line, "the attacker has ended"

    def send(self, name: str, victim: Host, *words: str) -> None:
        self.start(name, victim, *words)
        self.wait()


@pytest.fixture(scope="module")
def mal(net: HostNet) -> Attacker:
    return Attacker(net.add_plain("mal"))


def program(host: Host, text: str, *words: str) -> subprocess.Popen[str]:
    """A program that has said "up"."""
    environment = {**os.environ, "SERVAL_CONTROL": str(host.run_dir / "control.sock")}
    pipe = subprocess.PIPE
    process = host.popen(sys.executable, "-c", text, *words, stdin=pipe, stdout=pipe, text=True, env=environment)
    assert process.stdout is not None and process.stdout.readline() == "up\n"
    return process


def refused(victim: Host, name: str, before: dict[str, int], least: int = 20) -> None:
    """Everything that was sent is counted under the attack's names."""
    names = ATTACKS[name].refused

    def counted() -> int:
        now = victim.counters()
        return sum(now.get(item, 0) - before.get(item, 0) for item in names)

    wait_for(f"the refusals of {name}, counted as {names}", lambda: counted() >= least)


def flow(host: Host, service: str) -> dict[str, Any]:
    return next(row for row in host.ask("flows")["flows"] if row["state"] == "CONNECTED" and service in row["service"])


def service_id(host: Host, name: str) -> str:
    return host.ask("resolve", service=name)["prefix"].partition("/")[0]


@pytest.fixture
def transfer(ann: Host, dan: Host) -> Iterator[None]:
    """A transfer that is there before the attacks and arrives whole after them."""
    process = program(ann, TRANSFER)
    yield
    output, _ = process.communicate("stop\n", timeout=30)
    exact, blocks = output.split()
    assert exact == "True" and int(blocks) > 10


@pytest.mark.statement("S48", "S10")
def test_a_connection_survives_what_is_forged_for_it(ann: Host, dan: Host, mal: Attacker, transfer: None) -> None:
    """The attacker even knows both flowIDs and addresses, which are no secret on the way; nonces and numbers are."""
    ours = flow(ann, "web.example")
    towards_server = "--flows", f"{ours['flow_id']}:{ours['peer_flow']}", "--source", ann.address
    towards_client = "--flows", f"{ours['peer_flow']}:{ours['flow_id']}", "--source", dan.address
    for name in ("blind-rst", "blind-fin", "forged-ack", "forged-rsyn"):
        for victim, known in ((dan, towards_server), (ann, towards_client)):
            before = victim.counters()
            mal.send(name, victim, *known)
            refused(victim, name, before)
    before = ann.counters()
    mal.send("forged-syn-ack", ann, *towards_client)
    refused(ann, "forged-syn-ack", before)
    for name in ("malformed", "wrong-flow"):
        before = dan.counters()
        mal.send(name, dan, "--count", "60")
        refused(dan, name, before, 60)
    assert flow(ann, "web.example")["flow_id"] == ours["flow_id"]
    assert (flow(ann, "web.example")["peer"], flow(dan, "web.example")["peer"]) == (dan.address, ann.address)


@pytest.mark.statement("S11", "S48")
def test_floods_leave_room_for_honest_clients(ann: Host, dan: Host, mal: Attacker, transfer: None) -> None:
    web, before = service_id(ann, "web.example"), dan.counters()
    mal.send("full-source", dan, "--service", web)
    refused(dan, "full-source", before)
    # One client with far more requests than there is room for; then each of another client.
    for sources in (("--source", "10.66.0.1"), ()):
        before = dan.counters()
        mal.start("syn-flood", dan, "--service", web, "--count", "2000", "--rate", "1500", *sources)
        wait_for("a full table", lambda: dan.counters().get("half_open_full", 0) > before.get("half_open_full", 0) + 50)  # noqa: B023
        done = ann.python(CONNECTS, "5", env={**os.environ, "SERVAL_CONTROL": str(ann.run_dir / "control.sock")})
        assert done.stdout == "all\n"
        mal.wait()
        rows = dan.ask("flows")["flows"]
        assert len({row["flow_id"] for row in rows}) == len(rows), "each has a flowID of its own"
        assert sum(row["state"] == "RESPOND" for row in rows) <= 1024
    opened = dan.ask("events", kinds=["FlowOpened"])["events"]
    assert len(opened) >= 11, "the flood has not pushed them out of the log"


@pytest.mark.statement("S48")
def test_delay_and_searches_are_bounded(dan: Host, ann: Host, mal: Attacker) -> None:
    dan.ask("rule_set", prefix="later.example", targets=[{"action": "delay"}])
    before = dan.counters()
    mal.send("delay-flood", dan, "--service", service_id(dan, "later.example"), "--count", "400")
    refused(dan, "delay-flood", before, 400 - 256)
    (waiting,) = dan.ask("delayed")["delayed"]
    assert waiting["packets"] == 256
    dan.ask("delay_verdict", service="later.example", verdict="drop")
    dan.forward("away.example", ann.address)
    before, unknown = dan.counters(), ann.counters().get("unknown_flow", 0)
    mal.send("search-flood", dan, "--service", service_id(dan, "away.example"), "--count", "400", "--rate", "4000")
    refused(dan, "search-flood", before, 200)
    assert ann.counters().get("unknown_flow", 0) < unknown + 200


@pytest.mark.statement("S10", "S48")
def test_flow_ids_find_the_socket_from_anywhere_and_old_control_does_not(ann: Host, dan: Host, mal: Attacker) -> None:
    """Who has seen a connection's packets can send its data from another place, but cannot replay its control."""
    observer = program(dan, OBSERVER)
    server = program(dan, SPEAKER, "serve")
    wait_for("the rule", lambda: dan.rules("talk.example"))
    program(ann, SPEAKER, "connect")
    assert server.stdout is not None and observer.stdout is not None
    assert server.stdout.readline() == "from ann\n"
    seen, ours = json.loads(observer.stdout.readline()), flow(ann, "talk.example")
    flows = "--flows", f"{ours['flow_id']}:{ours['peer_flow']}"
    before = dan.counters()
    mal.send("replayed-rsyn", dan, *flows, "--nonce", seen["nonce"], "--verno", str(seen["verno"]))
    refused(dan, "replayed-rsyn", before)
    assert flow(dan, "talk.example")["peer"] == ann.address
    mal.send("moved-data", dan, *flows, "--tcp", f"{seen['seq']}:{seen['ack']}", "--count", "1")
    assert server.stdout.readline() == "from elsewhere\n"
    assert flow(dan, "talk.example")["peer"] == ann.address, "data moves nothing"
