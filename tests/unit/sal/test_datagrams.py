"""Unconnected datagrams: two SERVICE extensions, resolved one by one, answered past the tables (S8)."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

import pytest

from serval_node.sal.correspondents import LIMIT, Correspondent, Correspondents
from serval_node.sal.events import Refusal
from serval_node.sal.outputs import Send
from serval_node.sal.service_table import Action, Rule, Selector, Target
from serval_node.wire.ipv4 import PROTOCOL_TCP, PROTOCOL_UDP, address
from serval_node.wire.sal_header import SalPacket, Service, Source, encode
from serval_node.wire.serviceid import Prefix, ServiceID
from serval_node.wire.transport import build_udp, to_wire
from tests.unit.sal.conftest import A, C, D, E, Figure
from tests.unit.sal.fake_udp import UdpSocket
from tests.unit.sal.world import NAMING, WEB_BIND, WEB_ID, Host, World, forward

OWN_ID = ServiceID.from_hex("0xaa")


@dataclass
class Talk:
    """A socket for unconnected datagrams on a; c sends on what comes for the service."""

    figure: Figure
    client: UdpSocket

    @property
    def world(self) -> World:
        return self.figure.world

    def say(self, data: bytes, seconds: float = 0.1) -> None:
        self.figure.a.sendto(self.client, data)
        self.world.run(seconds)

    def forge(self, *extensions: object, payload: bytes | None = None, protocol: int = PROTOCOL_UDP) -> None:
        """A packet without flow from a to e."""
        if payload is None:
            payload = to_wire(build_udp(0, 0, b"forged"), PROTOCOL_UDP, address(A), address(E))
        packet = SalPacket(5, 0, protocol, extensions, payload)  # type: ignore[arg-type]
        self.world.inject(Send(address(A), address(E), 64, encode(packet)))
        self.world.run(0.1)


@pytest.fixture
def talk(figure: Figure) -> Talk:
    client = figure.a.kernel.udp.socket()
    figure.a.stack.open_datagram_socket(client.local[1], OWN_ID)
    own = Target(Action.DEMUX, port=client.local[1], protocol=PROTOCOL_UDP)
    figure.a.stack.service_table.set_rule(Rule(Prefix.of(OWN_ID), (own,)), "local")
    figure.point(E)
    return Talk(figure, client)


def echo(data: bytes) -> bytes:
    return data


@pytest.mark.statement("S8")
def test_each_datagram_names_both_services_and_is_resolved_by_itself(talk: Talk) -> None:
    figure = talk.figure
    figure.point(D, E)
    figure.c.stack.service_table.set_rule(Rule(WEB_BIND, forward(D, E), Selector.ROUND_ROBIN), "controller")
    servers = [figure.d.serve_datagrams(answer=echo), figure.e.serve_datagrams(answer=echo)]
    for number in range(6):
        talk.say(b"%d" % number)
    assert [len(server.data) for server in servers] == [3, 3]
    assert Counter(talk.client.data) == Counter(b"%d" % number for number in range(6))
    out = [seen for seen in talk.world.seen if seen.host == "a"]
    assert all(seen.packet.services == (WEB_ID, OWN_ID) and seen.packet.dst_flow == 0 for seen in out)
    through = [seen for seen in talk.world.seen if seen.host == "c"]
    assert len(through) == 6 and all(seen.packet.source == (address(A), address(C)) for seen in through)
    (entry,) = figure.c.stack.service_table.matches(WEB_ID)
    assert entry.counters.packets == 6  # S30
    # Answers name the services the other way round and go straight back.
    back = [seen for seen in talk.world.seen if seen.host in ("d", "e")]
    assert all(seen.packet.services == (OWN_ID, WEB_ID) and seen.destination == address(A) for seen in back)
    assert not any(len(host.stack.flows) for host in (figure.a, figure.c, figure.d, figure.e))


def test_a_receiver_knows_who_sent_and_one_sender_is_one_peer(talk: Talk) -> None:
    server = talk.figure.e.serve_datagrams()
    talk.say(b"one")
    talk.say(b"two")
    ((_, first), (_, second)) = server.received
    assert first == second and first[0][:2] == bytes((198, 19))
    sender = talk.figure.e.stack.correspondent(first, server.local[1])
    assert sender is not None
    assert (sender.service_id, sender.address, sender.own_service) == (OWN_ID, address(A), WEB_ID)


def test_answers_need_a_rule_for_the_senders_service(talk: Talk) -> None:
    """As the daemon makes one for every socket: it is what gives the answer to the socket."""
    talk.figure.e.serve_datagrams(answer=echo)
    talk.figure.a.stack.service_table.remove_rule(Prefix.of(OWN_ID), "local")
    talk.say(b"x")
    assert talk.client.data == [] and talk.figure.a.count(Refusal.NO_RULE) == 1


def test_within_one_host(talk: Talk) -> None:
    server = talk.figure.a.serve_datagrams(answer=echo)
    talk.say(b"x")
    assert server.data == talk.client.data == [b"x"]


def test_a_socket_that_has_gone_is_an_ordinary_one_again(talk: Talk) -> None:
    """Its port may be the next program's, whose datagrams open a flow."""
    talk.figure.e.serve_datagrams(answer=echo)
    talk.say(b"x")
    a = talk.figure.a
    a.close_udp(talk.client)
    assert not a.stack.flows.reserved() and not len(a.stack._context.correspondents)
    other = a.kernel.udp.socket(talk.client.local[1])
    a.sendto(other, b"y")
    talk.world.run(0.1)
    assert other.data == [b"y"] and len(a.stack.flows) == 1


