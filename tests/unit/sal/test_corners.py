"""Rare meetings of packets and timers, each of which once went wrong or could."""

from __future__ import annotations

from dataclasses import replace

import pytest

from serval_node.sal.events import FlowClosed, Refusal
from serval_node.sal.opening import THIRD_ACK_TRIES
from serval_node.sal.outputs import Send
from serval_node.sal.service_table import Action, Rule, Target
from serval_node.sal.states import State
from serval_node.sal.virtual_peers import VirtualPeers
from serval_node.wire.errors import DropReason
from serval_node.wire.ipv4 import address, build_ipv4
from serval_node.wire.sal_header import Control, ControlFlag, Pad, SalPacket, Service, encode
from serval_node.wire.serviceid import Prefix
from serval_node.wire.transport import ACK, FIN, RST, SYN, build_tcp, to_wire
from tests.unit.sal.conftest import A, C, E, Figure, Pair
from tests.unit.sal.world import SAL0, WEB_BIND, WEB_ID, Seen

_SYN, _ACK, _RST, _RSYN = ControlFlag.SYN, ControlFlag.ACK, ControlFlag.RST, ControlFlag.RSYN
STRANGER = address("10.9.9.9")


def syn_packet(number: int, *, flags: int = SYN, protocol: int = 6, to: str = E, extra: int = 0) -> Send:
    """A stranger's SYN."""
    segment = to_wire(build_tcp(0, 0, number, 0, flags), 6, STRANGER, address(to))
    control = Control(_SYN, number, 0, number.to_bytes(8, "big"))
    extensions = (*(Pad() for _ in range(extra)), control, Service(WEB_ID))
    return Send(STRANGER, address(to), 64, encode(SalPacket(number, 0, protocol, extensions, segment)))


def only(seen: list[Seen]) -> Seen:
    assert len(seen) == 1
    return seen[0]


def test_port_that_a_given_up_connect_had_starts_a_new_request(pair: Pair) -> None:
    """The server still holds the first one's half-open child, which must not meet the second one's TCP numbers."""
    pair.world.lose = lambda host, send, packet: host is pair.e
    first = pair.a.connect(local_port=45000)
    pair.world.run(0.1)
    old = next(iter(pair.a.stack.flows)).local_flow
    # The kernel has not told of the socket's end yet.
    first.state, first.due = "CLOSED", None
    del pair.a.kernel.sockets[first.local, first.peer]
    pair.world.lose = None
    second = pair.a.connect(local_port=45000)
    pair.world.run(1)
    assert second.state == "ESTABLISHED"
    (flow,) = pair.a.stack.flows
    assert flow.local_flow != old and flow.initial_seq == second.iss


def test_late_timers_of_the_syns_leave_the_third_ack_alone(pair: Pair) -> None:
    """Each SYN has a timer of its own; when they fire, the flow counts something else."""
    pair.world.lose = lambda host, send, packet: packet.control is not None and packet.control.flags == _SYN
    client = pair.a.connect()
    pair.world.run(20)
    assert client.state == "SYN_SENT"
    pair.world.lose = lambda host, send, packet: packet.control is not None and packet.control.flags == _ACK
    pair.world.run(200)
    answers = len(pair.world.controls(_SYN | _ACK))
    assert len(pair.world.controls(_ACK, "a")) == answers + THIRD_ACK_TRIES


@pytest.mark.parametrize("flags", [ACK, RST, SYN | ACK, SYN | RST, SYN | FIN, FIN])
def test_syn_that_opens_no_tcp_connection_reaches_no_listener(pair: Pair, flags: int) -> None:
    pair.world.inject(syn_packet(7, flags=flags))
    pair.world.run(0.01)
    assert pair.e.count(DropReason.BAD_TRANSPORT_HEADER) == 1 and pair.world.delivered == 0
    assert not list(pair.e.stack.flows)


def test_changed_copy_of_a_syn_does_not_reach_the_kernel(pair: Pair) -> None:
    """Same client, flowID and nonce, but something else behind it."""
    pair.world.inject(syn_packet(7))
    pair.world.run(0.01)
    delivered = pair.world.delivered
    pair.world.inject(syn_packet(7, flags=RST))
    pair.world.run(0.01)
    assert pair.world.delivered == delivered and pair.e.count(DropReason.BAD_TRANSPORT_HEADER) == 1
    assert [flow.state for flow in pair.e.stack.flows] == [State.RESPOND]


def test_broadcast_syn_is_in_no_counter_and_wakes_nobody(pair: Pair) -> None:
    table = pair.e.stack.service_table
    table.set_rule(Rule(Prefix.default(), (Target(Action.DELAY),)), "hand")
    pair.e.environment.is_local = lambda address: False  # type: ignore[method-assign]
    pair.world.inject(syn_packet(7))
    entry = table.get(WEB_BIND)
    pair.world.run(0.01)
    table.remove_rule(WEB_BIND, "local")
    pair.world.inject(syn_packet(8))
    pair.world.run(0.01)
    assert pair.e.count(Refusal.BROADCAST) == 2 and not pair.e.stack.delayed() and pair.world.delivered == 0
    assert entry is not None and entry.counters.packets == 0


