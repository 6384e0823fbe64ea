"""Replicas of one service, by the service router and by the rival on the host lb: who gets what, and what stays."""

from __future__ import annotations

import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from typing import Any

import pytest

from testbed import hosts, nodes
from testbed.experiment.actions import Balance, Leave, SetPolicy
from testbed.network import ServalNetwork
from testbed.rivals import nft_balancer
from tests.emulation.datacenter import heard, say
from topologies.replicas import BALANCER, SERVICE, Replicas

REPLICAS = ("d1", "d2", "d3")

ASK = """
import http.client, re, sys
for _ in range(int(sys.argv[2])):
    talk = http.client.HTTPConnection(sys.argv[1], timeout=5)
    talk.request("GET", "/")
    print(re.search(r"This is (\\w+)", talk.getresponse().read().decode())[1])
"""

HOLD = """
import http.client, re, sys
talk = http.client.HTTPConnection(sys.argv[1], timeout=5)
talk.connect()
print("up", flush=True)
sys.stdin.readline()
talk.request("GET", "/")
print(re.search(r"This is (\\w+)", talk.getresponse().read().decode())[1], flush=True)
"""


class Here:
    """As much of a run as these actions see."""

    def __init__(self, network: ServalNetwork) -> None:
        self.network = network

    def now(self) -> float:
        return time.monotonic()

    def do(self, action: Any) -> None:
        action.check(self.network.topo, ())
        action.carry_out(self)


@pytest.fixture(scope="module")
def here() -> Iterator[Here]:
    with ServalNetwork(Replicas(clients=2, replicas=len(REPLICAS), spares=0, delay="0")) as network:
        yield Here(network)


def asked(here: Here, where: str, count: int, client: str = "a1") -> Counter[str]:
    return Counter(here.network.run_in(client, [sys.executable, "-c", ASK, where, str(count)]).split())


def held(here: Here, where: str) -> subprocess.Popen[str]:
    """A connection that has asked nothing yet."""
    argv = hosts.inside(here.network.find("a1"), [sys.executable, "-c", HOLD, where])
    process = subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert heard(process) == "up"
    return process


def answer_of(process: subprocess.Popen[str]) -> str:
    say(process)
    name = heard(process)
    process.communicate(timeout=5)
    return name


def balancer(here: Here) -> str:
    reason = nft_balancer.missing()
    if reason is not None:
        pytest.skip(reason if reason.startswith("kernel without") else f"kernel without nft: {reason}")
    return here.network.find(BALANCER).addresses()[0]


def test_the_rival_balances_and_keeps_what_it_has(here: Here) -> None:
    address = balancer(here)
    here.do(Balance(BALANCER, "round-robin", REPLICAS))
    assert asked(here, address, 9) == dict.fromkeys(REPLICAS, 3)
    here.do(Balance(BALANCER, "client-hash", REPLICAS))
    assert len(asked(here, address, 6)) == 1
    for how in ("random", "flow-hash"):
        here.do(Balance(BALANCER, how, REPLICAS))
        assert set(asked(here, address, 40)) == set(REPLICAS)
    here.do(Balance(BALANCER, "random", ("d2",)))
    connection = held(here, address)
    here.do(Balance(BALANCER, "random", ("d1", "d3")))
    assert "d2" not in asked(here, address, 10)
    assert answer_of(connection) == "d2", "conntrack remembers"


@pytest.mark.statement("S4")
def test_every_packet_passes_the_rival_and_only_syns_the_service_router(here: Here) -> None:
    address = balancer(here)
    here.do(Balance(BALANCER, "round-robin", REPLICAS))
    here.do(SetPolicy(SERVICE, "round-robin"))

    def packets(name: str) -> int:
        host = here.network.find(name)
        return int(hosts.run(host, ["cat", f"/sys/class/net/{name}-eth0/statistics/rx_packets"]))

    def syns() -> int:
        return int(nodes.ask(here.network.serval_host("cleo"), "stat")["counters"]["resolved_packets"])

    asked(here, SERVICE, 1), asked(here, address, 1)  # who is where on the links is known now
    before = syns()
    assert asked(here, SERVICE, 12) == dict.fromkeys(REPLICAS, 4)
    assert syns() - before == 12
    router = packets("cleo")
    asked(here, SERVICE, 12)
    router = packets("cleo") - router
    rival = packets(BALANCER)
    asked(here, address, 12)
    rival = packets(BALANCER) - rival
    assert 12 <= router < 24, "a SYN each, and now and then a probe of the switches' links"
    assert rival > 100, "handshake, request, answer and end, in both directions"


@pytest.mark.statement("S33")
@pytest.mark.statement("S43")
def test_who_leaves_gets_nothing_new_and_keeps_what_it_has(here: Here) -> None:
    here.do(SetPolicy(SERVICE, "least-loaded"))
    here.do(SetPolicy(SERVICE, "round-robin"))
    connections = [held(here, SERVICE) for _ in REPLICAS]
    here.do(Leave(SERVICE, "d2"))
    here.network.wait_service(SERVICE, ["d1", "d3"])
    time.sleep(0.5)  # `serval run` looks for sockets of its program every 0.2 s, and must not name this one anew
    assert set(asked(here, SERVICE, 10)) == {"d1", "d3"}
    assert sorted(answer_of(one) for one in connections) == list(REPLICAS)
