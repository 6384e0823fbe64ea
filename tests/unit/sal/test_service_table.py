"""The service table: longest-prefix match against a naive model, who may change what, counters."""

from __future__ import annotations

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from serval_node.sal.resolution import HOST_ACTIONS, Verdict, resolve
from serval_node.sal.service_table import Action, Entry, Rule, RuleError, Selector, ServiceTable, Target
from serval_node.wire.ipv4 import address
from serval_node.wire.serviceid import Prefix, ServiceID

DROP, DELAY = Target(Action.DROP), Target(Action.DELAY)
X = ServiceID.from_hex("aabbccdd11223344")


def forward(last: int, **fields: object) -> Target:
    return Target(Action.FORWARD, address=bytes((10, 0, 0, last)), **fields)  # type: ignore[arg-type]


def demux(port: int, **fields: object) -> Target:
    return Target(Action.DEMUX, port=port, protocol=6, **fields)  # type: ignore[arg-type]


def hit(table: ServiceTable, service_id: ServiceID = X, size: int = 100, **fields: object) -> Verdict | None:
    return resolve(
        table, service_id, size=size, key=lambda _: b"", rng=random.Random(1), now=0.0, **fields  # type: ignore[arg-type]
    )  # fmt: skip


def met(table: ServiceTable, service_id: ServiceID = X) -> tuple[Action, int]:
    verdict = hit(table, service_id)
    assert verdict is not None
    return verdict.action, verdict.entry.prefix.bits


@pytest.mark.statement("S15")
def test_most_specific_wins_over_all_actions_and_removal_exposes_the_next() -> None:
    """S15: default FORWARD, /24 DELAY, /64 FORWARD, /128 DROP, /256 DEMUX."""
    table = ServiceTable()
    rules = [(0, forward(1)), (24, DELAY), (64, forward(2)), (128, DROP), (256, demux(80))]
    for bits, target in rules:
        table.add_target(Prefix(X.raw, bits), target, "hand")
    while rules:
        bits, target = rules[-1]
        assert met(table) == (target.action, bits)
        table.remove_target(Prefix(X.raw, bits), target, "hand")
        rules.pop()
    assert table.lookup(X) is None and len(table) == 0 and hit(table) is None


def test_another_service_of_the_block_meets_the_blocks_rule() -> None:
    """S16: one rule for a provider's block; its neighbour's block is not in it."""
    table = ServiceTable()
    table.add_target(Prefix(X.raw, 24), forward(1), "hand")
    assert met(table, ServiceID.from_hex("aabbccff")) == (Action.FORWARD, 24)
    assert table.lookup(ServiceID.from_hex("aabbcd")) is None


_ids = st.builds(
    # Few different values, so that prefixes nest and meet.
    lambda head, tail: ServiceID(bytes(head) + bytes(27) + bytes(tail)),
    st.lists(st.sampled_from([0, 1, 0x80, 0xFF]), min_size=3, max_size=3),
    st.lists(st.sampled_from([0, 1]), min_size=2, max_size=2),
)
_bits = st.sampled_from([0, 1, 7, 8, 9, 16, 23, 24, 25, 240, 247, 248, 255, 256])
_prefixes = st.builds(lambda service_id, bits: Prefix(service_id.raw, bits), _ids, _bits)
_steps = st.lists(st.tuples(st.sampled_from(["add", "remove"]), _prefixes), max_size=40)


def naive(model: dict[Prefix, Target], service_id: ServiceID, accept: frozenset[Action]) -> Prefix | None:
    """Bit strings compared one by one."""
    text = f"{int.from_bytes(service_id.raw, 'big'):0256b}"
    matching = [
        prefix
        for prefix, target in model.items()
        if target.action in accept and text.startswith(f"{int.from_bytes(prefix.raw, 'big'):0256b}"[: prefix.bits])
    ]
    return max(matching, key=lambda prefix: prefix.bits, default=None)


@given(_steps, st.lists(_ids, min_size=1, max_size=10))
@settings(max_examples=120, deadline=None)
def test_lookup_is_the_longest_match(steps: list[tuple[str, Prefix]], asked: list[ServiceID]) -> None:
    table, model = ServiceTable(), dict[Prefix, Target]()
    kinds = [forward(1), demux(80), DELAY, DROP]
    for number, (step, prefix) in enumerate(steps):
        if step == "add" and prefix not in model:
            model[prefix] = kinds[number % 4]
            table.set_rule(Rule(prefix, (model[prefix],)), "hand")
        elif step == "remove" and prefix in model:
            del model[prefix]
            table.remove_rule(prefix, "hand")
    assert {entry.prefix for entry in table.entries()} == set(model) and len(table) == len(model)
    for service_id in asked + [prefix.service_id for _, prefix in steps]:
        for accept in (frozenset(Action), HOST_ACTIONS, frozenset({Action.DEMUX})):
            entry = table.lookup(service_id, accept=lambda entry, accept=accept: entry.has(accept))  # type: ignore[misc]
            assert (None if entry is None else entry.prefix) == naive(model, service_id, accept)
            if entry is not None:
                assert entry.action is model[entry.prefix].action


