"""Registration, rules and tables of the running datacenter: what a bind and a close change, where, and how fast."""

from __future__ import annotations

import subprocess
import sys
import time

import pytest

from testbed.errors import TestbedError
from tests.emulation.datacenter import Running, end, heard, say, wait_for

LATENCY_LIMIT = 1.0
"""Seconds from listen() to the rule at the service router, and back; usually it takes a few milliseconds."""

STEPS = """
import sys
from serval_node import socket as serval
server = serval.socket()
print("up", flush=True)
children = []
for line in sys.stdin:
    word = line.strip()
    if word == "bind": server.bind(sys.argv[1])
    if word == "listen": server.listen()
    if word == "accept": children.append(server.accept()[0])
    if word == "echo": children[0].sendall(children[0].recv(100).upper())
    if word == "close": server.close()
    print(word, flush=True)
"""

TALK = """
import sys
from serval_node import socket as serval
conn = serval.create_connection(sys.argv[1], 10)
print("up", flush=True)
for line in sys.stdin:
    conn.sendall(line.encode()); print(conn.recv(100).decode(), end="", flush=True)
"""


def step(process: subprocess.Popen[str], word: str) -> None:
    say(process, word)
    assert heard(process) == word


@pytest.mark.statement("S31")
def test_the_figures_tables_from_one_file(figure: Running) -> None:
    for name in ("dan", "eve"):
        figure.serve(name, "fig.example")
    figure.resolves("fig.example", "dan", "eve")
    assert figure.table("cleo") == {"fig.example": {"FORWARD 10.2.1.1", "FORWARD 10.2.1.2"}}
    edge = {"*.example": {"FORWARD 10.2.0.1"}}
    assert figure.table("ann") == figure.table("ben") == edge
    assert figure.entry("ann", "*.example")["bits"] == 24
    for name in ("dan", "eve"):
        table = figure.table(name)
        assert table.keys() == {"fig.example", "*.example"}
        assert all(target.startswith("DEMUX 198.18.0.1:") for target in table["fig.example"])


@pytest.mark.statement("S9", "S23")
def test_a_service_is_its_instances(figure: Running) -> None:
    for name in ("dan", "eve", "fay"):
        figure.serve(name, "group.example")
    figure.resolves("group.example", "dan", "eve", "fay")
    split = figure.connects_at_once("ann", "group.example", 60)
    assert split.keys() == {"dan", "eve", "fay"}
    assert sum(split.values()) == 60
    figure.ctl("add", "cleo", "group.example", "forward", "eve")
    assert figure.connects("ann", "group.example", 10) == {"eve": 10}, "FORWARD to one address"
    figure.ctl("remove", "cleo", "group.example")
    figure.resolves("group.example", "dan", "eve", "fay")


@pytest.mark.statement("S20", "S32", "S36")
def test_listen_alone_is_registered_everywhere(figure: Running) -> None:
    server = figure.start("dan", STEPS, "fresh.example")
    step(server, "bind")
    time.sleep(0.3)
    assert "fresh.example" not in figure.table("dan"), "bind() alone advertises nothing"
    assert figure.services() == {}
    times = []
    begun = time.monotonic()
    say(server, "listen")
    for what, there in (
        ("DEMUX rule at dan", lambda: "fresh.example" in figure.table("dan")),
        ("register fresh.example @ dan", lambda: figure.services() == {"fresh.example": {"dan 10.2.1.1"}}),
        ("FORWARD rule at cleo", lambda: figure.table("cleo").get("fresh.example") == {"FORWARD 10.2.1.1"}),
    ):
        wait_for(what, there)
        times.append(f"{what} {1000 * (time.monotonic() - begun):.1f} ms")
    assert time.monotonic() - begun < LATENCY_LIMIT
    print("after listen():", ", ".join(times))
    assert heard(server) == "listen"


@pytest.mark.statement("S33")
def test_close_withdraws_the_service_and_leaves_its_children(figure: Running) -> None:
    server = figure.start("dan", STEPS, "brief.example")
    step(server, "bind")
    step(server, "listen")
    figure.resolves("brief.example", "dan")
    client = figure.start("ann", TALK, "brief.example")
    step(server, "accept")
    begun = time.monotonic()
    step(server, "close")
    figure.resolves("brief.example")
    withdrawn = time.monotonic() - begun
    assert figure.services() == {}
    assert "brief.example" not in figure.table("dan")
    print(f"close() to the end of the rule at cleo: {withdrawn * 1000:.1f} ms")
    assert withdrawn < LATENCY_LIMIT
    with pytest.raises(TestbedError, match=r"nobody serves brief\.example"):
        figure.serval("ann", "connect", "brief.example")
    say(client, "still here")
    step(server, "echo")
    assert heard(client) == "STILL HERE"


