"""`Stack.explain` says what a real SYN then meets, and leaves no trace: no count, no turn, no random number."""

from __future__ import annotations

import random
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from serval_node.sal.events import Refusal, SynForwarded
from serval_node.sal.explanation import Arrival, Outlook, Place, Standing, TargetOutlook
from serval_node.sal.resolution import network_actions, network_mode, program_actions, resolve
from serval_node.sal.service_table import Action, ResolutionMode, Rule, Selector, Target
from serval_node.wire.ipv4 import address
from serval_node.wire.sal_header import MAX_SOURCES
from serval_node.wire.serviceid import Prefix
from tests.unit.sal.conftest import A, C, D, E, Figure
from tests.unit.sal.world import NAMING, WEB_BIND, WEB_ID, Host, World, forward

AT_C = Arrival(address(A), address(C))
DEMUX = Target(Action.DEMUX, port=80, protocol=6)


def state(host: Host) -> list[object]:
    """Everything that a SYN would change."""
    stack = host.stack
    slots = [
        (repr(entry.counters), repr(slot.counters), slot.sent_since_load, slot.current_weight)
        for entry in stack.service_table.entries()
        for slot in entry.slots
    ]
    return [slots, stack.counters, stack.delayed(), len(list(stack.flows)), stack._context.rng.getstate()]


def candidates(outlook: Outlook) -> list[TargetOutlook]:
    (winner,) = [rule for rule in outlook.rules if rule.place is Place.WINS]
    return [target for target in winner.targets if target.standing is Standing.CANDIDATE]


def alone(host: Host, *targets: Target, selector: Selector = Selector.WEIGHTED_RANDOM) -> None:
    host.stack.service_table.set_rule(Rule(WEB_BIND, targets, selector), "hand")


prefixes = st.sampled_from([0, 8, 24, 80, 96, 256]).map(lambda bits: Prefix(WEB_ID.raw, bits))
some_target = st.one_of(
    st.sampled_from([A, C, D, E]).map(lambda text: (Action.FORWARD, address(text))),
    st.sampled_from([80, 81]).map(lambda port: (Action.DEMUX, port)),
)


@st.composite
def rules(draw: st.DrawFn) -> Rule:
    if draw(st.integers(0, 4)) == 0:
        return Rule(draw(prefixes), (Target(draw(st.sampled_from([Action.DROP, Action.DELAY]))),))
    targets = []
    for action, where in draw(st.lists(some_target, min_size=1, max_size=4, unique=True)):
        numbers = {"priority": draw(st.integers(1, 2)), "weight": draw(st.integers(1, 3))}
        kind = {"address": where} if action is Action.FORWARD else {"port": where, "protocol": 6}
        targets.append(Target(action, **kind, **numbers))  # type: ignore[arg-type]
    return Rule(draw(prefixes), tuple(targets), draw(st.sampled_from(list(Selector))))


@given(
    st.lists(rules(), max_size=4),
    st.booleans(),
    st.booleans(),
    st.sampled_from(list(ResolutionMode)),
    st.integers(0, 3),
)
def test_a_real_resolution_takes_what_was_foretold(
    given_rules: list[Rule], forwarding: bool, arrives: bool, mode: ResolutionMode, turns: int
) -> None:
    host = World().host("x", "10.0.9.1", forwarding=forwarding, mode=mode)
    for rule in given_rules:
        host.stack.service_table.set_rule(rule, "hand")
    arrival = Arrival(address(A), host.address) if arrives else None

    def take() -> object:
        return resolve(
            host.stack.service_table,
            WEB_ID,
            size=40,
            key=lambda entry: address(A) if arrives else host.stack._context.own_address(entry),
            rng=random.Random(turns),
            now=0.0,
            actions=network_actions(mode, forwarding=forwarding) if arrives else program_actions(mode),
            mode=network_mode(mode, forwarding=forwarding) if arrives else mode,
        )

    for _ in range(turns):
        take()  # round robin is somewhere in its turns
    before = state(host)
    outlook = host.stack.explain(WEB_ID, arrival)
    assert state(host) == before
    verdict = take()
    if verdict is None:
        assert outlook.refusal is Refusal.NO_RULE
        assert all(rule.place is Place.PASSED_OVER for rule in outlook.rules)
        return
    assert outlook.refusal is None
    (winner,) = [rule for rule in outlook.rules if rule.place is Place.WINS]
    assert winner.entry is verdict.entry  # type: ignore[attr-defined]
    assert winner.selector is verdict.selector  # type: ignore[attr-defined]
    possible = candidates(outlook)
    taken: set[object] = set(verdict.slots)  # type: ignore[attr-defined]
    assert taken <= {target.slot for target in possible}
    for target in possible:
        assert target.taken in (None, target.slot in taken)
    listeners = [target for target in possible if target.slot.target.action is Action.DEMUX]
    for target in possible:
        alike = listeners if winner.selector is Selector.ALL and target in listeners else possible
        chance = winner.selector in (Selector.WEIGHTED_RANDOM, Selector.TWO_CHOICES) or alike is listeners
        assert (target.taken is None) == (chance and len(alike) > 1)


