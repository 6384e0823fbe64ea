"""Floods of forged packets: tables stay bounded, honest clients get through, nobody is shouted at (docs/defence.md)."""

from __future__ import annotations

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from serval_node.sal.connection import ControlState
from serval_node.sal.delay_queue import DelayLimits, DelayVerdict
from serval_node.sal.events import DelayNotify, Refusal
from serval_node.sal.flow_table import Flow
from serval_node.sal.half_open import HalfOpen
from serval_node.sal.limits import RateLimit
from serval_node.sal.outputs import Send
from serval_node.sal.service_table import Action, Rule, Target
from serval_node.wire.ipv4 import address
from serval_node.wire.sal_header import Control, ControlFlag, SalPacket, Service, encode
from serval_node.wire.transport import SYN, build_tcp, to_wire
from tests.unit.sal.conftest import A, C, E, Figure, Pair, make_figure, make_pair
from tests.unit.sal.world import WEB_BIND, WEB_ID, World

_SYN, _ACK, _RST, _RSYN = ControlFlag.SYN, ControlFlag.ACK, ControlFlag.RST, ControlFlag.RSYN
NOBODY = address("10.66.6.6")


def forged_syn(number: int, source: bytes, destination: bytes) -> Send:
    """A SYN for the web service that nobody will confirm."""
    segment = to_wire(build_tcp(0, 0, number, 0, SYN), 6, source, destination)
    control = Control(_SYN, number, 0, number.to_bytes(8, "big"))
    return Send(source, destination, 64, encode(SalPacket(number, 0, 6, (control, Service(WEB_ID)), segment)))


def flood(world: World, destination: str, rate: float, seconds: float, *, sources: int) -> None:
    """SYNs at a steady rate from so many addresses."""
    for number in range(1, int(rate * seconds)):
        source = bytes((10, 66)) + (number % sources).to_bytes(2, "big")
        world.inject(forged_syn(number, source, address(destination)), number / rate)


def honest_clients_connect(pair: Pair, count: int) -> None:
    clients = []
    for _ in range(count):
        clients.append(pair.a.connect())
        pair.world.run(0.03)
    assert [client.state for client in clients] == ["ESTABLISHED"] * count


@pytest.mark.parametrize(("rate", "sources"), [(6000, 1), (6000, 3), (2000, 60000)])
def test_honest_clients_connect_at_their_first_try_during_a_flood(rate: float, sources: int) -> None:
    """A round trip is 20 ms. From few sources three times as many SYNs as there is room come in it; from forged
    addresses, where no request can be told from an honest one, a quarter.
    """
    pair = make_pair(half_open_limit=40 if sources < 10 else 160)
    flood(pair.world, E, rate, 0.6, sources=sources)
    pair.world.run(0.1)
    honest_clients_connect(pair, 15)
    assert pair.e.count(Refusal.HALF_OPEN_FULL) > 100
    pair.world.run(60)
    assert len(pair.e.stack.flows) == len(pair.e.kernel.sockets) == 15


def test_a_flood_leaves_no_timers() -> None:
    """They hold the flows; each would stay for half a minute behind one of somebody who waits."""
    pair = make_pair(half_open_limit=20)
    pair.world.inject(forged_syn(1, NOBODY, address(E)))
    pair.world.run(0.001)
    flood(pair.world, E, 10000, 0.5, sources=1)
    pair.world.run(0.6)
    assert pair.e.count(Refusal.HALF_OPEN_FULL) > 4000
    assert len(pair.e.stack._context._timers) <= 1024


def request(number: int, client: int, now: float) -> Flow:
    flow = Flow(number, 6, True, WEB_ID, ControlState(random.Random(number)), now)
    flow.request_key = bytes((10, 0, 0, client)), number, bytes(8)
    return flow


@settings(max_examples=100, deadline=None)
@given(st.lists(st.tuples(st.booleans(), st.integers(0, 4)), max_size=200), st.integers(0, 2**32))
def test_half_open_table_against_a_plain_set(steps: list[tuple[bool, int]], seed: int) -> None:
    table, model = HalfOpen(30, random.Random(seed)), dict[int, Flow]()
    for number, (adding, client) in enumerate(steps):
        if adding:
            if table.full:
                table.discard(model.pop(table.victim().local_flow))
            flow = model[number] = request(number, client, number)
            table.add(flow)
        elif model:
            table.discard(model.pop(random.Random(seed + number).choice(list(model))))
        assert len(table) == len(model) <= 30
        for held in range(5):
            mine = [flow for flow in model.values() if flow.request_key[0][3] == held]  # type: ignore[index]
            assert table.held_by(bytes((10, 0, 0, held))) == len(mine)
    for flow in model.values():
        table.discard(flow)
        table.discard(flow)
    assert len(table) == 0


