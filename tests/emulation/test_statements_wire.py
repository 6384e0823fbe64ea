"""One connection through the datacenter, captured on its whole way: what is on the wire (slides 14, 17, 33 to 37)."""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass
from typing import Any

import pytest

from serval_node.wire.checksum import internet_checksum
from serval_node.wire.ipv4 import address
from serval_node.wire.sal_header import BARE_LENGTH, ControlFlag, Source
from serval_node.wire.serviceid import ServiceID
from serval_node.wire.transport import SYN as TCP_SYN
from serval_node.wire.transport import verify
from tests.emulation.datacenter import DETOUR_SECONDS, Running, Seen, heard, say

SYN, ACK, RST = ControlFlag.SYN, ControlFlag.ACK, ControlFlag.RST

SERVER = """
from serval_node import socket as serval
with serval.create_server("story.example") as server:
    print("up", flush=True)
    while True:
        conn, _ = server.accept()
        print("accepted", conn.local_service.hex(), flush=True)
        with conn:
            while data := conn.recv(65536): conn.sendall(data)
"""

CLIENT = """
import json, sys, time
from serval_node import socket as serval
start = time.monotonic()
conn = serval.create_connection("story.example", 10)
connect = time.monotonic() - start
trips = []
for _ in range(5):
    start = time.monotonic(); conn.sendall(b"x"); assert conn.recv(1) == b"x"
    trips.append(time.monotonic() - start)
print(json.dumps({"connect": connect, "trip": min(trips)}), flush=True); sys.stdin.readline()
data = bytes(range(256)) * 200
conn.sendall(data); conn.shutdown(1)
back = b""
while piece := conn.recv(65536): back += piece
conn.close()
print(back == data, flush=True)
"""


@dataclass
class Story:
    """What was captured of a connection ann -> cleo -> dan, and what the tables said after it."""

    figure: Running
    client: dict[str, Any]
    server: str
    seen: dict[str, list[Seen]]
    service_id: ServiceID
    edge: dict[str, Any]
    router: dict[str, Any]
    flows: dict[str, Any]

    def only(self, interface: str, flags: int) -> Seen:
        """The one packet with exactly these flags that passed an interface."""
        (packet,) = self.having(interface, flags)
        return packet

    def having(self, interface: str, flags: int) -> list[Seen]:
        return [packet for packet in self.seen[interface] if packet.flags == flags]

    def at(self, *names: str) -> tuple[bytes, ...]:
        return tuple(address(self.figure.address[name]) for name in names)


@pytest.fixture(scope="module")
def story(running: Running) -> Story:
    server = running.start("dan", SERVER)
    running.resolves("story.example", "dan")
    with running.capture("ann", "r1", "cleo", "dan") as seen:
        process = running.popen("ann", sys.executable, "-c", CLIENT)
        client = json.loads(heard(process))
        flows = {name: running.flow(name, "story.example") for name in ("ann", "dan")}
        say(process)
        assert heard(process) == "True", "the echo differs"
        assert process.wait(10) == 0
    where = running.ask("ann", "address", name="story.example")
    return Story(
        running,
        client,
        heard(server),
        seen,
        ServiceID.from_hex(where["service"]),
        running.entry("ann", "*.example"),
        running.entry("cleo", "story.example"),
        flows,
    )


def without(packet: bytes, *fields: slice) -> bytes:
    """The packet with these bytes as zeros."""
    copy = bytearray(packet)
    for field in fields:
        copy[field] = bytes(len(copy[field]))
    return bytes(copy)


@pytest.mark.statement("S7")
def test_a_stock_router_on_the_way_changes_ttl_and_checksum_only(story: Story) -> None:
    figure = story.figure
    assert "r1" not in figure.address, "r1 has no Serval node"
    assert "sal0" not in figure.net.run_in("r1", ["ip", "link"])
    inside, outside = story.seen["r1-eth0"], story.seen["r1-eth1"]
    assert len(inside) == len(outside) > 50
    # Both directions, each in its order; the router keeps the order within one.
    for client_to_server in (True, False):
        here, there = (
            [packet for packet in side if (packet.ip.source == address(figure.address["ann"])) == client_to_server]
            for side in (inside, outside)
        )
        before, after = (here, there) if client_to_server else (there, here)
        assert len(before) == len(after) > 10
        for came, went in zip(before, after, strict=True):
            assert went.ip.ttl == came.ip.ttl - 1
            ttl, checksum = slice(8, 9), slice(10, 12)
            assert without(came.packet, ttl, checksum) == without(went.packet, ttl, checksum)
            assert internet_checksum(came.packet[:20]) == internet_checksum(went.packet[:20]) == 0


@pytest.mark.statement("S18")
def test_the_service_id_travels_in_the_first_packets_only(story: Story) -> None:
    packets = story.seen["ann-eth0"]
    naming = [packet for packet in packets if packet.sal.services]
    # Also the third packet has it, as the original's; it may be repeated.
    assert naming[0].flags == SYN
    assert {packet.flags for packet in naming[1:]} == {ACK}
    assert not any(packet.data for packet in naming)
    assert all(packet.sal.services == (story.service_id,) for packet in naming)
    assert story.service_id.raw[:10] not in b"".join(packet.packet for packet in packets if packet not in naming)
    data = [packet for packet in packets if packet.data]
    assert sum(len(packet.data) for packet in data) >= 2 * (51200 + 5)
    assert {packet.header_length for packet in data} == {BARE_LENGTH}


