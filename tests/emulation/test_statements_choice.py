"""The service router's part in the running datacenter: the choice per SYN, late binding, DELAY, DROP."""

from __future__ import annotations

import errno
import sys

import pytest

from tests.emulation.datacenter import Running, heard, say, wait_for

INSTANCES = ("dan", "eve", "fay", "gus")

CONNECT = """
import sys, time
from serval_node import socket as serval
start = time.monotonic()
try:
    with serval.create_connection(sys.argv[1], float(sys.argv[2])) as conn: print(conn.recv(100).decode(), flush=True)
except OSError as error:
    print(error.errno, f"{time.monotonic() - start:.2f}", flush=True)
"""


ECHO = """
import select, sys
from serval_node import socket as serval
server = serval.create_server(sys.argv[1])
print("up", flush=True)
talks = []
while True:
    for ready in select.select([server, sys.stdin, *talks], [], [])[0]:
        if ready is server: talks.append(server.accept()[0])
        elif ready is sys.stdin: serval.report_load(sys.argv[1], float(sys.stdin.readline()))
        elif data := ready.recv(100): ready.sendall(sys.argv[2].encode() + b" " + data)
        else: talks.remove(ready)
"""
"""Answers with its host's name before what it was told; a number on standard input is its load."""

TALK = """
import sys
from serval_node import socket as serval
talk = serval.create_connection(sys.argv[1], 10)
print("up", flush=True)
for line in sys.stdin:
    talk.sendall(line.encode())
    print(talk.recv(100).decode().strip(), flush=True)
"""


@pytest.fixture
def group(figure: Running) -> Running:
    """With web.example on four hosts in two racks."""
    for name in INSTANCES:
        figure.serve(name, "web.example")
    figure.resolves("web.example", *INSTANCES)
    return figure


def chosen(figure: Running, service: str, since: float) -> list[str]:
    """The instances that cleo has sent SYNs to, in order."""
    names = {address: name for name, address in figure.address.items()}
    events = figure.ask("cleo", "events", since=since)["events"]
    assert not [event for event in events if event["event"] == "SynForwarded" and event["service_id"] != service]
    return [names[event["target"]] for event in events if event["event"] == "SynForwarded"]


@pytest.mark.statement("S39")
def test_round_robin_takes_one_after_the_other(group: Running) -> None:
    group.ctl("policy", "web.example", "round-robin")
    wait_for("the selector at cleo", lambda: group.entry("cleo", "web.example")["selector"] == "round-robin")
    before = group.ask("cleo", "events")["now"]
    assert group.connects("ann", "web.example", 20) == dict.fromkeys(INSTANCES, 5)
    order = chosen(group, "web.example", before)
    assert len(order) == 20
    assert set(order[:4]) == set(INSTANCES)
    assert order == order[:4] * 5


@pytest.mark.statement("S39")
def test_weighted_random_follows_the_weights(group: Running) -> None:
    group.ctl("policy", "web.example", "weighted-random", "dan=7", "eve=1", "fay=1", "gus=1")

    def weights() -> list[int]:
        return sorted(target["weight"] for target in group.entry("cleo", "web.example")["targets"])

    wait_for("the weights at cleo", lambda: weights() == [1, 1, 1, 7])
    before = group.ask("cleo", "events")["now"]
    split = group.connects_at_once("ann", "web.example", 200)
    # Five standard deviations on either side of 140 and of 20.
    assert 108 <= split["dan"] <= 172
    assert all(1 <= split[name] <= 41 for name in ("eve", "fay", "gus"))
    order = chosen(group, "web.example", before)
    assert {name: order.count(name) for name in INSTANCES} == split
    assert order != order[:10] * 20, "not in turns"
    group.ctl("policy", "web.example", "weighted-random", *(f"{name}=1" for name in INSTANCES))


@pytest.mark.statement("S24")
@pytest.mark.statement("S39")
@pytest.mark.statement("S43")
def test_the_least_loaded_gets_what_is_new_and_what_it_had_stays(group: Running) -> None:
    """By the figures that instances give of themselves (`serval load`, `report_load`)."""
    service = "held.example"
    servers = {name: group.start(name, ECHO, service, name) for name in ("dan", "eve", "fay")}
    group.resolves(service, *servers)
    group.ctl("policy", service, "least-loaded")

    def load(name: str, figure: float, *least: str) -> None:
        say(servers[name], str(figure))
        wanted = {group.address[other]: int(other in least) for other in servers}
        wait_for(
            f"cleo's rule that prefers {least}",
            lambda: {t["where"]: t["priority"] for t in group.entry("cleo", service)["targets"]} == wanted,
        )

    load("dan", 5, "eve", "fay")
    load("fay", 2.5, "eve")
    client = group.start("ann", TALK, service)
    say(client, "one")
    assert heard(client) == "eve one"
    load("eve", 7, "fay")
    say(client, "two")
    assert heard(client) == "eve two", "no established flow is moved"
    later = group.start("ann", TALK, service)
    say(later, "one")
    assert heard(later) == "fay one"
    shown = [row.split() for row in group.ctl("services").splitlines()]
    assert next(row for row in shown if row[:2] == [service, "least-loaded"])[-1] == "5"


