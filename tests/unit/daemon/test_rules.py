"""Rules from outside: replaced as a whole, refused without a trace, DEMUX for as long as a socket listens."""

from __future__ import annotations

import socket

import pytest

from serval_node.control.rules import MessageError, RuleSpec, TargetSpec, forward
from serval_node.daemon import views
from serval_node.daemon.names import HostNames
from serval_node.daemon.rules import RuleBook, hand_rule
from serval_node.daemon.virtual_addresses import SAL0_ADDRESS, VirtualAddresses
from serval_node.io.sock_diag import InetSocket, TcpState
from serval_node.sal.service_table import Action, RuleError, ServiceTable, Target
from serval_node.wire.naming import Naming
from serval_node.wire.serviceid import Prefix

NAMING = Naming({"example": 0x9C1185})
WEB = NAMING.bind_prefix("web.example")
OWN = {bytes((10, 0, 0, 99)), bytes((127, 0, 0, 1))}
LOCAL = Target(Action.DEMUX, port=80, protocol=6, listen_address=SAL0_ADDRESS)


def listener(port: int, cookie: int) -> InetSocket:
    return InetSocket(socket.AF_INET, TcpState.LISTEN, bytes(4), port, bytes(4), 0, 0, cookie, 0, cookie)


@pytest.fixture
def sockets() -> list[InetSocket]:
    return [listener(8080, 1), listener(8080, 2)]


@pytest.fixture
def table() -> ServiceTable:
    return ServiceTable()


@pytest.fixture
def book(table: ServiceTable, sockets: list[InetSocket]) -> RuleBook:
    return RuleBook(table, lambda protocol: sockets, NAMING, OWN.__contains__)


def where(table: ServiceTable) -> list[tuple[str, str, str]]:
    rows = views.table(table, HostNames(NAMING, VirtualAddresses()))
    return [(row["service"], target["action"], target["where"]) for row in rows for target in row["targets"]]


def test_what_was_set_last_stands_whoever_set_it(book: RuleBook, table: ServiceTable) -> None:
    table.add_target(WEB, LOCAL, "local")
    book.set(RuleSpec(WEB, (forward("10.0.0.1"), forward("10.0.0.2")), "round-robin", "controller"))
    book.set(RuleSpec(WEB, (forward("10.0.0.3"),), origin="hand"))
    assert where(table) == [("web.example", "demux", "198.18.0.1:80"), ("web.example", "forward", "10.0.0.3")]
    assert [(spec.origin, spec.addresses) for spec in book.from_outside()] == [("hand", ("10.0.0.3",))]
    assert [spec.origin for spec in book.all()] == ["local", "hand"]
    book.remove(WEB)
    assert where(table) == [("web.example", "demux", "198.18.0.1:80")]
    with pytest.raises(RuleError, match="there is no rule"):
        book.remove(WEB)


def test_a_refused_rule_changes_nothing(book: RuleBook, table: ServiceTable) -> None:
    book.set(RuleSpec(WEB, (forward("10.0.0.1"),), "round-robin", "controller"))
    table.add_target(WEB, LOCAL, "local")
    before = sorted(where(table)), book.from_outside()
    with pytest.raises(RuleError, match="DROP must be the only target"):
        book.set(RuleSpec(WEB, (TargetSpec("drop"),), origin="hand"))
    with pytest.raises(RuleError, match="nothing listens"):
        book.set(RuleSpec(WEB, (TargetSpec("demux", port=9),), origin="hand"))
    with pytest.raises(RuleError, match="without targets"):
        book.set(RuleSpec(WEB, (), origin="hand"))
    for own in ("10.0.0.99", "127.0.0.1", "198.18.0.1"):
        with pytest.raises(RuleError, match=f"^FORWARD to {own}: that is this node itself"):
            book.set(RuleSpec(WEB, (forward("10.0.0.3"), forward(own)), origin="hand"))
    for nobody in ("0.0.0.0", "224.0.0.1"):
        with pytest.raises(RuleError, match=f"^FORWARD to {nobody}: that is no host's address"):
            book.set(RuleSpec(WEB, (forward("10.0.0.3"), forward(nobody)), origin="hand"))
    with pytest.raises(RuleError, match="origin local"):
        book.set(RuleSpec(WEB, (forward("10.0.0.1"),), origin="local"))
    assert (sorted(where(table)), book.from_outside()) == before


