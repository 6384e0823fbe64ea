"""A connection stays with its instance, whatever happens to rules, instances and packets meanwhile (S43, S10)."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from serval_node.wire.ipv4 import PROTOCOL_SERVAL, address, build_ipv4
from serval_node.wire.sal_header import ControlFlag, SalPacket, encode
from serval_node.wire.transport import ACK as TCP_ACK
from serval_node.wire.transport import build_tcp, recompute_checksum, to_wire
from tests.emulation.datacenter import Running, Seen, end, heard, say, wait_for

SYN, ACK, RST = ControlFlag.SYN, ControlFlag.ACK, ControlFlag.RST
INSTANCES = ("dan", "eve", "fay")
SIZE = 20_000_000

SINK = """
import hashlib, sys
from serval_node import socket as serval
with serval.create_server(sys.argv[1]) as server:
    print("up", flush=True)
    while True:
        conn, _ = server.accept()
        digest = hashlib.sha256()
        with conn:
            while data := conn.recv(1 << 18): digest.update(data)
            conn.sendall(f"{sys.argv[2]} {digest.hexdigest()}".encode())
"""

SOURCE = """
import hashlib, os, sys
from serval_node import socket as serval
block, digest = os.urandom(1_000_000), hashlib.sha256()
conn = serval.create_connection("move.example", 30)
print("up", flush=True)
for _ in range(int(sys.argv[1]) // len(block)): conn.sendall(block); digest.update(block)
conn.shutdown(1)
host, other = conn.recv(1000).decode().split()
print(host, other == digest.hexdigest(), flush=True)
"""

LINES = """
import sys
from serval_node import socket as serval
with serval.create_server(sys.argv[1]) as server:
    print("up", flush=True)
    while True:
        conn, _ = server.accept()
        while data := conn.recv(1000): print(data.decode().strip(), flush=True)
"""

SPEAK = """
import sys
from serval_node import socket as serval
conn = serval.create_connection(sys.argv[1], 20)
print("up", flush=True)
for line in sys.stdin: conn.sendall(line.encode())
"""


@contextmanager
def unanswered(figure: Running) -> Iterator[None]:
    """Nothing comes back to ann from the datacenter."""
    figure.net.run_in("r2", ["ip", "route", "add", "blackhole", "10.1.0.1/32"])
    try:
        yield
    finally:
        figure.net.run_in("r2", ["ip", "route", "del", "blackhole", "10.1.0.1/32"])


def forwarded(figure: Running, since: float) -> list[str]:
    """Where cleo has sent SYNs since then, in order."""
    names = {address: name for name, address in figure.address.items()}
    events = figure.ask("cleo", "events", since=since)["events"]
    return [names[event["target"]] for event in events if event["event"] == "SynForwarded"]


def round_robin(figure: Running, service: str) -> None:
    figure.resolves(service, *INSTANCES)
    figure.ctl("policy", service, "round-robin")
    wait_for("the policy at cleo", lambda: figure.entry("cleo", service)["selector"] == "round-robin")


def opened(figure: Running, service: str, server: subprocess.Popen[str], host: str) -> tuple[Seen, Seen]:
    """An established connection from ann: its SYN as it came to the instance, and the SYN-ACK as it left there."""
    with figure.capture(host) as seen:
        client = figure.start("ann", SPEAK, service)
        say(client, "hello")
        assert heard(server) == "hello"
    packets = seen[f"{host}-eth0"]
    syn, syn_ack = (next(p for p in packets if p.flags == flags) for flags in (SYN, SYN | ACK))
    return syn, syn_ack


@pytest.mark.statement("S43")
def test_a_transfer_stays_whole_while_instances_come_and_go(figure: Running) -> None:
    processes: dict[str, subprocess.Popen[str]] = {}
    for name in ("dan", "eve"):
        processes[name] = figure.start(name, SINK, "move.example", name)
    figure.resolves("move.example", "dan", "eve")
    with figure.capture("cleo") as seen:
        transfer = figure.popen("ann", sys.executable, "-c", SOURCE, str(SIZE))
        assert heard(transfer) == "up"
        names = {address: name for name, address in figure.address.items()}
        instance = names[figure.flow("ann", "move.example")["peer"]]
        other = "eve" if instance == "dan" else "dan"
        figure.start("fay", SINK, "move.example", "fay")
        figure.resolves("move.example", instance, other, "fay")
        end(processes[other])
        figure.resolves("move.example", instance, "fay")
        figure.ctl("change", "cleo", "move.example", "forward", "fay")
        figure.ctl("add", "ann", "move.example", "drop")
        figure.ctl("remove", "ann", "move.example")
        assert transfer.poll() is None
        flow = figure.flow("ann", "move.example")
        assert flow["bytes_out"] < SIZE, "all this took place during the transfer"
        assert figure.python("ben", SOURCE, "1000000").split() == ["up", "fay", "True"]
        assert heard(transfer) == f"{instance} True"
    assert not any(packet.data for packet in seen["cleo-eth0"])


@pytest.mark.statement("S43")
def test_a_repeated_syn_meets_the_same_instance_while_it_is_there(figure: Running) -> None:
    processes = {name: figure.serve(name, "again.example") for name in INSTANCES}
    round_robin(figure, "again.example")
    before = figure.ask("cleo", "events")["now"]
    with unanswered(figure):
        client = figure.popen("ann", sys.executable, "-m", "serval_node.cli", "connect", "again.example")
        wait_for("a repeated SYN", lambda: len(forwarded(figure, before)) >= 2)
        first, second = forwarded(figure, before)[:2]
        assert first == second, "though it would be another's turn"
        end(processes[first])
        figure.resolves("again.example", *(name for name in INSTANCES if name != first))
    assert client.communicate(timeout=20)[0] in set(INSTANCES) - {first}
    assert forwarded(figure, before)[-1] != first


@pytest.mark.statement("S43")
def test_duplicates_make_no_second_child_and_are_answered(figure: Running) -> None:
    server = figure.start("dan", LINES, "twice.example")
    figure.resolves("twice.example", "dan")
    syn, syn_ack = opened(figure, "twice.example", server, "dan")
    with figure.capture("ann", "dan") as seen:
        figure.inject("cleo", syn.packet, syn.packet)
        figure.inject("dan", syn_ack.packet)
        time.sleep(0.3)
    assert [p.packet[20:] for p in seen["dan-eth0"] if p.flags == SYN] == [syn.packet[20:]] * 2
    assert len(figure.flows("dan", "twice.example")) == 1
    assert len([p for p in seen["ann-eth0"] if p.flags == SYN | ACK]) >= 1
    third = [p for p in seen["dan-eth0"] if p.flags == ACK and p.sal.dst_flow == syn_ack.sal.src_flow]
    assert third, "a repeated SYN-ACK is answered by the third packet again"
    assert not [p for p in seen["dan-eth0"] if p.flags & RST]
    assert figure.flow("ann", "twice.example")["peer_flow"] == syn_ack.sal.src_flow


@pytest.mark.statement("S43")
def test_the_syn_ack_of_another_instance_is_reset(figure: Running) -> None:
    server, _ = (figure.start(name, LINES, "rival.example") for name in ("dan", "eve"))
    figure.resolves("rival.example", "dan", "eve")
    figure.ctl("add", "cleo", "rival.example", "forward", "dan")
    syn, _ = opened(figure, "rival.example", server, "dan")
    # The same SYN also reaches eve, as after a change of rules between two copies.
    payload = recompute_checksum(syn.sal.payload, syn.sal.protocol, syn.ip.source, address(figure.address["eve"]))
    packet = SalPacket(syn.sal.src_flow, syn.sal.dst_flow, syn.sal.protocol, syn.sal.extensions, payload)
    copy = build_ipv4(syn.ip.source, address(figure.address["eve"]), PROTOCOL_SERVAL, encode(packet))
    with figure.capture("eve") as seen:
        figure.inject("cleo", copy)
        before = figure.flow("ann", "rival.example")
        wait_for("the end of eve's flow", lambda: not open_flows(figure, "eve", "rival.example"))
    packets = seen["eve-eth0"]
    assert [p.flags for p in packets[:2]] == [SYN, SYN | ACK]
    resets = [p for p in packets if p.flags & RST and p.ip.source == address(figure.address["ann"])]
    assert resets, "ann resets the second instance"
    assert figure.flow("ann", "rival.example")["peer_flow"] == before["peer_flow"]
    assert figure.flow("dan", "rival.example")


def open_flows(figure: Running, host: str, service: str) -> list[str]:
    states = [flow["state"] for flow in figure.flows(host, service)]
    return [state for state in states if state not in ("CLOSED", "TIMEWAIT")]


@pytest.mark.statement("S10")
def test_flow_ids_and_not_addresses_find_the_socket(figure: Running) -> None:
    server = figure.start("dan", LINES, "flow.example")
    figure.resolves("flow.example", "dan")
    figure.net.run_in("dan", ["ip", "address", "replace", "10.2.1.77/16", "dev", "dan-eth0"])
    with figure.capture("dan") as seen:
        client = figure.start("ann", SPEAK, "flow.example")
        say(client, "from ann")
        assert heard(server) == "from ann"
    last = next(packet for packet in seen["dan-eth0"] if packet.data == b"from ann\n")

    def packet(src_flow: int, dst_flow: int, text: bytes) -> bytes:
        """What continues ann's stream, but from ben's address and to another one of dan."""
        source, destination = address(figure.address["ben"]), address("10.2.1.77")
        sequence = last.tcp.seq + len(last.data)
        segment = build_tcp(0, 0, sequence, last.tcp.ack, TCP_ACK, window=last.tcp.window, data=text)
        segment = to_wire(segment, last.sal.protocol, source, destination)
        sal = encode(SalPacket(src_flow, dst_flow, last.sal.protocol, (), segment))
        return build_ipv4(source, destination, PROTOCOL_SERVAL, sal)

    right = last.sal.src_flow, last.sal.dst_flow
    for reason, change in (("unknown_flow", (0, 1)), ("wrong_peer_flow", (1, 0))):
        before = figure.counter("dan", reason)
        figure.inject("ben", packet(right[0] ^ change[0], right[1] ^ change[1], b"wrong flowID\n"))
        wait_for(f"the drop, counted as {reason}", lambda: figure.counter("dan", reason) == before + 1)  # noqa: B023
    figure.inject("ben", packet(*right, b"from elsewhere\n"))
    assert heard(server) == "from elsewhere", "and nothing of the two before"
