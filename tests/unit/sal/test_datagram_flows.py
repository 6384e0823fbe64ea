"""Connected datagrams: SAL's handshake without a kernel's, data held for it, close by either end, refusals (S8)."""

from __future__ import annotations

from dataclasses import dataclass

import pytest

from serval_node.sal.datagram_record import HELD_DATAGRAMS
from serval_node.sal.delay_queue import DelayVerdict
from serval_node.sal.events import ConnectFailed, FlowOpened, Refusal
from serval_node.sal.flow_table import Flow
from serval_node.sal.outputs import Send
from serval_node.sal.service_table import Action, Rule, Target
from serval_node.sal.states import State
from serval_node.wire.ipv4 import PROTOCOL_UDP, address, build_ipv4
from serval_node.wire.sal_header import Control, ControlFlag, SalPacket, Service, bare_header, encode
from serval_node.wire.transport import build_udp, to_wire
from tests.unit.sal.conftest import A, C, D, E, Figure
from tests.unit.sal.fake_udp import UdpSocket
from tests.unit.sal.world import NAMES, NAMING, SAL0, WEB, WEB_BIND, WEB_ID, Host, World, forward

_SYN, _ACK, _RST, _FIN = ControlFlag.SYN, ControlFlag.ACK, ControlFlag.RST, ControlFlag.FIN
_RSYN = ControlFlag.RSYN
A2 = "10.0.9.1"


@dataclass
class Talk:
    """A program on a, an echo server on e, and no router between."""

    world: World
    a: Host
    e: Host
    client: UdpSocket
    server: UdpSocket

    def say(self, data: bytes, seconds: float = 1.0) -> None:
        self.a.sendto(self.client, data)
        self.world.run(seconds)

    def flow(self, host: Host) -> Flow:
        (flow,) = (flow for flow in host.stack.flows if flow.state is State.CONNECTED)
        return flow


def echo(data: bytes) -> bytes:
    return data


@pytest.fixture
def talk() -> Talk:
    world = World()
    a, e = world.host("a", A), world.host("e", E)
    a.stack.service_table.set_rule(Rule(NAMING.block("example"), forward(E)), "controller")
    return Talk(world, a, e, a.kernel.udp.socket(), e.serve_datagrams(answer=echo))


@pytest.mark.statement("S8")
def test_first_datagram_opens_a_flow_and_follows_the_handshake(talk: Talk) -> None:
    """One round trip for SAL, then data with bare headers only; the serviceID is in SYN and third ACK (S18)."""
    for data in (b"one", b"two", b"three"):
        talk.a.sendto(talk.client, data)
    talk.world.run(1)
    assert talk.server.data == talk.client.data == [b"one", b"two", b"three"]
    assert {peer for _, peer in talk.client.received} == {(NAMES[WEB], 1)}
    kinds = [(seen.host, seen.packet.control.flags if seen.packet.control else 0) for seen in talk.world.seen[:6]]
    assert kinds == [("a", _SYN), ("e", _SYN | _ACK), ("a", _ACK), ("a", 0), ("a", 0), ("a", 0)]
    assert all(seen.packet.services == (WEB_ID,) for seen in (talk.world.seen[0], talk.world.seen[2]))
    assert all(not seen.packet.extensions for seen in talk.world.seen[3:])
    assert talk.flow(talk.a).peer_flow == talk.flow(talk.e).local_flow
    for host in (talk.a, talk.e):
        assert len(host.happened(FlowOpened)) == 1 and not host.paths and not host.stack.counters
        assert talk.flow(host).datagrams.traffic == (3, 35, 3, 35)  # type: ignore[union-attr]


def test_two_programs_have_two_flows_and_one_program_one_per_service(talk: Talk) -> None:
    other = talk.a.kernel.udp.socket()
    talk.a.sendto(talk.client, b"1")
    talk.a.sendto(other, b"2")
    talk.a.sendto(talk.client, b"3", port=80)
    talk.world.run(1)
    assert len(talk.a.stack.flows) == 3 and len({peer for _, peer in talk.server.received}) == 3
    assert (talk.client.data, other.data) == ([b"1", b"3"], [b"2"])