def test_rules_and_refusals_carry_the_names_that_the_node_knows(book: RuleBook, table: ServiceTable) -> None:
    """Who lists them may never have heard the name (a controller that was restarted)."""
    for prefix in (NAMING.block("example"), Prefix.from_text("0x123456/24"), Prefix.default()):
        book.set(RuleSpec(prefix, (forward("10.0.0.1"),), origin="controller"))
    table.add_target(WEB, LOCAL, "local")
    book.set(RuleSpec(WEB, (forward("10.0.0.1"),), origin="hand"))
    named = [("web.example", "local"), ("web.example", "hand"), ("*.example", "controller")]
    assert sorted((spec.name, spec.origin) for spec in book.all()) == sorted([*named, *[("", "controller")] * 2])
    with pytest.raises(RuleError, match=r"must be the only target of web\.example;"):
        book.set(RuleSpec(WEB, (TargetSpec("drop"),), origin="hand"))
    with pytest.raises(RuleError, match=r"no rule for web\.example:80$"):
        book.remove(NAMING.bind_prefix("web.example", 80))


def test_a_policys_weights_are_kept_with_its_rule(book: RuleBook) -> None:
    weights = (("dan", 9), ("eve", 2))
    weighted = RuleSpec(WEB, (forward("10.0.0.1", weight=9),), policy_weights=weights)
    book.set(weighted)
    assert book.from_outside() == (weighted,)
    book.set(RuleSpec(WEB, (forward("10.0.0.1"),)))
    assert book.from_outside()[0].policy_weights == ()
    book.set(weighted)
    book.set(RuleSpec(WEB, (forward("10.0.0.1"),), origin="hand"))
    assert book.from_outside()[0].policy_weights == ()
    book.set(weighted)
    book.remove(WEB)
    book.set(RuleSpec(WEB, (forward("10.0.0.1"),)))
    assert book.from_outside()[0].policy_weights == ()


def test_demux_from_outside_lives_as_long_as_its_sockets(
    book: RuleBook, table: ServiceTable, sockets: list[InetSocket]
) -> None:
    book.set(RuleSpec(WEB, (TargetSpec("demux", port=8080),), origin="controller"))
    assert where(table) == [("web.example", "demux", "198.18.0.1:8080")]
    assert book.holds(1) and book.holds(2) and not book.holds(3)
    assert not book.reconcile([1, 2])
    assert not book.reconcile([2])
    assert book.reconcile([3])
    assert where(table) == []
    assert not book.follows_sockets


def test_a_rule_in_its_place_ends_the_following(book: RuleBook, table: ServiceTable) -> None:
    book.set(RuleSpec(WEB, (TargetSpec("demux", port=8080),), origin="controller"))
    book.set(RuleSpec(WEB, (forward("10.0.0.1"),), origin="controller"))
    assert not book.reconcile([])
    assert where(table) == [("web.example", "forward", "10.0.0.1")]


def test_a_rule_is_added_where_none_is_and_changed_where_one_is(book: RuleBook, table: ServiceTable) -> None:
    """ADD and MOD of the original; a listener of the host's own is no rule from outside."""
    table.add_target(WEB, LOCAL, "local")
    with pytest.raises(RuleError, match=r"no rule for web\.example to change: add one"):
        book.set(RuleSpec(WEB, (forward("10.0.0.1"),)), "present")
    book.set(RuleSpec(WEB, (forward("10.0.0.1"),)), "absent")
    with pytest.raises(RuleError, match=r"a rule for web\.example already: change or remove it"):
        book.set(RuleSpec(WEB, (forward("10.0.0.2"),), origin="hand"), "absent")
    book.set(RuleSpec(WEB, (forward("10.0.0.2"),), origin="hand"), "present")
    assert [(spec.origin, spec.addresses) for spec in book.from_outside()] == [("hand", ("10.0.0.2",))]


def test_a_removed_rule_is_given_back_with_its_counters(book: RuleBook, table: ServiceTable) -> None:
    book.set(RuleSpec(WEB, (forward("10.0.0.1"),), hard_timeout=9.0, decider="start"))
    entry = table.get(WEB)
    assert entry is not None
    entry.slots[0].counters.resolved(60)
    removed = book.remove(WEB)
    assert (removed.name, removed.hard_timeout, removed.decider) == ("web.example", 9.0, "start")
    assert (removed.targets[0].packets, removed.targets[0].bytes) == (1, 60)


def test_time_outs_survive_a_replacement_that_is_refused(book: RuleBook, table: ServiceTable) -> None:
    timed = RuleSpec(WEB, (forward("10.0.0.1"),), idle_timeout=5.0, hard_timeout=60.0)
    book.set(timed)
    table.add_target(WEB, LOCAL, "local")
    with pytest.raises(RuleError, match="only target"):
        book.set(RuleSpec(WEB, (TargetSpec("delay"),), origin="hand"))
    assert book.from_outside() == (timed,)


