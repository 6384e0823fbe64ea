"""First packets for services that nobody serves: who decides, what it does at the nodes, how it fails."""

from __future__ import annotations

import sys
import types
from typing import Any

import pytest

from controllers import deciding, unknown
from controllers.deciding import RECONNECT_SECONDS, START_SECONDS
from controllers.directory import Instance
from controllers.unknown import Decision, Drop, Forward, Refuse, Start, Unknown, Wait
from serval_node.control import messages
from serval_node.control.enquiries import Standby
from serval_node.control.messages import DelayNotify
from serval_node.wire.naming import Naming
from serval_node.wire.serviceid import Prefix
from tests.unit.controllers.test_service import BLOCK, NAMING, WEB, FakeNode, World, datacenter, delay

SYN = Prefix.of(NAMING.service_id("web.example"))


def offer(world: World, host: str, prefix: Prefix = WEB, *, name: str = "", started: bool = False) -> None:
    node = world.nodes[host]
    node.standbys = (*node.standbys, Standby(prefix, name, started))
    world.run(world.control.handle(node.dpid, 1, node.state(), world.now))


def sent(node: FakeNode, kind: type) -> list[Any]:
    return [message for message in node.log if isinstance(message, kind)]


def verdicts(node: FakeNode) -> list[tuple[Prefix, str]]:
    return [(message.service, message.verdict) for message in sent(node, messages.DelayVerdict)]


@pytest.fixture
def world() -> World:
    """The figure, where unknown services of the block wait at cleo, and `start` decides."""
    world = datacenter()
    answer = world.ask("unknown", service=str(BLOCK), decider="start")
    assert answer["unknown"] == [{"prefix": "*.example", "decider": "start", "nodes": ["cleo"]}]
    return world


def test_the_router_lets_them_wait_and_hosts_send_on_as_before(world: World) -> None:
    (target,) = world.nodes["cleo"].rules[BLOCK].targets
    assert (target.action, world.nodes["cleo"].rules[BLOCK].decider) == ("delay", "start")
    assert world.nodes["ann"].rules[BLOCK].addresses == ("10.2.0.1",)
    world.bind("dan")
    assert world.nodes["cleo"].rules[WEB].addresses == ("10.2.1.1",), "the longer prefix"
    world.ask("unknown", service=str(BLOCK), decider="off")
    assert set(world.nodes["cleo"].rules) == {WEB}


def test_who_cannot_be_started_because_it_runs_is_told_so(world: World) -> None:
    nobody = world.ask("start", service="web.example")["error"]
    assert nobody == "no node offers a program for web.example (serval standby)"
    world.bind("dan")
    assert world.ask("start", service="web.example")["error"] == f"{nobody}; it runs already at dan"
    assert world.ask("start", service="web.example", node="dan")["error"].endswith(", it runs there already")
    assert not world.ask("start", service="web.example", node="eve")["error"].endswith("already")


@pytest.mark.statement("S26")
def test_start_wakes_an_instance_and_its_registration_releases(world: World) -> None:
    offer(world, "eve")
    delay(world, "cleo", BLOCK, SYN)
    assert sent(world.nodes["eve"], messages.Start) == [messages.Start(WEB)]
    assert verdicts(world.nodes["cleo"]) == [], "nothing before it listens"
    delay(world, "cleo", BLOCK, SYN)
    assert len(sent(world.nodes["eve"], messages.Start)) == 1, "it is on its way"
    world.bind("eve")
    assert verdicts(world.nodes["cleo"]) == [(SYN, "release")]
    assert world.nodes["cleo"].rules[WEB].addresses == ("10.2.1.2",)


def test_nobody_who_offers_it_is_a_refusal(world: World) -> None:
    offer(world, "eve", NAMING.bind_prefix("other.example"))
    delay(world, "cleo", BLOCK, SYN)
    assert verdicts(world.nodes["cleo"]) == [(SYN, "refuse")]
    assert not sent(world.nodes["eve"], messages.Start)


