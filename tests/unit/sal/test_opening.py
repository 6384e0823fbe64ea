"""connect() and accept(): what the three packets carry, and what happens when one is lost, repeated or forged."""

from __future__ import annotations

from dataclasses import replace

import pytest

from serval_node.sal.events import (
    ConnectFailed,
    FlowOpened,
    Refusal,
    SynAckReceived,
    SynForwarded,
    SynReceived,
    SynResolved,
    SynSent,
)
from serval_node.sal.opening import Server
from serval_node.sal.outputs import Send
from serval_node.sal.service_table import Action, Rule, Target
from serval_node.sal.states import State
from serval_node.wire.ipv4 import address
from serval_node.wire.sal_header import MARK, Control, ControlFlag, SalPacket, Service, encode
from serval_node.wire.serial import serial_add
from serval_node.wire.serviceid import Prefix
from serval_node.wire.transport import SYN, TcpHeader, build_tcp, recompute_checksum, to_wire
from tests.unit.sal.conftest import A, C, D, E, Figure, Pair, make_pair
from tests.unit.sal.fake_tcp import Socket
from tests.unit.sal.world import LOOPBACK, NAMING, SAL0, WEB_BIND, WEB_ID, Seen, World, forward

NOBODY = address("10.9.9.9")
_SYN, _ACK, _RST = ControlFlag.SYN, ControlFlag.ACK, ControlFlag.RST


def only(seen: list[Seen]) -> Seen:
    assert len(seen) == 1
    return seen[0]


def control_of(seen: Seen) -> Control:
    assert seen.packet.control is not None
    return seen.packet.control


def test_syn_names_the_service_and_no_peer(pair: Pair) -> None:
    """S38: SYN {source a, flow 2; destination, flow -; X}, with the kernel's SYN behind it, its ports 0."""
    pair.a.connect()
    seen = only(pair.world.controls(_SYN))
    assert (seen.source, seen.destination) == (address(A), address(E))
    assert seen.packet.dst_flow == 0 and seen.packet.src_flow != 0
    assert seen.packet.services == (WEB_ID,)
    control = control_of(seen)
    assert control.ackno == 0 and control.mark == MARK and any(control.nonce)
    tcp = TcpHeader.decode(seen.packet.payload)
    assert (tcp.flags & SYN, tcp.source_port, tcp.destination_port) == (SYN, 0, 0)
    assert tcp.option(8) is None and tcp.option(2) is not None


@pytest.mark.statement("S38", "S39", "S41")
def test_handshake_goes_by_the_slides(figure: Figure) -> None:
    """Slides 32 to 37: SYN by way of c, SYN-ACK and data directly, two flowIDs, one nonce per end."""
    figure.point(E)
    listener = figure.e.serve()
    client = figure.a.connect()
    figure.world.run(1, until=lambda: len(listener.queue) == 1)
    first, second = figure.world.controls(_SYN)
    assert (first.source, first.destination) == (address(A), address(C))
    # S39: c rewrites the destination alone.
    assert (second.host, second.source, second.destination) == ("c", address(A), address(E))
    assert second.packet.src_flow == first.packet.src_flow and second.ttl == first.ttl - 1
    assert control_of(second) == control_of(first) and second.packet.services == (WEB_ID,)
    assert second.packet.source == (address(A), address(C))
    # S41: the child has a flowID of its own, its SYN-ACK goes straight to a.
    answer = only(figure.world.controls(_SYN | _ACK))
    assert (answer.source, answer.destination) == (address(E), address(A))
    assert answer.packet.dst_flow == first.packet.src_flow
    assert answer.packet.src_flow not in (0, first.packet.src_flow)
    assert answer.packet.source == (address(A), address(C), address(E))
    assert control_of(answer).ackno == serial_add(control_of(first).verno, 1)
    third = only(figure.world.controls(_ACK))
    assert (third.source, third.destination) == (address(A), address(E))
    assert third.packet.services == (WEB_ID,)
    assert control_of(third).verno == serial_add(control_of(first).verno, 1)
    assert control_of(third).ackno == serial_add(control_of(answer).verno, 1)
    assert control_of(third).nonce == control_of(first).nonce != control_of(answer).nonce
    figure.a.send(client, b"x" * 5000)
    figure.world.run(1)
    assert bytes(listener.queue[0].received) == b"x" * 5000
    # S18, S42: data is bare SAL headers between a and e.
    data = [seen for seen in figure.world.seen if seen.packet.control is None]
    assert data and all(seen.host in "ae" and not seen.packet.extensions and seen.raw[8] == 3 for seen in data)


