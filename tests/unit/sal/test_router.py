"""The service router: rewrite, SOURCE, loop, TTL, choice per SYN, memory for retransmissions, refusals."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import pytest

from serval_node.sal.events import Refusal
from serval_node.sal.outputs import Send
from serval_node.sal.service_table import Action, Rule, Selector, Target
from serval_node.wire.ipv4 import address
from serval_node.wire.sal_header import ControlFlag, SalPacket, Source, encode
from serval_node.wire.serviceid import Prefix
from serval_node.wire.transport import recompute_checksum, verify
from tests.unit.sal.conftest import A, C, D, E, Figure
from tests.unit.sal.world import NAMING, WEB_BIND, WEB_ID, Seen, World, forward

_SYN, _RST, _ACK = ControlFlag.SYN, ControlFlag.RST, ControlFlag.ACK


def targets(figure: Figure) -> list[bytes]:
    return [seen.destination for seen in figure.world.controls(_SYN, "c")]


def syn_of(figure: Figure) -> Seen:
    figure.a.connect()
    return figure.world.controls(_SYN, "a")[-1]


def send_again(figure: Figure, syn: Seen, *, ttl: int = 60, packet: SalPacket | None = None) -> None:
    raw = syn.raw if packet is None else encode(packet)
    figure.world.inject(Send(syn.source, syn.destination, ttl, raw))
    figure.world.run(0.005)


def test_transport_checksum_is_made_right_for_the_target(figure: Figure) -> None:
    figure.point(E)
    figure.a.connect()
    figure.world.run(0.015)
    (sent,) = figure.world.controls(_SYN, "c")
    assert verify(sent.packet.payload, 6, address(A), address(E))
    assert not verify(sent.packet.payload, 6, address(A), address(C))


def test_damaged_segment_is_dropped_and_not_made_right(figure: Figure) -> None:
    figure.point(E)
    syn = syn_of(figure)
    bad = bytearray(syn.packet.payload)
    bad[6] ^= 1
    before = len(targets(figure))
    send_again(figure, syn, packet=replace(syn.packet, payload=bytes(bad)))
    assert len(targets(figure)) == before and figure.c.count("bad_transport_checksum") == 1


def test_two_routers_in_a_chain() -> None:
    world = World()
    a, e = world.host("a", A), world.host("e", E)
    edge, core = world.host("edge", C, forwarding=True), world.host("core", D, forwarding=True)
    a.stack.service_table.set_rule(Rule(Prefix.default(), forward(C)), "hand")
    edge.stack.service_table.set_rule(Rule(NAMING.block("example"), forward(D)), "controller")
    core.stack.service_table.set_rule(Rule(WEB_BIND, forward(E)), "controller")
    listener = e.serve()
    client = a.connect()
    world.run(1)
    assert client.state == "ESTABLISHED" and len(listener.queue) == 1
    assert world.controls(_SYN, "core")[0].packet.source == (address(A), address(C), address(D))
    assert world.controls(_SYN | _ACK)[0].packet.source == (address(A), address(C), address(D), address(E))
    assert world.controls(_SYN | _ACK)[0].destination == address(A)


def test_loop_ends_at_the_router_that_sees_itself() -> None:
    world = World()
    a = world.host("a", A)
    one, two = world.host("one", C, forwarding=True), world.host("two", D, forwarding=True)
    a.stack.service_table.set_rule(Rule(Prefix.default(), forward(C)), "hand")
    one.stack.service_table.set_rule(Rule(Prefix.default(), forward(D)), "hand")
    two.stack.service_table.set_rule(Rule(Prefix.default(), forward(C)), "hand")
    a.connect()
    world.run(0.5)
    assert len(world.controls(_SYN, "one")) == len(world.controls(_SYN, "two")) == 1
    assert one.count(Refusal.ROUTING_LOOP) == 1


def test_ttl_ends(figure: Figure) -> None:
    figure.point(E)
    syn = syn_of(figure)
    figure.world.run(0.015)
    before = len(targets(figure))
    send_again(figure, syn, ttl=1)
    assert len(targets(figure)) == before and figure.c.count(Refusal.TTL_EXCEEDED) == 1


def test_source_list_never_grows_beyond_twenty(figure: Figure) -> None:
    figure.point(E)
    syn = syn_of(figure)
    sources = tuple(bytes((10, 8, 0, number)) for number in range(20))
    send_again(figure, syn, packet=replace(syn.packet, extensions=(*syn.packet.extensions, Source(sources))))
    assert figure.c.count(Refusal.SOURCE_FULL) == 1


def test_instance_refuses_a_source_list_that_its_answer_cannot_hold(figure: Figure) -> None:
    figure.e.serve()
    syn = syn_of(figure)
    sources = tuple(bytes((10, 8, 0, number)) for number in range(20))
    payload = recompute_checksum(syn.packet.payload, 6, address(A), address(E))
    packet = replace(syn.packet, extensions=(*syn.packet.extensions, Source(sources)), payload=payload)
    figure.world.inject(Send(address(A), address(E), 60, encode(packet)))
    figure.world.run(0.005)
    assert figure.e.count(Refusal.SOURCE_FULL) == 1 and not list(figure.e.stack.flows)


def test_broadcast_is_not_forwarded(figure: Figure) -> None:
    figure.point(E)
    syn = syn_of(figure)
    host = figure.c
    host.environment.is_local = lambda address: False  # type: ignore[method-assign]
    before = len(targets(figure))
    send_again(figure, syn)
    assert len(targets(figure)) == before and host.count(Refusal.BROADCAST) == 1


def test_host_without_forwarding_sends_nothing_on(figure: Figure) -> None:
    """What the edge rule of a host says is for its own programs."""
    figure.d.stack.service_table.set_rule(Rule(NAMING.block("example"), forward(E)), "controller")
    figure.point(D)
    client = figure.a.connect()
    figure.world.run(0.5)
    assert client.state == "SYN_SENT" and not figure.world.controls(_SYN, "d")
    assert figure.d.count(Refusal.NO_RULE) == 1


def test_unmatched_syn_is_refused_at_once(figure: Figure) -> None:
    """S29: RST|ACK with the SYN's nonce; connect() fails with ECONNREFUSED after one round trip."""
    figure.a.stack.service_table.set_rule(Rule(NAMING.block("other"), forward(C)), "controller")
    start = figure.world.now
    client = figure.a.connect("web.other")
    figure.world.run(1, until=lambda: client.error is not None)
    assert client.error == "ECONNREFUSED" and figure.world.now - start < 0.025
    (reset,) = figure.world.controls(_RST | _ACK)
    (syn,) = figure.world.controls(_SYN)
    assert reset.packet.control is not None and syn.packet.control is not None
    assert reset.packet.control.nonce == syn.packet.control.nonce
    assert not list(figure.a.stack.flows)


