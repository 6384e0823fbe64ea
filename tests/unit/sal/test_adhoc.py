"""Ad hoc networks: real stacks on links where a broadcast reaches everyone (slide 38, S44)."""

from __future__ import annotations

import itertools
from dataclasses import dataclass, replace

import pytest

from serval_node.sal.adhoc import MAX_HOPS, AdHoc
from serval_node.sal.broadcasts import RecentSyns
from serval_node.sal.events import FlowClosed, InstanceReset, Refusal, SynAckReceived, SynFlooded, SynSent
from serval_node.sal.outputs import Send
from serval_node.sal.service_table import Action, Rule, Selector, Target
from serval_node.sal.states import State
from serval_node.wire.ipv4 import PROTOCOL_UDP, address
from serval_node.wire.sal_header import ControlFlag, Source, encode
from serval_node.wire.serviceid import Prefix, ServiceID
from serval_node.wire.transport import recompute_checksum
from tests.unit.sal.fake_tcp import Listener
from tests.unit.sal.world import WEB_BIND, WEB_ID, Host, Seen, World, forward

SYN, ACK, RST = ControlFlag.SYN, ControlFlag.ACK, ControlFlag.RST
A, B, C, D = "10.9.0.1", "10.9.0.2", "10.9.0.3", "10.9.0.4"
EVERYONE = "10.9.0.255"


def take_part(host: Host, links: dict[str, str], **part: object) -> None:
    """Ad hoc mode as the daemon makes it: the links by broadcast address, and the default rule to all of them."""
    own = {address(broadcast): address(here) for broadcast, here in links.items()}
    host.stack.adhoc = AdHoc(own, **part)  # type: ignore[arg-type]
    host.stack.service_table.set_rule(Rule(Prefix.default(), forward(*links), Selector.ALL), "adhoc")


@dataclass
class OneLink:
    """a, b, c and d on one link; web is served by b and c."""

    world: World
    a: Host
    b: Host
    c: Host
    d: Host
    at_b: Listener
    at_c: Listener

    def everyone(self) -> list[Host]:
        return [self.a, self.b, self.c, self.d]


@pytest.fixture
def link() -> OneLink:
    world = World(3)
    hosts = [world.host(name, own) for name, own in zip("abcd", (A, B, C, D), strict=True)]
    world.link(EVERYONE, *hosts)
    for host in hosts:
        take_part(host, {EVERYONE: "10.9.0." + str(hosts.index(host) + 1)})
    a, b, c, d = hosts
    return OneLink(world, a, b, c, d, b.serve(), c.serve())


def children(link: OneLink) -> int:
    return len(link.at_b.queue) + len(link.at_c.queue)


@pytest.mark.statement("S44")
def test_the_first_answer_wins_and_the_loser_frees_its_state(link: OneLink) -> None:
    """S44: b and c answer at the same moment; one flow stays at a, and one at one of them, in the kernels too."""
    client = link.a.connect()
    link.world.run(until=lambda: client.state == "ESTABLISHED" and children(link) == 1)
    link.world.run(0.5)
    assert len(link.world.controls(SYN)) == 1 and len(link.world.controls(SYN | ACK)) == 2
    (reset,) = link.world.controls(RST | ACK)
    winner, loser = (link.b, link.c) if link.at_b.queue else (link.c, link.b)
    assert reset.destination == loser.address
    assert not list(loser.stack.flows) and not loser.kernel.sockets
    (closed,) = loser.happened(FlowClosed)
    assert isinstance(closed, FlowClosed) and not closed.opened and closed.reason == "reset by the peer"
    (told,) = link.a.happened(InstanceReset)
    assert isinstance(told, InstanceReset) and told.peer == loser.address
    (flow,) = link.a.stack.flows
    assert (flow.peer_address, flow.local_address) == (winner.address, link.a.address)
    (there,) = winner.stack.flows
    assert (there.local_address, there.peer_address) == (winner.address, link.a.address)
    link.a.send(client, b"to you alone")
    link.world.run(0.5)
    assert bytes((link.at_b.queue + link.at_c.queue)[0].received) == b"to you alone"


