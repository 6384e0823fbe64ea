"""Flows inside UDP: through a NAT and past what drops protocol 144, by choice and by themselves; keep-alives (S52)."""

from __future__ import annotations

import itertools
from dataclasses import replace

import pytest

from serval_node.sal.encapsulation import REMEMBERED, Choices, Encapsulation, Network
from serval_node.sal.events import FlowMigrated, FlowOpened, PeerMoved, RawUnanswered, Refusal
from serval_node.sal.flow_table import Flow
from serval_node.sal.outputs import Send
from serval_node.sal.service_table import Rule
from serval_node.wire.encapsulation import TO_SERVER, encapsulate
from serval_node.wire.ipv4 import PROTOCOL_SERVAL, PROTOCOL_TCP, Address, UdpPorts, address, build_ipv4
from serval_node.wire.sal_header import Control, ControlFlag, SalPacket, encode
from serval_node.wire.transport import OPTION_MSS, TcpHeader
from tests.unit.sal.conftest import A, C, E, Pair, make_pair
from tests.unit.sal.world import NAMING, WEB_BIND, Host, World, forward

RAW, UDP, AUTO = Encapsulation.RAW, Encapsulation.UDP, Encapsulation.AUTO
_RSYN, _ACK = ControlFlag.RSYN, ControlFlag.ACK
PUBLIC, OTHER_PUBLIC, A2 = address("192.0.2.1"), address("192.0.2.2"), "10.1.0.1"
KEEPALIVE = 15.0
LIMIT = 1460  # bytes of TCP in a frame of 1500: 20 IPv4, 8 UDP, 12 SAL


class Nat:
    """A masquerading router in front of `inside` that knows UDP only; each mapping is for one address outside."""

    def __init__(self, world: World, *inside: str) -> None:
        self.inside = set(map(address, inside))
        self.public = PUBLIC
        self.dropped = 0
        self._ports = itertools.count(20000)
        self._out: dict[tuple[Address, int, Address, int], int] = {}
        self._in: dict[tuple[int, Address, int], tuple[Address, int]] = {}
        world.middlebox = self

    def __call__(self, send: Send) -> Send | None:
        if send.source in self.inside:
            return self._leaving(send)
        return self._entering(send) if send.destination in (PUBLIC, OTHER_PUBLIC, *self.inside) else send

    def _leaving(self, send: Send) -> Send | None:
        if send.ports is None:
            self.dropped += 1
            return None
        local, peer = send.ports
        key = send.source, local, send.destination, peer
        if key not in self._out:
            self._out[key] = next(self._ports)
            self._in[self._out[key], send.destination, peer] = send.source, local
        return replace(send, source=self.public, ports=UdpPorts(self._out[key], peer))

    def _entering(self, send: Send) -> Send | None:
        known = None
        if send.ports is not None and send.destination == self.public:
            known = self._in.get((send.ports.peer, send.source, send.ports.local))
        if known is None or send.ports is None:
            self.dropped += 1
            return None
        return replace(send, destination=known[0], ports=UdpPorts(send.ports.local, known[1]))

    def rebind(self, public: Address = PUBLIC) -> None:
        """Every mapping is forgotten; new ones get other ports."""
        self.public = public
        self._out.clear()
        self._in.clear()


def chosen(default: Encapsulation) -> Choices:
    return Choices(default)


def behind_nat(default: Encapsulation = UDP) -> tuple[Pair, Nat]:
    pair = make_pair(encapsulation=chosen(default), keepalive=KEEPALIVE)
    return pair, Nat(pair.world, A)


def only(host: Host) -> Flow:
    (flow,) = host.stack.flows
    return flow


def exchange(pair: Pair, ends: tuple, size: int = 60000, seconds: float = 60.0) -> None:
    client, server = ends
    there, back = pair.world.rng.randbytes(size), pair.world.rng.randbytes(size)
    had = len(server.received), len(client.received)
    pair.a.send(client, there)
    pair.e.send(server, back)
    pair.world.run(
        seconds, until=lambda: (len(server.received), len(client.received)) == (had[0] + size, had[1] + size)
    )
    assert (bytes(server.received[had[0] :]), bytes(client.received[had[1] :])) == (there, back)


def sent(world: World, host: str, flags: int) -> list[UdpPorts | None]:
    """The form of each control packet with exactly these flags that a host sent."""
    return [
        seen.ports
        for seen in world.seen
        if seen.host == host and seen.packet.control is not None and seen.packet.control.flags == flags
    ]


@pytest.mark.statement("S52")
def test_through_a_nat() -> None:
    pair, nat = behind_nat()
    ends = pair.connect()
    ours, theirs = only(pair.a), only(pair.e)
    assert ours.ports == TO_SERVER
    assert (theirs.peer_address, theirs.ports) == (PUBLIC, UdpPorts(54325, 20000))
    exchange(pair, ends)
    assert nat.dropped == 0 and all(seen.ports is not None for seen in pair.world.seen)
    assert pair.a.fast_packets > 40 and pair.e.fast_packets > 40
    (opened,) = pair.e.happened(FlowOpened)
    assert opened.ports == theirs.ports  # type: ignore[attr-defined]
    for one, host in zip(ends, (pair.a, pair.e), strict=True):
        host.close(one)
    pair.world.run(100)
    assert not list(pair.a.stack.flows) and not list(pair.e.stack.flows)


