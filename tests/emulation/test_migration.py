"""Flows of real programs move between addresses and interfaces of their host (slides 40 and 45; S12, S45, S49)."""

from __future__ import annotations

import json
from collections.abc import Iterator
from functools import partial
from typing import Any

import pytest

from tests.emulation.node_hosts import BRIDGE, Host, HostNet, command, host_net, refusal, wait_for
from tests.emulation.transfer import SIZE, Transfer

ETH1 = "10.9.1.1"
OTHER = "10.9.0.101"


@pytest.fixture(scope="module")
def net() -> Iterator[HostNet]:
    with host_net() as net:
        yield net


@pytest.fixture(scope="module")
def ann(net: HostNet) -> Host:
    """A host with two interfaces."""
    host = net.add_plain("ann")
    command("ip", "link", "add", "p-ann1", "type", "veth", "peer", "name", "eth1", "netns", str(host.shell.pid))
    command("ip", "link", "set", "p-ann1", "master", BRIDGE, "up")
    host.run("ip", "address", "add", f"{ETH1}/24", "dev", "eth1")
    host.run("ip", "link", "set", "eth1", "up")
    # Not because of silence: a peer that a busy machine does not schedule would make flows move in between.
    net.start_node(host, auto_migrate=["link", "address", "route"])
    return host


@pytest.fixture(scope="module")
def dan(net: HostNet, ann: Host) -> Host:
    host = net.add("dan")
    host.run("ip", "route", "add", "10.9.1.0/24", "dev", "eth0")
    ann.forward("web.example", host.address)
    return host


def flow(host: Host) -> dict[str, Any]:
    (found,) = [row for row in host.ask("flows")["flows"] if row["state"] == "CONNECTED"]
    return found


def migrated(host: Host, since: float) -> list[dict[str, Any]]:
    return [event for event in host.ask("events", since=since)["events"] if event["event"] == "FlowMigrated"]


def events(host: Host, kind: str, since: float) -> list[dict[str, Any]]:
    return host.ask("events", since=since, kinds=[kind])["events"]


def now(host: Host) -> float:
    return host.ask("events", since=1e18)["now"]


@pytest.mark.statement("S45", "S49")
def test_a_flow_is_moved_by_hand_and_back(ann: Host, dan: Host) -> None:
    transfer = Transfer(ann, dan)
    transfer.until(0.1)
    before = flow(ann)
    assert before["local"] == ann.address
    shown = ann.serval("migrate", "flow", str(before["flow_id"]), "eth1").stdout
    assert "moved, answered after" in shown and ETH1 in shown
    after = flow(ann)
    assert (after["flow_id"], after["socket"], after["local"]) == (before["flow_id"], before["socket"], ETH1)
    assert flow(dan)["peer"] == ETH1
    transfer.until(0.5)
    rows = json.loads(ann.serval("migrate", "interface", "eth1", "eth0", "--json").stdout)
    assert [(row["source"], row["target"], row["rsyns"]) for row in rows] == [(ETH1, ann.address, 1)]
    transfer.end()


@pytest.mark.statement("S45")
def test_the_packets_leave_by_the_new_interface(ann: Host, dan: Host) -> None:
    transfer = Transfer(ann, dan)
    transfer.until(0.1)
    ann.serval("migrate", "service", "web.example", "eth1")
    carried = _sent(ann, "eth1")
    wait_for("data by eth1", lambda: _sent(ann, "eth1") - carried > 0.3 * SIZE)
    transfer.end()


def _sent(host: Host, interface: str) -> int:
    (shown,) = json.loads(host.run("ip", "-json", "-statistics", "link", "show", "dev", interface).stdout)
    return shown["stats64"]["tx"]["bytes"]


@pytest.mark.statement("S49")
def test_link_down_moves_the_flow(ann: Host, dan: Host) -> None:
    transfer = Transfer(ann, dan)
    transfer.until(0.1)
    start = now(ann)
    ann.run("ip", "link", "set", "eth0", "down")
    try:
        (moved,) = wait_for("the move", lambda: migrated(ann, start))
        assert (moved["cause"], moved["source"], moved["target"]) == ("link down", ann.address, ETH1)
        assert moved["happened"] <= moved["detected"] <= moved["started"] <= moved["time"]
        (account,) = wait_for("its account", lambda: _events(ann, start, "Blackout"))
        parts = [account[part] for part in ("detect", "decide", "signal", "recover")]
        assert min(parts) >= 0 and account["time"] >= moved["time"]
        assert sum(parts) == pytest.approx(account["time"] - account["happened"], abs=1e-4)
        (peers,) = wait_for("the peer's account", lambda: _events(dan, start, "PeerBlackout"))
        assert (peers["target"], account["happened"] < peers["happened"]) == (ETH1, True)
        assert peers["recover"] == pytest.approx(peers["time"] - peers["happened"])
        _is_told(ann, account)
        transfer.end()
    finally:
        _restore(ann)