@pytest.mark.parametrize("selector", list(Selector))
def test_shares_are_what_many_syns_get(figure: Figure, selector: Selector) -> None:
    alone(figure.c, *forward(D), *forward(E, weight=3), selector=selector)
    shares = {target.slot: target.share for target in candidates(figure.c.stack.explain(WEB_ID, AT_C))}
    if selector is Selector.ALL:
        assert set(shares.values()) == {1.0}
        return
    if selector is Selector.TWO_CHOICES:
        assert set(shares.values()) == {None}
        return
    rng, taken = random.Random(1), Counter()
    for number in range(4000):
        client = number.to_bytes(4, "big")
        verdict = resolve(
            figure.c.stack.service_table, WEB_ID, size=40, key=lambda _, key=client: key, rng=rng, now=0.0
        )
        assert verdict is not None
        taken[verdict.slot] += 1
    for slot, share in shares.items():
        assert share is not None and abs(taken[slot] / 4000 - share) < 0.05


def test_a_program_s_syn(figure: Figure) -> None:
    a = figure.a
    (onward,) = candidates(a.stack.explain(WEB_ID))
    assert (onward.client, onward.sources, onward.refusal) == (address(A), (), None)
    figure.world.unreachable.add(address(C))
    (lost,) = candidates(a.stack.explain(WEB_ID))
    assert (lost.refusal, lost.errno) == (Refusal.NO_ROUTE, "ENETUNREACH")
    alone(a, Target(Action.DROP))
    assert candidates(a.stack.explain(WEB_ID))[0].errno == "EHOSTUNREACH"
    alone(a, Target(Action.DELAY))
    (waiting,) = candidates(a.stack.explain(WEB_ID))
    assert (waiting.wait, waiting.errno) == (60.0, "EHOSTUNREACH")
    nothing = a.stack.explain(NAMING.service_id("web.other"))
    assert (nothing.rules, nothing.refusal, nothing.errno) == ((), Refusal.NO_RULE, "ENETUNREACH")


def test_a_syn_from_the_network(figure: Figure) -> None:
    alone(figure.e, *forward(D))
    host = figure.e.stack.explain(WEB_ID, Arrival(address(A), address(E)))
    assert [rule.place for rule in host.rules] == [Place.PASSED_OVER]
    assert (host.refusal, host.errno, host.reset) == (Refusal.NO_RULE, "ETIMEDOUT", False)
    router = figure.c.stack.explain(WEB_ID, AT_C)
    assert (router.refusal, router.errno, router.reset) == (Refusal.NO_RULE, "ECONNREFUSED", True)
    alone(figure.e, DEMUX, *forward(D))
    outlook = figure.e.stack.explain(WEB_ID, Arrival(address(A), address(E)))
    standings = [target.standing for target in outlook.rules[0].targets]
    assert standings == [Standing.CANDIDATE, Standing.NOT_FOR_HOSTS]
    assert [target.taken for target in outlook.rules[0].targets] == [True, False]


def test_loops_and_full_lists_are_those_of_forwarding(figure: Figure) -> None:
    alone(figure.c, *forward(D))
    (onward,) = candidates(figure.c.stack.explain(WEB_ID, AT_C))
    assert (onward.client, onward.sources) == (address(A), (address(A), address(C)))
    looped = Arrival(address(A), address(C), (address(A), address(C), address(D)))
    assert candidates(figure.c.stack.explain(WEB_ID, looped))[0].refusal is Refusal.ROUTING_LOOP
    full = Arrival(address(A), address(C), (address(A), *([address(D)] * (MAX_SOURCES - 1))))
    assert candidates(figure.c.stack.explain(WEB_ID, full))[0].refusal is Refusal.SOURCE_FULL
    alone(figure.e, DEMUX)
    at_e = Arrival(address(A), address(E), full.sources)
    assert candidates(figure.e.stack.explain(WEB_ID, at_e))[0].refusal is Refusal.SOURCE_FULL


def test_the_next_turn_is_the_one_that_a_syn_then_gets(figure: Figure) -> None:
    alone(figure.c, *forward(D), *forward(E), selector=Selector.ROUND_ROBIN)
    for _ in range(3):
        (expected,) = [t.slot.target.address for t in candidates(figure.c.stack.explain(WEB_ID, AT_C)) if t.taken]
        figure.a.connect()
        figure.world.run(0.1)
        sent = [event for event in figure.c.events if isinstance(event, SynForwarded)]
        assert sent[-1].target == expected
