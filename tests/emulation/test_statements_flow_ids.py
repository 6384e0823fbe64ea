"""FlowIDs are local to a host, unique in it, and not given out again too early (S11): nodes with only 31 of them."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from serval_node.control.local import ControlError
from tests.emulation.node_hosts import PROVIDERS, Host, host_net, wait_for

IDS = 31

NODE = """
import random, sys
from serval_node.daemon.servald import main
from serval_node.sal.flow_table import FlowTable

class Few:
    def getrandbits(self, _bits): return random.SystemRandom().getrandbits(5)

start = FlowTable.__init__
def few(self, rng):
    start(self, rng)
    self._rng = Few()
FlowTable.__init__ = few
sys.exit(main())
"""
"""A node as it is, but for its flow table, which draws flowIDs of 5 bits."""

SERVER = """
from serval_node import socket as serval
import threading
def talk(conn):
    with conn:
        while data := conn.recv(100): conn.sendall(data)
with serval.create_server("few.example") as server:
    print("up", flush=True)
    while True: threading.Thread(target=talk, args=(server.accept()[0],)).start()
"""

CLIENT = """
import sys
from serval_node import socket as serval
conns = []
for line in sys.stdin:
    word, number = line.split()
    if word == "open":
        conns += [serval.create_connection("few.example", 10) for _ in range(int(number))]
    if word == "close":
        for conn in conns[:int(number)]: conn.shutdown(1); assert conn.recv(10) == b""; conn.close()
        del conns[:int(number)]
    for number, conn in enumerate(conns): conn.sendall(b"connection %d" % number)
    for number, conn in enumerate(conns): assert conn.recv(100) == b"connection %d" % number
    print(len(conns), flush=True)
"""


@pytest.fixture
def pair(tmp_path: Path) -> Iterator[tuple[Host, Host]]:
    with host_net() as net:
        hosts = net.add_plain("ann"), net.add_plain("dan")
        for number, host in enumerate(hosts, 1):
            config = {"name": host.name, "node_id": number, "providers": PROVIDERS, "run_dir": str(host.run_dir)}
            path = tmp_path / f"{host.name}.json"
            path.write_text(json.dumps(config))
            host.popen(sys.executable, "-c", NODE, "--config", str(path), stdout=subprocess.DEVNULL)
            wait_for(f"the node of {host.name}", lambda: is_up(host))  # noqa: B023
        yield hosts


def is_up(host: Host) -> bool:
    try:
        return bool(host.ask("status"))
    except ControlError:
        return False


def program(host: Host, text: str) -> subprocess.Popen[str]:
    environment = {**os.environ, "SERVAL_CONTROL": str(host.run_dir / "control.sock")}
    pipe = subprocess.PIPE
    return host.popen(sys.executable, "-c", text, stdin=pipe, stdout=pipe, text=True, env=environment)


def states(host: Host) -> dict[int, str]:
    """FlowID -> state; a flowID that stands for two flows is a failure."""
    rows = [(flow["flow_id"], flow["state"]) for flow in host.ask("flows")["flows"]]
    assert len(dict(rows)) == len(rows)
    assert all(0 < flow_id <= IDS for flow_id, _ in rows)
    return dict(rows)


def connected(host: Host) -> set[int]:
    return {flow_id for flow_id, state in states(host).items() if state == "CONNECTED"}


@pytest.mark.statement("S11")
def test_flow_ids_are_local_unique_and_not_reused_early(pair: tuple[Host, Host]) -> None:
    ann, dan = pair
    server = program(dan, SERVER)
    assert server.stdout is not None
    assert server.stdout.readline() == "up\n"
    ann.forward("few.example", dan.address)
    client = program(ann, CLIENT)

    def do(words: str, left: int) -> None:
        assert client.stdin is not None and client.stdout is not None
        client.stdin.write(words + "\n")
        client.stdin.flush()
        assert client.stdout.readline() == f"{left}\n", words

    do("open 20", 20)
    near, far = connected(ann), connected(dan)
    assert (len(near), len(far)) == (20, 20)
    assert len(near & far) >= 2 * 20 - IDS, "both hosts use the same numbers, and every connection got its own bytes"
    do("close 10", 10)
    wait_for("the end of ten flows at both", lambda: len(connected(ann)) == len(connected(dan)) == 10)
    old_near, old_far = states(ann), states(dan)
    waiting = [state for state in (*old_near.values(), *old_far.values()) if state == "TIMEWAIT"]
    assert len(waiting) >= 10, "one end of each keeps its flowID"
    do("open 8", 18)
    assert not (connected(ann) - near) & old_near.keys()
    for host, old in ((ann, old_near), (dan, old_far)):
        now = states(host)
        assert len(now) == len(old) + 8, f"{host.name}: none of the {len(old)} flowIDs was given out again"
        assert {flow_id: now[flow_id] for flow_id in old} == old