def test_events_tell_the_story(figure: Figure) -> None:
    """What `serval trace` prints, each step with its time."""
    figure.point(D, E)
    figure.d.serve()
    figure.e.serve()
    figure.a.connect()
    figure.world.run(1)
    resolved, sent, answered, opened = figure.a.events
    assert isinstance(resolved, SynResolved) and resolved.prefix.bits == 24 and resolved.target == address(C)
    assert isinstance(sent, SynSent) and sent.destination == address(C)
    (forwarded,) = figure.c.events
    assert isinstance(forwarded, SynForwarded) and forwarded.candidates == 2 and forwarded.client == address(A)
    chosen = figure.world.hosts[forwarded.target]
    received, child = chosen.events
    assert isinstance(received, SynReceived) and received.port == 80 and received.prefix == WEB_BIND
    assert isinstance(answered, SynAckReceived)
    assert answered.path == (address(A), address(C), chosen.address)
    assert isinstance(opened, FlowOpened) and not opened.server and opened.peer_address == chosen.address
    assert isinstance(child, FlowOpened) and child.server and child.flow_id == opened.peer_flow
    times = [event.time for event in (resolved, sent, forwarded, received, answered, opened, child)]
    assert times == sorted(times)


def test_accepted_socket_has_the_syns_service_and_a_virtual_peer(pair: Pair) -> None:
    """The peer is a 198.19 address, one per client address; the flow knows the exact serviceID."""
    _, first = pair.connect()
    _, second = pair.connect()
    assert first.peer[0] == second.peer[0] and first.peer[0][:2] == bytes((198, 19))
    assert first.peer[1] != second.peer[1]
    flow = pair.e.stack.flow_for_kernel(*first.peer, 80)
    assert flow is not None and flow.service_id == WEB_ID and flow.server
    assert pair.e.stack.client_of(first.peer[0]) == address(A)


@pytest.mark.statement("S11")
def test_flow_ids_of_two_hosts_may_be_equal() -> None:
    """S11: a flowID means something on its own host only."""
    world = World()
    a, e = world.host("a", A), world.host("e", E)
    world._seed = 1
    b = world.host("b", "10.0.4.1")
    for client in (a, b):
        client.stack.service_table.set_rule(Rule(WEB_BIND, forward(E)), "controller")
    listener = e.serve()
    sockets = [a.connect(), b.connect()]
    world.run(1)
    assert [flow.local_flow for flow in a.stack.flows] == [flow.local_flow for flow in b.stack.flows]
    assert len(listener.queue) == 2
    for socket, host, data in zip(sockets, (a, b), (b"from a", b"from b"), strict=True):
        host.send(socket, data)
    world.run(1)
    assert sorted(bytes(accepted.received) for accepted in listener.queue) == [b"from a", b"from b"]


def lose_first(count: int, flags: int, host: str = "a"):  # type: ignore[no-untyped-def]
    left = [count]

    def lose(sender: object, send: Send, packet: SalPacket) -> bool:
        hit = packet.control is not None and packet.control.flags == flags and sender.name == host  # type: ignore[attr-defined]
        if hit and left[0]:
            left[0] -= 1
            return True
        return False

    return lose


def test_lost_syn_is_sent_again_by_the_kernel(pair: Pair) -> None:
    pair.world.lose = lose_first(1, _SYN)
    pair.connect()
    first, second = pair.world.controls(_SYN)
    assert control_of(first) == control_of(second) and first.packet.src_flow == second.packet.src_flow
    assert second.time - first.time == pytest.approx(1.0)


def test_lost_syn_ack_is_sent_again(pair: Pair) -> None:
    pair.world.lose = lose_first(1, _SYN | _ACK, "e")
    pair.connect()
    assert len(pair.e.stack.flows) == 1