@pytest.mark.parametrize("how", ["refused", "lost", "silent"])
def test_a_start_that_fails_refuses_what_waits(world: World, how: str) -> None:
    offer(world, "eve")
    if how == "refused":
        world.nodes["eve"].refuses = "no such program"
    delay(world, "cleo", BLOCK, SYN)
    if how == "lost":
        world.lose("eve")
    elif how == "silent":
        world.pass_time(START_SECONDS - 1)
        assert verdicts(world.nodes["cleo"]) == []
        world.pass_time(2)
    assert verdicts(world.nodes["cleo"]) == [(SYN, "refuse")]
    world.nodes["eve"].refuses = ""
    if how == "lost":
        world.connect("eve")
    delay(world, "cleo", BLOCK, SYN)
    assert sent(world.nodes["eve"], messages.Start)[-1] == messages.Start(WEB), "the next one may try again"


def test_several_nodes_wait_for_one_start() -> None:
    """Without a router that answers for the service, packets wait at the clients' own hosts."""
    world = datacenter()
    world.ask("unknown", service="default", decider="start")
    elsewhere = Naming().bind_prefix("web.elsewhere")
    syn = Prefix.of(Naming().service_id("web.elsewhere"))
    assert all(node.rules[Prefix.default()].decider == "start" for node in world.nodes.values())
    offer(world, "eve", elsewhere)
    for name in ("ann", "fay"):
        delay(world, name, Prefix.default(), syn)
    world.bind("eve", elsewhere)
    for name in ("ann", "fay"):
        assert world.nodes[name].rules[elsewhere].addresses == ("10.2.1.2",)
        assert world.nodes[name].rules[elsewhere].idle_timeout == 60
        assert verdicts(world.nodes[name]) == [(syn, "release")]
    assert elsewhere not in world.nodes["dan"].rules, "nobody asked there"
    assert len(sent(world.nodes["eve"], messages.Start)) == 1


def test_a_resolved_rule_goes_by_its_time_out_and_with_its_instances() -> None:
    world = datacenter()
    elsewhere, syn = Naming().bind_prefix("web.elsewhere"), Prefix.of(Naming().service_id("web.elsewhere"))
    world.bind("dan", elsewhere)
    world.ask("unknown", service="default", decider="resolve")
    for again in range(2):
        delay(world, "ann", Prefix.default(), syn)
        assert world.nodes["ann"].rules[elsewhere].addresses == ("10.2.1.1",), again
        world.nodes["ann"].rules.pop(elsewhere)
        ended = messages.RuleExpired(elsewhere, "controller", "idle", 60.0)
        world.run(world.control.handle(world.nodes["ann"].dpid, 1, ended, world.now))
        assert elsewhere not in world.nodes["ann"].rules, "not sent again by itself"
    delay(world, "ann", Prefix.default(), syn)
    world.unbind("dan", elsewhere)
    assert elsewhere not in world.nodes["ann"].rules


def test_what_waits_for_a_rule_that_is_there_already_is_released() -> None:
    """The notice and the rule crossed."""
    world = datacenter()
    world.bind("dan")
    world.ask("unknown", service=str(BLOCK), decider="resolve")
    delay(world, "cleo", BLOCK, SYN)
    assert verdicts(world.nodes["cleo"]) == [(SYN, "release")]


def test_the_longest_prefix_has_its_decider(world: World) -> None:
    world.ask("unknown", service="web.example", decider="refuse")
    offer(world, "eve")
    delay(world, "cleo", WEB, SYN)
    assert verdicts(world.nodes["cleo"]) == [(SYN, "refuse")]


def test_without_a_decider_somebody_else_decides() -> None:
    world = datacenter()
    world.ask("add", node="cleo", service=str(BLOCK), action="delay")
    delay(world, "cleo", BLOCK, SYN)
    assert verdicts(world.nodes["cleo"]) == []
    (row,) = world.ask("delayed")["delayed"]
    assert row["decider"] is None