def test_tcp_and_udp_of_one_service_and_of_one_port_stay_apart(talk: Talk) -> None:
    listener = talk.e.serve(port=53)
    stream = talk.a.connect(local_port=talk.client.local[1])
    talk.say(b"datagram")
    talk.a.send(stream, b"stream")
    talk.world.run(1)
    assert talk.server.data == [b"datagram"] and bytes(listener.queue[0].received) == b"stream"
    assert len(talk.a.stack.flows) == 2


@pytest.mark.parametrize("flags", [_SYN, _SYN | _ACK, _ACK])
def test_a_lost_packet_of_the_handshake_loses_no_datagram(talk: Talk, flags: int) -> None:
    lost: list[Send] = []

    def lose(host: Host, send: Send, packet: SalPacket) -> bool:
        if not lost and packet.control is not None and packet.control.flags == flags:
            lost.append(send)
        return bool(lost) and lost[0] is send

    talk.world.lose = lose
    talk.say(b"hello", 2)
    assert lost and talk.client.data == [b"hello"]
    assert talk.flow(talk.a).unconfirmed is False


def test_zero_bytes_are_a_datagram_and_a_copied_third_ack_is_none(talk: Talk) -> None:
    talk.say(b"")
    (third,) = talk.world.controls(_ACK, "a")
    talk.world.inject(Send(address(A), address(E), 64, third.raw))
    talk.world.run(1)
    assert talk.server.data == [b""] and talk.client.data == [b""]


def test_a_repeated_syn_is_answered_again_and_makes_no_second_flow(talk: Talk) -> None:
    talk.world.lose = lambda host, send, packet: packet.control is not None and packet.control.flags == _ACK
    talk.a.sendto(talk.client, b"x")
    talk.world.run(0.05)
    (syn,) = talk.world.controls(_SYN, "a")
    talk.world.inject(Send(address(A), address(E), 64, syn.raw))
    talk.world.run(0.05)
    first, second = talk.world.controls(_SYN | _ACK, "e")
    assert first.raw == second.raw and len(talk.e.stack.flows) == 1


def test_nobody_answers(talk: Talk) -> None:
    """Six SYNs, each resolved anew, then the program hears of it and nothing is left."""
    talk.world.lose = lambda host, send, packet: True
    talk.say(b"x", 20)
    assert len(talk.world.controls(_SYN, "a")) == 6
    assert talk.client.error == "EHOSTUNREACH" and not len(talk.a.stack.flows)
    (failed,) = talk.a.happened(ConnectFailed)
    assert failed.reason == "no_answer"  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("rule", "error", "reason"),
    [(None, "ENETUNREACH", Refusal.NO_RULE), (Target(Action.DROP), "EHOSTUNREACH", Refusal.DROP_RULE)],
)
def test_without_a_way_the_program_hears_at_once(talk: Talk, rule: Target | None, error: str, reason: Refusal) -> None:
    table = talk.a.stack.service_table
    table.remove_rule(NAMING.block("example"), "controller")
    if rule is not None:
        table.set_rule(Rule(WEB_BIND, (rule,)), "hand")
    talk.say(b"x", 0)
    assert talk.client.error == error and talk.a.count(reason) == 1 and not len(talk.a.stack.flows)


def test_without_a_route_the_program_hears_at_once(talk: Talk) -> None:
    talk.world.unreachable.add(address(E))
    talk.say(b"x", 0)
    assert talk.client.error == "ENETUNREACH" and not len(talk.a.stack.flows)


def test_what_waits_for_the_handshake_is_bounded(talk: Talk) -> None:
    talk.world.lose = lambda host, send, packet: True
    for number in range(HELD_DATAGRAMS + 3):
        talk.a.sendto(talk.client, b"%d" % number)
    assert talk.a.count(Refusal.DATAGRAMS_HELD) == 3
    talk.world.lose = None
    talk.world.run(1)
    assert talk.server.data == [b"%d" % number for number in range(HELD_DATAGRAMS)]