def test_who_holds_most_gives_way_and_among_equals_the_older() -> None:
    table = HalfOpen(100, random.Random(1))
    honest = [request(number, number, 50.0) for number in range(1, 11)]
    for flow in honest:
        table.add(flow)
    for number in range(100, 190):
        table.add(request(number, 99, float(number)))
    gone = [table.victim() for _ in range(1000)]
    assert not set(gone) & set(honest)
    equals = HalfOpen(100, random.Random(1))
    for number in range(100):
        equals.add(request(number, number, float(number)))
    created = [equals.victim().created for _ in range(1000)]
    assert sum(created) / 1000 < 15 and max(created) < 80


def test_rate_limit() -> None:
    limit = RateLimit(8, 3)
    assert [limit.allows(5.0) for _ in range(5)] == [True, True, True, False, False]
    assert [limit.allows(5.125), limit.allows(5.125)] == [True, False]
    assert [limit.allows(99.0) for _ in range(4)] == [True, True, True, False]


def test_resets_for_unknown_flows_are_limited(figure: Figure) -> None:
    """A router answers SYNs that no rule matches, wherever they claim to come from: not without end."""
    for number in range(1, 3001):
        figure.world.inject(forged_syn(number, address("10.9.9.9"), address(C)))
    figure.world.run(0.001)
    assert len(figure.world.controls(_RST | _ACK)) == 1000
    assert figure.c.count(Refusal.RESET_LIMITED) == 2000 and figure.c.count(Refusal.NO_RULE) == 3000


def test_searches_through_a_router_are_limited(figure: Figure) -> None:
    """An RSYN with SERVICE goes to all instances: a forged one costs the attacker one packet, and them each one."""
    figure.point("10.0.2.1", "10.0.3.1")
    control = Control(_RSYN, 1, 1, b"12345678")
    packet = encode(SalPacket(4711, 4712, 6, (control, Service(WEB_ID)), b""))
    for _ in range(200):
        figure.world.inject(Send(address("10.9.9.9"), address(C), 64, packet))
    figure.world.run(0.001)
    assert len(figure.world.controls(_RSYN, "c")) == 2 * 50
    assert figure.c.count(Refusal.SEARCH_LIMITED) == 150


def test_one_client_takes_no_more_than_its_share_of_the_delay_queue() -> None:
    figure = make_figure()
    figure.c.stack.service_table.set_rule(Rule(WEB_BIND, (Target(Action.DELAY),)), "controller")
    for number in range(1, 2001):
        figure.world.inject(forged_syn(number, NOBODY, address(C)))
    figure.world.run(0.001)
    assert figure.c.stack.delayed() == {WEB_ID: 256} and figure.c.count(Refusal.DELAY_SHARE) == 2000 - 256
    client = figure.a.connect()
    figure.world.run(0.1)
    assert figure.c.stack.delayed() == {WEB_ID: 257} and len(figure.c.happened(DelayNotify)) == 1
    figure.e.serve()
    figure.point(E)
    figure.c.settle()
    figure.world.run(1)
    assert client.state == "ESTABLISHED"


def test_what_waits_for_this_hosts_programs_has_no_share() -> None:
    """Who can make connections here can do anything here; and all programs of a host have the same address."""
    pair = make_pair(delay=DelayLimits(per_source=3))
    pair.a.stack.service_table.set_rule(Rule(WEB_BIND, (Target(Action.DELAY),)), "hand")
    for _ in range(10):
        pair.a.connect()
    assert pair.a.stack.delayed() == {WEB_ID: 10}


def test_a_share_is_given_back() -> None:
    figure = make_figure()
    figure.c.stack.service_table.set_rule(Rule(WEB_BIND, (Target(Action.DELAY),)), "controller")
    for round_ in range(3):
        for number in range(1, 258):
            figure.world.inject(forged_syn(1000 * round_ + number, address(A), address(C)))
        figure.world.run(0.001)
        assert figure.c.stack.delayed() == {WEB_ID: 256} and figure.c.count(Refusal.DELAY_SHARE) == round_ + 1
        assert figure.c.stack.delay_verdict(WEB_BIND, DelayVerdict.DROP, figure.world.now) == 256
