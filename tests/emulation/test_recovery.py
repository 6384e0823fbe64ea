"""A link goes with a window of data under way, fifty moves, a link with a smaller MTU: real TCP loses nothing."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import pytest

from tests.emulation.node_hosts import BRIDGE, Host, command, host_net, refusal, wait_for
from tests.emulation.test_migration import ETH1, Transfer, flow, migrated, now

SIZE = 12_000_000
SMALL_MTU = 1280
TRIGGERS = ["link", "address", "route"]  # not silence, so that each loss is the one that a test brings about

# Sends until its standard input ends, reads until the peer has no more, and prints what it sent and got.
TALKER = """
import hashlib, sys, threading, time, serval_node.socket as serval
if sys.argv[1] == "serve":
    listener = serval.create_server("web.example")
    print("ready", flush=True)
    sock, _ = listener.accept()
else:
    sock = serval.create_connection("web.example")
got = hashlib.sha256()
def read():
    while data := sock.recv(1 << 16):
        got.update(data)
reader = threading.Thread(target=read)
reader.start()
over = threading.Event()
threading.Thread(target=lambda: (sys.stdin.read(), over.set()), daemon=True).start()
sent, number = hashlib.sha256(), 0
while not over.is_set():
    block = number.to_bytes(8, "big") * 4096
    sock.sendall(block)
    sent.update(block)
    number += 1
    time.sleep(0.002)
