"""DELAY: SYNs wait for a decision, bounded, with one notification per service and release (S26)."""

from __future__ import annotations

import pytest

from serval_node.sal.delay_queue import DelayLimits, DelayVerdict
from serval_node.sal.events import ConnectFailed, DelayNotify, Refusal, Refused, SynDelayed
from serval_node.sal.explanation import Arrival
from serval_node.sal.service_table import Action, Rule, Target
from serval_node.wire.ipv4 import address
from serval_node.wire.sal_header import ControlFlag
from serval_node.wire.serviceid import Prefix
from tests.unit.sal.conftest import A, C, D, E, Figure
from tests.unit.sal.world import NAMING, WEB_BIND, WEB_ID, Host, World, forward

_SYN = ControlFlag.SYN
BLOCK = NAMING.block("example")
B = "10.0.0.2"
DELAY_RULE = Rule(BLOCK, (Target(Action.DELAY),))


def notices(host: Host) -> list[DelayNotify]:
    return host.happened(DelayNotify)  # type: ignore[return-value]


@pytest.fixture(params=["router", "host"])
def place(request: pytest.FixtureRequest, figure: Figure) -> Host:
    """Where the DELAY rule is: at c, or at a itself."""
    host = figure.c if request.param == "router" else figure.a
    table = host.stack.service_table
    if host is figure.a:
        table.remove_rule(BLOCK, "controller")
        figure.point(E)
    table.set_rule(DELAY_RULE, "controller")
    return host


def decide(figure: Figure, place: Host) -> None:
    rule = Rule(WEB_BIND, forward(E) if place is figure.c else forward(C))
    place.stack.service_table.set_rule(rule, "controller")


def test_one_notification_and_release(figure: Figure, place: Host) -> None:
    listener = figure.e.serve()
    clients = [figure.a.connect() for _ in range(5)]
    figure.world.run(0.5)
    (notice,) = notices(place)
    assert notice.service_id == WEB_ID and notice.prefix == BLOCK
    assert place.stack.delayed() == {WEB_ID: 5}
    assert all(client.state == "SYN_SENT" for client in clients) and not listener.queue
    decide(figure, place)
    place.settle()
    figure.world.run(0.1)
    assert len(listener.queue) == 5 and not place.stack.delayed()
    assert all(client.state == "ESTABLISHED" for client in clients)


def test_verdict_releases_too(figure: Figure, place: Host) -> None:
    figure.e.serve()
    client = figure.a.connect()
    figure.world.run(0.1)
    decide(figure, place)
    assert place.stack.delay_verdict(WEB_BIND, DelayVerdict.RELEASE, figure.world.now) == 1
    place.settle()
    figure.world.run(0.1)
    assert client.state == "ESTABLISHED"


def test_retransmissions_take_one_place(figure: Figure, place: Host) -> None:
    figure.a.connect()
    figure.world.run(10)
    assert place.stack.delayed() == {WEB_ID: 1} and len(notices(place)) == 1
    listener = figure.e.serve()
    decide(figure, place)
    place.settle()
    figure.world.run(10)
    assert len(listener.queue) == 1 and len(figure.e.stack.flows) == 1


def test_each_service_has_its_notification(figure: Figure, place: Host) -> None:
    for _ in range(3):
        figure.a.connect("web.example")
        figure.a.connect("bulk.example")
    figure.world.run(0.1)
    assert sorted(notice.service_id for notice in notices(place)) == sorted([WEB_ID, NAMING.service_id("bulk.example")])


def test_release_into_delay_waits_again_with_a_new_notification(figure: Figure, place: Host) -> None:
    """The original deadlocks here."""
    figure.a.connect()
    figure.world.run(0.1)
    assert place.stack.delay_verdict(Prefix.default(), DelayVerdict.RELEASE, figure.world.now) == 1
    place.settle()
    assert place.stack.delayed() == {WEB_ID: 1} and len(notices(place)) == 2


def test_drop_verdict(figure: Figure, place: Host) -> None:
    client = figure.a.connect()
    figure.world.run(0.1)
    assert place.stack.delay_verdict(Prefix.of(WEB_ID), DelayVerdict.DROP, figure.world.now) == 1
    place.settle()
    assert not place.stack.delayed() and place.count(Refusal.DELAY_DROPPED) == 1
    assert client.error == ("EHOSTUNREACH" if place is figure.a else None)
    figure.world.run(2)
    assert len(notices(place)) == (1 if place is figure.a else 2), "the retransmission asks anew"


def test_verdict_for_another_service_changes_nothing(figure: Figure, place: Host) -> None:
    figure.a.connect()
    figure.world.run(0.1)
    other = NAMING.bind_prefix("bulk.example")
    assert place.stack.delay_verdict(other, DelayVerdict.DROP, figure.world.now) == 0
    assert place.stack.delayed() == {WEB_ID: 1}