def test_lost_third_ack_is_repeated(pair: Pair) -> None:
    """Where the original hangs for good: the client says it again after 100 ms until it hears from the server."""
    pair.world.lose = lose_first(2, _ACK)
    client, server = pair.connect()
    times = [seen.time for seen in pair.world.controls(_ACK, "a")]
    assert times[1] - times[0] == pytest.approx(0.1) and times[2] - times[1] == pytest.approx(0.2)
    pair.a.send(client, b"hello")
    pair.world.run(1)
    assert bytes(server.received) == b"hello"
    sent = len(pair.world.controls(_ACK))
    pair.world.run(60)
    assert len(pair.world.controls(_ACK)) == sent, "the server was heard"


def test_idle_client_stops_repeating(pair: Pair) -> None:
    """Neither end says anything: the server answers the first repetition, and both data paths are in place."""
    pair.connect()
    pair.world.run(60)
    assert len(pair.world.controls(_ACK, "a")) == 2 and len(pair.world.controls(_ACK, "e")) == 1
    assert len(pair.a.paths) == len(pair.e.paths) == 1


def test_data_behind_a_lost_third_ack_arrives(pair: Pair) -> None:
    pair.world.lose = lose_first(1, _ACK)
    client = pair.a.connect()
    pair.world.run(1, until=lambda: client.state == "ESTABLISHED")
    pair.a.send(client, b"x" * 20000)
    pair.world.run(3)
    assert bytes(pair.listener.queue[0].received) == b"x" * 20000


@pytest.mark.statement("S43")
def test_repeated_syn_ack_gets_the_third_ack_again(pair: Pair) -> None:
    """S43."""
    pair.connect()
    answer = only(pair.world.controls(_SYN | _ACK))
    before = pair.world.controls(_ACK, "a")
    pair.world.inject(Send(answer.source, answer.destination, 64, answer.raw))
    pair.world.run(0.05)
    again = pair.world.controls(_ACK, "a")[len(before) :]
    assert [seen.raw for seen in again] == [before[0].raw]
    assert len(pair.listener.queue) == 1 and not pair.world.controls(_RST | _ACK)


@pytest.mark.statement("S43")
def test_syn_ack_from_another_instance_is_reset(figure: Figure) -> None:
    """S43: the loser frees its state, kernel included; the accepted connection goes on."""
    figure.point(E)
    e, d = figure.e.serve(), figure.d.serve()
    client = figure.a.connect()
    (syn,) = figure.world.controls(_SYN)
    figure.world.run(0.015)
    # The same SYN reaches d as well, a little later.
    copy = figure.world.controls(_SYN, "c")[0]
    other = replace(copy.packet, payload=b"")
    payload = recompute_checksum(copy.packet.payload, 6, address(A), address(D))
    raw = encode(replace(other, payload=payload))
    figure.world.inject(Send(address(A), address(D), 60, raw), 0.02)
    figure.world.run(0.025)
    assert [flow.state for flow in figure.d.stack.flows] == [State.RESPOND]
    figure.world.run(1)
    assert not list(figure.d.stack.flows) and not d.queue and not figure.d.kernel.sockets
    assert len(e.queue) == 1 and figure.a.count(Refusal.OTHER_INSTANCE) == 1
    figure.a.send(client, b"still here")
    figure.world.run(1)
    assert bytes(e.queue[0].received) == b"still here"
    assert syn.packet.src_flow == next(iter(figure.a.stack.flows)).local_flow


@pytest.mark.statement("S43")
def test_duplicated_syn_makes_no_second_child(pair: Pair) -> None:
    """S43: while half-open, while established, and when everything is over."""
    pair.world.duplication = 1.0
    client, server = pair.connect()
    syn = pair.world.controls(_SYN)[0]
    assert len(pair.e.stack.flows) == 1
    pair.world.duplication = 0.0
    pair.world.inject(Send(syn.source, syn.destination, 60, syn.raw))
    pair.world.run(1)
    assert len(pair.e.stack.flows) == 1 and len(pair.listener.queue) == 1
    pair.a.close(client)
    pair.e.close(server)
    pair.world.run(5)
    pair.world.inject(Send(syn.source, syn.destination, 60, syn.raw))
    pair.world.run(5)
    assert len(pair.listener.queue) == 1
    assert all(flow.state is not State.RESPOND for flow in pair.e.stack.flows)