@pytest.mark.statement("S44")
def test_what_an_experiment_measures_is_in_events_and_counters(link: OneLink) -> None:
    """E7: time to the first SYN-ACK, messages, losers."""
    client = link.a.connect()
    link.world.run(until=lambda: client.state == "ESTABLISHED")
    link.world.run(0.5)
    (sent,) = link.a.happened(SynSent)
    (answer,) = link.a.happened(SynAckReceived)
    assert answer.time - sent.time == pytest.approx(2 * link.world.delay)
    assert link.a.stack.activity == {"adhoc_syns_sent": 1}
    assert link.b.stack.activity == link.c.stack.activity == {"adhoc_syns_answered": 1}
    assert link.d.stack.activity == {"adhoc_syns_not_served": 1}
    assert link.a.count(Refusal.OTHER_INSTANCE) == 1 and not link.d.stack.counters


@pytest.mark.statement("S44")
@pytest.mark.parametrize("lost", [1, 2])
def test_lost_answers(link: OneLink, lost: int) -> None:
    """With both SYN-ACKs lost, the next SYN or SYN-ACK opens the flow; no instance keeps a second child."""
    left = iter(range(lost))

    def lose(host: Host, send: Send, packet: object) -> bool:
        control = getattr(packet, "control", None)
        return control is not None and control.flags == SYN | ACK and next(left, None) is not None

    link.world.lose = lose
    client = link.a.connect()
    link.world.run(10, until=lambda: client.state == "ESTABLISHED" and children(link) == 1)
    link.world.run(10)
    assert children(link) == 1 and sum(len(host.stack.flows) for host in (link.b, link.c)) == 1
    assert not [socket for host in (link.b, link.c) for socket in host.kernel.sockets.values()][1:]


def test_lost_reset_of_the_loser(link: OneLink) -> None:
    """Its repeated SYN-ACK is answered by another one."""
    left = iter(range(1))
    link.world.lose = lambda host, send, packet: (
        packet.control is not None and packet.control.flags == RST | ACK and next(left, None) is not None
    )
    client = link.a.connect()
    link.world.run(until=lambda: client.state == "ESTABLISHED")
    link.world.run(5)
    assert sum(len(host.stack.flows) for host in (link.b, link.c)) == 1
    assert len(link.world.controls(RST | ACK)) == 2


@pytest.mark.statement("S44")
def test_a_repeated_syn_makes_no_second_child(link: OneLink) -> None:
    """It goes to everyone; who has the request already is reached again by its SYN-ACK's repetition."""
    answers: list[Seen] = []
    link.world.lose = lambda host, send, packet: (
        packet.control is not None and packet.control.flags == SYN | ACK and host.now < 1002.5
    )
    client = link.a.connect()
    link.world.run(12, until=lambda: client.state == "ESTABLISHED")
    link.world.run(5)
    syns = link.world.controls(SYN)
    assert len(syns) >= 2 and {seen.destination for seen in syns} == {address(EVERYONE)}
    assert len({seen.raw for seen in syns}) == 1
    assert children(link) == 1 and not answers
    assert link.b.count(Refusal.DUPLICATE_SYN) + link.c.count(Refusal.DUPLICATE_SYN) >= 2


def test_nobody_serves_it_and_nobody_answers(link: OneLink) -> None:
    client = link.a.connect("bulk.example")
    link.world.run(5)
    assert client.state == "SYN_SENT" and {seen.host for seen in link.world.seen} == {"a"}
    assert all(host.stack.activity["adhoc_syns_not_served"] >= 2 for host in (link.b, link.c, link.d))


def test_a_service_router_does_not_refuse_what_everyone_hears(link: OneLink) -> None:
    """Its RST would end a connect that an instance is about to answer."""
    router = link.world.host("r", "10.9.0.9", forwarding=True)
    link.world.link(EVERYONE, *link.everyone(), router)
    take_part(router, {EVERYONE: "10.9.0.9"})
    router.stack.service_table.set_rule(Rule(WEB_BIND, forward(C)), "controller")
    client = link.a.connect()
    link.world.run(until=lambda: client.state == "ESTABLISHED")
    link.world.run(1)
    assert not [seen for seen in link.world.seen if seen.host == "r"]


def test_drop_and_delay_rules_of_who_hears_it(link: OneLink) -> None:
    """DROP holds for a service that would be served here; a DELAY rule is not asked about other hosts' wishes."""
    link.d.serve()
    link.d.stack.service_table.set_rule(Rule(Prefix(WEB_BIND.raw, WEB_BIND.bits + 16), (Target(Action.DROP),)), "hand")
    link.b.unserve(link.at_b)
    link.b.stack.service_table.remove_rule(Prefix.default(), "adhoc")
    link.b.stack.service_table.set_rule(Rule(Prefix.default(), (Target(Action.DELAY),)), "hand")
    link.a.connect()
    link.world.run(until=lambda: len(link.at_c.queue) == 1)
    assert link.d.count(Refusal.DROP_RULE) == 1 and not link.b.stack.delayed()