def _events(host: Host, since: float, kind: str) -> list[dict[str, Any]]:
    return host.ask("events", since=since, kinds=[kind])["events"]


def _is_told(host: Host, account: dict[str, Any]) -> None:
    """By `serval events` and, in the same words, by `serval watch`."""
    shown = host.serval("events", "--kind", "Blackout", "--flow", str(account["flow_id"]), "--last", "1").stdout
    words = shown.split(maxsplit=2)[2].strip()
    assert words.startswith(f"flow {account['flow_id']} moved {host.address} -> {ETH1}: link down; detected ")
    assert " RSYN" in words and ", data after " in words
    assert words in host.serval("watch", "--once", "--table", "events").stdout
    line = host.serval("events", "--json", "--follow", "--seconds", "0.1", "--kind", "Blackout", "--last", "1").stdout
    told = json.loads(line)
    assert told.pop("host") == host.name and told.pop("wall")
    assert told == account


def test_unknown_kinds_are_refused(ann: Host) -> None:
    failed = ann.serval("events", "--kind", "Earthquake", check=False)
    assert failed.returncode == 1 and "no event is called 'Earthquake'; there are: Blackout, " in failed.stderr


def _restore(host: Host) -> None:
    host.run("ip", "link", "set", "eth0", "up")
    host.run("ip", "route", "replace", "default", "via", "10.9.0.254")


@pytest.mark.statement("S49")
def test_carrier_loss_moves_the_flow(ann: Host, dan: Host) -> None:
    transfer = Transfer(ann, dan)
    transfer.until(0.1)
    start = now(ann)
    command("ip", "link", "set", "p-ann", "down")
    try:
        wait_for("the move", lambda: migrated(ann, start))
        transfer.end()
    finally:
        command("ip", "link", "set", "p-ann", "up")


@pytest.mark.statement("S12", "S49")
def test_a_new_address_and_the_old_one_removed(ann: Host, dan: Host) -> None:
    """The server's end moves; its socket, flowIDs and service stay (S12)."""
    transfer = Transfer(ann, dan)
    transfer.until(0.1)
    before, start = flow(dan), now(dan)
    dan.run("ip", "address", "add", f"{OTHER}/25", "dev", "eth0")
    assert not migrated(dan, start)
    dan.run("ip", "address", "delete", f"{dan.address}/24", "dev", "eth0")
    try:
        (moved,) = wait_for("the move", lambda: migrated(dan, start))
        assert (moved["cause"], moved["target"]) == ("address removed", OTHER)
        after = flow(dan)
        assert {key for key in before if before[key] != after[key]} <= {
            "local", "bytes_in", "bytes_out", "packets_in", "packets_out",
        }  # fmt: skip
        transfer.end()
    finally:
        dan.run("ip", "address", "add", f"{dan.address}/24", "dev", "eth0")
        dan.run("ip", "address", "delete", f"{OTHER}/25", "dev", "eth0")
        dan.run("ip", "route", "replace", "10.9.1.0/24", "dev", "eth0")
        dan.run("ip", "route", "replace", "default", "via", "10.9.0.254")


def test_without_any_network_for_a_while(ann: Host, dan: Host) -> None:
    transfer = Transfer(ann, dan)
    transfer.until(0.1)
    start = now(ann)
    ann.run("ip", "link", "set", "eth1", "down")
    ann.run("ip", "link", "set", "eth0", "down")
    wait_for("the remark", lambda: flow(ann)["lost"] == "link down")
    assert f"{ann.address} (link down)" in ann.serval("flows").stdout
    assert "PathLost" in {event["event"] for event in ann.ask("events", since=start)["events"]}
    assert not migrated(ann, start)
    ann.run("ip", "link", "set", "eth1", "up")
    try:
        wait_for("the move", lambda: migrated(ann, start))
        transfer.end()
    finally:
        _restore(ann)