def test_kernels_late_syn_does_not_end_the_connection(pair: Pair) -> None:
    """The kernel's timer may fire while the SYN-ACK is on its way through sal0."""
    client = pair.a.connect()
    pair.world.run(1, until=lambda: client.state == "ESTABLISHED")
    client.emit(SYN, client.iss, options=bytes.fromhex("020405a8"))
    pair.a.settle()
    pair.a.send(client, b"on it goes")
    pair.world.run(2)
    assert bytes(pair.listener.queue[0].received) == b"on it goes" and client.error is None


def test_syn_ack_that_sal0_lost_is_delivered_again(pair: Pair) -> None:
    """sal0's queue was full: the kernel sends its SYN again and gets the answer that is already here."""
    client = pair.a.connect()
    pair.world.run(0.015)
    pair.world.delivery_loss = 1.0
    pair.world.run(0.3)
    pair.world.delivery_loss = 0.0
    assert client.state == "SYN_SENT"
    pair.world.run(5, until=lambda: len(pair.listener.queue) == 1)
    assert client.state == "ESTABLISHED" and len(pair.e.stack.flows) == 1


def test_wrong_nonce_in_the_third_ack_is_dropped(pair: Pair) -> None:
    pair.world.lose = lose_first(99, _ACK)
    pair.a.connect()
    pair.world.run(0.05)
    third = pair.world.controls(_ACK)[0]
    control = control_of(third)
    for field, wrong in (("nonce", bytes(8)), ("verno", control.verno + 1), ("ackno", control.ackno - 1)):
        forged = replace(third.packet, extensions=(replace(control, **{field: wrong}), Service(WEB_ID)))
        pair.world.inject(Send(third.source, third.destination, 64, encode(forged)))
    pair.world.run(0.01)
    assert pair.e.count(Refusal.WRONG_NONCE) == 1 and pair.e.count(Refusal.WRONG_NUMBER) == 2
    assert [flow.state for flow in pair.e.stack.flows] == [State.RESPOND]


def test_third_ack_without_payload_opens(pair: Pair) -> None:
    """What an original client says when its third ACK was lost and the SYN-ACK came again."""
    pair.world.lose = lose_first(99, _ACK)
    client = pair.a.connect()
    pair.world.run(0.05)
    third = pair.world.controls(_ACK)[0]
    bare = replace(third.packet, extensions=(control_of(third),), payload=b"")
    pair.world.inject(Send(third.source, third.destination, 64, encode(bare)))
    pair.world.run(0.05)
    assert len(pair.listener.queue) == 1
    pair.a.send(client, b"data")
    pair.world.run(2)
    assert bytes(pair.listener.queue[0].received) == b"data"


def test_third_ack_for_a_request_that_has_gone_is_reset(pair: Pair) -> None:
    """The client must not believe for ever in a connection that the server does not have."""
    pair.world.lose = lose_first(99, _ACK)
    client = pair.a.connect()
    pair.world.run(0.05)
    pair.world.lose = None
    flow = next(iter(pair.e.stack.flows))
    Server(pair.e.stack._context).abandon(flow, "no third ACK", pair.world.now)
    pair.e.settle()
    pair.world.run(2)
    assert client.error == "ECONNRESET" and not list(pair.a.stack.flows)


def test_syn_ack_for_a_connect_that_has_gone_is_reset(pair: Pair) -> None:
    client = pair.a.connect()
    flow = next(iter(pair.a.stack.flows))
    client.vanish()
    pair.a.stack._context.forget(flow, "no answer", pair.world.now)
    pair.world.run(0.5)
    assert not list(pair.e.stack.flows) and not pair.e.kernel.sockets


