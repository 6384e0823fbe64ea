"""`serval explain` at real nodes: it foretells what connect() then does, and leaves no trace of its own."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest

from tests.emulation.node_hosts import Host, host_net, wait_for


@dataclass
class Hosts:
    ann: Host
    cleo: Host
    dan: Host
    eve: Host

    def state(self) -> list[Any]:
        """Rules with their counters, flows, names and what is counted of SYNs at every node."""
        out = []
        for host in (self.ann, self.cleo, self.dan, self.eve):
            counters = host.counters()
            counters.pop("slow_packets_kernel", None)  # the kernel may say something on sal0 by itself
            out.append([*(host.ask(op) for op in ("table", "flows", "names", "delayed")), counters])
        return out

    def steps(self, service: str) -> list[dict[str, Any]]:
        return json.loads(self.ann.serval("explain", service, "--json").stdout)["steps"]


@pytest.fixture(scope="module")
def hosts() -> Iterator[Hosts]:
    with host_net() as net:
        ann, cleo, dan, eve = (net.add_plain(name) for name in ("ann", "cleo", "dan", "eve"))
        for host in (ann, cleo, dan, eve):
            net.start_node(host, **({"role": "router", "serves": ["example"]} if host in (cleo, eve) else {}))
        dan.serve("web.example", "python3", "-m", "http.server", "8080")
        wait_for("the instance", lambda: dan.rules("web.example"))
        ann.forward("*.example", cleo.address)
        cleo.forward("web.example", dan.address)
        yield Hosts(ann, cleo, dan, eve)


def outcomes(step: dict[str, Any]) -> list[tuple[str, str | None]]:
    if step["outcome"]:
        return [(step["outcome"], step["errno"])]
    return [(item["outcome"], item["errno"]) for rule in step["rules"] for item in rule["targets"]]


def test_the_way_to_the_instance_is_told_without_a_packet_or_a_count(hosts: Hosts) -> None:
    before = hosts.state()
    text = hosts.ann.serval("explain", "web.example").stdout
    steps = hosts.steps("web.example")
    assert hosts.state() == before
    assert [(step["host"], step["side"]) for step in steps] == [
        ("ann", "program"),
        ("cleo", "network"),
        ("dan", "network"),
    ]
    assert f"forward to {hosts.cleo.address} (cleo)" in text and f"forward to {hosts.dan.address} (dan)" in text
    assert outcomes(steps[-1]) == [("deliver to the socket that listens on 198.18.0.1:8080", None)]
    assert json.loads(hosts.ann.serval("connect", "web.example", "--count", "1", "--json").stdout)["split"] == {
        "dan": 1
    }


def errno_of_connect(hosts: Hosts, service: str) -> str:
    program = """
import errno, socket, sys
try:
    socket.create_connection((sys.argv[1], 80), 10).close()
except OSError as error:
    print(errno.errorcode[error.errno], end="")
"""
    return hosts.ann.python(program, service).stdout


def test_the_errno_is_the_one_that_connect_meets(hosts: Hosts) -> None:
    hosts.ann.ask("rule_set", prefix="dropped.example", targets=[{"action": "drop"}])
    for service, errno in (
        ("nowhere.test", "ENETUNREACH"),
        ("dropped.example", "EHOSTUNREACH"),
        ("typo.example", "ECONNREFUSED"),
    ):
        assert outcomes(hosts.steps(service)[-1])[0][1] == errno
        assert errno_of_connect(hosts, service) == errno


def test_a_host_that_cannot_be_seen_a_loop_and_a_wrong_name(hosts: Hosts) -> None:
    hosts.cleo.forward("away.example", "10.9.0.77")
    assert outcomes(hosts.steps("away.example")[-1])[0][0].endswith("its table cannot be seen from here")
    hosts.cleo.forward("loop.example", hosts.eve.address)
    hosts.eve.forward("loop.example", hosts.cleo.address)
    assert "loop: back to cleo" in outcomes(hosts.steps("loop.example")[-1])[0][0]
    assert not hosts.cleo.counters().get("routing_loop")
    hosts.ann.serval("connect", "loop.example", "--timeout", "0.5", check=False)
    assert hosts.cleo.counters()["routing_loop"]
    done = hosts.ann.serval("explain", "*.example", check=False)
    assert (done.returncode, done.stdout) == (1, "") and "many services" in done.stderr