@pytest.mark.statement("S49")
def test_automatic_moves_can_be_switched_off(ann: Host, dan: Host) -> None:
    assert "by hand only" in ann.serval("migrate", "auto", "off").stdout
    try:
        transfer = Transfer(ann, dan)
        transfer.until(0.1)
        start = now(ann)
        ann.run("ip", "link", "set", "eth0", "down")
        wait_for("the notice", lambda: flow(ann)["lost"] == "link down")
        assert not migrated(ann, start)
        assert "answered" in ann.serval("migrate", "flow", str(flow(ann)["flow_id"]), "eth1").stdout
        transfer.end()
    finally:
        for trigger in ("link", "address", "route"):
            ann.ask("auto_migrate", trigger=trigger, on=True)
        _restore(ann)


@pytest.mark.statement("S49")
def test_a_path_that_swallows_everything_is_left(ann: Host, dan: Host) -> None:
    """Links and addresses stay as they are at both ends, and neither end is told anything."""
    assert "silence  on" in ann.serval("migrate", "auto", "silence", "on").stdout
    transfer = Transfer(ann, dan)
    transfer.until(0.1)
    start = now(ann)
    command("ip", "link", "set", "p-ann", "nomaster")
    try:
        (moved,) = wait_for("the move", lambda: migrated(ann, start))
        assert (moved["cause"], moved["source"], moved["target"]) == ("no answer on this path", ann.address, ETH1)
        (silent,) = events(ann, "PathSilent", start)
        assert silent["since"] <= moved["happened"] and silent["time"] <= moved["detected"]
        transfer.end()
        counters = ann.counters()
        assert counters["probes_sent"] >= 3 and counters["paths_silent"] >= 1
    finally:
        command("ip", "link", "set", "p-ann", "master", BRIDGE)
        ann.ask("auto_migrate", trigger="silence", on=False)


@pytest.mark.statement("S49")
def test_without_another_path_a_flow_waits_at_a_silent_one(ann: Host, dan: Host) -> None:
    """And where the trigger is off it is not even looked at."""
    assert ann.ask("status")["auto_migrate"] == {"link": True, "address": True, "route": True, "silence": False}
    transfer = Transfer(ann, dan)
    transfer.until(0.1)
    start, asked = now(dan), ann.counters()["probes_sent"]
    command("ip", "link", "set", "p-ann", "nomaster")
    try:
        wait_for("the server's remark", lambda: flow(dan)["lost"] == "no answer on this path")
        assert len(events(dan, "PathLost", start)) == 1
        assert (ann.counters()["probes_sent"], flow(ann)["lost"]) == (asked, "")
    finally:
        command("ip", "link", "set", "p-ann", "master", BRIDGE)
    wait_for("its being heard again", lambda: events(dan, "PathBack", start))
    assert flow(dan)["lost"] == ""
    transfer.end()


@pytest.mark.statement("S49")
def test_flows_follow_the_routes_to_their_peers(ann: Host, dan: Host) -> None:
    """A route in a table that the flow does not use changes nothing; one that leads another way does."""
    transfer = Transfer(ann, dan)
    transfer.until(0.1)
    start = now(ann)
    ann.run("ip", "route", "add", "default", "via", "10.9.1.254", "dev", "eth1", "table", "77")
    ann.run("ip", "route", "replace", f"{dan.address}/32", "dev", "eth1", "src", ETH1)
    try:
        (moved,) = wait_for("the move", lambda: migrated(ann, start))
        assert (moved["cause"], moved["source"], moved["target"]) == ("route changed", ann.address, ETH1)
        transfer.until(0.4)
        ann.run("ip", "route", "delete", f"{dan.address}/32", "dev", "eth1")
        # The flow is back before its peer has answered, which is when the move is told.
        wait_for("the way back", lambda: len(migrated(ann, start)) == 2)
        _, back = migrated(ann, start)
        assert (back["cause"], back["target"], flow(ann)["local"]) == ("no route", ann.address, ann.address)
        transfer.end()
    finally:
        ann.run("ip", "route", "flush", "table", "77")
        ann.run("ip", "route", "delete", f"{dan.address}/32", check=False)