def test_outside_of_ad_hoc_mode_nothing_has_changed(link: OneLink) -> None:
    link.b.stack.adhoc = link.c.stack.adhoc = AdHoc()
    client = link.a.connect()
    link.world.run(5)
    assert client.state == "SYN_SENT" and link.b.count(Refusal.BROADCAST) == 3 and not link.b.stack.activity


def test_a_syn_ack_to_everyone_is_refused(link: OneLink) -> None:
    """The flow would take the broadcast address for its own."""
    link.world.lose = lambda host, send, packet: packet.control is not None and packet.control.flags == SYN | ACK
    client = link.a.connect()
    link.world.run(0.05)
    answer = link.world.controls(SYN | ACK)[0]
    payload = recompute_checksum(answer.packet.payload, 6, answer.source, address(EVERYONE))
    link.world.inject(Send(answer.source, address(EVERYONE), 64, encode(replace(answer.packet, payload=payload))))
    link.world.run(0.05)
    assert client.state == "SYN_SENT" and link.a.count(Refusal.BROADCAST) == 1


def test_a_client_with_two_links_asks_on_both(link: OneLink) -> None:
    """One SYN on each, each from the address there; the answer of one instance on both links is one flow."""
    second, other = "10.8.0.255", link.b
    other.add_address("10.8.0.2")
    link.a.add_address("10.8.0.1")
    link.world.link(second, link.a, other)
    take_part(link.a, {EVERYONE: A, second: "10.8.0.1"})
    take_part(other, {EVERYONE: B, second: "10.8.0.2"})
    link.c.unserve(link.at_c)
    client = link.a.connect()
    link.world.run(until=lambda: client.state == "ESTABLISHED")
    link.world.run(1)
    syns = link.world.controls(SYN, "a")
    assert {(seen.source, seen.destination) for seen in syns} == {
        (address(A), address(EVERYONE)),
        (address("10.8.0.1"), address(second)),
    }
    assert len(other.stack.flows) == len(link.at_b.queue) == 1
    entry = link.a.stack.service_table.get(Prefix.default())
    assert entry is not None and [slot.counters.packets for slot in entry.slots] == [1, 1]


def test_what_explain_says_of_two_links(link: OneLink) -> None:
    second = "10.8.0.255"
    take_part(link.a, {EVERYONE: A, second: "10.8.0.1"})
    (rule,) = link.a.stack.explain(WEB_ID).rules
    assert [(target.everyone, target.share, target.taken) for target in rule.targets] == [(True, 1.0, True)] * 2
    assert [target.client for target in rule.targets] == [address(A), address("10.8.0.1")]


def test_a_host_that_hears_itself_counts_nothing(link: OneLink) -> None:
    """Linux gives a host its own broadcasts: the client's SYN, and what a relay has sent on."""
    second = "10.8.0.255"
    link.d.add_address("10.8.0.4")
    link.world.link(second, link.d)
    take_part(link.d, {EVERYONE: D, second: "10.8.0.4"}, relay=True)
    link.a.connect("bulk.example")
    link.world.run(0.05)
    syn, relayed = link.world.controls(SYN)
    for seen in (syn, relayed):
        link.world.links[seen.destination] = [link.a if seen is syn else link.d]
        link.world.inject(Send(seen.source, seen.destination, seen.ttl, seen.raw))
    link.world.run(0.05)
    assert not link.a.stack.counters and not link.d.stack.counters
    assert len(link.world.controls(SYN)) == 2 and link.a.stack.activity == {"adhoc_syns_sent": 1}


def test_no_way_back_to_the_client(link: OneLink) -> None:
    link.world.unreachable.add(address(A))
    link.a.connect()
    link.world.run(0.5)
    assert link.b.count(Refusal.NO_ROUTE) == 1 and not list(link.b.stack.flows)