@pytest.mark.statement("S26")
def test_a_restarted_controller_goes_on_deciding(world: World) -> None:
    """The nodes keep who decides, and tell what waits; the others have a moment to connect too."""
    world.nodes["cleo"].delayed[SYN] = DelayNotify(SYN, BLOCK)
    world.nodes["eve"].standbys = (Standby(WEB),)
    world.start()
    world.connect("cleo")
    assert world.ask("unknown")["unknown"][0]["decider"] == "start"
    world.connect("ann", "dan", "eve")
    assert verdicts(world.nodes["cleo"]) == []
    world.pass_time(RECONNECT_SECONDS + 0.5)
    assert sent(world.nodes["eve"], messages.Start) == [messages.Start(WEB)]
    world.bind("eve")
    assert world.nodes["cleo"].delayed == {}


def test_a_decider_of_ones_own_is_asked_with_what_is_known(monkeypatch: pytest.MonkeyPatch) -> None:
    cases: list[Unknown] = []
    answers: list[Any] = [Drop(), Wait(), Start("nobody"), 7]

    def mine(case: Unknown) -> Decision:
        cases.append(case)
        if not answers:
            raise RuntimeError("no idea")
        return answers.pop(0)

    module = types.ModuleType("my_deciders")
    module.mine = mine  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "my_deciders", module)
    world = datacenter()
    world.bind("fay", NAMING.bind_prefix("web.example"))
    offer(world, "dan")
    world.ask("unknown", service="web.example", decider="my_deciders:mine")
    for _ in range(5):
        delay(world, "cleo", WEB, SYN)
        world.nodes["cleo"].delayed.clear()
    assert cases[0] == Unknown(SYN, "web.example", "cleo", ("dan",), (Instance("fay", "10.2.1.3"),))
    assert [verdict for _, verdict in verdicts(world.nodes["cleo"])] == ["drop", "refuse", "refuse", "refuse"]


@pytest.mark.parametrize(
    ("text", "word"),
    [
        ("best", "no decider 'best'; there are start, resolve, refuse, and MODULE:FUNCTION"),
        ("no_such_module:f", "no_such_module"),
        ("controllers.unknown:nothing", "nothing"),
        ("controllers.unknown:DECIDERS", "no function"),
        (":f", "no decider"),
    ],
)
def test_a_decider_that_cannot_be_used_is_refused(text: str, word: str) -> None:
    world = datacenter()
    assert word in world.refused("unknown", service=str(BLOCK), decider=text)
    assert BLOCK not in world.nodes["cleo"].rules
    assert "nobody decides" in world.refused("unknown", service=str(BLOCK), decider="off")


def test_deciders_by_themselves() -> None:
    nothing = Unknown(SYN, "web.example", "cleo")
    offered = Unknown(SYN, "web.example", "cleo", standbys=("dan", "eve"))
    served = Unknown(SYN, "web.example", "cleo", ("dan",), (Instance("fay", "10.2.1.3"),))
    assert [unknown.start(case) for case in (nothing, offered, served)] == [Refuse(), Start("dan"), Forward()]
    assert [unknown.resolve(case) for case in (nothing, offered, served)] == [Refuse(), Refuse(), Forward()]
    assert unknown.refuse(served) == Refuse()


def test_an_instance_is_started_by_hand_too() -> None:
    world = datacenter()
    assert "no node offers" in world.refused("start", service="web.example")
    offer(world, "eve", name="web.example")
    assert "dan offers no program" in world.refused("start", service="web.example", node="dan")
    assert world.ask("start", service="web.example")["ok"]
    assert sent(world.nodes["eve"], messages.Start) == [messages.Start(WEB)]
    world.nodes["eve"].refuses = "it is gone"
    assert world.refused("start", service="web.example", node="eve") == "it is gone"
    (row,) = world.ask("services")["services"]
    assert (row["name"], row["instances"], row["standbys"]) == ("web.example", [], ["eve"])


def test_verdicts_go_wherever_packets_wait() -> None:
    world = datacenter()
    assert "nothing waits for web.example at any node" in world.refused("refuse", service="web.example")
    for name in ("ann", "cleo"):
        delay(world, name, BLOCK, SYN)
    assert world.ask("refuse", service="web.example")["ok"]
    assert [verdicts(world.nodes[name]) for name in ("ann", "cleo")] == [[(WEB, "refuse")]] * 2
    assert world.ask("delayed")["delayed"] == []


def test_half_of_the_wait_under_delay_is_for_the_start() -> None:
    assert deciding.START_SECONDS <= 30