def test_listener_gone_is_answered_by_silence(pair: Pair) -> None:
    """S29: the rule of a listener that has just gone; the retransmission is to be resolved anew."""
    pair.e.kernel.close_listener(pair.listener)
    client = pair.a.connect()
    pair.world.run(0.5)
    assert client.state == "SYN_SENT" and not pair.world.controls(_RST | _ACK)
    assert not list(pair.e.stack.flows) and pair.e.count(Refusal.LISTENER_GONE) == 1


def test_instance_without_rule_stays_silent(figure: Figure) -> None:
    """S29, S43: the retransmission is resolved anew and finds the other instance."""
    figure.point(E)
    d = figure.d.serve()
    client = figure.a.connect()
    figure.world.run(0.5)
    assert client.state == "SYN_SENT" and figure.e.count(Refusal.NO_RULE) == 1
    figure.point(D)
    figure.world.run(2)
    assert client.state == "ESTABLISHED" and len(d.queue) == 1


@pytest.mark.statement("S29")
def test_no_rule_fails_at_once(pair: Pair) -> None:
    """S29: on the own host at once."""
    client = pair.a.connect("web.other")
    assert client.error == "ENETUNREACH" and not list(pair.a.stack.flows)
    assert pair.a.count(Refusal.NO_RULE) == 1 and not pair.world.seen
    assert len(pair.a.happened(ConnectFailed)) == 1


@pytest.mark.statement("S28")
def test_drop_rule_fails_at_once_on_the_own_host(pair: Pair) -> None:
    """S28: EHOSTUNREACH, counted in the rule."""
    exact = Prefix.of(WEB_ID)
    pair.a.stack.service_table.set_rule(Rule(exact, (Target(Action.DROP),)), "hand")
    assert pair.a.connect().error == "EHOSTUNREACH"
    entry = pair.a.stack.service_table.get(exact)
    assert entry is not None and entry.counters.dropped_packets == 1 and not pair.world.seen


def test_unknown_virtual_address_and_no_route_fail_at_once(pair: Pair) -> None:
    socket = pair.a.kernel.connect(bytes((198, 18, 99, 99)), 80, pair.world.now)
    pair.a.settle()
    assert socket.error == "EHOSTUNREACH"
    pair.world.unreachable.add(address(E))
    assert pair.a.connect().error == "ENETUNREACH"
    assert not list(pair.a.stack.flows)


def test_own_service_is_reached_through_the_loopback(pair: Pair) -> None:
    client = pair.e.connect()
    pair.world.run(1)
    assert client.state == "ESTABLISHED" and len(pair.listener.queue) == 1
    assert pair.world.seen[0].source == LOOPBACK == pair.world.seen[0].destination
    pair.e.send(client, b"to myself")
    pair.world.run(1)
    assert bytes(pair.listener.queue[0].received) == b"to myself"
    assert len(pair.e.stack.flows) == 2


def test_syn_goes_to_the_listeners_address(pair: Pair) -> None:
    pair.e.unserve(pair.listener)
    listener = pair.e.serve(port=8080, at=LOOPBACK)
    client = pair.a.connect()
    pair.world.run(1)
    assert client.state == "ESTABLISHED" and listener.queue[0].local == (LOOPBACK, 8080)


def test_two_servers_of_one_host_share_a_service(pair: Pair) -> None:
    """S9: two processes on one host bind X, both get connections."""
    second = pair.e.serve(port=8080)
    for _ in range(60):
        pair.a.connect()
    pair.world.run(1)
    assert len(pair.listener.queue) + len(second.queue) == 60
    assert min(len(pair.listener.queue), len(second.queue)) > 10


@pytest.mark.statement("S37")
def test_reserved_flow_id_is_used_by_the_connect(pair: Pair) -> None:
    """S37: socket() allocates the flowID, the SYN carries it."""
    stack = pair.a.stack
    flow_id = stack.reserve_flow()
    assert flow_id in stack.flows.reserved()
    stack.prepare_connect(flow_id, 45000, WEB_ID)
    pair.a.connect(local_port=45000)
    assert only(pair.world.controls(_SYN)).packet.src_flow == flow_id
    assert flow_id not in stack.flows.reserved()
    stack.release_flow(flow_id)
    pair.world.run(1)
    assert [flow.local_flow for flow in stack.flows] == [flow_id]


