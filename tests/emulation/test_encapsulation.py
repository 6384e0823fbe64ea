"""Flows inside UDP on the running system: behind a NAT that drops all but UDP, and every packet looked at (S52).

ann 192.168.7.2 --- 192.168.7.1 nat 10.9.0.2 --- bridge --- dan 10.9.0.3, eve 10.9.0.4
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from scapy.layers.inet import IP, UDP

from serval_node.capture.checks import header_of, segment_of
from serval_node.capture.dissector import SAL
from serval_node.capture.pcap import read_ipv4
from serval_node.wire.encapsulation import open_packet
from testbed import sniffer
from tests.emulation.node_hosts import Host, HostNet, host_net, wait_for
from tests.emulation.transfer import Transfer

INSIDE, ANN, PUBLIC = "192.168.7.1", "192.168.7.2", "192.0.2.1"
# Longer than anything here takes: what ann says of herself she says because she has noticed.
KEEPALIVE = 300.0
SIZE, SMALL = 8_000_000, 400_000


class Router:
    """The NAT's process."""

    def __init__(self, host: Host) -> None:
        self.host = host
        words = (sys.executable, "-m", "tests.emulation.nat", "inside", PUBLIC, "20000-20999")
        self._process = host.popen(*words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        assert json.loads(self._process.stdout.readline()) == {"ready": True}

    def ask(self, line: str) -> dict[str, int]:
        self._process.stdin.write(line + "\n")
        self._process.stdin.flush()
        return json.loads(self._process.stdout.readline())


@pytest.fixture(scope="module")
def net() -> Iterator[HostNet]:
    with host_net() as net:
        yield net


@pytest.fixture(scope="module")
def ann(net: HostNet) -> Host:
    return net.add_plain("ann")


@pytest.fixture(scope="module")
def router(net: HostNet, ann: Host) -> Router:
    """ann's link leads to the NAT from now on."""
    nat = net.add_plain("nat")
    ann.run("ip", "link", "delete", "eth0")
    nat.run("ip", "link", "add", "inside", "type", "veth", "peer", "name", "eth0", "netns", str(ann.shell.pid))
    nat.run("sh", "-c", "echo 0 > /proc/sys/net/ipv4/ip_forward")
    for host, link, address in ((nat, "inside", INSIDE), (ann, "eth0", ANN)):
        host.run("ip", "address", "add", f"{address}/24", "dev", link)
        host.run("ip", "link", "set", link, "up")
    ann.run("ip", "route", "add", "default", "via", INSIDE)
    ann.address = ANN
    net.start_node(ann, keepalive=KEEPALIVE)
    return Router(nat)


@pytest.fixture(scope="module")
def dan(net: HostNet, ann: Host, router: Router) -> Host:
    host = net.add("dan")
    host.run("ip", "route", "add", f"{PUBLIC}/32", "via", router.host.address)
    ann.forward("web.example", host.address)
    return host


def events(host: Host, kind: str, since: float = 0.0) -> list[dict[str, Any]]:
    return [event for event in host.ask("events", since=since)["events"] if event["event"] == kind]


def flow(host: Host) -> dict[str, Any]:
    (found,) = [row for row in host.ask("flows")["flows"] if row["state"] == "CONNECTED"]
    return found


@pytest.mark.statement("S52")
def test_through_a_nat_that_drops_what_it_does_not_know(ann: Host, router: Router, dan: Host) -> None:
    """Nobody has told ann to encapsulate, and the NAT loses super-segments as well."""
    transfer = Transfer(ann, dan, SIZE)
    transfer.until(0.02)
    assert router.ask("count")["protocol_144"] >= 1, "raw was tried"
    assert flow(ann)["udp_ports"] == [54324, 54325]
    assert (flow(dan)["peer"], flow(dan)["udp_ports"]) == (PUBLIC, [54325, 20000])
    assert f"{dan.address} udp 54325" in ann.serval("flows").stdout
    (event,) = events(ann, "RawUnanswered")
    assert event["peer"] == dan.address
    assert "did not answer raw packets" in ann.serval("encapsulation").stdout
    transfer.end()
    for host, peer in ((ann, dan.address), (dan, PUBLIC)):
        (told,) = events(host, "SegmentedSingly")
        assert told["peer"] == peer and "not acknowledged" in told["reason"]


@pytest.mark.statement("S52")
def test_nat_rebinding_in_the_middle(ann: Host, router: Router, dan: Host) -> None:
    if not ann.ask("encapsulation")["learned"]:  # this test runs alone
        Transfer(ann, dan, SMALL).end()
    before = router.ask("count")["protocol_144"]
    transfer = Transfer(ann, dan, SIZE)
    transfer.until(0.02)
    start = dan.ask("events", since=1e18)["now"]
    known = flow(dan)
    router.ask("rebind 30000-30999")
    (moved,) = wait_for("ann's word through the new mapping", lambda: events(dan, "PeerMoved", start))
    assert (moved["target"], moved["target_ports"]) == (PUBLIC, [54325, 30000])
    transfer.until(0.3)
    after = flow(dan)
    assert (after["flow_id"], after["socket"]) == (known["flow_id"], known["socket"])
    transfer.end()
    assert not events(ann, "FlowMigrated"), "a keep-alive is no move"
    assert router.ask("count")["protocol_144"] == before, "what was learned is remembered"
    assert router.ask("count")["not_mapped"] > 0, "dan went on sending to the old port until then"


@pytest.mark.statement("S52")
def test_every_packet_of_a_flow_inside_udp_is_right(net: HostNet, dan: Host, tmp_path: Path) -> None:
    """Between two hosts of a bridge, by choice; the devices leave no checksum and no cutting to others."""
    eve = net.add("eve", encapsulated_peers={f"{dan.address}/32": "udp"})
    for host in (dan, eve):
        host.run("ethtool", "-K", "eth0", "tx", "off")
    eve.forward("web.example", dan.address)
    capture = tmp_path / "eve.pcap"
    dump = eve.popen(
        sys.executable, "-I", sniffer.__file__, "eth0", str(capture), "0", stderr=subprocess.PIPE, text=True
    )
    assert "listening" in dump.stderr.readline()
    transfer = Transfer(eve, dan, SMALL)
    transfer.end()
    dump.terminate()
    assert dump.wait(10) == 0
    counted = {"out": 0, "in": 0}
    for captured in read_ipv4(capture):
        packet = IP(captured.data)
        if SAL not in packet:
            continue
        header, _ = open_packet(captured.data)
        assert header.ports is not None and header.total_length <= 1500, "raw was not chosen, and it fits"
        assert packet[UDP].chksum != 0
        assert (header_of(packet[SAL]), segment_of(packet[SAL])) in (("ok", "ok"), ("ok", "none"))
        counted["out" if packet.src == eve.address else "in"] += 1
    assert min(counted.values()) > SMALL / 1440