def test_drop_rule_is_silent_and_counted(figure: Figure) -> None:
    """S28."""
    figure.point(E)
    figure.c.stack.service_table.set_rule(Rule(Prefix.of(WEB_ID), (Target(Action.DROP),)), "hand")
    client = figure.a.connect()
    figure.world.run(0.5)
    assert client.state == "SYN_SENT" and not figure.world.controls(_RST | _ACK)
    entry = figure.c.stack.service_table.get(Prefix.of(WEB_ID))
    assert entry is not None and entry.counters.dropped_packets == 1
    figure.c.stack.service_table.remove_rule(Prefix.of(WEB_ID), "hand")
    figure.e.serve()
    figure.world.run(2)
    assert client.state == "ESTABLISHED"


def test_rule_may_change_between_resolution_and_arrival(figure: Figure) -> None:
    """S19: late binding in time."""
    figure.point(D)
    figure.d.serve()
    listener = figure.e.serve()
    figure.a.connect()
    figure.point(E)
    figure.world.run(1)
    assert len(listener.queue) == 1


@pytest.mark.parametrize("selector", [selector for selector in Selector if selector is not Selector.ALL])
def test_retransmitted_syn_goes_to_the_same_instance(figure: Figure, selector: Selector) -> None:
    """S43: whatever the selector, as long as the target is registered; then anew."""
    names = [f"10.0.5.{number}" for number in range(1, 9)]
    rule = Rule(WEB_BIND, forward(*names), selector)
    figure.c.stack.service_table.set_rule(rule, "controller")
    syn = syn_of(figure)
    figure.world.run(0.015)
    (first,) = targets(figure)
    # Others join and leave, loads and weights change.
    changed = tuple(replace(target, weight=3, load=9.0) for target in rule.targets if target.address != first)[:4]
    kept = Target(Action.FORWARD, address=first, load=100.0)
    figure.c.stack.service_table.set_rule(Rule(WEB_BIND, (*changed, kept), selector), "controller")
    for _ in range(20):
        send_again(figure, syn)
    assert set(targets(figure)) == {first} and len(targets(figure)) == 21
    figure.c.stack.service_table.set_rule(Rule(WEB_BIND, changed, selector), "controller")
    send_again(figure, syn)
    assert targets(figure)[-1] != first


def test_other_syns_are_chosen_for_by_themselves(figure: Figure) -> None:
    """Same client, same flowID, other nonce: a new connection."""
    figure.c.stack.service_table.set_rule(Rule(WEB_BIND, forward(D, E), Selector.ROUND_ROBIN), "controller")
    for _ in range(10):
        figure.a.connect()
    figure.world.run(0.015)
    assert Counter(targets(figure)) == {address(D): 5, address(E): 5}


def test_counters_are_right_to_the_packet(figure: Figure) -> None:
    """S30."""
    figure.c.stack.service_table.set_rule(Rule(WEB_BIND, forward(D, E), Selector.ROUND_ROBIN), "controller")
    for _ in range(7):
        figure.a.connect()
    size = 20 + len(figure.world.controls(_SYN, "a")[0].raw)
    figure.world.run(0.015)
    entry = figure.c.stack.service_table.get(WEB_BIND)
    assert entry is not None
    assert (entry.counters.packets, entry.counters.bytes) == (7, 7 * size)
    assert [slot.counters.packets for slot in entry.slots] == [4, 3]


def test_router_may_be_an_instance_too(figure: Figure) -> None:
    listener = figure.c.serve()
    client = figure.a.connect()
    figure.world.run(1)
    assert client.state == "ESTABLISHED" and len(listener.queue) == 1
    assert not figure.world.controls(_SYN, "c")


def test_established_connections_do_not_need_the_rule(figure: Figure) -> None:
    """S43: rules change, instances join and leave, the connection stays where it is."""
    figure.point(E)
    listener = figure.e.serve()
    client = figure.a.connect()
    figure.world.run(1)
    figure.point(D)
    figure.e.unserve(listener)
    figure.a.send(client, b"x" * 30000)
    figure.world.run(2)
    assert len(listener.queue[0].received) == 30000