@pytest.mark.parametrize("where", ["router", "host"])
def test_queue_is_bounded_and_waiting_ends(where: str) -> None:
    """S27: overflow and expiry are counted, and the program on the own host sees an error."""
    world = World()
    limits = {"delay": DelayLimits(total=10, seconds=20.0)}
    a = world.host("a", A, **limits)
    c = world.host("c", C, forwarding=True, **limits)
    a.stack.service_table.set_rule(DELAY_RULE if where == "host" else Rule(BLOCK, forward(C)), "controller")
    c.stack.service_table.set_rule(DELAY_RULE, "controller")
    place = a if where == "host" else c
    clients = [a.connect() for _ in range(25)]
    world.run(0.5)
    assert place.stack.delayed() == {WEB_ID: 10} and place.count(Refusal.DELAY_FULL) == 15
    assert sum(client.error == "EHOSTUNREACH" for client in clients) == (15 if where == "host" else 0)
    if where == "host":
        world.run(25)
        assert place.count(Refusal.DELAY_EXPIRED) == 10 and not place.stack.delayed()
        assert all(client.error == "EHOSTUNREACH" for client in clients)
        assert not list(a.stack.flows)


@pytest.mark.statement("S27")
def test_a_service_and_a_sender_have_shares_of_the_queue() -> None:
    """S27: a popular name keeps no other out, nor does one client; a host's own programs count for the name only."""
    world = World()
    limits = DelayLimits(total=10, per_service=6, per_source=4)
    a, b = world.host("a", A), world.host("b", B)
    c = world.host("c", C, forwarding=True, delay=limits)
    for host in (a, b):
        host.stack.service_table.set_rule(Rule(BLOCK, forward(C)), "controller")
    c.stack.service_table.set_rule(DELAY_RULE, "controller")
    for host in (a, b):
        for _ in range(5):
            host.connect()
    world.run(0.5)
    assert c.stack.delayed() == {WEB_ID: 6}
    assert (c.count(Refusal.DELAY_SHARE), c.count(Refusal.DELAY_SERVICE_FULL)) == (1, 3)
    for _ in range(4):
        b.connect("bulk.example")
    world.run(0.1)
    assert c.stack.delayed() == {WEB_ID: 6, NAMING.service_id("bulk.example"): 2}
    own = world.host("d", D, delay=limits)
    own.stack.service_table.set_rule(DELAY_RULE, "hand")
    clients = [own.connect() for _ in range(7)]
    assert own.stack.delayed() == {WEB_ID: 6} and clients[-1].error == "EHOSTUNREACH"


@pytest.mark.statement("S27")
def test_the_default_is_the_originals(figure: Figure) -> None:
    assert figure.c.stack.limits.total == 1024


@pytest.mark.statement("S26", "S27")
def test_a_refusal_fails_connect_at_once_wherever_the_packet_waits(figure: Figure, place: Host) -> None:
    clients = [figure.a.connect() for _ in range(3)]
    figure.world.run(0.1)
    assert place.stack.delay_verdict(BLOCK, DelayVerdict.REFUSE, place.now) == 3
    place.settle()
    figure.world.run(0.1)
    assert {client.error for client in clients} == {"ECONNREFUSED"}
    assert place.count(Refusal.DELAY_REFUSED) == 3 and not place.stack.delayed()
    assert not [flow for flow in figure.a.stack.flows if flow.state.name != "CLOSED"]


@pytest.mark.statement("S27", "S30")
def test_the_rule_counts_what_it_kept_and_what_it_lost(figure: Figure, place: Host) -> None:
    """Every SYN that met the rule is released, lost, waiting or a repetition; nothing else, and each once."""
    figure.e.serve()
    table = place.stack.service_table

    def rule() -> tuple[int, int, int]:
        entry = table.get(BLOCK)
        assert entry is not None
        assert entry.counters == entry.slots[0].counters
        repeated = place.count(Refusal.DUPLICATE_SYN)
        return entry.counters.packets - repeated, entry.counters.dropped_packets, len(place.stack.waiting())

    for _ in range(5):
        figure.a.connect()
    figure.world.run(0.1)
    assert rule() == (5, 0, 5)
    place.stack.delay_verdict(BLOCK, DelayVerdict.DROP, place.now)
    assert rule() == (5, 5, 0)
    before = table.totals.packets
    figure.a.connect("bulk.example")
    figure.world.run(0.1)
    place.stack.delay_verdict(Prefix.of(NAMING.service_id("bulk.example")), DelayVerdict.REFUSE, place.now)
    assert rule()[1] == 6
    assert table.totals.packets == before + 1 and table.totals.dropped_packets == 6