def test_a_service_router_in_ad_hoc_mode_asks_on_all_its_links(link: OneLink) -> None:
    """What comes to it alone, and no rule of its own matches, it broadcasts; the client hears from the instance."""
    router = link.world.host("r", "10.9.0.9", forwarding=True)
    router.add_address("10.8.0.9")
    far = link.world.host("f", "10.8.0.1")
    far.serve()
    link.world.link("10.8.0.255", far, router)
    link.world.link(EVERYONE, link.a, link.d, router)
    take_part(far, {"10.8.0.255": "10.8.0.1"})
    take_part(router, {EVERYONE: "10.9.0.9", "10.8.0.255": "10.8.0.9"})
    link.a.stack.service_table.set_rule(Rule(WEB_BIND, forward("10.9.0.9")), "router")
    client = link.a.connect()
    link.world.run(until=lambda: client.state == "ESTABLISHED")
    (flow,) = link.a.stack.flows
    assert flow.peer_address == far.address
    assert {seen.destination for seen in link.world.controls(SYN, "r")} == {address(EVERYONE), address("10.8.0.255")}


# -- several hops


@dataclass
class Chain:
    """Hosts h0, h1, ... each with its neighbours on a link of their own; all but the ends relay."""

    world: World
    hosts: list[Host]

    def floods(self) -> list[Seen]:
        return [seen for seen in self.world.controls(SYN) if seen.host != "h0"]


def own(host: int, link: int) -> str:
    return f"10.{link}.0.{host + 1}"


def make_chain(length: int, **part: object) -> Chain:
    """`length` hosts; link number N joins host N and host N + 1."""
    world = World(5)
    hosts = [world.host(f"h{number}", own(number, max(0, number - 1))) for number in range(length)]
    for number in range(1, length - 1):
        hosts[number].add_address(own(number, number))
    for number, pair in enumerate(itertools.pairwise(hosts)):
        world.link(f"10.{number}.0.255", *pair)
    for number, host in enumerate(hosts):
        links = [link for link in (number - 1, number) if 0 <= link < length - 1]
        take_part(host, {f"10.{link}.0.255": own(number, link) for link in links}, relay=True, **part)
    return Chain(world, hosts)


@pytest.mark.statement("S44")
def test_three_hops_by_flooding() -> None:
    """The SYN is flooded with SOURCE and TTL as hop record; everything else goes straight."""
    chain = make_chain(4)
    listener = chain.hosts[3].serve()
    client = chain.hosts[0].connect()
    chain.world.run(until=lambda: client.state == "ESTABLISHED" and len(listener.queue) == 1)
    first, second = chain.floods()
    (syn,) = chain.world.controls(SYN, "h0")
    assert [seen.ttl for seen in (syn, first, second)] == [8, 7, 6]
    assert first.packet.source == (address(own(0, 0)), address(own(1, 0)))
    assert second.packet.source == (*first.packet.source, address(own(2, 1)))
    assert {seen.source for seen in (first, second)} == {syn.source}, "the client's address is kept"
    (answer,) = chain.world.controls(SYN | ACK)
    assert answer.destination == chain.hosts[0].address and answer.packet.source[-1] == chain.hosts[3].address
    (told,) = chain.hosts[2].happened(SynFlooded)
    assert isinstance(told, SynFlooded) and told.hops == 2 and told.targets == (address("10.2.0.255"),)
    before = len(chain.floods())
    chain.hosts[0].send(client, b"x" * 10000)
    chain.world.run(1)
    assert bytes(listener.queue[0].received) == b"x" * 10000 and len(chain.floods()) == before
    assert {seen.host for seen in chain.world.seen if not seen.packet.extensions} == {"h0", "h3"}


@pytest.mark.statement("S44")
@pytest.mark.parametrize(("hops", "reached"), [(1, 1), (2, 2), (3, 3)])
def test_hop_limit_of_the_client(hops: int, reached: int) -> None:
    """It is the TTL: how many links the SYN crosses."""
    chain = make_chain(5)
    chain.hosts[0].stack.adhoc = replace(chain.hosts[0].stack.adhoc, hops=hops)
    chain.hosts[0].connect()
    chain.world.run(0.5)
    heard = [bool(host.stack.activity.get("adhoc_syns_not_served")) for host in chain.hosts[1:]]
    assert heard == [number <= reached for number in range(1, 5)]
    assert chain.hosts[reached].count(Refusal.FLOOD_HOPS) == 1


@pytest.mark.statement("S44")
def test_hop_limit_of_the_relays() -> None:
    """A client that asks for more gets what the relays allow; SOURCE tells them how far the SYN has come."""
    chain = make_chain(6, hops=3)
    chain.hosts[0].stack.adhoc = replace(chain.hosts[0].stack.adhoc, hops=MAX_HOPS)
    chain.hosts[5].serve()
    client = chain.hosts[0].connect()
    chain.world.run(0.5)
    assert client.state == "SYN_SENT" and len(chain.floods()) == 2
    assert chain.hosts[3].count(Refusal.FLOOD_HOPS) == 1 and not chain.hosts[4].stack.activity


