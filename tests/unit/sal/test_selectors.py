"""The choice per SYN (slide 34): shares, turns, loads, and how few clients a leaving instance moves."""

from __future__ import annotations

import random
from collections import Counter

import pytest

from serval_node.sal.selectors import choose
from serval_node.sal.service_table import Action, Entry, Rule, Selector, ServiceTable, Target
from serval_node.wire.serviceid import Prefix

PREFIX = Prefix.default()


def target(last: int, **fields: object) -> Target:
    return Target(Action.FORWARD, address=bytes((10, 0, 0, last)), **fields)  # type: ignore[arg-type]


def entry_of(selector: Selector, *targets: Target) -> tuple[ServiceTable, Entry]:
    table = ServiceTable()
    table.set_rule(Rule(PREFIX, targets, selector), "controller")
    entry = table.get(PREFIX)
    assert entry is not None
    return table, entry


def picks(entry: Entry, times: int, seed: int = 1) -> list[int]:
    rng = random.Random(seed)
    found = [choose(entry, rng.getrandbits(32).to_bytes(4, "big"), rng).target.address for _ in range(times)]
    return [address[3] for address in found if address is not None]


def test_weighted_random_follows_the_weights() -> None:
    """S39: 1:3, as the original was measured (232:768 of 1000)."""
    _, entry = entry_of(Selector.WEIGHTED_RANDOM, target(1), target(2, weight=3))
    counted = Counter(picks(entry, 10000))
    assert counted[1] == pytest.approx(2500, abs=200) and counted[1] + counted[2] == 10000


def test_weighted_random_is_no_fixed_turn() -> None:
    _, entry = entry_of(Selector.WEIGHTED_RANDOM, target(1), target(2))
    sequence = picks(entry, 400)
    repeats = sum(a == b for a, b in zip(sequence, sequence[1:], strict=False))
    assert repeats == pytest.approx(200, abs=50)
    assert sequence != picks(entry, 400, seed=2) and sequence == picks(entry, 400)


def test_round_robin_takes_turns() -> None:
    """S39."""
    _, entry = entry_of(Selector.ROUND_ROBIN, target(1), target(2), target(3))
    assert picks(entry, 9) == [1, 2, 3] * 3


def test_round_robin_spreads_weights_evenly() -> None:
    _, entry = entry_of(Selector.ROUND_ROBIN, target(1, weight=5), target(2), target(3))
    sequence = picks(entry, 70)
    assert Counter(sequence) == {1: 50, 2: 10, 3: 10}
    # No instance waits for a whole block of another's turns.
    assert max(len(run) for run in "".join(map(str, sequence)).replace("2", " ").replace("3", " ").split()) <= 5
    assert Counter(sequence[:7]) == {1: 5, 2: 1, 3: 1}


def test_round_robin_goes_on_when_an_instance_leaves() -> None:
    table, entry = entry_of(Selector.ROUND_ROBIN, target(1), target(2), target(3))
    picks(entry, 4)
    table.remove_target(PREFIX, target(2), "controller")
    counted = Counter(picks(entry, 100))
    assert counted[1] + counted[3] == 100 and counted[1] == pytest.approx(50, abs=2)


def test_two_choices_prefers_the_lower_load() -> None:
    """With two targets both are compared each time: the loaded one is never chosen before the other has caught up."""
    _, entry = entry_of(Selector.TWO_CHOICES, target(1, load=20.0), target(2, load=0.0))
    assert picks(entry, 20) == [2] * 20
    assert Counter(picks(entry, 100)) == {1: 50, 2: 50}


def test_two_choices_counts_the_syns_since_the_last_load() -> None:
    table, entry = entry_of(Selector.TWO_CHOICES, target(1), target(2))
    picks(entry, 50)
    assert [slot.sent_since_load for slot in entry.slots] == [25, 25]
    # The figure is exact at its update, so what was sent before is in it already.
    assert table.set_load(PREFIX, bytes((10, 0, 0, 1)), 30.0)
    assert [slot.sent_since_load for slot in entry.slots] == [0, 25]
    assert picks(entry, 5) == [2] * 5
    assert Counter(picks(entry, 40)) == {1: 20, 2: 20}


def test_two_choices_divides_by_the_weight() -> None:
    _, entry = entry_of(Selector.TWO_CHOICES, target(1, weight=3), target(2))
    counted = Counter(picks(entry, 400))
    assert counted[1] == pytest.approx(300, abs=4)


def test_two_choices_of_many_never_takes_the_worst() -> None:
    targets = [target(number, load=float(number)) for number in range(1, 9)]
    _, entry = entry_of(Selector.TWO_CHOICES, *targets)
    rng = random.Random(5)
    seen = set()
    for _ in range(300):
        slot = choose(entry, b"", rng)
        slot.sent_since_load = 0
        assert slot.target.address is not None
        seen.add(slot.target.address[3])
    assert seen == set(range(1, 8))


@pytest.mark.parametrize("selector", [Selector.MAGLEV, Selector.RING])
def test_a_client_stays_with_its_instance(selector: Selector) -> None:
    _, entry = entry_of(selector, *(target(number) for number in range(1, 6)))
    rng = random.Random(1)
    for client in range(200):
        key = client.to_bytes(4, "big")
        assert len({choose(entry, key, rng).target for _ in range(5)}) == 1
    assert len(set(picks(entry, 200))) == 5


@pytest.mark.parametrize("selector", [Selector.MAGLEV, Selector.RING])
def test_clients_follow_the_rule_and_come_back(selector: Selector) -> None:
    table, entry = entry_of(selector, target(1), target(2))
    keys = [number.to_bytes(4, "big") for number in range(100)]
    rng = random.Random(1)
    before = [choose(entry, key, rng).target for key in keys]
    table.remove_target(PREFIX, target(1), "controller")
    assert {choose(entry, key, rng).target for key in keys} == {target(2)}
    table.add_target(PREFIX, target(1), "controller")
    assert [choose(entry, key, rng).target for key in keys] == before
