"""A service router between a client and two instances: real nodes, rules made by hand (slides 32 to 37)."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import time
from collections.abc import Iterator

import pytest

from tests.emulation.node_hosts import Host, HostNet, host_net, refusal, wait_for

ANSWER = """
import socket, sys
from serval_node import socket as serval
with serval.create_server(sys.argv[1]) as server:
    print("up", flush=True)
    while True:
        conn, _ = server.accept()
        with conn: conn.sendall(sys.argv[2].encode())
"""


class Figure:
    """The slide's figure: client a, service router c, instances d and e."""

    def __init__(self, net: HostNet) -> None:
        self.net = net
        hosts = {name: net.add_plain(name) for name in ("ann", "cleo", "dan", "eve")}
        for name, host in hosts.items():
            router = {"role": "router", "serves": ["example"]} if name == "cleo" else {}
            net.start_node(host, **router)
        self.ann, self.cleo, self.dan, self.eve = hosts.values()
        for host in (self.dan, self.eve):
            self.serve(host, "web.example")
        self.ann.forward("*.example", self.cleo.address)

    def serve(self, host: Host, service: str) -> subprocess.Popen[str]:
        process = host.popen(sys.executable, "-c", ANSWER, service, host.name, stdout=subprocess.PIPE, text=True)
        assert process.stdout is not None
        assert process.stdout.readline() == "up\n"
        return process

    def connects(self, count: int, service: str = "web.example") -> dict[str, int]:
        done = self.ann.serval("connect", service, "--count", str(count), "--json")
        return json.loads(done.stdout)["split"]


@pytest.fixture(scope="module")
def figure() -> Iterator[Figure]:
    with host_net() as net:
        yield Figure(net)


@pytest.fixture(autouse=True)
def balanced(figure: Figure) -> None:
    figure.cleo.forward("web.example", figure.dan.address, figure.eve.address, selector="round-robin")


def packets(host: Host, service: str) -> list[int]:
    return [target["packets"] for target in host.rules(service)]


@pytest.mark.statement("S9", "S30", "S39")
def test_connects_are_shared_and_counted_to_the_packet(figure: Figure) -> None:
    """S9, S24, S30, S39: the router's selector decides, one packet per connection passes it."""
    edge, router = packets(figure.ann, "*.example"), packets(figure.cleo, "web.example")
    assert figure.connects(10) == {"dan": 5, "eve": 5}
    assert packets(figure.ann, "*.example") == [edge[0] + 10]
    assert packets(figure.cleo, "web.example") == [router[0] + 5, router[1] + 5]
    assert figure.cleo.counters()["flows"] == 0, "the router keeps no flow"


@pytest.mark.statement("S38", "S39", "S41")
def test_the_trace_tells_the_slides_story(figure: Figure) -> None:
    text = figure.ann.serval("trace", "web.example").stdout
    flow = r"flow (\d+)"
    expected = [
        r"ann +connect\(web\.example\)",
        r"ann +rule \*\.example: FORWARD cleo",
        rf"ann +SYN \{{ann, {flow} -> cleo, flow -; web\.example\}}",
        r"cleo +rule web\.example: round-robin of 2; destination cleo -> (dan|eve), source ann kept",
        rf"(dan|eve) +rule web\.example: DEMUX to port \d+; new {flow}",
        rf"ann +SYN-ACK \{{(dan|eve), {flow} -> {flow}\}} straight from (dan|eve);.* ann -> cleo -> (dan|eve)",
        rf"(dan|eve) +ACK; from here data ann, {flow} <-> (dan|eve), {flow} directly",
    ]
    lines = text.splitlines()
    assert lines[0].split() == ["MS", "HOST", "STEP"]
    for line, pattern in zip(lines[1:], expected, strict=False):
        assert re.search(pattern, line), (line, pattern)
    times = [float(line.split()[0]) for line in lines[1:-1]]
    assert len(times) == len(expected)
    assert times == sorted(times)
    assert re.fullmatch(r"connect\(\) took \d+\.\d\d ms", lines[-1])


