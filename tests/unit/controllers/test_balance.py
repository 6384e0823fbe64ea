"""Balance and disruption of every policy, in memory: the rules that policies make, followed by a router's table.

Jain's index of the connections per instance: (sum x)^2 / (n sum x^2), 1 when all are equal, 1/n when one has all.
With K connections at random over N instances its mean is about K / (K + N - 1): the counts are multinomial.
"""

from __future__ import annotations

import random
from collections import Counter
from statistics import mean

import pytest

from controllers.directory import Instance
from controllers.policies import POLICIES, Setting
from serval_node.control.rules import RuleSpec
from serval_node.daemon.rules import RuleBook
from serval_node.sal.resolution import StickyChoices, resolve
from serval_node.sal.selectors import choose
from serval_node.sal.service_table import Entry, ServiceTable, Target
from serval_node.wire.ipv4 import address_text
from serval_node.wire.naming import Naming
from testbed.measure import statistics

NAMING = Naming({"example": 0x9C1185})
WEB, ID = NAMING.bind_prefix("web.example"), NAMING.service_id("web.example", 80)
N = 4
K = 1000

ONE_EACH = [name for name in POLICIES if name != "all"]
BY_CHANCE = ("weighted-random", "random")
BY_CLIENT = ("maglev", "ring")


class Router:
    """A service table that is given a policy's rules, and the SYNs of K clients."""

    def __init__(self, policy: str, instances: int, seed: int = 1) -> None:
        self.setting = Setting(policy)
        self.table = ServiceTable()
        self.book = RuleBook(self.table, lambda protocol: [], NAMING, lambda address: False)
        self.rng = random.Random(seed)
        self.open: Counter[str] = Counter()
        self.have(*range(instances))

    def have(self, *instances: int) -> None:
        """These instances are registered now; what is gone has no connections any more."""
        self.instances = [Instance(f"i{number}", f"10.2.1.{number + 1}") for number in instances]
        addresses = {item.address for item in self.instances}
        self.open = Counter({address: number for address, number in self.open.items() if address in addresses})
        self.report()

    def report(self) -> RuleSpec:
        """The loads as they are now, and the rule that follows."""
        loads = {item.address: float(self.open[item.address]) for item in self.instances}
        rule = self.setting.rule(WEB, self.instances, loads)
        self.book.set(rule)
        self.book.set_loads(WEB, loads)
        return rule

    @property
    def entry(self) -> Entry:
        found = self.table.get(WEB)
        assert found is not None
        return found

    def connect(self, client: int) -> str:
        """The address of the instance that gets the SYN."""
        chosen = choose(self.entry, (0x0A000000 + client).to_bytes(4, "big"), self.rng).target.address
        assert chosen is not None
        self.open[address_text(chosen)] += 1
        return address_text(chosen)

    def connections(self, number: int, reports_every: int = 10) -> Counter[str]:
        """So many new ones, each of a client of its own; loads are reported now and then."""
        counted: Counter[str] = Counter()
        for client in range(number):
            if client % reports_every == 0 and self.setting.uses_loads:
                self.report()
            counted[self.connect(client)] += 1
        return counted


def jain(counted: Counter[str], instances: int = N) -> float:
    return statistics.jain([*counted.values(), *[0] * (instances - len(counted))])


@pytest.mark.statement("S39")
@pytest.mark.parametrize("name", BY_CHANCE)
def test_at_random_jains_index_is_as_chance_has_it(name: str) -> None:
    found = [jain(Router(name, N, seed).connections(K)) for seed in range(60)]
    expected = K / (K + N - 1)
    # Of the mean of 60 runs; one run's deviation is about that of chi-square with 3 degrees of freedom, over K.
    assert mean(found) == pytest.approx(expected, abs=4 * 6**0.5 / K / 60**0.5)


@pytest.mark.statement("S39")
@pytest.mark.parametrize(
    ("name", "least"),
    [("round-robin", 1.0), ("two-choices", 0.9999), ("least-loaded", 0.999), ("maglev", 0.99), ("ring", 0.98)],
)
def test_the_others_are_at_least_so_even(name: str, least: float) -> None:
    found = Router(name, N).connections(K)
    assert jain(found) >= least
    assert len(found) == N


def test_between_reports_the_least_loaded_gets_all_and_two_choices_does_not() -> None:
    herd, pairs = Router("least-loaded", N), Router("two-choices", N)
    for router in (herd, pairs):
        router.open.update({item.address: 5 for item in router.instances[1:]})
        router.report()
    assert len(herd.connections(50, reports_every=50)) == 1
    assert len(pairs.connections(50, reports_every=50)) == N
    assert jain(pairs.open) > 0.99 > jain(herd.open), "what they had and what came"


def moved(router: Router, *instances: int) -> tuple[float, float]:
    """The instances become these: shares of the clients that must move since theirs is gone, and of others that do."""
    clients = range(5 * K)
    before = [router.connect(client) for client in clients]
    router.have(*instances)
    after = [router.connect(client) for client in clients]
    alive = {item.address for item in router.instances}
    must = sum(address not in alive for address in before)
    others = sum(a != b and a in alive for a, b in zip(before, after, strict=True))
    return must / len(clients), others / len(clients)


@pytest.mark.statement("S39")
@pytest.mark.parametrize("name", BY_CLIENT)
@pytest.mark.parametrize("gone", range(10))
def test_of_ten_one_leaves_and_at_most_a_hundredth_moves_beside_its_own(name: str, gone: int) -> None:
    must, others = moved(Router(name, 10), *(number for number in range(10) if number != gone))
    assert must == pytest.approx(0.1, rel=0.3)
    assert others <= 0.01


@pytest.mark.parametrize("name", BY_CLIENT)
def test_one_joins_ten_and_takes_its_share(name: str) -> None:
    router = Router(name, 10)
    _, others = moved(router, *range(11))
    assert others == pytest.approx(1 / 11, rel=0.3)


@pytest.mark.parametrize("name", [name for name in ONE_EACH if name not in BY_CLIENT])
def test_who_does_not_look_at_clients_moves_most_of_them(name: str) -> None:
    """New connections of a client that has none open: why consistent hashing is there."""
    _, others = moved(Router(name, 10), *range(1, 10))
    assert others > 0.5


@pytest.mark.statement("S43")
@pytest.mark.parametrize("name", ONE_EACH)
def test_a_repeated_syn_finds_its_instance_whatever_the_rule_became(name: str) -> None:
    """As long as that is registered; established flows do not even ask."""
    router, sticky = Router(name, 10), StickyChoices()
    first: dict[int, Target] = {}
    for client in range(300):
        first[client] = choose(router.entry, client.to_bytes(4, "big"), router.rng).target
        sticky.put((client.to_bytes(4, "big"), 1, ID), first[client], 0.0)
    # Loads turn round, one leaves, two come, and another policy takes over.
    router.open.update({item.address: number for number, item in enumerate(router.instances)})
    router.have(*range(1, 12))
    for policy in (name, "least-loaded"):
        router.setting = Setting(policy)
        router.report()
        for client, target in first.items():
            verdict = resolve(
                router.table,
                ID,
                size=60,
                key=lambda entry: b"",
                rng=router.rng,
                now=1.0,
                sticky=sticky.get((client.to_bytes(4, "big"), 1, ID), 1.0),
            )
            assert verdict is not None and target.address is not None
            if target.address[3] > 1:
                assert verdict.slot.target.identity == target.identity
