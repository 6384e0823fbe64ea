"""Resolution modes and multicast (S24, S61; protocol notes 4): who gets a copy, what is left out, what counts."""

from __future__ import annotations

import pytest

from serval_node.sal.delay_queue import DelayVerdict
from serval_node.sal.events import Refusal, SynResolved
from serval_node.sal.service_table import Action, ResolutionMode, Rule, Selector, Target
from serval_node.wire.ipv4 import PROTOCOL_TCP, address
from serval_node.wire.sal_header import ControlFlag
from tests.unit.sal.conftest import C, D, E, Figure
from tests.unit.sal.world import NAMING, WEB_BIND, Host, forward

_SYN = ControlFlag.SYN
BLOCK = NAMING.block("example")


def destinations(figure: Figure, host: str) -> list[bytes]:
    return [seen.destination for seen in figure.world.controls(_SYN, host)]


def counted(host: Host, prefix: object = WEB_BIND) -> tuple[int, dict[bytes | None, int]]:
    """Packets of the entry, and of each FORWARD target."""
    entry = host.stack.service_table.get(prefix)  # type: ignore[arg-type]
    assert entry is not None
    return entry.counters.packets, {slot.target.address: slot.counters.packets for slot in entry.slots}


def multicast(figure: Figure, place: str) -> Host:
    """A set of two instances in the rule of the client's own host, or of the service router."""
    host = figure.a if place == "client" else figure.c
    host.stack.service_table.set_rule(Rule(WEB_BIND, forward(D, E), Selector.ROUND_ROBIN), "controller")
    return host


@pytest.mark.statement("S24", "S61")
@pytest.mark.parametrize("place", ["client", "router"])
@pytest.mark.parametrize("by", ["mode", "rule"])
def test_all_sends_a_copy_to_each_target_and_the_first_answer_wins(figure: Figure, place: str, by: str) -> None:
    host = multicast(figure, place)
    if by == "mode":
        host.stack.mode = ResolutionMode.ALL
    else:
        host.stack.service_table.set_rule(Rule(WEB_BIND, forward(D, E), Selector.ALL), "controller")
    listeners = [figure.d.serve(), figure.e.serve()]
    client = figure.a.connect()
    figure.world.run(2.0)
    assert client.state == "ESTABLISHED"
    assert destinations(figure, host.name) == [address(D), address(E)]
    assert sum(len(listener.queue) for listener in listeners) == 1, "the other one was reset"
    assert figure.a.count(Refusal.OTHER_INSTANCE) == 1
    assert sum(flow.state.name == "CONNECTED" for side in (figure.d, figure.e) for flow in side.stack.flows) == 1
    packets, each = counted(host)
    assert (packets, each) == (1, {address(D): 1, address(E): 1}), "the rule counts the SYN, each target its copy"


def test_a_repeated_syn_goes_to_all_again(figure: Figure) -> None:
    host = multicast(figure, "client")
    host.stack.mode = ResolutionMode.ALL
    figure.world.lose = lambda *_: True
    figure.a.connect()
    figure.world.run(1.5)
    assert destinations(figure, "a") == [address(D), address(E)] * 2
    assert counted(host) == (2, {address(D): 2, address(E): 2})


@pytest.mark.statement("S61")
def test_anycast_takes_one_whatever_the_number_of_targets(figure: Figure) -> None:
    host = multicast(figure, "router")
    assert host.stack.mode is ResolutionMode.ANYCAST, "the default"
    figure.d.serve()
    figure.e.serve()
    for _ in range(4):
        figure.a.connect()
    figure.world.run(0.5)
    assert destinations(figure, "c") == [address(D), address(E)] * 2
    assert counted(host) == (4, {address(D): 2, address(E): 2})


def test_only_the_highest_priority_gets_copies(figure: Figure) -> None:
    targets = (*forward(D, priority=2), *forward(E, priority=1))
    figure.c.stack.service_table.set_rule(Rule(WEB_BIND, targets, Selector.ALL), "controller")
    figure.d.serve()
    figure.a.connect()
    figure.world.run(0.5)
    assert destinations(figure, "c") == [address(D)]


@pytest.fixture
def mixed(figure: Figure) -> Figure:
    """c sends the web service on to d, and listens for it itself, both with one priority."""
    listener = figure.c.kernel.listen(80, backlog=10)
    demux = Target(Action.DEMUX, port=listener.local[1], protocol=PROTOCOL_TCP)
    figure.c.stack.service_table.set_rule(Rule(WEB_BIND, (demux, *forward(D))), "hand")
    figure.d.serve()
    return figure