def test_router_forwards_a_syn_full_of_padding(figure: Figure) -> None:
    """Ten extensions are what a receiver takes, and SOURCE is one more."""
    figure.point(E)
    listener = figure.e.serve()
    figure.world.inject(syn_packet(7, to=C, extra=8))
    figure.world.run(0.015)
    forwarded = only(figure.world.controls(_SYN, "c"))
    assert forwarded.packet.source == (STRANGER, address(C)) and Pad() not in forwarded.packet.extensions
    figure.world.run(0.02)
    assert len(figure.e.stack.flows) == 1 and not listener.queue


def test_reset_is_not_fooled_by_a_segment_that_left_earlier(pair: Pair) -> None:
    """What the kernel sent before the last data came in names an old number: a RST with it would not be believed."""
    client, server = pair.connect()
    pair.e.send(server, b"x" * 5000)
    pair.world.run(1)
    pair.world.delivery_loss = 0.0
    stale = pair.a.stack.flow_for_kernel(*client.peer, client.local[1])
    assert stale is not None
    seq, old = client.snd_nxt, (client.rcv_nxt - 3000) % (1 << 32)
    probes = []
    original = pair.a.kernel.input

    def hold(packet: bytes, now: float) -> None:
        probes.append(packet)

    # The RST comes while a segment with an old number is still in sal0's queue.
    pair.a.kernel.input = hold  # type: ignore[method-assign]
    pair.e.abort(server)
    pair.world.lose = None
    pair.world.run(0.015)
    late = build_tcp(client.local[1], client.peer[1], seq, old, ACK, window=500)
    pair.a.stack.kernel_packet(build_ipv4(SAL0, client.peer[0], 6, late), 0, pair.world.now)
    pair.a.settle()
    pair.a.kernel.input = original  # type: ignore[method-assign]
    client_error_before = client.error
    pair.world.run(5)
    assert client_error_before is None and client.error == "ECONNRESET"
    assert not [flow for flow in pair.a.stack.flows if flow.state is not State.CLOSED]


def test_forged_clients_do_not_use_up_the_virtual_addresses(monkeypatch: pytest.MonkeyPatch, pair: Pair) -> None:
    """Each forged SYN takes a 198.19 address; one without a flow is taken back when the block is used up."""
    monkeypatch.setattr("serval_node.sal.virtual_peers._HOSTS", 20)
    _, server = pair.connect()
    for number in range(1, 60):
        send = syn_packet(number)
        source = bytes((10, 7, 0, number))
        packet = SalPacket(
            number,
            0,
            6,
            (Control(_SYN, number, 0, number.to_bytes(8, "big")), Service(WEB_ID)),
            to_wire(build_tcp(0, 0, number, 0, SYN), 6, source, address(E)),
        )
        pair.world.inject(replace(send, source=source, data=encode(packet)), number * 40.0)
    pair.world.run(3000)
    assert pair.e.count(Refusal.HALF_OPEN_FULL) == 0
    assert pair.e.stack.client_of(server.peer[0]) == address(A), "an open flow keeps its address"


def test_virtual_addresses_are_one_per_client_and_run_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("serval_node.sal.virtual_peers._HOSTS", 500)
    peers = VirtualPeers()
    given = {peers.address(number.to_bytes(4, "big")) for number in range(500)}
    assert len(given) == 500 and all(found[:2] == bytes((198, 19)) for found in given)
    assert peers.address(bytes(4)) in given
    with pytest.raises(OverflowError):
        peers.address(b"\xff\xff\xff\xff")
    kept = peers.address(bytes(4))
    peers.retain({kept})
    assert peers.address(bytes(4)) == kept and peers.client(kept) == bytes(4)
    assert peers.address(b"\xff\xff\xff\xff") != kept


@pytest.mark.parametrize("closing", [False, True])
def test_nothing_is_repeated_for_a_flow_that_was_aborted(pair: Pair, closing: bool) -> None:
    """Neither its third ACK nor its FIN: they would open, or keep alive, what nobody here wants."""
    client = pair.a.connect()
    pair.world.run(1, until=lambda: client.state == "ESTABLISHED")
    if closing:
        pair.a.send(client, b"x")
        pair.world.run(1)
        pair.world.lose = lambda host, send, packet: packet.control is not None
        pair.a.shutdown(client)
        pair.world.run(0.1)
        assert [flow.state for flow in pair.a.stack.flows] == [State.FINWAIT1]
    pair.world.lose = lambda host, send, packet: True
    pair.a.abort(client)
    sent = len(pair.world.seen)
    pair.world.run(50)
    assert not [seen for seen in pair.world.seen[sent:] if seen.host == "a"]
    assert len(pair.a.happened(FlowClosed)) == 1
    pair.world.run(100)
    assert not list(pair.a.stack.flows) and len(pair.a.happened(FlowClosed)) == 1


def test_waiting_under_delay_is_counted_from_the_first_copy(figure: Figure) -> None:
    """The kernel's retransmissions neither take another place nor prolong the wait."""
    figure.c.stack.service_table.set_rule(Rule(WEB_BIND, (Target(Action.DELAY),)), "controller")
    figure.a.connect()
    figure.world.run(59)
    assert figure.c.stack.delayed() == {WEB_ID: 1} and len(figure.world.controls(_SYN, "a")) > 3
    figure.world.run(1.5)
    assert not figure.c.stack.delayed() and figure.c.count(Refusal.DELAY_EXPIRED) == 1