def test_the_number_of_flows_is_bounded_at_both_ends() -> None:
    world = World()
    a, e = world.host("a", A, datagram_flows=4), world.host("e", E, datagram_flows=2)
    a.stack.service_table.set_rule(Rule(NAMING.block("example"), forward(E)), "controller")
    server = e.serve_datagrams()
    clients = [a.kernel.udp.socket() for _ in range(5)]
    for client in clients:
        a.sendto(client, b"x")
    world.run(0.1)
    assert len(e.stack.flows) == 2 and len(server.data) == 2 and e.count(Refusal.DATAGRAM_FLOWS_FULL) == 2
    assert a.count(Refusal.DATAGRAM_FLOWS_FULL) == 1 and clients[4].error == "EHOSTUNREACH"
    a.close_udp(clients[0])
    a.close_udp(clients[1])
    world.run(400)
    assert not len(e.stack.flows) and e.stack.flows.datagram_flows == 0
    assert not len(a.stack.flows) and a.stack.flows.datagram_flows == 0


# -- the end


def test_closing_the_clients_socket_closes_the_flow_at_both_ends(talk: Talk) -> None:
    talk.say(b"x")
    talk.a.close_udp(talk.client)
    talk.world.run(0.1)
    assert [flow.state for flow in talk.a.stack.flows] == [State.TIMEWAIT] and not len(talk.e.stack.flows)
    assert len(talk.world.controls(_FIN)) == 2 and not talk.world.controls(_RST | _ACK)
    talk.world.run(61)
    assert not len(talk.a.stack.flows) and not talk.a.stack.counters and not talk.e.stack.counters


def test_what_was_sent_before_the_close_still_goes(talk: Talk) -> None:
    """sendto(), close(): the kernel's notice comes while the SYN is on its way."""
    talk.a.sendto(talk.client, b"goodbye")
    talk.a.close_udp(talk.client)
    talk.world.run(1)
    assert talk.server.data == [b"goodbye"] and len(talk.world.controls(_FIN)) == 2
    assert not len(talk.e.stack.flows) and [flow.state for flow in talk.a.stack.flows] == [State.TIMEWAIT]


def test_after_the_servers_close_the_next_datagram_is_resolved_anew(talk: Talk) -> None:
    """No error reaches the program: the service may be elsewhere, and there the flow goes."""
    talk.say(b"first")
    talk.e.close_udp(talk.server)
    talk.world.run(0.1)
    assert talk.client.error is None and not len(talk.a.stack.flows)
    d = talk.world.host("d", D)
    elsewhere = d.serve_datagrams(answer=echo)
    talk.a.stack.service_table.set_rule(Rule(WEB_BIND, forward(D)), "controller")
    talk.say(b"second")
    assert elsewhere.data == [b"second"] and talk.client.data == [b"first", b"second"]


def test_a_datagram_while_the_flow_closes_opens_another(talk: Talk) -> None:
    talk.say(b"x")
    old = talk.flow(talk.a)
    talk.world.lose = lambda host, send, packet: True
    talk.a.stack.kernel_socket_gone(*old.kernel_key, talk.world.now, PROTOCOL_UDP)
    assert old.state is State.FINWAIT1
    talk.world.lose = None
    talk.say(b"y")
    assert talk.flow(talk.a) is not old and talk.server.data == [b"x", b"y"]


@pytest.mark.statement("S48")
@pytest.mark.parametrize("flags", [_FIN, _RST | _ACK, _RSYN])
def test_control_with_a_wrong_nonce_changes_nothing(talk: Talk, flags: int) -> None:
    """The original tells a UDP program that its peer has closed, whatever the FIN's nonce (protocol notes 10.3)."""
    talk.say(b"x")
    flow = talk.flow(talk.a)
    control = Control(flags, flow.control.rcv_nxt, flow.control.snd_nxt, b"whatever")
    forged = SalPacket(flow.peer_flow, flow.local_flow, PROTOCOL_UDP, (control,), b"")
    talk.world.inject(Send(address(D), address(A), 64, encode(forged)))
    talk.say(b"y")
    assert flow.state is State.CONNECTED and talk.a.count(Refusal.WRONG_NONCE) == 1
    assert talk.client.error is None and talk.client.data == [b"x", b"y"]