@pytest.mark.statement("S20", "S38")
def test_connect_sends_a_syn_to_the_router(story: Story) -> None:
    syn = story.only("ann-eth0", SYN)
    assert story.seen["ann-eth0"][0] == syn, "nothing was asked before"
    assert (syn.ip.source, syn.ip.destination) == story.at("ann", "cleo")
    assert (syn.sal.src_flow, syn.sal.dst_flow) == (story.flows["ann"]["flow_id"], 0)
    assert syn.sal.services == (story.service_id,)
    assert syn.tcp.flags == TCP_SYN
    assert (syn.tcp.source_port, syn.tcp.destination_port) == (0, 0)


@pytest.mark.statement("S39")
def test_the_router_rewrites_the_destination_only(story: Story) -> None:
    came, went = story.having("cleo-eth0", SYN)
    assert (came.ip.source, came.ip.destination) == story.at("ann", "cleo")
    assert (went.ip.source, went.ip.destination) == story.at("ann", "dan")
    assert went.ip.ttl == came.ip.ttl - 1
    assert (went.sal.src_flow, went.sal.dst_flow) == (came.sal.src_flow, came.sal.dst_flow)
    assert came.sal.source == ()
    assert went.sal.extensions == (*came.sal.extensions, Source(story.at("ann", "cleo")))
    tcp_checksum = slice(16, 18)
    assert without(went.sal.payload, tcp_checksum) == without(came.sal.payload, tcp_checksum)
    assert verify(went.sal.payload, went.sal.protocol, went.ip.source, went.ip.destination)


@pytest.mark.statement("S40", "S25")
def test_the_instance_delivers_to_its_listening_socket(story: Story) -> None:
    assert story.server == f"accepted {story.service_id.hex()}"
    target = story.figure.entry("dan", "story.example")["targets"][0]
    assert (target["action"], target["packets"]) == ("demux", 1)
    assert target["where"].startswith("198.18.0.1:")


@pytest.mark.statement("S41")
def test_the_syn_ack_comes_straight_from_a_new_child(story: Story) -> None:
    answer = story.only("dan-eth0", SYN | ACK)
    assert (answer.ip.source, answer.ip.destination) == story.at("dan", "ann")
    ann, dan = story.flows["ann"], story.flows["dan"]
    assert (answer.sal.src_flow, answer.sal.dst_flow) == (dan["flow_id"], ann["flow_id"])
    assert dan["flow_id"] not in (0, ann["flow_id"])
    assert story.having("cleo-eth0", SYN | ACK) == []
    assert story.only("ann-eth0", SYN | ACK).sal == answer.sal


@pytest.mark.statement("S42", "S30")
def test_the_router_sees_one_packet_of_the_connection(story: Story) -> None:
    flags = [packet.flags for packet in story.seen["cleo-eth0"]]
    assert flags == [SYN, SYN], "one in, one out, and no data"
    ways = {packet.way for packet in story.seen["dan-eth0"] if packet.flags != SYN}
    assert ways == {
        (story.figure.address["ann"], story.figure.address["dan"]),
        (story.figure.address["dan"], story.figure.address["ann"]),
    }


@pytest.mark.statement("S42")
def test_the_round_trip_loses_the_detour(story: Story) -> None:
    connect, trip = story.client["connect"], story.client["trip"]
    print(f"connect() over cleo {connect * 1000:.1f} ms, round trip of data {trip * 1000:.1f} ms")
    assert connect > trip + 1.5 * DETOUR_SECONDS, "the SYN took the detour, twice its delay"
    assert trip < 0.010 + DETOUR_SECONDS, "data did not"


@pytest.mark.statement("S30")
def test_counters_are_those_of_the_capture(story: Story) -> None:
    syn = next(packet for packet in story.having("cleo-eth0", SYN))
    assert (story.router["packets"], story.router["bytes"]) == (1, len(syn.packet))
    (target,) = story.router["targets"]
    assert (target["packets"], target["bytes"]) == (1, len(syn.packet))
    assert story.edge["packets"] == len(story.having("ann-eth0", SYN)) == 1
    (target,) = story.edge["targets"]
    assert (target["packets"], target["dropped_packets"]) == (1, 0)


@pytest.mark.statement("S29")
def test_the_router_answers_an_unknown_service_with_the_syns_nonce(story: Story) -> None:
    figure = story.figure
    with figure.capture("ann", "cleo") as seen:
        done = figure.popen("ann", "sh", "-c", "exec curl -sS --max-time 5 http://typo.example/ 2>&1")
        done.communicate(timeout=10)
    assert done.returncode == 7, "connection refused, not a time-out"
    (syn,) = [packet for packet in seen["cleo-eth0"] if packet.flags == SYN]
    (answer,) = [packet for packet in seen["ann-eth0"] if packet.flags & RST]
    assert answer.flags == RST | ACK
    assert answer.nonce == syn.nonce != b""
    assert answer.sal.dst_flow == syn.sal.src_flow
    assert answer.way == (figure.address["cleo"], figure.address["ann"])
