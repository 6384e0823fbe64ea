"""Close in either order, half-close, reset, and what is left behind afterwards."""

from __future__ import annotations

from dataclasses import replace

import pytest

from serval_node.sal.events import FlowClosed, Refusal
from serval_node.sal.outputs import Send
from serval_node.sal.states import State
from serval_node.wire.ipv4 import address
from serval_node.wire.sal_header import Control, ControlFlag, encode
from serval_node.wire.serial import serial_add
from serval_node.wire.transport import FIN, RST, TcpHeader
from tests.unit.sal.conftest import A, C, E, Figure, Pair, make_pair
from tests.unit.sal.fake_tcp import Socket
from tests.unit.sal.world import Host, Seen

_ACK, _RST, _FIN = ControlFlag.ACK, ControlFlag.RST, ControlFlag.FIN


def states(host: Host) -> list[State]:
    return [flow.state for flow in host.stack.flows]


def tcp_of(seen: Seen) -> TcpHeader:
    return TcpHeader.decode(seen.packet.payload)


def exchange(pair: Pair, client: Socket, server: Socket, size: int = 50000) -> None:
    pair.a.send(client, b"q" * size)
    pair.e.send(server, b"r" * size)
    pair.world.run(2)


@pytest.mark.parametrize("first", ["client", "server"])
def test_both_close_orders(pair: Pair, first: str) -> None:
    """The first to close waits in TIME_WAIT, the other's flow is gone; every byte has arrived."""
    client, server = pair.connect()
    exchange(pair, client, server)
    ends = [(pair.a, client), (pair.e, server)]
    if first == "server":
        ends.reverse()
    (one, one_socket), (two, two_socket) = ends
    one.close(one_socket)
    pair.world.run(1)
    assert states(one) == [State.FINWAIT2] and states(two) == [State.CLOSEWAIT] and two_socket.eof
    two.close(two_socket)
    pair.world.run(1)
    assert states(one) == [State.TIMEWAIT] and states(two) == []
    assert (len(server.received), len(client.received)) == (50000, 50000)
    assert (client.error, server.error) == (None, None)
    pair.world.run(61)
    assert states(one) == [] and not one.paths and not two.paths
    assert not pair.a.stack.counters and not pair.e.stack.counters
    reasons = [event.reason for host in (pair.a, pair.e) for event in host.happened(FlowClosed)]  # type: ignore[attr-defined]
    assert reasons == ["closed", "closed"]


def test_sal_fin_follows_the_acknowledgement_of_the_tcp_fin(pair: Pair) -> None:
    """Protocol notes 2.5: TCP FIN, TCP ACK, SAL FIN, SAL ACK."""
    client, server = pair.connect()
    pair.world.run(1)
    pair.world.seen.clear()
    pair.a.close(client)
    pair.world.run(1)
    story = [
        (
            seen.host,
            "control" if seen.packet.control else "data",
            seen.packet.control.flags if seen.packet.control else 0,
        )
        for seen in pair.world.seen
    ]
    assert story == [("a", "data", 0), ("e", "data", 0), ("a", "control", _FIN), ("e", "control", _ACK)]
    assert tcp_of(pair.world.seen[0]).flags & FIN
    fin = pair.world.seen[2].packet.control
    answer = pair.world.seen[3].packet.control
    assert fin is not None and answer is not None and answer.ackno == serial_add(fin.verno, 1)


def test_simultaneous_close(pair: Pair) -> None:
    client, server = pair.connect()
    exchange(pair, client, server)
    pair.a.close(client)
    pair.e.close(server)
    pair.world.run(3)
    assert states(pair.a) == states(pair.e) == [State.TIMEWAIT]


def test_half_close_goes_on_in_the_other_direction(pair: Pair) -> None:
    """shutdown(WR) by the client, then a long answer: on the fast path again."""
    client, server = pair.connect()
    pair.a.send(client, b"request")
    pair.a.shutdown(client)
    pair.world.run(1)
    assert server.eof and states(pair.a) == [State.FINWAIT2] and states(pair.e) == [State.CLOSEWAIT]
    fast = pair.a.fast_packets
    pair.e.send(server, b"answer" * 100000)
    pair.world.run(10, until=lambda: len(client.received) == 600000)
    assert pair.a.fast_packets - fast > 300
    pair.e.close(server)
    pair.world.run(2)
    assert client.eof and states(pair.a) == [State.TIMEWAIT] and states(pair.e) == []


def test_half_open_flow_may_be_idle_for_long(pair: Pair) -> None:
    client, server = pair.connect()
    pair.a.shutdown(client)
    pair.world.run(3600)
    pair.e.send(server, b"late answer")
    pair.e.close(server)
    pair.world.run(2)
    assert bytes(client.received) == b"late answer" and client.eof