def test_idle_flows_end_and_those_in_use_do_not(talk: Talk) -> None:
    talk.say(b"x", 200)
    talk.say(b"y", 200)
    assert talk.flow(talk.a) and talk.flow(talk.e)
    talk.world.run(400)
    assert not len(talk.a.stack.flows) and not len(talk.e.stack.flows)
    talk.say(b"z")
    assert talk.client.data == [b"x", b"y", b"z"]


def test_a_peer_that_vanished_is_forgotten(talk: Talk) -> None:
    talk.say(b"x")
    talk.world.cut.add(address(A))
    talk.world.run(500)
    assert not len(talk.e.stack.flows)


def test_a_server_without_its_socket_resets_the_flow(talk: Talk) -> None:
    """The kernel's "port unreachable" reaches the program at the other end, as with plain UDP."""
    talk.say(b"x")
    talk.server.close()
    talk.say(b"y")
    assert talk.client.error == "ECONNREFUSED" and not len(talk.a.stack.flows)
    assert len(talk.world.controls(_RST | _ACK, "e")) == 1


def test_what_is_too_long_for_the_link_is_told_to_the_program(talk: Talk) -> None:
    talk.say(b"x")
    longest = 1500 - 20 - 12 - 8
    talk.say(bytes(longest))
    assert talk.client.error is None and len(talk.client.data[-1]) == longest
    talk.say(bytes(longest + 1))
    assert talk.client.error == "EMSGSIZE" and len(talk.server.data) == 2 and talk.a.count(Refusal.TOO_LARGE) == 1


def test_a_datagram_that_the_kernel_cut_is_told_to_the_program(talk: Talk) -> None:
    whole = bytearray(build_ipv4(SAL0, NAMES[WEB], PROTOCOL_UDP, build_udp(talk.client.local[1], 1, bytes(1000))))
    whole[6:8] = b"\x20\x00"
    talk.a.from_kernel(bytes(whole), 0)
    whole[6:8] = b"\x00\x80"
    talk.a.from_kernel(bytes(whole), 0)
    talk.a.settle()
    assert talk.client.error == "EMSGSIZE" and talk.a.count("ip_fragment") == 2
    assert len(talk.a.kernel.icmp) == 1 and not len(talk.a.stack.flows)


# -- from the network


def test_data_is_taken_by_the_flow_ids_alone(talk: Talk) -> None:
    """S10, for datagrams: other addresses do no harm, other flowIDs and damaged bytes are refused."""
    talk.say(b"x")
    flow = talk.flow(talk.e)
    for peer, source, data, reason in (
        (flow.peer_flow, D, b"elsewhere", None),
        (flow.peer_flow + 1, A, b"stranger", Refusal.WRONG_PEER_FLOW),
    ):
        segment = to_wire(build_udp(0, 0, data), PROTOCOL_UDP, address(source), address(E))
        header = bare_header(peer, flow.local_flow, PROTOCOL_UDP)
        talk.world.inject(Send(address(source), address(E), 64, header + segment))
        talk.world.run(0.1)
        assert reason is None or talk.e.count(reason) == 1
    short = bare_header(flow.peer_flow, flow.local_flow, PROTOCOL_UDP) + bytes((0, 0, 0, 0, 0, 99, 0, 0))
    talk.world.inject(Send(address(A), address(E), 64, short))
    talk.world.run(0.1)
    assert talk.server.data == [b"x", b"elsewhere"] and talk.e.count("bad_transport_header") == 1


def test_a_syn_without_a_udp_header_opens_too(talk: Talk) -> None:
    """As in the original (protocol notes 1.6)."""
    control = Control(_SYN, 77, 0, b"nonce678")
    syn = SalPacket(5, 0, PROTOCOL_UDP, (control, Service(WEB_ID)), b"")
    talk.world.inject(Send(address(D), address(E), 64, encode(syn)))
    talk.world.run(0.1)
    (answer,) = talk.world.controls(_SYN | _ACK, "e")
    assert answer.packet.payload == build_udp(0, 0) and answer.packet.dst_flow == 5


# -- service routers