def test_the_rules_of_a_service_are_those_that_its_syn_could_meet(book: RuleBook) -> None:
    for prefix in (NAMING.block("example"), WEB, NAMING.bind_prefix("bulk.example"), Prefix.default()):
        book.set(RuleSpec(prefix, (forward("10.0.0.1"),)))
    met = book.matching(NAMING.service_id("web.example"))
    assert [spec.prefix.bits for spec in met] == [80, 24, 0]


def test_loads_reach_the_targets(book: RuleBook) -> None:
    book.set(RuleSpec(WEB, (forward("10.0.0.1"), forward("10.0.0.2")), "two-choices", "controller"))
    book.set_loads(WEB, {"10.0.0.2": 7.5, "10.0.0.9": 1})
    assert [target.load for target in book.from_outside()[0].targets] == [0.0, 7.5]


def test_a_narrower_bind_is_marked(book: RuleBook, table: ServiceTable) -> None:
    book.set(RuleSpec(WEB, (forward("10.0.0.1"),), origin="hand"))
    book.set(RuleSpec(NAMING.bind_prefix("web.example", 80), (forward("10.0.0.2"),), origin="hand"))
    rows = views.table(table, HostNames(NAMING, VirtualAddresses()))
    assert [(row["service"], row["narrower_than"]) for row in rows] == [
        ("web.example:80", "web.example"),
        ("web.example", None),
    ]


def test_rules_as_a_person_writes_them() -> None:
    rule = hand_rule(NAMING, {"prefix": "*.example", "targets": [{"action": "forward", "address": "10.0.0.2"}]})
    assert (rule.prefix, rule.origin, rule.addresses) == (NAMING.block("example"), "hand", ("10.0.0.2",))
    with pytest.raises(ValueError, match="no service"):
        hand_rule(NAMING, {"prefix": "single", "targets": []})
    with pytest.raises(MessageError, match="'targets' is missing"):
        hand_rule(NAMING, {"prefix": "default"})
    with pytest.raises(MessageError, match="selector"):
        hand_rule(NAMING, {"prefix": "default", "targets": [], "selector": "best"})


def test_a_stand_in_is_the_default_rule_until_somebody_makes_one(book: RuleBook, table: ServiceTable) -> None:
    everyone = bytes((10, 0, 0, 255))
    book.stand_in("adhoc", (everyone,))
    assert where(table) == [("default", "forward", "10.0.0.255")] and book.default_origin() == "adhoc"
    for origin, target in (("controller", TargetSpec("drop")), ("hand", forward("10.0.0.7"))):
        book.set(RuleSpec(Prefix.default(), (target,), origin=origin))
        assert [row[1] for row in where(table)] == [target.action] and book.default_origin() == origin
        book.stand_in("router", (bytes((10, 0, 0, 5)),))
        assert [row[1] for row in where(table)] == [target.action], "changed meanwhile, it still waits"
        book.remove(Prefix.default())
        assert where(table) == [("default", "forward", "10.0.0.5")] and book.default_origin() == "router"
    assert not book.from_outside(), "the controller is told of no such rule"
    book.stand_in("adhoc", ())
    assert where(table) == [] and book.default_origin() is None
    with pytest.raises(RuleError, match="stands in for nothing"):
        book.stand_in("hand", (everyone,))


def test_a_refused_default_rule_leaves_the_stand_in(book: RuleBook, table: ServiceTable) -> None:
    book.stand_in("adhoc", (bytes((10, 0, 0, 255)),))
    table.add_target(Prefix.default(), LOCAL, "local")
    with pytest.raises(RuleError, match="DROP must be the only target"):
        book.set(RuleSpec(Prefix.default(), (TargetSpec("drop"),), origin="hand"))
    assert sorted(row[1] for row in where(table)) == ["demux", "forward"]
    entry = table.get(Prefix.default())
    assert entry is not None and [slot.origin for slot in entry.selectable] == ["local"], "listeners go before it"


def test_a_stand_in_keeps_its_counters_when_its_targets_change(book: RuleBook, table: ServiceTable) -> None:
    first, second = bytes((10, 0, 0, 255)), bytes((10, 0, 1, 255))
    book.stand_in("adhoc", (first,))
    entry = table.get(Prefix.default())
    assert entry is not None
    entry.slots[0].counters.resolved(60)
    book.stand_in("adhoc", (first, second))
    assert [slot.counters.packets for slot in entry.slots] == [1, 0]


def test_a_stand_in_comes_back_when_the_default_rules_socket_ends(book: RuleBook, table: ServiceTable) -> None:
    book.stand_in("adhoc", (bytes((10, 0, 0, 255)),))
    book.set(RuleSpec(Prefix.default(), (TargetSpec("demux", port=8080),), origin="hand"))
    assert [row[1] for row in where(table)] == ["demux"]
    book.reconcile([])
    assert [row[1] for row in where(table)] == ["forward"]