sock.shutdown(1)
reader.join()
print(sent.hexdigest(), got.hexdigest(), number, flush=True)
"""


@pytest.fixture(scope="module")
def ends() -> Iterator[tuple[Host, Host]]:
    """ann, whose second interface has a smaller MTU than the one that her kernel goes by, and dan."""
    with host_net() as net:
        ann = net.add_plain("ann")
        command("ip", "link", "add", "p-ann1", "type", "veth", "peer", "name", "eth1", "netns", str(ann.shell.pid))
        command("ip", "link", "set", "p-ann1", "mtu", str(SMALL_MTU), "master", BRIDGE, "up")
        ann.run("ip", "address", "add", f"{ETH1}/24", "dev", "eth1")
        ann.run("ip", "link", "set", "eth1", "mtu", str(SMALL_MTU), "up")
        net.start_node(ann, mtu=1500, auto_migrate=TRIGGERS)
        dan = net.add("dan", auto_migrate=TRIGGERS)
        dan.run("ip", "route", "add", "10.9.1.0/24", "dev", "eth0")
        ann.forward("web.example", dan.address)
        yield ann, dan


def sent_again(host: Host, since: float) -> list[dict[str, Any]]:
    return [event for event in host.ask("events", since=since)["events"] if event["event"] == "SentAgain"]


def swallow(ann: Host, dan: Host) -> None:
    """The path goes silent until both ends have sent what is never acknowledged; then its link goes."""
    command("ip", "link", "set", "p-ann", "nomaster")
    for host in (ann, dan):
        wait_for("data under way", lambda host=host: host.counters()["unacknowledged_bytes"])
    command("ip", "link", "set", "p-ann", "down")


def mend() -> None:
    command("ip", "link", "set", "p-ann", "master", BRIDGE, "up")


@pytest.mark.statement("S45", "S49")
def test_what_a_lost_link_swallowed_is_sent_again(ends: tuple[Host, Host]) -> None:
    """In both directions, to a link where a segment does not fit in one packet any more."""
    ann, dan = ends
    transfer = Transfer(ann, dan, SIZE)
    transfer.until(0.2)
    start = now(ann)
    swallow(ann, dan)
    try:
        wait_for("the move", lambda: migrated(ann, start))
        for host in ends:
            (event,) = wait_for(f"{host.name}'s second sending", lambda host=host: sent_again(host, start))
            assert event["bytes"] > 0 and event["segments"] >= event["bytes"] / (SMALL_MTU - 52)
            times = [event["time"] for event in host.ask("events")["events"]]
            assert times == sorted(times)
        transfer.end()
    finally:
        mend()
    for host in ends:
        counted = host.counters()
        assert counted["sent_again_bytes"] > 0 and counted["unacknowledged_bytes"] == 0
        assert counted.get("send_emsgsize", 0) == 0


def test_congestion_reset_leaves_it_to_the_kernel(ends: tuple[Host, Host]) -> None:
    ann, dan = ends
    assert "stays" in ann.serval("migrate", "congestion").stdout
    assert "starts slowly" in ann.serval("migrate", "congestion", "reset").stdout
    assert "'state' is keep or reset" in refusal(ann, "migrate_congestion", state="off")
    try:
        transfer = Transfer(ann, dan, SIZE // 4)
        transfer.until(0.2)
        start = now(ann)
        command("ip", "link", "set", "p-ann", "down")
        wait_for("the move", lambda: migrated(ann, start))
        transfer.end()
        assert not sent_again(ann, start) and ann.counters()["unacknowledged_bytes"] == 0
    finally:
        mend()
        assert json.loads(ann.serval("migrate", "congestion", "keep", "--json").stdout) == {"state": "keep"}


@pytest.mark.statement("S45")
def test_fifty_moves_with_data_in_flight(ends: tuple[Host, Host]) -> None:
    """By hand and by the loss of a link, in turn."""
    ann, dan = ends
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    server = dan.popen(sys.executable, "-c", TALKER, "serve", **pipes)
    assert server.stdout.readline() == "ready\n"
    wait_for("the rule", lambda: dan.rules("web.example"))
    client = ann.popen(sys.executable, "-c", TALKER, "connect", **pipes)
    wait_for("data", lambda: any(row["state"] == "CONNECTED" and row["bytes_in"] for row in ann.ask("flows")["flows"]))
    start = now(ann)
    flow_id = flow(ann)["flow_id"]
    for number in range(1, 51):
        port, place = ("p-ann", "eth1") if number % 2 else ("p-ann1", "eth0")
        lost = number % 7 == 0
        if lost:
            command("ip", "link", "set", port, "down")
        else:
            ann.ask("migrate", flow_id=flow_id, to=place)
        wait_for(f"move {number}", lambda number=number: len(migrated(ann, start)) == number)
        if lost:
            command("ip", "link", "set", port, "up")
            wait_for("the link", lambda place=place: _up(ann, "eth0" if place == "eth1" else "eth1"))
    told = []
    for process in (client, server):
        process.stdin.close()
    for process in (client, server):
        told.append(process.stdout.read().split())
        assert process.wait(60) == 0
    assert told[0][:2] == told[1][1::-1] and int(told[0][2]) > 100
    causes = [event["cause"] for event in migrated(ann, start)]
    assert (causes.count("by hand"), causes.count("link down")) == (43, 7)


def _up(host: Host, interface: str) -> bool:
    (shown,) = json.loads(host.run("ip", "-json", "link", "show", "dev", interface).stdout)
    return "LOWER_UP" in shown["flags"]


def test_sal0_follows_the_narrowest_link(ends: tuple[Host, Host]) -> None:
    """Unless the configuration says how wide it is, as it does for ann."""
    ann, dan = ends

    def width(host: Host) -> int:
        (shown,) = json.loads(host.run("ip", "-json", "link", "show", "dev", "sal0").stdout)
        return int(shown["mtu"])

    assert (width(ann), width(dan)) == (1488, 1488)
    dan.run("ip", "link", "add", "narrow", "mtu", "1300", "type", "veth", "peer", "name", "end")
    for interface in ("narrow", "end"):
        dan.run("ip", "link", "set", interface, "mtu", "1300", "up")
    wait_for("the narrower sal0", lambda: width(dan) == 1288)
    dan.run("ip", "link", "delete", "narrow")
    dan.run("ip", "address", "add", "10.9.0.77/32", "dev", "eth0")
    wait_for("the old width", lambda: width(dan) == 1488)