@pytest.mark.statement("S39")
@pytest.mark.parametrize("policy", ["maglev", "ring"])
def test_a_client_meets_the_same_instance_again(group: Running, policy: str) -> None:
    group.ctl("policy", "web.example", policy)
    wait_for("the selector at cleo", lambda: group.entry("cleo", "web.example")["selector"] == policy)
    for client in ("ann", "ben"):
        (split,) = group.connects(client, "web.example", 6).values()
        assert split == 6
    group.ctl("policy", "web.example", "weighted-random", *(f"{name}=1" for name in INSTANCES))


@pytest.mark.statement("S19")
def test_the_rule_that_the_syn_meets_on_arrival_decides(group: Running) -> None:
    group.ctl("add", "cleo", "web.example", "forward", "dan")
    assert group.connects("ann", "web.example", 2) == {"dan": 2}
    before = group.ask("cleo", "events")["now"]
    # The first SYN gets no further than the first router; its repetition, a second later, meets the new rule.
    group.net.run_in("r1", ["sysctl", "-q", "-w", "net.ipv4.ip_forward=0"])
    try:
        client = group.popen("ann", sys.executable, "-c", CONNECT, "web.example", "10")
        wait_for(
            "the resolution at ann",
            lambda: [e for e in group.ask("ann", "events", since=before)["events"] if e["event"] == "SynSent"],
        )
        group.ctl("change", "cleo", "web.example", "forward", "gus")
    finally:
        group.net.run_in("r1", ["sysctl", "-q", "-w", "net.ipv4.ip_forward=1"])
    assert heard(client) == "gus"
    # A repeated SYN comes raw and inside UDP.
    assert {*chosen(group, "web.example", before)} == {"gus"}, "no SYN had arrived before"


@pytest.mark.statement("S26")
def test_delayed_syns_wait_for_the_controllers_rule(figure: Running) -> None:
    figure.ctl("add", "cleo", "later.example", "delay")
    log = figure.net.logs / "controller.log"
    clients = [figure.popen(name, sys.executable, "-c", CONNECT, "later.example", "20") for name in ("ann", "ben") * 2]
    waiting = {"service": "later.example", "packets": 4}
    wait_for(
        "four SYNs in the queue",
        lambda: [{key: row[key] for key in waiting} for row in figure.ask("cleo", "delayed")["delayed"]] == [waiting],
    )
    assert [row.split() for row in figure.ctl("delayed").splitlines()[1:]] == [
        ["cleo", "later.example", "later.example", "-"]
    ]
    assert log.read_text().count("delayed later.example/256 @ cleo") == 1, "one notification for four SYNs"
    assert all(client.poll() is None for client in clients)
    figure.serve("fay", "later.example")
    figure.ctl("change", "cleo", "later.example", "forward", "fay")
    assert [heard(client) for client in clients] == ["fay"] * 4
    assert figure.ask("cleo", "delayed")["delayed"] == []
    assert figure.ctl("delayed").splitlines()[1:] == []


@pytest.mark.statement("S26")
def test_a_delay_rule_above_a_policy_is_released_by_hand(group: Running) -> None:
    group.ctl("change", "cleo", "web.example", "delay")
    client = group.popen("ann", sys.executable, "-c", CONNECT, "web.example", "20")
    wait_for("the SYN in the queue", lambda: group.ask("cleo", "delayed")["delayed"])
    # The policy's rule takes its place again, and what waited follows it.
    group.ctl("remove", "cleo", "web.example")
    assert heard(client) in INSTANCES
    assert group.ask("cleo", "delayed")["delayed"] == []


@pytest.mark.statement("S28")
def test_drop_is_silent_at_the_router_and_immediate_at_home(group: Running) -> None:
    group.ctl("add", "cleo", "web.example", "drop")
    with group.capture("ann", "cleo") as seen:
        number, seconds = group.python("ann", CONNECT, "web.example", "1.4").split()
    assert number == "None", "a time-out"
    assert float(seconds) >= 1.4
    assert {packet.way for packet in seen["ann-eth0"]} == {(group.address["ann"], group.address["cleo"])}
    (target,) = group.entry("cleo", "web.example")["targets"]
    arrived = len(seen["cleo-eth0"])
    assert (target["dropped_packets"], target["packets"]) == (arrived, 0)
    assert target["dropped_bytes"] == sum(len(packet.packet) for packet in seen["cleo-eth0"])
    group.ctl("remove", "cleo", "web.example")
    group.ctl("add", "ann", "web.example", "drop")
    with group.capture("ann") as seen:
        number, seconds = group.python("ann", CONNECT, "web.example", "10").split()
    assert int(number) == errno.EHOSTUNREACH
    assert float(seconds) < 0.5
    assert seen["ann-eth0"] == []
    assert group.entry("ann", "web.example")["dropped_packets"] == 1
