"""Datagrams on the running system: unmodified UDP programs by name, and both kinds of sockets of serval_node.socket."""

from __future__ import annotations

import errno
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import pytest

from serval_node.wire.serviceid import ServiceID
from tests.emulation.node_hosts import Host, HostNet, host_net, wait_for

ECHO = """
import socket
server = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
server.bind(("0.0.0.0", 7007))
while True:
    data, peer = server.recvfrom(65536)
    server.sendto(data, peer)
"""

# One socket without connect(), as most UDP programs have; prints what came back for each line of its input.
CLIENT = """
import socket, sys
client = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
client.settimeout(5)
for line in sys.stdin:
    size = int(line)
    client.sendto(bytes(size), (sys.argv[1], 1))
    data, peer = client.recvfrom(65536)
    print(len(data), peer[0] == socket.gethostbyname(sys.argv[1]), flush=True)
"""

# A named socket that tells who sent what, and answers.
RECEIVER = """
import sys
from serval_node import socket as serval
with serval.datagram_socket(sys.argv[1]) as sock:
    print("up", flush=True)
    while True:
        data, sender = sock.recvfrom(2048)
        print(data.decode(), sender, flush=True)
        sock.sendto(data.upper(), sender)
"""


class Figure:
    """Client ann with two addresses, service router cleo, instance dan."""

    def __init__(self, net: HostNet) -> None:
        self.ann, self.cleo, self.dan = (net.add_plain(name) for name in ("ann", "cleo", "dan"))
        self.ann.run("ip", "address", "add", "10.9.0.101/24", "dev", "eth0")
        for host in (self.ann, self.cleo, self.dan):
            net.start_node(host, **({"role": "router", "serves": ["example"]} if host is self.cleo else {}))
        self.ann.forward("*.example", self.cleo.address)
        self.dan.forward("*.example", self.cleo.address)
        for service, host in (("echo.example", self.dan), ("log.example", self.dan), ("ann.example", self.ann)):
            self.cleo.forward(service, host.address)

    def start_echo(self) -> subprocess.Popen[Any]:
        words = ("run", "--service", "echo.example", "--udp", "7007", "--", sys.executable, "-c", ECHO)
        server = self.dan.popen(sys.executable, "-m", "serval_node.cli", *words)
        wait_for("the rule of the UDP port", lambda: self.dan.rules("echo.example"))
        return server

    def client(self) -> subprocess.Popen[str]:
        return self.ann.popen(
            sys.executable, "-c", CLIENT, "echo.example", stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )


@pytest.fixture(scope="module")
def figure() -> Iterator[Figure]:
    with host_net() as net:
        yield Figure(net)


def udp_flows(host: Host) -> list[dict[str, Any]]:
    return [flow for flow in host.ask("flows")["flows"] if flow["protocol"] == "udp" and flow["state"] == "CONNECTED"]


def exchange(client: subprocess.Popen[str], size: int) -> str:
    assert client.stdin is not None and client.stdout is not None
    client.stdin.write(f"{size}\n")
    client.stdin.flush()
    return client.stdout.readline()


@pytest.mark.statement("S8")
def test_unmodified_programs_talk_by_name_and_their_flow_lives_as_long_as_they(figure: Figure) -> None:
    server, client = figure.start_echo(), figure.client()
    for size in (1, 600, 1400, 0, 1400):
        assert exchange(client, size) == f"{size} True\n"
    (flow,) = udp_flows(figure.ann)
    (other,) = udp_flows(figure.dan)
    assert (flow["peer"], flow["peer_flow"]) == (figure.dan.address, other["flow_id"])
    assert flow["packets_out"] == flow["packets_in"] == other["packets_in"] == 5
    assert "198.18.0.1:7007/udp" in figure.dan.serval("flows").stdout
    assert figure.cleo.rules("echo.example")[0]["packets"] == 1, "the router sees the SYN alone"
    client.communicate(timeout=5)
    wait_for("the end of the client's flow", lambda: not udp_flows(figure.ann) and not udp_flows(figure.dan))
    os.killpg(server.pid, signal.SIGKILL)
    server.wait(10)
    wait_for("the end of the rule", lambda: not figure.dan.rules("echo.example"))