def test_what_waits_is_listed_with_who_asked_and_since_when(figure: Figure, place: Host) -> None:
    first = figure.world.now
    figure.a.connect()
    figure.world.run(0.25)
    figure.a.connect("bulk.example")
    figure.world.run(0.1)
    one, other = place.stack.waiting()
    assert (one.service_id, one.prefix) == (WEB_ID, BLOCK) and one.since - first <= 0.02
    assert other.since > one.since
    assert one.client == (address(A) if place is figure.c else place.kernel.address)


def test_a_full_queue_is_foretold(figure: Figure) -> None:
    """`serval explain` says so before one tries."""
    world = World()
    c = world.host("c", C, forwarding=True, delay=DelayLimits(total=3, per_service=2, per_source=1))
    c.stack.service_table.set_rule(DELAY_RULE, "controller")
    ahead = [
        (A, "web.example", Refusal.DELAY_SHARE),
        (D, "web.example", Refusal.DELAY_SERVICE_FULL),
        (E, "bulk.example", Refusal.DELAY_FULL),
    ]
    for client, name, expected in ahead:
        world.host(client, client).stack.service_table.set_rule(Rule(BLOCK, forward(C)), "controller")
        asked = NAMING.service_id(name)
        (rule,) = c.stack.explain(asked, Arrival(address(client), address(C))).rules
        assert (rule.targets[0].refusal, rule.targets[0].wait) == (Refusal.DELAY_EXPIRED, 60.0)
        world.hosts[address(client)].connect(name)
        world.run(0.1)
        (rule,) = c.stack.explain(asked, Arrival(address(client), address(C))).rules
        assert (rule.targets[0].refusal, rule.targets[0].wait) == (expected, None)


def test_expiry_at_the_router_is_counted(figure: Figure) -> None:
    figure.c.stack.service_table.set_rule(DELAY_RULE, "controller")
    client = figure.a.connect()
    figure.world.run(0.5)
    client.vanish()
    figure.world.run(61)
    assert figure.c.count(Refusal.DELAY_EXPIRED) == 1 and not figure.c.stack.delayed()


def test_release_after_the_program_has_gone_leaves_nothing(figure: Figure, place: Host) -> None:
    figure.e.serve()
    client = figure.a.connect()
    figure.world.run(0.1)
    client.vanish()
    figure.a.settle()
    decide(figure, place)
    place.settle()
    figure.world.run(2)
    assert not list(figure.a.stack.flows) or all(flow.state.name == "CLOSED" for flow in figure.a.stack.flows)
    assert not list(figure.e.stack.flows) and not figure.e.kernel.sockets


def test_longer_rule_is_found_behind_delay(figure: Figure) -> None:
    """Intended use: DELAY on a block, FORWARD on what has been decided."""
    figure.c.stack.service_table.set_rule(DELAY_RULE, "controller")
    figure.point(D)
    listener = figure.d.serve()
    figure.a.connect()
    figure.world.run(1)
    assert len(listener.queue) == 1 and not notices(figure.c)
    assert figure.world.controls(_SYN, "c")[0].destination == address(D)


def test_who_waits_and_how_it_ended_is_told(figure: Figure, place: Host) -> None:
    """With the client's flowID and the rule, from which `serval trace` tells where a connect stopped."""
    figure.a.connect()
    figure.world.run(0.1)
    (waiting,) = place.happened(SynDelayed)
    assert (waiting.prefix, waiting.service_id) == (BLOCK, WEB_ID)
    flows = [flow.local_flow for flow in figure.a.stack.flows]
    assert waiting.client_flow == (flows[0] if place is figure.c else 0)
    assert place.stack.delay_verdict(BLOCK, DelayVerdict.DROP, place.now) == 1
    place.settle()
    (refused,) = place.happened(Refused)
    assert (refused.reason, refused.prefix, refused.client_flow) == (
        Refusal.DELAY_DROPPED,
        BLOCK,
        waiting.client_flow,
    )
    failed = [event.prefix for event in figure.a.happened(ConnectFailed)]
    assert failed == ([] if place is figure.c else [BLOCK])


def test_the_reserved_flow_id_is_told_where_a_socket_has_one(figure: Figure) -> None:
    table = figure.a.stack.service_table
    table.set_rule(DELAY_RULE, "controller")
    flow_id = figure.a.stack.reserve_flow()
    figure.a.stack.prepare_connect(flow_id, 40000, WEB_ID)
    figure.a.connect(local_port=40000)
    table.set_rule(Rule(BLOCK, (Target(Action.DROP),)), "controller")
    figure.world.run(0.1)
    (waiting,) = figure.a.happened(SynDelayed)
    (refused,) = figure.a.happened(Refused)
    (failed,) = figure.a.happened(ConnectFailed)
    assert {waiting.client_flow, refused.client_flow, failed.flow_id} == {flow_id}
    assert (refused.reason, refused.prefix, failed.prefix) == (Refusal.DROP_RULE, BLOCK, BLOCK)