@pytest.mark.parametrize(
    ("rule", "error", "reason"),
    [(None, "ENETUNREACH", Refusal.NO_RULE), (Target(Action.DROP), "EHOSTUNREACH", Refusal.DROP_RULE)],
)
def test_at_the_own_host_a_refusal_is_heard(talk: Talk, rule: Target | None, error: str, reason: Refusal) -> None:
    a = talk.figure.a
    a.stack.service_table.remove_rule(NAMING.block("example"), "controller")
    if rule is not None:
        a.stack.service_table.set_rule(Rule(WEB_BIND, (rule,)), "hand")
    talk.say(b"x")
    assert talk.client.error == error and a.count(reason) == 1


@pytest.mark.parametrize(("rule", "reason"), [(None, Refusal.NO_RULE), (Target(Action.DROP), Refusal.DROP_RULE)])
def test_at_a_router_a_refusal_is_silent_and_counted(talk: Talk, rule: Target | None, reason: Refusal) -> None:
    """There is no flow that an answer could prove to belong to."""
    table = talk.figure.c.stack.service_table
    table.remove_rule(WEB_BIND, "controller")
    if rule is not None:
        table.set_rule(Rule(WEB_BIND, (rule,)), "hand")
    talk.say(b"x")
    assert talk.figure.c.count(reason) == 1 and talk.client.error is None
    assert not [seen for seen in talk.world.seen if seen.host == "c"]


@pytest.mark.parametrize("place", ["a", "c"])
def test_delay_keeps_one_of_each_sender(talk: Talk, place: str) -> None:
    host: Host = getattr(talk.figure, place)
    server = talk.figure.e.serve_datagrams()
    host.stack.service_table.set_rule(Rule(WEB_BIND, (Target(Action.DELAY),)), "controller")
    talk.say(b"x")
    talk.say(b"y")
    assert host.stack.delayed() == {WEB_ID: 1} and host.count(Refusal.DATAGRAMS_HELD) == 1
    host.stack.service_table.set_rule(Rule(WEB_BIND, forward(C if place == "a" else E)), "controller")
    talk.world.run(0.1)
    assert server.data == [b"x"]


def test_what_is_no_such_datagram_is_refused(talk: Talk) -> None:
    server = talk.figure.e.serve_datagrams()
    stack = talk.figure.e.stack
    both = (Service(WEB_ID), Service(OWN_ID))
    talk.forge(*both)
    assert server.data == [b"forged"]
    for extensions, payload, protocol, reason in (
        (both[:1], None, PROTOCOL_UDP, "no_service"),
        ((), None, PROTOCOL_UDP, "unknown_flow"),
        (both, b"", PROTOCOL_UDP, "truncated"),
        (both, build_udp(0, 0, b"xx")[:9], PROTOCOL_UDP, "bad_transport_header"),
        (both, b"", PROTOCOL_TCP, "unknown_protocol"),
        ((Service(ServiceID.from_hex("0xbb")), both[1]), None, PROTOCOL_UDP, "no_rule"),
    ):
        before = stack.counters.get(reason, 0)
        talk.forge(*extensions, payload=payload, protocol=protocol)
        assert stack.counters[reason] == before + 1, reason
    assert len(server.data) == 1


def test_broadcast_is_not_answered(talk: Talk) -> None:
    server = talk.figure.e.serve_datagrams()
    everyone = address("10.0.3.255")
    talk.world.hosts[everyone] = talk.figure.e
    segment = to_wire(build_udp(0, 0, b"x"), PROTOCOL_UDP, address(A), everyone)
    packet = SalPacket(5, 0, PROTOCOL_UDP, (Service(WEB_ID), Service(OWN_ID)), segment)
    talk.world.inject(Send(address(A), everyone, 64, encode(packet)))
    talk.world.run(0.1)
    assert not server.data and talk.figure.e.count(Refusal.BROADCAST) == 1


def test_a_loop_of_routers_ends(talk: Talk) -> None:
    segment = to_wire(build_udp(0, 0, b"x"), PROTOCOL_UDP, address(A), address(C))
    source = Source((address(A), address(C)))
    packet = SalPacket(5, 0, PROTOCOL_UDP, (Service(WEB_ID), Service(OWN_ID), source), segment)
    talk.world.inject(Send(address(A), address(C), 64, encode(packet)))
    talk.world.run(0.1)
    assert talk.figure.c.count(Refusal.ROUTING_LOOP) == 1


def test_what_is_too_long_for_the_link_is_told_to_the_program(talk: Talk) -> None:
    server = talk.figure.e.serve_datagrams()
    talk.figure.a.environment.mtu = 1400
    longest = 1400 - 20 - 12 - 72 - 8
    talk.say(bytes(longest))
    assert len(server.data) == 1
    talk.say(bytes(longest + 1))
    assert talk.client.error == "EMSGSIZE" and talk.figure.a.count(Refusal.TOO_LARGE) == 1 and len(server.data) == 1


def test_correspondents_are_bounded_and_the_silent_give_way() -> None:
    known = Correspondents(limit=3)
    local = (bytes((198, 18, 0, 1)), 53)

    def one(number: int) -> Correspondent:
        return Correspondent(OWN_ID, address(A), number, WEB_ID, local, (bytes((198, 19, 0, 1)), number))

    for number in (1, 2, 3):
        known.add(one(number))
    assert known.find(local, OWN_ID, address(A), 1, WEB_ID) is not None
    known.add(one(4))
    assert [item.flow_id for item in known] == [3, 1, 4]
    assert known.by_kernel(local, (bytes((198, 19, 0, 1)), 2)) is None
    known.forget(53)
    assert len(known) == 0 and LIMIT > 1000