def test_every_segment_leaves_room_for_udp() -> None:
    pair, _ = behind_nat()
    ends = pair.connect()
    exchange(pair, ends)
    handshake = [seen.packet for seen in pair.world.seen if seen.packet.control is not None and seen.packet.payload]
    offered = [TcpHeader.decode(packet.payload).option(OPTION_MSS) for packet in handshake]
    assert offered[:2] == [(1440).to_bytes(2, "big")] * 2
    # The toy kernel keeps to no MSS: what it sends is split again, on the slow path too.
    assert max(len(seen.packet.payload) for seen in pair.world.seen) == LIMIT
    pair.world.seen.clear()
    pair.a.stack._context.uninstall(only(pair.a))
    pair.a.settle()
    pair.a.send(ends[0], bytes(20000))
    assert max(len(seen.packet.payload) for seen in pair.world.seen if seen.host == "a") == LIMIT


def test_auto_tries_udp_when_raw_is_not_answered_and_remembers_it() -> None:
    pair, nat = behind_nat(AUTO)
    ends = pair.connect()
    assert sent(pair.world, "a", ControlFlag.SYN) == [None, None, TO_SERVER]
    exchange(pair, ends)
    (event,) = pair.a.happened(RawUnanswered)
    assert event.peer == address(E)  # type: ignore[attr-defined]
    pair.world.seen.clear()
    pair.connect()
    assert sent(pair.world, "a", ControlFlag.SYN) == [TO_SERVER]
    assert len(pair.a.happened(RawUnanswered)) == 1
    assert pair.a.stack.encapsulation.learned(pair.world.now) == (address(E),)
    nat.inside.clear()
    pair.world.run(REMEMBERED + 1)
    pair.world.seen.clear()
    pair.connect()
    assert sent(pair.world, "a", ControlFlag.SYN) == [None]


def test_a_lost_syn_alone_changes_no_form() -> None:
    pair = make_pair(encapsulation=chosen(AUTO))
    lost: list[object] = []
    pair.world.lose = lambda host, send, packet: not lost and not lost.append(packet)  # type: ignore[func-returns-value]
    ends = pair.connect()
    assert sent(pair.world, "a", ControlFlag.SYN) == [None, None, TO_SERVER]
    assert only(pair.a).ports is None and only(pair.e).ports is None
    assert not pair.a.happened(RawUnanswered)
    exchange(pair, ends)


def test_raw_answers_that_get_lost() -> None:
    """Raw packets pass one way only: the server answers each copy of the SYN in its form."""
    pair = make_pair(encapsulation=chosen(AUTO))
    pair.world.lose = lambda host, send, packet: host.name == "e" and send.ports is None
    ends = pair.connect()
    exchange(pair, ends)
    assert only(pair.a).ports == TO_SERVER and only(pair.e).ports == UdpPorts(54325, 54324)


def test_copies_that_come_together_are_answered_raw_first() -> None:
    """The kernel's SYN-ACK comes when both copies have been taken."""
    pair = make_pair(encapsulation=chosen(AUTO))
    pair.world.lose = lambda host, send, packet: True
    pair.a.connect()
    pair.world.run(1.5)
    syns = [seen for seen in pair.world.seen if seen.packet.control and seen.packet.control.flags == ControlFlag.SYN]
    for seen in syns[1:]:
        if seen.ports is None:
            packet = build_ipv4(seen.source, seen.destination, PROTOCOL_SERVAL, seen.raw)
        else:
            packet = encapsulate(seen.source, seen.destination, seen.ports, seen.raw)
        pair.e.stack.network_packet(packet, pair.world.now)
    pair.e.settle()
    assert sent(pair.world, "e", ControlFlag.SYN | _ACK)[:2] == [None, UdpPorts(54325, 54324)]


@pytest.mark.statement("S52")
@pytest.mark.parametrize("public", [PUBLIC, OTHER_PUBLIC], ids=["port", "address"])
def test_nat_rebinding(public: Address) -> None:
    pair, nat = behind_nat()
    ends = pair.connect()
    exchange(pair, ends)
    nat.rebind(public)
    exchange(pair, ends, seconds=200)
    assert (only(pair.e).peer_address, only(pair.e).ports) == (public, UdpPorts(54325, 20001))
    (moved,) = pair.e.happened(PeerMoved)
    assert moved.target_ports == UdpPorts(54325, 20001)  # type: ignore[attr-defined]
    assert not pair.a.happened(FlowMigrated), "a keep-alive is no move"