def test_the_longest_chain_that_source_can_record() -> None:
    chain = make_chain(MAX_HOPS + 1, hops=MAX_HOPS)
    listener = chain.hosts[-1].serve()
    client = chain.hosts[0].connect()
    chain.world.run(until=lambda: client.state == "ESTABLISHED" and len(listener.queue) == 1)
    (answer,) = chain.world.controls(SYN | ACK)
    assert len(answer.packet.source) == 20
    with pytest.raises(ValueError, match="hop limit"):
        AdHoc(hops=MAX_HOPS + 1)


def make_mesh(size: int) -> tuple[World, list[Host]]:
    """Every two hosts share a link of their own: as many loops as there can be."""
    world = World(7)
    hosts = [world.host(f"h{number}", f"10.200.0.{number + 1}") for number in range(size)]
    links: list[dict[str, str]] = [{} for _ in hosts]
    for first, second in itertools.combinations(range(size), 2):
        for number in (first, second):
            here = f"10.{first * size + second}.0.{number + 1}"
            hosts[number].add_address(here)
            links[number][f"10.{first * size + second}.0.255"] = here
        world.link(f"10.{first * size + second}.0.255", hosts[first], hosts[second])
    for host, own_links in zip(hosts, links, strict=True):
        take_part(host, own_links, relay=True, hops=MAX_HOPS)
    return world, hosts


@pytest.mark.statement("S44")
def test_duplicates_are_suppressed_where_there_are_loops() -> None:
    """Nobody serves it: each of six hosts floods once, and what comes back to them is counted and goes nowhere."""
    world, hosts = make_mesh(6)
    client = hosts[0].connect("bulk.example")
    world.run(0.9)
    sent = len(world.controls(SYN))
    assert client.state == "SYN_SENT" and sent <= 5 + 5 * 5 * 4
    per_client_address = {(seen.host, seen.packet.source[0]) for seen in world.controls(SYN) if seen.packet.source}
    floods = [len(host.happened(SynFlooded)) for host in hosts[1:]]
    assert floods == [len([pair for pair in per_client_address if pair[0] == host.name]) for host in hosts[1:]]
    assert all(host.count(Refusal.FLOOD_COPY) for host in hosts)
    assert "adhoc_syns_not_served" not in hosts[0].stack.activity, "its own SYN is nothing to look at"
    world.run(1.0)
    assert len(world.controls(SYN)) == 2 * sent, "the repeated SYN is a flood of its own"


def test_a_loop_ends_even_after_the_memory_of_it() -> None:
    """Links so slow that copies come when nobody remembers: SOURCE says that they were here."""
    world, hosts = make_mesh(4)
    world.delay = 0.7
    hosts[0].connect("bulk.example")
    world.run(0.9)
    world.lose = lambda host, send, packet: host is hosts[0]
    world.run(60)
    assert sum(host.count(Refusal.ROUTING_LOOP) for host in hosts[1:]) > 0
    assert max(seen.time for seen in world.controls(SYN) if seen.host != "h0") < 1000 + 0.7 * MAX_HOPS
    assert not world._events


def test_a_relay_that_serves_it_answers_and_does_not_flood() -> None:
    chain = make_chain(3)
    near, far = chain.hosts[1].serve(), chain.hosts[2].serve()
    client = chain.hosts[0].connect()
    chain.world.run(until=lambda: client.state == "ESTABLISHED" and len(near.queue) == 1)
    chain.world.run(1)
    assert not chain.floods() and not far.queue


def test_a_copy_by_another_way_is_not_answered_twice() -> None:
    """Two relays between the client and the instance: one child, one SYN-ACK."""
    world = World(9)
    a, e = world.host("a", "10.1.0.1"), world.host("e", "10.2.0.4")
    r1, r2 = world.host("r1", "10.1.0.2"), world.host("r2", "10.1.0.3")
    r1.add_address("10.2.0.2")
    r2.add_address("10.2.0.3")
    world.link("10.1.0.255", a, r1, r2)
    world.link("10.2.0.255", e, r1, r2)
    take_part(a, {"10.1.0.255": "10.1.0.1"})
    take_part(e, {"10.2.0.255": "10.2.0.4"})
    for relay, number in ((r1, 2), (r2, 3)):
        take_part(relay, {"10.1.0.255": f"10.1.0.{number}", "10.2.0.255": f"10.2.0.{number}"}, relay=True)
    listener = e.serve()
    client = a.connect()
    world.run(until=lambda: client.state == "ESTABLISHED" and len(listener.queue) == 1)
    world.run(0.3)
    assert len(e.stack.flows) == 1 and len(world.controls(SYN | ACK)) == 1
    assert e.count(Refusal.FLOOD_COPY) == 1 and not e.count(Refusal.DUPLICATE_SYN)