@pytest.mark.statement("S45")
def test_a_flow_of_datagrams_moves_and_none_is_lost(figure: Figure) -> None:
    server, client = figure.start_echo(), figure.client()
    assert exchange(client, 100) == "100 True\n"
    (flow,) = udp_flows(figure.ann)
    for place in ("10.9.0.101", figure.ann.address, "10.9.0.101"):
        figure.ann.serval("migrate", "flow", str(flow["flow_id"]), place)
        for _ in range(10):
            assert exchange(client, 1400) == "1400 True\n"
        wait_for("the move", lambda place=place: udp_flows(figure.dan)[0]["peer"] == place)  # type: ignore[misc]
    (after,) = udp_flows(figure.ann)
    assert (after["flow_id"], after["packets_out"], after["packets_in"]) == (flow["flow_id"], 31, 31)
    client.communicate(timeout=5)
    os.killpg(server.pid, signal.SIGKILL)
    server.wait(10)


SENDER = """
import json, sys
from serval_node import socket as serval
own, service, count = sys.argv[1:]
with serval.datagram_socket(own or None) as sock:
    sock.settimeout(5)
    answers = []
    for number in range(int(count)):
        sock.sendto(b"hello %d" % number, service)
        data, sender = sock.recvfrom(2048)
        answers.append([data.decode(), sender.hex()])
    too_long = None
    try:
        for _ in range(3):
            sock.sendto(bytes(1468), service)
    except OSError as error:
        too_long = error.errno
    print(json.dumps({"answers": answers, "too_long": too_long}))
"""


@pytest.mark.statement("S8", "S13")
def test_unconnected_sockets_name_both_services(figure: Figure) -> None:
    """Each datagram passes the router; receiver and sender know each other's serviceID; no flow is made."""
    receiver = figure.dan.popen(sys.executable, "-c", RECEIVER, "log.example", stdout=subprocess.PIPE, text=True)
    assert receiver.stdout is not None and receiver.stdout.readline() == "up\n"
    log_id = figure.dan.ask("address", name="log.example")["service"].removeprefix("0x")
    for own in ("ann.example", ""):
        done = json.loads(figure.ann.python(SENDER, own, "log.example", "5").stdout)
        assert [text for text, _ in done["answers"]] == [f"HELLO {number}" for number in range(5)]
        assert {sender for _, sender in done["answers"]} == {log_id}
        assert done["too_long"] == errno.EMSGSIZE
        heard = [receiver.stdout.readline().split() for _ in range(5)]
        senders = {words[2] for words in heard}
        assert len(senders) == 1
        if own:
            (sender,) = senders
            assert ServiceID.from_hex(sender).hex() == figure.ann.ask("address", name=own)["service"].removeprefix("0x")
    assert figure.cleo.rules("log.example")[0]["packets"] >= 10, "resolved one by one"
    assert not udp_flows(figure.ann)
    wait_for("the end of the rules of ended sockets", lambda: not figure.ann.rules("ann.example"))
    assert not [flow for flow in figure.ann.ask("flows")["flows"] if flow["state"] == "RESERVED"]
    receiver.kill()
    wait_for("the end of the receiver's rule", lambda: not figure.dan.rules("log.example"))


def test_commands_speak_datagrams(figure: Figure) -> None:
    """`serval bind --udp` and `serval connect --udp`; who asks for nobody's service is told."""
    echo = figure.dan.popen(sys.executable, "-m", "serval_node.cli", "bind", "log.example", "--udp")
    rule = wait_for("the rule", lambda: figure.dan.rules("log.example"))
    assert rule[0]["protocol"] == "udp" and rule[0]["where"].endswith("/udp")
    done = figure.ann.serval("connect", "log.example", "--udp", input="one\ntwo\n")
    assert done.stdout == "one\ntwo\n"
    echo.terminate()
    echo.wait(10)
    wait_for("the end of the rule", lambda: not figure.dan.rules("log.example"))
    done = figure.ann.serval("connect", "nobody.example", "--udp", input="x\n", check=False)
    assert (done.returncode, done.stderr) == (1, "serval: nobody serves nobody.example with datagrams\n")