def test_entries_are_listed_longest_first() -> None:
    table = ServiceTable()
    prefixes = [Prefix(X.raw, bits) for bits in (0, 24, 256)] + [Prefix(ServiceID.from_hex("01").raw, 24)]
    for prefix in prefixes:
        table.add_target(prefix, forward(1), "hand")
    assert [entry.prefix for entry in table.entries()] == [prefixes[2], prefixes[3], prefixes[1], prefixes[0]]


# -- priorities


def chosen(table: ServiceTable, times: int = 60) -> set[bytes | int | None]:
    rng = random.Random(7)
    found = [resolve(table, X, size=1, key=lambda _: b"", rng=rng, now=0.0) for _ in range(times)]
    return {verdict.slot.target.address or verdict.slot.target.port for verdict in found if verdict is not None}


def test_only_the_highest_priority_is_chosen_from() -> None:
    table, prefix = ServiceTable(), Prefix(X.raw, 80)
    targets = (forward(1, priority=5), forward(2, priority=5), forward(3, priority=4), forward(4, priority=0))
    table.set_rule(Rule(prefix, targets), "controller")
    assert chosen(table) == {address("10.0.0.1"), address("10.0.0.2")}
    table.remove_target(prefix, targets[0], "controller")
    table.remove_target(prefix, targets[1], "controller")
    assert chosen(table) == {address("10.0.0.3")}
    table.add_target(prefix, demux(80, priority=32000), "local")
    assert chosen(table) == {80}


def test_host_chooses_among_the_actions_that_it_may_carry_out() -> None:
    """A host that is no router never sends on, even where FORWARD and DEMUX share an entry."""
    table = ServiceTable()
    table.set_rule(Rule(Prefix(X.raw, 80), (forward(1), demux(80), forward(2))), "hand")
    table.set_rule(Rule(Prefix.of(X), (forward(3),)), "hand")
    rng = random.Random(3)
    for _ in range(40):
        verdict = resolve(table, X, size=1, key=lambda _: b"", rng=rng, now=0.0, actions=HOST_ACTIONS)
        assert verdict is not None and verdict.slot.target == demux(80)


# -- origins


def test_an_origin_changes_only_its_own() -> None:
    table, prefix = ServiceTable(), Prefix(X.raw, 80)
    table.add_target(prefix, demux(80), "local")
    table.set_rule(Rule(prefix, (forward(1), forward(2)), Selector.ROUND_ROBIN), "controller")
    entry = table.get(prefix)
    assert entry is not None and [slot.origin for slot in entry.slots] == ["local", "controller", "controller"]
    with pytest.raises(RuleError):
        table.remove_target(prefix, demux(80), "controller")
    with pytest.raises(RuleError):
        table.remove_rule(prefix, "hand")
    table.set_rule(Rule(prefix, (forward(3),)), "controller")
    assert entry.targets() == (demux(80), forward(3)) and entry.selector is Selector.WEIGHTED_RANDOM
    table.remove_rule(prefix, "controller")
    assert entry.targets() == (demux(80),) and table.get(prefix) is entry
    table.remove_target(prefix, demux(80), "local")
    assert table.get(prefix) is None


def test_the_same_target_twice_is_refused() -> None:
    table, prefix = ServiceTable(), Prefix(X.raw, 80)
    table.add_target(prefix, forward(1), "hand")
    with pytest.raises(RuleError, match="already"):
        table.add_target(prefix, forward(1, weight=7, priority=3), "hand")
    with pytest.raises(RuleError, match="another origin"):
        table.set_rule(Rule(prefix, (forward(1),)), "controller")
    with pytest.raises(RuleError, match="twice"):
        table.set_rule(Rule(prefix, (forward(2), forward(2, weight=2))), "hand")
    with pytest.raises(RuleError, match="without targets"):
        table.set_rule(Rule(prefix, ()), "hand")
    entry = table.get(prefix)
    assert entry is not None and entry.targets() == (forward(1),)