@pytest.mark.parametrize("lost", ["fin", "ack"])
def test_lost_fin_or_its_acknowledgement_is_repeated(pair: Pair, lost: str) -> None:
    client, server = pair.connect()
    exchange(pair, client, server, 100)
    left = [2]

    def lose(host: Host, send: Send, packet: object) -> bool:
        control = packet.control  # type: ignore[attr-defined]
        wanted = (_FIN, "a") if lost == "fin" else (_ACK, "e")
        if control is not None and (control.flags, host.name) == wanted and left[0]:
            left[0] -= 1
            return True
        return False

    pair.world.lose = lose
    pair.a.close(client)
    pair.e.close(server)
    pair.world.run(5)
    assert left == [0] and set(states(pair.a) + states(pair.e)) <= {State.TIMEWAIT}
    vernos = {seen.packet.control.verno for seen in pair.world.controls(_FIN, "a") if seen.packet.control}
    assert len(vernos) == 1


def test_abort_reaches_the_peer_as_a_reset(pair: Pair) -> None:
    """SO_LINGER 0, or close with unread data: TCP RST with the exact number, and RST|ACK of SAL."""
    client, server = pair.connect()
    exchange(pair, client, server, 10)
    server.unread = True
    pair.e.close(server)
    pair.world.run(2)
    assert client.error == "ECONNRESET" and not pair.a.kernel.sockets and states(pair.a) == []
    assert tcp_of([seen for seen in pair.world.seen if seen.packet.control is None][-1]).flags & RST
    assert len(pair.world.controls(_RST | _ACK, "e")) == 1
    assert not pair.e.paths and not pair.a.paths


@pytest.mark.parametrize("lost", ["tcp", "sal", "both"])
def test_reset_survives_loss(pair: Pair, lost: str) -> None:
    """Each of the two packets is enough; without both, the next thing that the peer says is answered by RST."""
    client, server = pair.connect()
    exchange(pair, client, server, 10)

    def lose(host: Host, send: Send, packet: object) -> bool:
        control = packet.control  # type: ignore[attr-defined]
        return host.name == "e" and lost in (("tcp" if control is None else "sal"), "both")

    pair.world.lose = lose
    pair.e.abort(server)
    pair.world.run(1)
    pair.world.lose = None
    if lost == "both":
        assert client.error is None
        pair.a.send(client, b"anyone there?")
        pair.world.run(2)
    assert client.error == "ECONNRESET"
    pair.world.run(61)
    assert states(pair.a) == states(pair.e) == []


def test_reset_while_data_is_under_way(pair: Pair) -> None:
    """The kernel's next number is found by asking it, also with a full window on its way."""
    client, server = pair.connect()
    pair.a.send(client, b"x" * 200000)
    pair.world.run(0.015)
    pair.e.abort(server)
    pair.world.run(3)
    assert client.error == "ECONNRESET" and not pair.a.kernel.sockets
    # Everything that was under way brings a few RSTs, not one each.
    assert len(pair.world.controls(_RST | _ACK, "e")) < 5


def test_client_abort_in_the_handshake_frees_the_server(pair: Pair) -> None:
    client = pair.a.connect()
    pair.world.run(0.015)
    client.vanish()
    pair.world.run(1)
    assert states(pair.e) == [] and not pair.e.kernel.sockets and not pair.listener.queue


def forge(pair: Pair, flags: int, **fields: object) -> None:
    """A control packet to the client with the right flowIDs; ``fields`` replace those of the genuine next one."""
    flow = next(iter(pair.a.stack.flows))
    numbers = flow.control
    assert numbers.peer_nonce is not None
    control = Control(flags, numbers.rcv_nxt, numbers.snd_nxt, numbers.peer_nonce)
    from serval_node.wire.sal_header import SalPacket

    packet = SalPacket(flow.peer_flow, flow.local_flow, 6, (replace(control, **fields),), b"")  # type: ignore[arg-type]
    pair.world.inject(Send(address(E), address(A), 64, encode(packet)))
    pair.world.run(0.05)


@pytest.mark.parametrize("flags", [_FIN, _RST, _RST | _ACK, _ACK])
def test_wrong_nonce_is_dropped_and_counted(pair: Pair, flags: int) -> None:
    pair.connect()
    pair.world.run(1)
    forge(pair, flags, nonce=bytes(8))
    assert states(pair.a) == [State.CONNECTED] and pair.a.count(Refusal.WRONG_NONCE) == 1


def test_stale_reset_is_dropped(pair: Pair) -> None:
    pair.connect()
    pair.world.run(1)
    flow = next(iter(pair.a.stack.flows))
    forge(pair, _RST | _ACK, verno=serial_add(flow.control.rcv_nxt, -1))
    assert states(pair.a) == [State.CONNECTED] and pair.a.count(Refusal.STALE_CONTROL) == 1
    forge(pair, _RST | _ACK)
    pair.world.run(3)
    assert states(pair.a) == []