@pytest.mark.statement("S43")
def test_a_connection_stays_with_its_instance_when_rules_change(figure: Figure) -> None:
    """S43: an open connection goes on while the router sends everyone elsewhere, or refuses everyone."""
    program = """
import sys
from serval_node import socket as serval
with serval.create_server("stay.example") as server:
    print("up", flush=True)
    conn, _ = server.accept()
    while data := conn.recv(100): conn.sendall(data.upper())
"""
    client = """
import sys
from serval_node import socket as serval
conn = serval.create_connection("stay.example", 10)
for line in sys.stdin:
    conn.sendall(line.encode()); print(conn.recv(100).decode(), end="", flush=True)
"""
    server = figure.dan.popen(sys.executable, "-c", program, stdout=subprocess.PIPE, text=True)
    assert server.stdout is not None
    assert server.stdout.readline() == "up\n"
    figure.cleo.forward("stay.example", figure.dan.address)
    process = figure.ann.popen(sys.executable, "-c", client, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert process.stdin is not None and process.stdout is not None

    def say(text: str) -> None:
        assert process.stdin is not None and process.stdout is not None
        process.stdin.write(text + "\n")
        process.stdin.flush()
        assert process.stdout.readline() == text.upper() + "\n"

    say("before")
    figure.cleo.forward("stay.example", figure.eve.address)
    say("elsewhere")
    figure.cleo.ask("rule_set", prefix="stay.example", targets=[{"action": "drop"}])
    figure.ann.ask("rule_set", prefix="stay.example", targets=[{"action": "drop"}])
    say("dropped")
    figure.ann.ask("rule_remove", prefix="stay.example")


@pytest.mark.statement("S29", "S43")
def test_a_killed_instance_gets_no_connection_after_its_rule(figure: Figure) -> None:
    """S34: a SYN for a listener that is gone stays unanswered, and its repetition goes elsewhere (S43)."""
    process = figure.serve(figure.dan, "fragile.example")
    figure.serve(figure.eve, "fragile.example")
    figure.cleo.forward("fragile.example", figure.dan.address)
    assert figure.connects(2, "fragile.example") == {"dan": 2}
    process.kill()
    process.wait()
    wait_for("the end of the rule", lambda: not figure.dan.rules("fragile.example"))
    late = figure.ann.popen(
        sys.executable, "-m", "serval_node.cli", "connect", "fragile.example", stdout=subprocess.PIPE, text=True
    )
    refused = wait_for("the SYN at dan", lambda: figure.dan.counters().get("no_rule"))
    figure.cleo.forward("fragile.example", figure.eve.address)
    assert late.stdout is not None
    assert late.stdout.read() == "eve"
    assert refused >= 1


@pytest.mark.statement("S29")
def test_a_name_that_no_rule_knows_fails_at_once(figure: Figure) -> None:
    """S29: the router answers RST with the SYN's nonce."""
    started = time.monotonic()
    done = figure.ann.serval("connect", "typo.example", check=False)
    assert (done.returncode, done.stderr) == (1, "serval: nobody serves typo.example\n")
    assert time.monotonic() - started < 3


@pytest.mark.statement("S26")
def test_delay_holds_a_syn_until_there_is_a_rule(figure: Figure) -> None:
    """S26: one queue place, one notification, release when FORWARD comes; connect() just takes longer."""
    figure.cleo.ask("rule_set", prefix="later.example", targets=[{"action": "delay"}])
    before = figure.cleo.ask("events")["now"]
    clients = [
        figure.ann.popen(
            sys.executable, "-m", "serval_node.cli", "connect", "later.example", stdout=subprocess.PIPE, text=True
        )
        for _ in range(3)
    ]
    wait_for(
        "three SYNs in the queue", lambda: [row["packets"] for row in figure.cleo.ask("delayed")["delayed"]] == [3]
    )
    notices = [event for event in figure.cleo.ask("events", since=before)["events"] if event["event"] == "DelayNotify"]
    assert [(event["service_id"], event["prefix"]) for event in notices] == [("later.example", "later.example")]
    figure.serve(figure.eve, "later.example")
    figure.cleo.forward("later.example", figure.eve.address)
    for client in clients:
        assert client.stdout is not None
        assert client.stdout.read() == "eve"
    assert figure.cleo.ask("delayed")["delayed"] == []
    assert "nothing waits" in refusal(figure.cleo, "delay_verdict", service="later.example", verdict="release")


def test_a_verdict_drops_what_waits_on_the_own_host(figure: Figure) -> None:
    figure.ann.ask("rule_set", prefix="wait.example", targets=[{"action": "delay"}])
    client = figure.ann.popen(
        sys.executable, "-m", "serval_node.cli", "connect", "wait.example", stderr=subprocess.PIPE, text=True
    )
    wait_for("the SYN in the queue", lambda: figure.ann.ask("delayed")["delayed"])
    figure.ann.ask("delay_verdict", service="wait.example", verdict="drop")
    assert client.stderr is not None
    assert client.stderr.read().startswith("serval: ")
    assert client.wait(10) == 1


@pytest.mark.statement("S28")
def test_drop_at_a_router_is_silent_and_counted(figure: Figure) -> None:
    """S28: the connect runs into its time-out."""
    figure.cleo.ask("rule_set", prefix="silent.example", targets=[{"action": "drop"}])
    done = figure.ann.serval("connect", "silent.example", "--timeout", "0.5", check=False)
    assert (done.returncode, done.stderr) == (1, "serval: no answer from silent.example within 0.5 s\n")
    assert figure.cleo.counters()["drop_rule"] >= 1
    assert figure.cleo.rules("silent.example")[0]["dropped_packets"] >= 1


@pytest.mark.statement("S15")
def test_the_longest_prefix_wins_and_its_removal_exposes_the_next(figure: Figure) -> None:
    """S15, S16: one rule for the block at the edge; a narrower bind takes its SYNs from the wider one."""
    figure.serve(figure.eve, "narrow.example:7")
    figure.serve(figure.dan, "narrow.example")
    figure.cleo.forward("narrow.example", figure.dan.address)
    figure.cleo.forward("narrow.example:7", figure.eve.address)
    assert figure.connects(2, "narrow.example:7") == {"eve": 2}
    assert figure.connects(2, "narrow.example") == {"dan": 2}
    assert figure.connects(2, "narrow.example:8") == {"dan": 2}
    table = figure.cleo.serval("table").stdout
    assert re.search(r"narrow\.example:7 .*takes its SYNs from narrow\.example", table)
    met = [line.split()[0] for line in figure.cleo.serval("table", "narrow.example:7").stdout.splitlines()[1:]]
    assert met == ["narrow.example:7", "narrow.example"]
    figure.cleo.ask("rule_remove", prefix="narrow.example:7")
    assert figure.connects(2, "narrow.example:7") == {"dan": 2}


def test_a_service_of_the_own_host(figure: Figure) -> None:
    """A DEMUX rule of the client's own host wins over the block's FORWARD."""
    figure.serve(figure.ann, "home.example")
    assert figure.ann.serval("connect", "home.example").stdout == "ann"


@pytest.mark.statement("S21")
def test_the_flow_table_shows_both_ends(figure: Figure) -> None:
    """S21, S41: flowIDs are each host's own, the pair is known at both."""
    program = """
import sys
from serval_node import socket as serval
conn = serval.create_connection(("both.example", 99), 10)
print("up", flush=True); sys.stdin.read()
"""
    server = """
from serval_node import socket as serval
with serval.create_server("both.example") as s:
    print("up", flush=True); conn, _ = s.accept(); conn.recv(1)
"""
    other = figure.dan.popen(sys.executable, "-c", server, stdout=subprocess.PIPE, text=True)
    assert other.stdout is not None
    assert other.stdout.readline() == "up\n"
    figure.cleo.forward("both.example", figure.dan.address)
    client = figure.ann.popen(sys.executable, "-c", program, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert client.stdout is not None
    assert client.stdout.readline() == "up\n"

    def row(host: Host) -> dict[str, object]:
        return wait_for(
            f"the flow at {host.name}",
            lambda: next(
                (
                    flow
                    for flow in host.ask("flows")["flows"]
                    if flow["service"] == "both.example:99" and flow["state"] == "CONNECTED"
                ),
                None,
            ),
        )

    near, far = row(figure.ann), row(figure.dan)
    assert (near["flow_id"], near["peer_flow"]) == (far["peer_flow"], far["flow_id"])
    assert (near["local"], near["peer"]) == (figure.ann.address, figure.dan.address)
    assert (near["incoming"], far["incoming"]) == (False, True)
    assert str(far["flow_id"]) in figure.dan.serval("flows").stdout


@pytest.mark.statement("S25")
def test_demux_from_outside_names_a_listening_port(figure: Figure) -> None:
    """What a controller pushes too: refused when nothing listens, gone with the socket."""
    target = [{"action": "demux", "port": 8123}]
    assert "nothing listens" in refusal(figure.dan, "rule_set", prefix="pushed.example", targets=target)
    program = "import socket; s = socket.create_server(('127.0.0.1', 8123)); s.accept()[0].sendall(b'pushed'); input()"
    process = figure.dan.popen(sys.executable, "-c", program, stdin=subprocess.PIPE)
    wait_for("the listener", lambda: 8123 in {row["port"] for row in figure.dan.ask("listeners")["listeners"]})
    figure.dan.ask("rule_set", prefix="pushed.example", targets=target)
    assert figure.dan.rules("pushed.example")[0]["where"] == "127.0.0.1:8123"
    figure.cleo.forward("pushed.example", figure.dan.address)
    assert figure.ann.serval("connect", "pushed.example").stdout == "pushed"
    process.kill()
    wait_for("the end of the rule", lambda: not figure.dan.rules("pushed.example"))