def test_through_a_router_data_goes_directly(figure: Figure) -> None:
    figure.point(D, E)
    servers = [figure.d.serve_datagrams(answer=echo), figure.e.serve_datagrams(answer=echo)]
    clients = [figure.a.kernel.udp.socket() for _ in range(8)]
    for client in clients:
        for _ in range(3):
            figure.a.sendto(client, b"hello")
    figure.world.run(1)
    assert all(client.data == [b"hello"] * 3 for client in clients)
    assert all(len(server.data) % 3 == 0 and server.data for server in servers)
    assert all(
        seen.packet.control and seen.packet.control.flags == _SYN for seen in figure.world.seen if seen.host == "c"
    )
    assert not figure.c.stack.counters


def test_a_router_without_a_rule_refuses(figure: Figure) -> None:
    client = figure.a.kernel.udp.socket()
    figure.a.sendto(client, b"x")
    figure.world.run(1)
    assert client.error == "ECONNREFUSED" and not len(figure.a.stack.flows)


@pytest.mark.parametrize("place", ["a", "c"])
def test_delay_keeps_the_datagram_until_somebody_decides(figure: Figure, place: str) -> None:
    """S26: at the program's own host and at a router; a verdict DROP is heard at the own host."""
    host: Host = getattr(figure, place)
    figure.point(E)
    server = figure.e.serve_datagrams(answer=echo)
    table = host.stack.service_table
    rules = [Rule(WEB_BIND, forward(C if place == "a" else E)), Rule(WEB_BIND, (Target(Action.DELAY),))]
    table.set_rule(rules[1], "controller")
    client = figure.a.kernel.udp.socket()
    figure.a.sendto(client, b"x")
    figure.a.sendto(client, b"y")
    figure.world.run(1)
    assert host.stack.delayed() == {WEB_ID: 1} and not server.data
    table.set_rule(rules[0], "controller")
    figure.world.run(1)
    # At the own host the second one was lost: one place for a socket. Behind a router both wait for the SYN-ACK.
    assert server.data == ([b"x"] if place == "a" else [b"x", b"y"])
    assert figure.a.count(Refusal.DATAGRAMS_HELD) == (1 if place == "a" else 0)
    if place == "a":
        table.set_rule(rules[1], "controller")
        other = figure.a.kernel.udp.socket()
        figure.a.sendto(other, b"z")
        host.stack.delay_verdict(WEB_BIND, DelayVerdict.DROP, host.now)
        host.settle()
        assert other.error == "EHOSTUNREACH"


# -- moving


@pytest.mark.statement("S45")
@pytest.mark.parametrize("mover", ["client", "server"])
def test_a_flow_of_datagrams_moves(talk: Talk, mover: str) -> None:
    host = talk.a if mover == "client" else talk.e
    talk.say(b"before")
    flow, old = talk.flow(host), host.address
    added = host.add_address(A2)
    host.migrate(flow.local_flow, added)
    talk.world.run(0.5)
    talk.world.cut.add(old)
    talk.world.seen.clear()
    talk.say(b"after")
    assert talk.client.data == [b"before", b"after"] and talk.flow(host) is flow
    assert all(added in (seen.source, seen.destination) for seen in talk.world.seen)
    assert len(talk.world.seen) == 2  # bare headers, no handshake


def test_a_flow_that_lost_its_address_goes_on_from_another(talk: Talk) -> None:
    talk.say(b"before")
    flow = talk.flow(talk.a)
    added = talk.a.add_address(A2)
    talk.world.cut.add(talk.a.address)
    talk.a.migrate(flow.local_flow, added, lost=True, cause="link down")
    talk.say(b"after")
    assert talk.client.data == [b"before", b"after"]


def test_nothing_is_lost_or_doubled_over_many_moves(talk: Talk) -> None:
    """Planned moves of either end while datagrams pass both ways; the network only delays."""
    talk.world.jitter = 0.0
    places = {
        talk.a: [talk.a.address, talk.a.add_address(A2)],
        talk.e: [talk.e.address, talk.e.add_address("10.0.9.2")],
    }
    talk.say(b"0")
    for number in range(1, 60):
        host = (talk.a, talk.e)[number % 2]
        there = places[host]
        flow = talk.flow(host)
        host.migrate(flow.local_flow, there[there.index(flow.local_address) ^ 1])
        talk.say(b"%d" % number, 0.06)
    talk.world.run(1)
    assert talk.client.data == [b"%d" % number for number in range(60)]