@pytest.mark.parametrize("alone", [DELAY, DROP])
def test_delay_and_drop_stand_alone(alone: Target) -> None:
    """And what is refused changes nothing."""
    table, prefix = ServiceTable(), Prefix(X.raw, 80)
    table.add_target(prefix, forward(1), "controller")
    for attempt in (
        lambda: table.add_target(prefix, alone, "hand"),
        lambda: table.set_rule(Rule(prefix, (alone,)), "hand"),
        lambda: table.set_rule(Rule(prefix, (alone, forward(2))), "controller"),
    ):
        with pytest.raises(RuleError, match="only target"):
            attempt()
    assert met(table) == (Action.FORWARD, 80)
    table.set_rule(Rule(prefix, (alone,)), "controller")
    assert met(table) == (alone.action, 80)
    with pytest.raises(RuleError, match="only target"):
        table.add_target(prefix, demux(80), "local")
    # At another length both stand.
    table.add_target(Prefix(X.raw, 96), forward(2), "hand")
    assert met(table) == (Action.FORWARD, 96)


@pytest.mark.parametrize(
    "fields",
    [
        {"action": Action.FORWARD},
        {"action": Action.DROP, "address": bytes(4)},
        {"action": Action.FORWARD, "address": bytes(3)},
        {"action": Action.DEMUX},
        {"action": Action.DELAY, "port": 80},
        {"action": Action.DEMUX, "port": 0},
        {"action": Action.DEMUX, "port": 70000},
        {"action": Action.DEMUX, "port": 80, "listen_address": b"1.2.3.4"},
        {"action": Action.DROP, "weight": 0},
        {"action": Action.DROP, "priority": -1},
        {"action": Action.DROP, "weight": 1 << 32},
        {"action": Action.DROP, "priority": 10**400},
    ],
)
def test_senseless_targets_are_refused(fields: dict[str, object]) -> None:
    with pytest.raises(RuleError):
        Target(**fields)  # type: ignore[arg-type]


# -- counters


def sums(entry: Entry) -> tuple[int, int, int, int]:
    counters = entry.counters
    return counters.packets, counters.bytes, counters.dropped_packets, counters.dropped_bytes


@pytest.mark.statement("S30")
def test_counters_are_exact() -> None:
    """S30: every resolution is in its entry and in its target, with its bytes; drops apart."""
    table, prefix = ServiceTable(), Prefix(X.raw, 80)
    table.set_rule(Rule(prefix, (forward(1), forward(2)), Selector.ROUND_ROBIN), "controller")
    table.set_rule(Rule(Prefix.of(X), (DROP,)), "hand")
    other = ServiceID.from_hex("aabbccdd1122334400005566")
    for number in range(101):
        hit(table, other, size=100 + number)
    for _ in range(7):
        hit(table, X, size=60)
    hit(table, ServiceID.from_hex("ffff"), size=1000)
    entry, exact = table.get(prefix), table.get(Prefix.of(X))
    assert entry is not None and exact is not None
    assert sums(entry) == (101, sum(range(100, 201)), 0, 0)
    assert sums(exact) == (0, 0, 7, 420)
    assert sum(slot.counters.packets for slot in entry.slots) == 101
    assert [slot.counters.packets for slot in entry.slots] == [51, 50]
    assert sum(slot.counters.bytes for slot in entry.slots) == sum(range(100, 201))
    assert exact.slots[0].counters.dropped_packets == 7


def test_a_target_that_stays_keeps_its_counters() -> None:
    table, prefix = ServiceTable(), Prefix(X.raw, 80)
    table.set_rule(Rule(prefix, (forward(1),)), "controller")
    hit(table)
    hit(table)
    table.set_rule(Rule(prefix, (forward(2), forward(1, weight=9))), "controller")
    entry = table.get(prefix)
    assert entry is not None
    assert [(slot.target.weight, slot.counters.packets) for slot in entry.slots] == [(1, 0), (9, 2)]
    assert sums(entry) == (2, 200, 0, 0)


def test_watchers_hear_of_rules_but_not_of_loads() -> None:
    table, prefix, calls = ServiceTable(), Prefix(X.raw, 80), list[int]()
    table.on_change(lambda: calls.append(len(table)))
    table.add_target(prefix, forward(1), "hand")
    assert table.set_load(prefix, address("10.0.0.1"), 0.5)
    assert not table.set_load(prefix, address("10.0.0.9"), 0.5)
    assert not table.set_load(Prefix.of(X), address("10.0.0.1"), 0.5)
    hit(table)
    table.remove_rule(prefix, "hand")
    assert calls == [1, 0]


def test_sticky_choice_holds_while_its_target_is_in_the_rule() -> None:
    """S43: for a retransmitted SYN; when the target has left, the choice is made anew."""
    table, prefix = ServiceTable(), Prefix(X.raw, 80)
    table.set_rule(Rule(prefix, (forward(1), forward(2), forward(3))), "controller")
    for _ in range(30):
        verdict = hit(table, sticky=forward(2, weight=5))
        assert verdict is not None and verdict.slot.target == forward(2)
    table.set_rule(Rule(prefix, (forward(1), forward(3))), "controller")
    verdict = hit(table, sticky=forward(2))
    assert verdict is not None and verdict.slot.target in (forward(1), forward(3))