def test_refusals(ann: Host, dan: Host) -> None:
    here = "here are eth0 10.9.0.1, eth1 10.9.1.1"
    assert f"10.9.9.9 is neither an interface nor an address of this host: {here}" in refusal(
        ann, "migrate", service="web.example", to="10.9.9.9"
    )
    assert "'wlan7' is neither an interface nor an IPv4 address" in refusal(
        ann, "migrate", service="web.example", to="wlan7"
    )
    assert "has no flow 1" in refusal(ann, "migrate", flow_id=1, to="eth1")
    refused = partial(refusal, ann, "migrate", service="web.example")
    ann.run("ip", "link", "set", "eth1", "down")
    try:
        for place, says in (("eth1", "eth1 is down"), (ETH1, f"eth1 of {ETH1} is down")):
            wait_for("its refusal", lambda place=place, says=says: says in refused(to=place))
    finally:
        ann.run("ip", "link", "set", "eth1", "up")
    wait_for("the link", lambda: "no flow to move" in refused(to="eth1"))
    assert "no flow to move" in refusal(ann, "migrate", service="web.example", to="eth1")
    assert "one of 'flow_id', 'from' and 'service'" in refusal(ann, "migrate", to="eth1")
    failed = ann.serval("migrate", "flow", "0", "eth1", check=False)
    assert failed.returncode == 2 and "not a flowID" in failed.stderr


@pytest.mark.statement("S46")
def test_a_lost_rsyn_is_repeated(ann: Host, dan: Host) -> None:
    transfer = Transfer(ann, dan)
    transfer.until(0.1)
    start = now(ann)
    command("ip", "link", "set", "p-ann1", "nomaster")  # the link is up and leads nowhere
    ann.ask("migrate", flow_id=flow(ann)["flow_id"], to="eth1")
    wait_for("a second RSYN", lambda: _lost_rsyns(ann) >= 2)
    command("ip", "link", "set", "p-ann1", "master", BRIDGE)
    (moved,) = wait_for("the move", lambda: migrated(ann, start))
    assert moved["rsyns"] >= 3
    transfer.end()


def _lost_rsyns(host: Host) -> int:
    """RSYNs of the move that is under way."""
    return max((row["rsyns"] for row in host.ask("flows")["flows"]), default=0)


@pytest.mark.statement("S47")
def test_both_ends_lose_each_other_and_meet_by_the_name(ann: Host, dan: Host) -> None:
    """Both addresses go at the same moment; the client's rule for the service says where the server is now."""
    transfer = Transfer(ann, dan)
    transfer.until(0.1)
    starts = now(ann), now(dan)
    dan.run("ip", "address", "add", f"{OTHER}/25", "dev", "eth0")
    try:
        command("ip", "link", "set", "p-dan", "down")
        ann.run("ip", "address", "delete", f"{ann.address}/24", "dev", "eth0")
        dan.run("ip", "address", "delete", f"{dan.address}/24", "dev", "eth0")
        ann.forward("web.example", OTHER)
        command("ip", "link", "set", "p-dan", "up")
        for host, start in zip((ann, dan), starts, strict=True):
            wait_for(f"{host.name}'s move", lambda host=host, start=start: migrated(host, start), 30)
        assert (flow(ann)["local"], flow(ann)["peer"]) == (ETH1, OTHER)
        assert (flow(dan)["local"], flow(dan)["peer"]) == (OTHER, ETH1)
        transfer.end()
    finally:
        ann.run("ip", "address", "add", f"{ann.address}/24", "dev", "eth0")
        _restore(ann)
        dan.run("ip", "address", "add", f"{dan.address}/24", "dev", "eth0")
        dan.run("ip", "address", "delete", f"{OTHER}/25", "dev", "eth0")
        dan.run("ip", "route", "replace", "10.9.1.0/24", "dev", "eth0")
        dan.run("ip", "route", "replace", "default", "via", "10.9.0.254")
        ann.forward("web.example", dan.address)


FORGER = """
import socket, sys
from serval_node.wire.ipv4 import address, build_ipv4
from serval_node.wire.sal_header import Control, ControlFlag, SalPacket, encode
own, peer, source, target = sys.argv[1:5]
sock = socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_RAW)
for nonce in range(20):
    control = Control(ControlFlag.RSYN, 1 << 31, 0, nonce.to_bytes(8, "big"))
    data = encode(SalPacket(int(own), int(peer), 6, (control,), b""))
    sock.sendto(build_ipv4(address(source), address(target), 144, data), (target, 0))
"""


@pytest.mark.statement("S48")
def test_forged_rsyns_are_dropped_and_counted(net: HostNet, ann: Host, dan: Host) -> None:
    transfer = Transfer(ann, dan)
    transfer.until(0.1)
    attacker = net.hosts.get("eve") or net.add_plain("eve")
    ours, before = flow(ann), dan.counters().get("wrong_nonce", 0)
    attacker.python(FORGER, str(ours["flow_id"]), str(ours["peer_flow"]), attacker.address, dan.address)
    wait_for("the refusals", lambda: dan.counters().get("wrong_nonce", 0) == before + 20)
    assert flow(dan)["peer"] == ann.address
    transfer.end()