def test_data_moves_nobody() -> None:
    pair, nat = behind_nat()
    client, server = pair.connect()
    pair.world.run(1)
    nat.rebind()
    before = only(pair.e).peer
    pair.a.send(client, b"x" * 500)
    pair.world.run(5)
    assert bytes(server.received) == b"x" * 500, "delivered by its flowIDs (S10)"
    assert only(pair.e).peer == before and not pair.e.happened(PeerMoved)


def test_a_replayed_keepalive_moves_nobody() -> None:
    pair, _ = behind_nat()
    ends = pair.connect()
    pair.world.run(2 * KEEPALIVE + 5)
    keepalives = [seen for seen in pair.world.seen if seen.packet.control and seen.packet.control.flags == _RSYN]
    assert len(keepalives) == 2
    before = only(pair.e).peer
    elsewhere = UdpPorts(666, 54325)
    for number, seen in enumerate(keepalives):
        pair.world.inject(Send(address("203.0.113.9"), address(E), 64, seen.raw, ports=elsewhere))
        pair.world.run(0.5)
        assert pair.e.count(Refusal.STALE_CONTROL) == 1, number  # the last one is only answered again
    assert only(pair.e).peer == before and not pair.e.happened(PeerMoved)
    # The next number with a wrong nonce.
    wrong = Control(_RSYN, only(pair.e).control.rcv_nxt, 0, bytes(8))
    data = encode(SalPacket(only(pair.a).local_flow, only(pair.e).local_flow, PROTOCOL_TCP, (wrong,), b""))
    pair.world.inject(Send(address("203.0.113.9"), address(E), 64, data, ports=elsewhere))
    pair.world.run(0.5)
    assert pair.e.count(Refusal.WRONG_NONCE) == 1
    assert only(pair.e).peer == before
    exchange(pair, ends)


def test_keepalives_end_with_the_flow_and_raw_flows_have_none() -> None:
    pair, _ = behind_nat()
    client, server = pair.connect()
    pair.world.run(3.5 * KEEPALIVE)
    assert len(sent(pair.world, "a", _RSYN)) == 3 and not sent(pair.world, "e", _RSYN)
    pair.a.close(client)
    pair.e.close(server)
    pair.world.run(1)
    pair.world.seen.clear()
    pair.world.run(200)
    assert not sent(pair.world, "a", _RSYN)
    raw = make_pair(keepalive=KEEPALIVE)
    raw.connect()
    raw.world.run(100)
    assert not sent(raw.world, "a", _RSYN)


@pytest.mark.statement("S52")
def test_through_a_service_router() -> None:
    """The SYN-ACK seems to come from the router: the NAT lets nobody else in before he is spoken to."""
    world = World(3)
    a = world.host("a", A, encapsulation=chosen(AUTO))
    c, e = world.host("c", C, forwarding=True), world.host("e", E)
    a.stack.service_table.set_rule(Rule(NAMING.block("example"), forward(C)), "controller")
    c.stack.service_table.set_rule(Rule(WEB_BIND, forward(E)), "controller")
    pair = Pair(world, a, e, e.serve())
    Nat(world, A)
    ends = pair.connect()
    (syn_ack,) = [seen for seen in world.seen if seen.host == "e" and seen.packet.control and seen.packet.payload]
    assert (syn_ack.source, syn_ack.ports) == (address(C), UdpPorts(54325, 20000))
    assert only(a).peer == (address(E), TO_SERVER)
    assert only(e).peer == (PUBLIC, UdpPorts(54325, 20001))
    assert set(a.stack.encapsulation.learned(world.now)) == {address(C), address(E)}
    exchange(pair, ends)


def test_a_raw_flow_moves_behind_a_nat() -> None:
    pair = make_pair(encapsulation=chosen(AUTO), keepalive=KEEPALIVE)
    ends = pair.connect()
    exchange(pair, ends)
    pair.a.add_address(A2)
    Nat(pair.world, A2)
    pair.a.migrate(only(pair.a).local_flow, address(A2), lost=True)
    exchange(pair, ends)
    assert only(pair.a).ports == TO_SERVER
    assert only(pair.e).peer == (PUBLIC, UdpPorts(54325, 20000))
    assert sent(pair.world, "a", _RSYN)[:3] == [None, None, TO_SERVER]
    pair.world.run(3 * KEEPALIVE)
    assert len(sent(pair.world, "a", _RSYN)) > 4, "and says where it is from then on"


def test_the_longest_network_decides() -> None:
    choices = Choices(RAW, {Network(address("10.0.0.0"), 8): UDP, Network(address("10.0.3.0"), 24): RAW})
    assert choices.of(address("10.9.9.9")) is UDP
    assert choices.of(address(E)) is RAW
    assert choices.of(address("192.0.2.1")) is RAW
    assert Choices(UDP).forms(address("127.0.0.1"), 3, 0.0) == (None,)
    assert Choices(UDP, {Network(address("0.0.0.0"), 0): RAW}).of(address(E)) is RAW