def test_released_flow_id_is_free(pair: Pair) -> None:
    stack = pair.a.stack
    flow_id = stack.reserve_flow()
    stack.prepare_connect(flow_id, 45000, WEB_ID)
    stack.release_flow(flow_id)
    assert not stack.flows.reserved()
    pair.a.connect(local_port=45000)
    assert only(pair.world.controls(_SYN)).packet.src_flow != flow_id


def test_what_a_socket_left_behind_is_not_the_next_ones(pair: Pair) -> None:
    """A prepared connect that sent no SYN says nothing about the next program that gets its port."""
    stack = pair.a.stack
    flow_id = stack.reserve_flow()
    stack.prepare_connect(flow_id, 45000, NAMING.service_id("web.other"))
    assert pair.a.connect(local_port=45000).error is None
    assert only(pair.world.controls(_SYN)).packet.services == (WEB_ID,)
    assert not stack.flows.reserved()


def test_half_open_requests_are_bounded() -> None:
    """A flood of SYNs without third ACK keeps the tables small, and ends in the kernel too."""
    pair = make_pair(half_open_limit=50)
    control = Control(_SYN, 1, 0, b"12345678")
    for number in range(1, 501):
        segment = to_wire(build_tcp(0, 0, number, 0, SYN), 6, NOBODY, address(E))
        packet = SalPacket(number, 0, 6, (control, Service(WEB_ID)), segment)
        pair.world.inject(Send(NOBODY, address(E), 64, encode(packet)), number * 0.001)
    pair.world.run(0.6)
    assert len(pair.e.stack.flows) <= 50 and pair.e.count(Refusal.HALF_OPEN_FULL) == 450
    assert len(pair.e.kernel.sockets) <= 50
    client, _ = pair.connect()
    assert client.state == "ESTABLISHED"
    pair.world.run(60)
    assert len(pair.e.stack.flows) == 1 and len(pair.e.kernel.sockets) == 1


def test_full_accept_queue_recovers(pair: Pair) -> None:
    """The kernel drops the third ACK when its queue is full and repeats its SYN-ACK."""
    pair.listener.backlog = 1
    clients = [pair.a.connect() for _ in range(4)]
    pair.world.run(0.5)
    accepted: list[Socket] = []
    for host_data, client in enumerate(clients):
        pair.a.send(client, b"%d" % host_data)

    def accept() -> None:
        accepted.extend(pair.listener.queue)
        pair.listener.queue.clear()
        pair.world.at(pair.world.now + 0.2, accept)

    accept()
    pair.world.run(20)
    assert sorted(bytes(socket.received) for socket in accepted) == [b"0", b"1", b"2", b"3"]


def test_two_hundred_parallel_connections(figure: Figure) -> None:
    figure.point(D, E)
    listeners = figure.d.serve(), figure.e.serve()
    figure.world.keep_seen = False
    sockets = [figure.a.connect() for _ in range(200)]
    figure.world.run(3)
    for number, socket in enumerate(sockets):
        figure.a.send(socket, b"%03d" % number * 100)
    figure.world.run(3)
    received = [bytes(socket.received) for listener in listeners for socket in listener.queue]
    assert sorted(received) == [b"%03d" % number * 100 for number in range(200)]
    assert len({flow.local_flow for flow in figure.a.stack.flows}) == 200
    assert not figure.a.stack.counters and SAL0 != LOOPBACK


def test_ports_used_again_make_a_new_flow(pair: Pair) -> None:
    """The kernel may use a port pair again; the old flow is over then, whatever its peer says."""
    client = pair.a.connect(local_port=45000)
    pair.world.run(1)
    old = next(iter(pair.a.stack.flows)).local_flow
    pair.a.close(client)
    pair.e.close(pair.listener.queue[0])
    pair.world.run(5)
    client.vanish()
    again = pair.a.connect(local_port=45000)
    pair.world.run(1)
    assert again.state == "ESTABLISHED"
    flow = pair.a.stack.flow_for_kernel(*again.peer, 45000)
    assert flow is not None and flow.local_flow != old