@pytest.mark.statement("S61")
@pytest.mark.parametrize(
    ("mode", "here", "there"),
    [
        (ResolutionMode.ALL, 1, 1),
        (ResolutionMode.DEMUX_ONLY, 1, 0),
        (ResolutionMode.FORWARD_ONLY, 0, 1),
    ],
)
def test_a_mode_leaves_out_one_kind_of_target(mixed: Figure, mode: ResolutionMode, here: int, there: int) -> None:
    mixed.c.stack.mode = mode
    mixed.a.connect()
    mixed.world.run(0.05)
    entry = mixed.c.stack.service_table.get(WEB_BIND)
    assert entry is not None
    assert [slot.counters.packets for slot in entry.slots] == [here, there]
    assert len(destinations(mixed, "c")) == there


def test_a_rule_without_a_usable_target_is_passed_over_but_delay_and_drop_hold(figure: Figure) -> None:
    table = figure.a.stack.service_table
    table.set_rule(Rule(WEB_BIND, forward(E)), "hand")
    figure.a.stack.mode = ResolutionMode.DEMUX_ONLY
    assert figure.a.connect().error == "ENETUNREACH", "no rule is left"
    table.set_rule(Rule(BLOCK, (Target(Action.DROP),)), "controller")
    assert figure.a.connect().error == "EHOSTUNREACH", "the shorter DROP decides"
    table.set_rule(Rule(BLOCK, (Target(Action.DELAY),)), "controller")
    waiting = figure.a.connect()
    assert waiting.state == "SYN_SENT" and len(figure.a.stack.waiting()) == 1


def test_a_host_serves_in_every_mode(figure: Figure) -> None:
    """As the original: the mode is for what its own programs send."""
    figure.point(E)
    listener = figure.e.serve()
    figure.e.stack.mode = ResolutionMode.FORWARD_ONLY
    figure.a.connect()
    figure.world.run(0.5)
    assert len(listener.queue) == 1


def test_one_of_several_local_listeners_gets_the_syn(figure: Figure) -> None:
    """A SYN opens one connection at a host, multicast or not."""
    figure.point(E)
    targets = tuple(
        Target(Action.DEMUX, port=figure.e.kernel.listen(port, backlog=10).local[1], protocol=PROTOCOL_TCP)
        for port in (80, 81, 82)
    )
    figure.e.stack.service_table.set_rule(Rule(WEB_BIND, targets, Selector.ALL), "hand")
    clients = [figure.a.connect() for _ in range(12)]
    figure.world.run(0.5)
    assert all(client.state == "ESTABLISHED" for client in clients)
    assert sum(flow.state.name == "CONNECTED" for flow in figure.e.stack.flows) == 12
    entry = figure.e.stack.service_table.get(WEB_BIND)
    assert entry is not None
    assert sum(slot.counters.packets for slot in entry.slots) == 12


def test_a_target_without_a_route_is_left_out_and_none_is_an_error(figure: Figure) -> None:
    host = multicast(figure, "client")
    host.stack.mode = ResolutionMode.ALL
    figure.e.serve()
    figure.world.unreachable.add(address(D))
    client = figure.a.connect()
    figure.world.run(0.5)
    assert client.state == "ESTABLISHED" and destinations(figure, "a") == [address(E)]
    (resolved,) = figure.a.happened(SynResolved)
    assert resolved.selector is Selector.ALL  # type: ignore[attr-defined]
    figure.world.unreachable.add(address(E))
    assert figure.a.connect().error == "ENETUNREACH"


def test_released_packets_follow_the_mode_too(figure: Figure) -> None:
    figure.c.stack.service_table.set_rule(Rule(WEB_BIND, (Target(Action.DELAY),)), "controller")
    figure.a.connect()
    figure.world.run(0.1)
    figure.c.stack.mode = ResolutionMode.ALL
    figure.c.stack.service_table.set_rule(Rule(WEB_BIND, forward(D, E)), "controller")
    figure.c.stack.delay_verdict(WEB_BIND, DelayVerdict.RELEASE, figure.world.now)
    figure.c.settle()
    assert destinations(figure, "c") == [address(D), address(E)]
    assert destinations(figure, "a") == [address(C)]


def test_forwarding_can_be_switched_at_run_time(figure: Figure) -> None:
    figure.point(E)
    figure.e.serve()
    figure.c.stack.forwarding = False
    figure.a.connect()
    figure.world.run(0.5)
    assert figure.c.count(Refusal.NO_RULE) == 1 and not destinations(figure, "c")
    figure.c.stack.forwarding = True
    figure.world.run(2)
    assert destinations(figure, "c") == [address(E)], "the client's next SYN"
