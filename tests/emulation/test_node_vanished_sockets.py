"""A kernel socket that ends without a packet ends its flow: nothing waits in the flow table for a time-out of hours."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator

import pytest

from tests.emulation.node_hosts import BRIDGE, Host, HostNet, command, host_net, wait_for

GIVE_UP = """
import socket
from serval_node import socket as serval
with serval.socket() as conn:
    conn.settimeout(0.5)
    try:
        conn.connect("silent.example")
    except TimeoutError:
        pass
    print("waiting", flush=True); input()
"""

ACCEPT = """
from serval_node import socket as serval
with serval.create_server("kept.example") as server:
    print("up", flush=True)
    conn, _ = server.accept()
    try:
        print(conn.recv(10), flush=True)
    except ConnectionResetError:
        print("reset", flush=True)
"""

TIME_OUT = """
import socket
from serval_node import socket as serval
conn = serval.create_connection("kept.example", 10)
print("open", flush=True); input()
conn.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, 1000)
conn.sendall(b"lost")
try:
    conn.recv(10)
except OSError as error:
    print(type(error).__name__, flush=True)
input()
conn.close()
print("closed", flush=True); input()
"""


@pytest.fixture(scope="module")
def net() -> Iterator[HostNet]:
    with host_net() as net:
        for host in [net.add_plain(name) for name in ("ann", "dan")]:
            net.start_node(host)
        yield net


def start(host: Host, program: str) -> subprocess.Popen[str]:
    return host.popen(sys.executable, "-c", program, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)


def line(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    return process.stdout.readline().strip()


def go_on(process: subprocess.Popen[str]) -> None:
    assert process.stdin is not None
    process.stdin.write("\n")
    process.stdin.flush()


def end(*processes: subprocess.Popen[str]) -> None:
    for process in processes:
        process.communicate("\n", timeout=20)


def flows(host: Host, service: str) -> list[str]:
    return [flow["state"] for flow in host.ask("flows")["flows"] if flow["service"] == service]


def test_a_connect_that_was_given_up_leaves_no_request(net: HostNet) -> None:
    ann = net.hosts["ann"]
    ann.forward("silent.example", net.hosts["dan"].address)
    program = start(ann, GIVE_UP)
    assert line(program) == "waiting"
    assert flows(ann, "silent.example") == ["REQUEST"]
    end(program)
    wait_for("the end of the request", lambda: not flows(ann, "silent.example"), 5)


def test_a_connection_that_timed_out_is_reset_at_its_peer(net: HostNet) -> None:
    """The peer could not be reached for a while; when it can again, it learns that the connection is over."""
    ann, dan = net.hosts["ann"], net.hosts["dan"]
    ann.forward("kept.example", dan.address)
    server = start(dan, ACCEPT)
    assert line(server) == "up"
    client = start(ann, TIME_OUT)
    assert line(client) == "open"
    command("ip", "link", "set", "p-ann", "nomaster")
    go_on(client)
    assert line(client) == "TimeoutError"
    command("ip", "link", "set", "p-ann", "master", BRIDGE)
    assert flows(ann, "kept.example") == ["CONNECTED"]
    go_on(client)
    assert line(client) == "closed"
    assert line(server) == "reset"
    assert flows(ann, "kept.example") == ["CLOSED"]
    wait_for("the end of the flow at its peer", lambda: not flows(dan, "kept.example"), 10)
    end(client, server)