def test_a_forged_source_list_is_not_relayed() -> None:
    """One that already holds as much as a packet may."""
    chain = make_chain(3, hops=MAX_HOPS)
    chain.hosts[0].connect()
    (syn,) = chain.world.controls(SYN, "h0")
    full = Source(tuple(bytes((10, 77, 0, number)) for number in range(20)))
    packet = replace(syn.packet, src_flow=77, extensions=(*syn.packet.extensions, full))
    chain.world.inject(Send(syn.source, syn.destination, 8, encode(packet)), sender=chain.hosts[0])
    chain.world.run(0.05)
    assert chain.hosts[1].count(Refusal.FLOOD_HOPS) == 1 and len(chain.floods()) == 1


def test_memory_of_syns_is_bounded() -> None:
    """What does not fit is never taken for a copy, and not for a SYN that was remembered either."""
    recent = RecentSyns(limit=2, seconds=0.5)
    keys = [(address(A), number, b"n") for number in range(3)]
    assert [recent.is_copy(key, 1.0) for key in (*keys, *keys)] == [False, False, False, True, True, False]
    assert len(recent) == 2 and recent.holds(keys[0]) and not recent.holds(keys[2])
    assert not recent.is_copy(keys[0], 1.5), "the time counts from the first copy"
    assert not recent.is_copy(keys[2], 1.5) and recent.holds(keys[2])


def test_a_relay_whose_memory_is_full_floods_no_more() -> None:
    chain = make_chain(3)
    chain.hosts[1].stack._network._broadcasts._recent._limit = 0
    listener = chain.hosts[2].serve()
    chain.hosts[0].connect()
    chain.world.run(0.5)
    assert chain.hosts[1].count(Refusal.FLOOD_FULL) == 1 and not listener.queue


def test_flow_that_lost_its_instance_asks_by_broadcast(link: OneLink) -> None:
    """Both moved and missed it (S47): a client's search follows the default rule, here to everyone on the link."""
    client = link.a.connect()
    link.world.run(until=lambda: client.state == "ESTABLISHED" and children(link) == 1)
    link.world.run(0.5)
    winner, listener = (link.b, link.at_b) if link.at_b.queue else (link.c, link.at_c)
    (here,), (there,) = link.a.stack.flows, winner.stack.flows
    old = {link.a.address, winner.address}
    new_a, new_b = link.a.add_address("10.9.0.101"), winner.add_address("10.9.0.102")
    link.world.cut |= old
    link.a.migrate(here.local_flow, new_a, lost=True)
    winner.migrate(there.local_flow, new_b, lost=True)
    link.world.run(60, until=lambda: here.peer_address == new_b and there.peer_address == new_a)
    link.a.send(client, b"found you")
    link.world.run(5)
    assert bytes(listener.queue[0].received) == b"found you" and here.state is State.CONNECTED


def test_datagrams_find_their_service_without_a_router(link: OneLink) -> None:
    """Connected ones as connections do; unconnected ones reach everyone who serves, who answer directly."""
    servers = [host.serve_datagrams(port=53, answer=lambda data: data) for host in (link.b, link.c)]
    connected, unconnected = link.a.kernel.udp.socket(), link.a.kernel.udp.socket()
    own = ServiceID.from_hex("0xaa")
    link.a.stack.open_datagram_socket(unconnected.local[1], own)
    target = Target(Action.DEMUX, port=unconnected.local[1], protocol=PROTOCOL_UDP)
    link.a.stack.service_table.set_rule(Rule(Prefix.of(own), (target,)), "local")
    link.a.sendto(connected, b"flow")
    link.world.run(1)
    assert connected.data == [b"flow"] and len([server for server in servers if server.data]) == 1
    link.a.sendto(unconnected, b"all")
    link.world.run(1)
    assert unconnected.data == [b"all", b"all"]