def test_routers_answer_to_a_late_copy_of_the_syn_does_not_end_the_connection(figure: Figure) -> None:
    """S43: the rule goes while a duplicate of the SYN is on its way."""
    figure.point(E)
    listener = figure.e.serve()
    client = figure.a.connect()
    figure.world.run(1)
    figure.point()
    syn = figure.world.controls(ControlFlag.SYN, "a")[0]
    figure.world.inject(Send(syn.source, address(C), 64, syn.raw))
    figure.world.run(1)
    assert len(figure.world.controls(_RST | _ACK, "c")) == 1 and client.error is None
    figure.a.send(client, b"alive")
    figure.world.run(1)
    assert bytes(listener.queue[0].received) == b"alive"


def test_flow_id_stays_taken_in_time_wait(pair: Pair) -> None:
    """S11: not reused while the flow or its TIME_WAIT lives, nor while it answers a peer that may not know."""
    client, server = pair.connect()
    pair.a.close(client)
    pair.e.close(server)
    pair.world.run(3)
    (flow,) = pair.a.stack.flows
    drawn = iter([flow.local_flow, 0, flow.local_flow, 77])
    pair.a.stack.flows._rng.getrandbits = lambda bits: next(drawn)  # type: ignore[method-assign]
    assert pair.a.stack.flows.new_flow_id() == 77
    del pair.a.stack.flows._rng.getrandbits
    pair.world.run(61)
    assert pair.a.stack.flows.get(flow.local_flow) is None


def test_reset_flow_id_stays_taken_too(pair: Pair) -> None:
    client, _ = pair.connect()
    pair.a.abort(client)
    (flow,) = pair.a.stack.flows
    assert flow.state is State.CLOSED
    pair.world.run(59)
    assert pair.a.stack.flows.get(flow.local_flow) is flow
    pair.world.run(2)
    assert pair.a.stack.flows.get(flow.local_flow) is None


def test_fin_in_time_wait_is_acknowledged_again(pair: Pair) -> None:
    client, server = pair.connect()
    pair.a.close(client)
    pair.world.run(1)
    pair.e.close(server)
    pair.world.run(1)
    fin = pair.world.controls(_FIN, "e")[0]
    before = len(pair.world.controls(_ACK, "a"))
    pair.world.inject(Send(fin.source, fin.destination, 64, fin.raw))
    pair.world.run(0.1)
    assert len(pair.world.controls(_ACK, "a")) == before + 1 and states(pair.a) == [State.TIMEWAIT]


def test_segment_of_no_connection_is_reset_in_the_kernel(pair: Pair) -> None:
    """A kernel socket that outlived the daemon's tables learns it at its next segment."""
    client, _ = pair.connect()
    pair.world.run(1)
    flow = next(iter(pair.a.stack.flows))
    pair.a.stack._context.forget(flow, "test", pair.world.now)
    pair.a.settle()
    pair.a.send(client, b"x")
    assert client.error == "ECONNRESET" and pair.a.count(Refusal.NO_SUCH_CONNECTION) == 1


def test_connect_given_up_by_the_program(pair: Pair) -> None:
    """close() before the answer: the kernel says nothing, and the late SYN-ACK is answered by RST."""
    client = pair.a.connect()
    pair.a.close(client)
    pair.world.run(2)
    assert states(pair.a) == states(pair.e) == [] and not pair.e.kernel.sockets


def test_socket_that_timed_out_ends_the_flow(pair: Pair) -> None:
    """The kernel gives up without a word; the peer, if it is there after all, gets a RST."""
    client, server = pair.connect()
    pair.world.run(1)
    client.fail("ETIMEDOUT")
    pair.a.settle()
    pair.world.run(3)
    assert server.error == "ECONNRESET"
    pair.world.run(61)
    assert states(pair.a) == states(pair.e) == []


def test_closed_socket_does_not_wait_for_a_dead_peer(pair: Pair) -> None:
    client, _ = pair.connect()
    pair.world.run(1)
    pair.world.loss = 1.0
    pair.a.close(client)
    pair.world.run(100)
    client.vanish()
    pair.world.run(61)
    assert states(pair.a) == []


def test_dead_peer_ends_the_close() -> None:
    """A peer that vanished between the TCP close and the SAL close does not keep the flow for ever."""
    pair = make_pair()
    client, server = pair.connect()
    exchange(pair, client, server, 10)
    pair.world.lose = lambda host, send, packet: packet.control is not None
    pair.a.close(client)
    pair.e.close(server)
    pair.world.run(600)
    assert states(pair.a) == states(pair.e) == []
    assert {event.reason for event in pair.a.happened(FlowClosed)} == {"peer is gone"}  # type: ignore[attr-defined]
