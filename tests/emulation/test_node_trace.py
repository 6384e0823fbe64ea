"""`serval trace` of connects that fail, at real nodes: which rule, and where it stopped."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest

from tests.emulation.node_hosts import Host, HostNet, host_net, wait_for


@dataclass
class Hosts:
    net: HostNet
    ann: Host
    cleo: Host
    dan: Host
    eve: Host

    def trace(self, service: str, timeout: float = 0.5) -> subprocess.CompletedProcess[str]:
        return self.ann.serval("trace", service, "--timeout", str(timeout), check=False)

    def stopped(self, service: str) -> str:
        done = self.trace(service)
        assert done.returncode == 1 and len(done.stderr.splitlines()) == 1
        last = done.stdout.splitlines()[-1]
        assert last.startswith("stopped "), done.stdout
        return last.removeprefix("stopped ")


@pytest.fixture(scope="module")
def hosts() -> Iterator[Hosts]:
    with host_net() as net:
        ann, cleo, dan, eve = (net.add_plain(name) for name in ("ann", "cleo", "dan", "eve"))
        for host in (ann, cleo, dan, eve):
            net.start_node(host, **({"role": "router", "serves": ["example"]} if host is cleo else {}))
        ann.forward("*.example", cleo.address)
        yield Hosts(net, ann, cleo, dan, eve)


def rule(host: Host, service: str, action: str) -> None:
    host.ask("rule_set", prefix=service, targets=[{"action": action}])


def test_no_rule(hosts: Hosts) -> None:
    assert hosts.stopped("nowhere.test") == "at ann: connect fails: no rule matches"
    assert hosts.stopped("typo.example").startswith("at cleo: no rule matches for typo.example")


def test_drop(hosts: Hosts) -> None:
    rule(hosts.ann, "here.example", "drop")
    assert hosts.stopped("here.example") == "at ann: connect fails: rule here.example: DROP"
    rule(hosts.cleo, "there.example", "drop")
    assert hosts.stopped("there.example") == "at cleo: rule there.example: DROP"


def test_delay_that_nobody_decides_and_that_a_verdict_ends(hosts: Hosts) -> None:
    rule(hosts.cleo, "slow.example", "delay")
    assert hosts.stopped("slow.example").startswith("at cleo: rule slow.example: DELAY, the SYN waits")
    rule(hosts.ann, "wait.example", "delay")
    words = [sys.executable, "-m", "serval_node.cli", "trace", "wait.example", "--json"]
    tracing = hosts.ann.popen(*words, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    wait_for("the SYN", lambda: hosts.ann.ask("delayed")["delayed"])
    hosts.ann.ask("delay_verdict", service="wait.example", verdict="drop")
    story: dict[str, Any] = json.loads(tracing.communicate(timeout=10)[0])
    assert [step["text"].split(":")[0] for step in story["steps"]] == ["rule wait.example", "connect fails"]
    assert "a verdict ended the wait under DELAY" in story["stopped"] and "refuses wait.example" in story["error"]


def test_no_listener_a_dead_instance_and_an_address_that_nobody_has(hosts: Hosts) -> None:
    hosts.cleo.forward("idle.example", hosts.dan.address)
    assert hosts.stopped("idle.example").startswith("at dan: no rule matches for idle.example: no socket")
    hosts.cleo.forward("away.example", "10.9.0.77")
    assert "no host that is known here has the address 10.9.0.77" in hosts.stopped("away.example")
    hosts.cleo.forward("dead.example", hosts.eve.address)
    hosts.net.kill_node(hosts.eve)
    assert hosts.stopped("dead.example").startswith("between cleo and eve: no node answers on eve")
    hosts.net.start_node(hosts.eve)
    hosts.eve.run("ip", "link", "set", "eth0", "down")
    assert hosts.stopped("dead.example").startswith("between cleo and eve: the node of eve runs, but")


def test_a_socket_that_accepts_nothing(hosts: Hosts) -> None:
    program = "import socket, time; s = socket.socket(); s.bind(('0.0.0.0', 9)); s.listen(0); time.sleep(60)"
    hosts.dan.popen(sys.executable, "-c", program)
    wait_for("the name", lambda: hosts.dan.serval("bind", "full.example", "9", check=False).returncode == 0)
    hosts.cleo.forward("full.example", hosts.dan.address)
    assert hosts.trace("full.example").returncode == 0
    assert hosts.stopped("full.example").startswith("at dan: the socket that listens on port 9 did not complete")


def test_what_is_no_service(hosts: Hosts) -> None:
    done = hosts.trace("dan")
    assert (done.returncode, done.stdout) == (1, "") and "'dan' is no service" in done.stderr
