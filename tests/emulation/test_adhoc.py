"""Hosts without service router and controller: they find services by broadcast (slide 38)."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from testbed import hosts, nodes
from testbed.adhoc_tour import AdHocTour
from testbed.errors import TestbedError
from testbed.hosts import ServalHost
from testbed.network import ServalNetwork
from tests.emulation.node_hosts import wait_for
from topologies.ad_hoc import AdHocNetwork

HOLD = """
import sys
from serval_node import socket as serval
with serval.create_connection(sys.argv[1], timeout=10) as connection:
    connection.sendall(b"GET / HTTP/1.0\\r\\n")
    print("open", flush=True)
    sys.stdin.read()
    connection.sendall(b"\\r\\n")
    while data := connection.recv(65536):
        sys.stdout.write(data.decode())
"""


@pytest.fixture(scope="module")
def net() -> Iterator[ServalNetwork]:
    with ServalNetwork(AdHocNetwork(router=1)) as net:
        net.serval_host("ann").serval("router", "off")
        yield net


@contextmanager
def held(host: ServalHost, service: str) -> Iterator[subprocess.Popen[str]]:
    """A connection that stays open while the block runs."""
    client = subprocess.Popen(
        hosts.inside(host, [sys.executable, "-c", HOLD, service]),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        yield client
    finally:
        client.communicate(timeout=10)


def counters(host: ServalHost) -> dict[str, int]:
    return nodes.ask(host, "stat")["counters"]


def flows(host: ServalHost) -> list[dict[str, Any]]:
    return nodes.ask(host, "flows")["flows"]


def events(host: ServalHost, kind: str, since: float) -> list[dict[str, Any]]:
    return [event for event in nodes.ask(host, "events", since=since)["events"] if event["event"] == kind]


@pytest.mark.statement("S44")
def test_the_first_of_two_answers_wins_and_the_loser_frees_its_state(net: ServalNetwork) -> None:
    """No controller, no router, no name server but the host's own: ann's rules are the broadcast alone."""
    ann, ben, cal = (net.serval_host(name) for name in ("ann", "ben", "cal"))
    (entry,) = nodes.ask(ann, "table")["entries"]
    assert [(target["origin"], target["address"]) for target in entry["targets"]] == [("adhoc", "10.9.0.255")]
    start = nodes.ask(ann, "events", since=1e18)["now"]
    with held(ann, "web.example") as client:
        assert client.stdout is not None and client.stdin is not None
        assert client.stdout.readline() == "open\n"
        (answer,) = events(ann, "SynAckReceived", start)
        winner, loser = (ben, cal) if answer["peer"] in ben.addresses() else (cal, ben)
        (gone,) = wait_for("the loser's end", lambda: events(loser, "FlowClosed", start))
        assert (gone["opened"], gone["reason"]) == (False, "reset by the peer")
        assert not flows(loser) and not hosts.run(loser, ["ss", "-Htan", "state", "syn-recv"])
        assert not hosts.run(loser, ["ss", "-Htan", "state", "established"])
        (flow,) = [flow for flow in flows(ann) if flow["state"] == "CONNECTED"]
        assert flow["peer"] == answer["peer"] and [item["state"] for item in flows(winner)] == ["CONNECTED"]
        assert f"This is {winner.name}" in client.communicate("", timeout=10)[0]
    (told,) = events(ann, "InstanceReset", start)
    assert told["peer"] == loser.addresses()[0] and len(events(ann, "SynSent", start)) == 1


@pytest.mark.statement("S44")
def test_three_links_away_by_flooding(net: ServalNetwork) -> None:
    """dan and eve relay; only the SYN is flooded, and a hop limit below the distance ends it."""
    ann, dan, eve, fay = (net.serval_host(name) for name in ("ann", "dan", "eve", "fay"))
    start = nodes.ask(ann, "events", since=1e18)["now"]
    before = [counters(host)["adhoc_syns_relayed"] for host in (dan, eve)]
    assert "This is fay" in hosts.run(ann, ["curl", "--silent", "--show-error", "http://far.example/"])
    assert [events(host, "SynFlooded", start)[0]["hops"] for host in (dan, eve)] == [1, 2]
    (answer,) = events(ann, "SynAckReceived", start)
    path = [net.find(name).addresses() for name in ("ann", "dan", "eve", "fay")]
    assert all(address in own for address, own in zip(answer["path"], path, strict=True))
    assert [counters(host)["adhoc_syns_relayed"] - was for host, was in zip((dan, eve), before, strict=True)] == [1, 1]
    assert not any(counters(host).get("flood_copy") for host in (ann, dan, eve, fay)), (
        "nobody counts what it hears of itself"
    )
    nodes.ask(ann, "adhoc", hops=2)
    with pytest.raises(TestbedError, match="failed with status 1"):
        ann.serval("connect", "far.example", "--timeout", "0.5")
    assert counters(eve)["flood_hops"] >= 1 and len(events(fay, "SynReceived", start)) == 1
    nodes.ask(ann, "adhoc", hops=8)


def test_the_mode_is_switched_and_follows_the_addresses(net: ServalNetwork) -> None:
    ann = net.serval_host("ann")

    def default() -> list[str]:
        return [target["where"] for entry in nodes.ask(ann, "table")["entries"] for target in entry["targets"]]

    ann.serval("adhoc", "off")
    assert default() == []
    with pytest.raises(TestbedError, match="no rule of this host"):
        ann.serval("connect", "web.example")
    shown = json.loads(ann.serval("adhoc", "on", "--json"))
    assert [link["broadcast"] for link in shown["links"]] == ["10.9.0.255"] and shown["default"] == "adhoc"
    hosts.run(ann, ["ip", "address", "add", "10.7.0.1/28", "dev", "ann-eth0"])
    wait_for("the other subnet", lambda: default() == ["10.9.0.255", "10.7.0.15"])
    hosts.run(ann, ["ip", "address", "del", "10.7.0.1/28", "dev", "ann-eth0"])
    wait_for("its end", lambda: default() == ["10.9.0.255"])
    assert "web.example" in ann.serval("connect", "web.example", "--count", "1")


def test_the_tour_shows_what_it_says(net: ServalNetwork) -> None:
    shown: list[str] = []
    assert AdHocTour(net, shown.append).run() == 0, "\n".join(shown)
    assert shown[-1] == "\ntour: 4 of 4 steps passed"
    net.instance("web.example", "cal").kill()
    net.wait_service("web.example", ["ben"])
    assert AdHocTour(net, shown.append).run() == 1, "one instance has no loser"
    net.start_instance("web.example", "cal")
    net.wait_service("web.example", ["ben", "cal"])


@pytest.mark.statement("S61")
def test_a_service_router_is_found_lost_and_found_again(net: ServalNetwork) -> None:
    """Without it: host-only mode, by broadcast as long as that is allowed, else this host's own services only."""
    ann, cleo = net.serval_host("ann"), net.serval_host("cleo")

    def standing() -> tuple[str, str | None]:
        answer = nodes.ask(ann, "router")
        return answer["state"], answer["default"]

    assert "service router cleo, 10.9.0.200" in ann.serval("router", "on")
    assert standing() == ("found", "router")
    start = nodes.ask(ann, "events", since=1e18)["now"]
    assert "web.example" in ann.serval("connect", "web.example", "--count", "1")
    assert events(ann, "SynSent", start)[0]["destination"] == "10.9.0.200" and events(cleo, "SynForwarded", start)
    os.kill(nodes.ask(cleo, "status")["pid"], signal.SIGKILL)
    wait_for("host-only mode", lambda: standing() == ("host-only", "adhoc"))
    assert [event["name"] for event in events(ann, "RouterLost", start)] == ["cleo"]
    assert "web.example" in ann.serval("connect", "web.example", "--count", "1")
    ann.serval("adhoc", "off")
    assert standing() == ("host-only", None)
    net.restart_node("cleo")
    wait_for("the router that is back", lambda: standing() == ("found", "router"))
    assert "answered" in cleo.serval("router") and counters(ann)["router_questions_sent"] > 4
    ann.serval("adhoc", "on")
    ann.serval("router", "off")
    assert standing() == ("off", "adhoc")
