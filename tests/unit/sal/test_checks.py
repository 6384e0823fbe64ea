"""Checks and promises of the stack that no ordinary connection comes near."""

from __future__ import annotations

from dataclasses import replace

import pytest

from serval_node.sal.context import StackConfig
from serval_node.sal.events import Refusal
from serval_node.sal.outputs import Send
from serval_node.sal.service_table import Rule
from serval_node.sal.states import State
from serval_node.sal.virtual_peers import VirtualPeers
from serval_node.wire.ipv4 import address
from serval_node.wire.sal_header import ControlFlag, encode
from serval_node.wire.transport import build_tcp, to_wire
from tests.unit.sal.conftest import A, D, E, Figure, Pair
from tests.unit.sal.fake_tcp import MSS
from tests.unit.sal.world import NAMING, WEB_BIND, forward

_SYN, _ACK, _RST = ControlFlag.SYN, ControlFlag.ACK, ControlFlag.RST


@pytest.mark.parametrize("wrong", ["ackno", "tcp ack"])
def test_syn_ack_for_another_syn_is_not_taken(pair: Pair, wrong: str) -> None:
    """The client verifies both layers' numbers: of its SYN, and of its kernel's."""
    pair.world.lose = lambda host, send, packet: host is pair.e
    client = pair.a.connect()
    pair.world.run(0.1)
    answer = pair.world.controls(_SYN | _ACK)[0]
    control, packet = answer.packet.control, answer.packet
    assert control is not None
    if wrong == "ackno":
        packet = replace(packet, extensions=(replace(control, ackno=control.ackno + 1),))
    else:
        segment = build_tcp(0, 0, 77, client.iss + 2, 0x12, window=500)
        packet = replace(packet, payload=to_wire(segment, 6, address(E), address(A)))
    pair.world.inject(Send(answer.source, answer.destination, 64, encode(packet)))
    pair.world.run(0.01)
    assert [flow.state for flow in pair.a.stack.flows] == [State.REQUEST]
    assert pair.a.count(Refusal.WRONG_NUMBER) == 1 and client.state == "SYN_SENT"


def test_request_lives_from_its_last_syn(pair: Pair) -> None:
    timeout = StackConfig().request_timeout
    pair.world.lose = lambda host, send, packet: True
    pair.a.connect()
    pair.world.run(timeout + 5)
    (flow,) = pair.a.stack.flows
    last = max(seen.time for seen in pair.world.controls(_SYN))
    assert flow.state is State.REQUEST and flow.deadline == pytest.approx(last + timeout)


def test_super_segments_leave_in_packets_that_fit(pair: Pair) -> None:
    """Also where the stack sends them, which is while the peer has not been heard."""
    client = pair.a.connect()
    pair.world.run(1, until=lambda: client.state == "ESTABLISHED")
    pair.a.send(client, b"x" * 20000)
    assert not pair.a.paths, "on the slow path"
    pair.world.run(1)
    assert bytes(pair.listener.queue[0].received) == b"x" * 20000
    assert max(len(seen.packet.payload) for seen in pair.world.seen) == 20 + MSS


def test_retransmitted_syn_leaves_for_the_same_target(figure: Figure) -> None:
    """S43 where the host itself has the choice."""
    figure.a.stack.service_table.set_rule(Rule(WEB_BIND, forward(D, E, "10.0.4.1", "10.0.5.1")), "hand")
    figure.a.connect()
    figure.world.run(40)
    syns = figure.world.controls(_SYN, "a")
    assert len(syns) >= 5 and len({seen.destination for seen in syns}) == 1
    entry = figure.a.stack.service_table.get(WEB_BIND)
    assert entry is not None
    figure.a.stack.service_table.remove_target(
        WEB_BIND, next(target for target in entry.targets() if target.address == syns[0].destination), "hand"
    )
    figure.world.run(60)
    assert figure.world.controls(_SYN, "a")[-1].destination != syns[0].destination


def test_reset_does_not_shorten_time_wait(pair: Pair) -> None:
    """Else an old RST would free the flowID early (S11)."""
    client, server = pair.connect()
    pair.a.close(client)
    pair.world.run(0.5)
    pair.e.close(server)
    pair.world.run(1)
    (flow,) = pair.a.stack.flows
    assert flow.state is State.TIMEWAIT and flow.control.peer_nonce is not None
    control = replace(flow.control.make(_RST | _ACK), verno=flow.control.rcv_nxt, nonce=flow.control.peer_nonce)
    packet = replace(
        pair.world.seen[0].packet,
        src_flow=flow.peer_flow,
        dst_flow=flow.local_flow,
        extensions=(control,),
        payload=b"",
    )
    pair.world.inject(Send(address(E), address(A), 64, encode(packet)))
    pair.world.run(50)
    assert [flow.state for flow in pair.a.stack.flows] == [State.TIMEWAIT]
    pair.world.run(20)
    assert not list(pair.a.stack.flows)


def test_virtual_ports_in_use_are_passed_over() -> None:
    peers, client = VirtualPeers(), address(A)
    first = peers.endpoint(client, lambda end: False)
    second = peers.endpoint(client, lambda end: end[1] in (1025, 1026))
    assert first is not None and second is not None
    assert (first[1], second[1]) == (1024, 1027) and first[0] == second[0]
    assert peers.endpoint(client, lambda end: True) is None


def test_connect_that_fails_at_once_gives_its_flow_id_back(pair: Pair) -> None:
    """S37: a reservation does not outlive the connect() that was refused here."""
    stack = pair.a.stack
    flow_id = stack.reserve_flow()
    stack.prepare_connect(flow_id, 45000, NAMING.service_id("web.other"))
    assert pair.a.connect("web.other", local_port=45000).error == "ENETUNREACH"
    assert not stack.flows.reserved() and not list(stack.flows)
    # What connects from that port next is judged by its own address.
    assert pair.a.connect(local_port=45000).error is None