@pytest.mark.statement("S32", "S33", "S34")
def test_an_unmodified_servers_rule_lives_with_its_socket(figure: Running) -> None:
    begun = time.monotonic()
    process = figure.popen(
        "eve",
        *(sys.executable, "-m", "serval_node.cli", "run", "--service", "plain.example"),
        *("--", "python3", "-m", "http.server", "8088"),
    )
    figure.resolves("plain.example", "eve")
    started = time.monotonic() - begun
    begun = time.monotonic()
    end(process)
    figure.resolves("plain.example")
    ended = time.monotonic() - begun
    print(f"unmodified server: command to rule at cleo {started:.2f} s; kill -9 to its end {ended * 1000:.1f} ms")
    assert ended < LATENCY_LIMIT


@pytest.mark.statement("S16")
def test_the_edge_table_grows_with_blocks_and_not_with_services(figure: Running) -> None:
    names = [f"s{number}.example" for number in range(8)]
    program = """
import sys
from serval_node import socket as serval
servers = [serval.create_server(name) for name in sys.argv[1:]]
print("up", flush=True)
for server in servers:
    conn, _ = server.accept(); conn.sendall(conn.local_service.hex().encode()); conn.close()
"""
    figure.start("gus", program, *names)
    for name in names:
        figure.resolves(name, "gus")
    assert len(figure.table("cleo")) == len(names)
    assert figure.table("ann") == {"*.example": {"FORWARD 10.2.0.1"}}
    reach = """
import sys
from serval_node import socket as serval
for name in sys.argv[1:]:
    with serval.create_connection(name, 10) as conn: print(name, conn.recv(100).decode())
"""
    reached = [line.split() for line in figure.python("ann", reach, *names).splitlines()]
    own = {name: figure.ask("ann", "address", name=name)["service"].removeprefix("0x") for name in names}
    assert dict(reached) == own
    assert figure.entry("ann", "*.example")["bits"] == 24


@pytest.mark.statement("S15")
def test_the_longest_prefix_wins_over_all_actions(figure: Running) -> None:
    digits = "abcdef" + bytes(range(1, 14)).hex()  # 128 bits of a block that no router is responsible for
    service = "0x" + digits + 32 * "0"
    for name in ("dan", "eve"):
        figure.serve(name, service)
    figure.ctl("add", "ann", "default", "forward", "cleo")
    rules = {f"0x{digits}/128": ["drop"], f"0x{digits[:16]}/64": ["forward", "dan"], "default": ["forward", "eve"]}
    for prefix, words in rules.items():
        figure.ctl("add", "cleo", prefix, *words)
    answers = []
    for prefix in (None, *rules):
        if prefix is not None:
            figure.ctl("remove", "cleo", prefix)
        try:
            answers.append(figure.serval("ann", "connect", service, "--timeout", "0.6"))
        except TestbedError as error:
            answers.append("no answer" if "no answer" in error.message else error.message[-80:])
    assert answers[:3] == ["no answer", "dan", "eve"]
    assert "nobody serves" in answers[3]


@pytest.mark.statement("S21")
def test_both_tables_can_be_dumped(figure: Running) -> None:
    server = figure.start("dan", STEPS, "dump.example")
    step(server, "bind")
    step(server, "listen")
    figure.resolves("dump.example", "dan")
    figure.start("ann", TALK, "dump.example")
    step(server, "accept")
    near, far = figure.flow("ann", "dump.example"), figure.flow("dan", "dump.example")
    (line,) = figure.serval("cleo", "table").splitlines()[1:]
    assert line.split() == ["dump.example", "FORWARD", "10.2.1.1", "1", "1", "1", "128", "0", "controller"]
    assert rows(figure.serval("ann", "table")) == [["*.example", "FORWARD", "10.2.0.1"]]
    where = figure.entry("dan", "dump.example")["targets"][0]["where"]
    assert rows(figure.serval("dan", "table")) == [
        ["dump.example", "DEMUX", where],
        ["*.example", "FORWARD", "10.2.0.1"],
    ]
    assert connected(figure, "ann") == [[str(near["flow_id"]), near["socket"], "CONNECTED"]]
    assert connected(figure, "dan") == [[str(far["flow_id"]), where, "CONNECTED"]]
    assert (near["peer_flow"], far["peer_flow"]) == (far["flow_id"], near["flow_id"])
    # The IP table is another one, with the kernel's routes and nothing of services.
    routes = figure.net.run_in("dan", ["ip", "route"])
    assert "default via 10.2.255.254" in routes
    assert figure.address["cleo"] not in routes


def rows(text: str) -> list[list[str]]:
    """The first three columns of a printed table."""
    return [line.split()[:3] for line in text.splitlines()[1:]]


def connected(figure: Running, host: str) -> list[list[str]]:
    """The rows of `serval flows` without those of earlier connections, whose flowIDs are not free yet."""
    return [row for row in rows(figure.serval(host, "flows")) if row[2] == "CONNECTED"]
