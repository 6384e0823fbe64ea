"""The service controller's logic with nodes in memory: what they hold after registrations, deaths, restarts, hands."""

from __future__ import annotations

import itertools
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from controllers.loads import LOAD_INTERVAL
from controllers.policies import PolicyBook, PolicyError, Setting
from controllers.relearn import GRACE_SECONDS
from controllers.requests import HandRequests
from controllers.service_core import ANSWER_SECONDS, Answer, Output, Send, ServiceControl
from serval_node.control import messages
from serval_node.control.enquiries import Standby
from serval_node.control.messages import Binding, DelayNotify, NodeState, Result
from serval_node.control.rules import SELECTORS, RuleSpec, forward
from serval_node.wire.naming import Naming
from serval_node.wire.serviceid import Prefix

NAMING = Naming({"example": 0x9C1185})
BLOCK = NAMING.block("example")
WEB = NAMING.bind_prefix("web.example")
WEB_8080 = NAMING.bind_prefix("web.example", 8080)
ADDRESS = {"ann": "10.1.0.1", "cleo": "10.2.0.1", "dan": "10.2.1.1", "eve": "10.2.1.2", "fay": "10.2.1.3"}


@dataclass
class FakeNode:
    """A node that does what it is told and remembers it."""

    name: str
    dpid: int
    role: str = "host"
    serves: tuple[Prefix, ...] = ()
    boot: str = "boot1"
    bindings: dict[Prefix, Binding] = field(default_factory=dict)
    rules: dict[Prefix, RuleSpec] = field(default_factory=dict)
    delayed: dict[Prefix, DelayNotify] = field(default_factory=dict)
    refuses: str = ""
    silent: bool = False
    log: list[messages.ControllerMessage] = field(default_factory=list)
    loads: dict[str, float] = field(default_factory=dict)
    flows: int = 0
    standbys: tuple[Standby, ...] = ()

    def state(self) -> NodeState:
        rules = tuple(rule for rule in self.rules.values())
        return NodeState(
            self.name,
            self.role,
            self.boot,
            (ADDRESS[self.name],),
            self.serves,
            tuple(self.bindings.values()),
            rules,
            tuple(self.delayed.values()),
            self.standbys,
        )

    def obey(self, message: messages.ControllerMessage) -> messages.Message | None:
        self.log.append(message)
        if self.silent:
            return None
        if isinstance(message, messages.Loads):
            self.loads.update(message.loads)
            return None
        if isinstance(message, messages.StatsGet):
            return messages.Stats(tuple(messages.ServiceLoad(prefix, self.flows) for prefix in self.bindings))
        if isinstance(message, messages.RulesGet):
            return messages.Rules(tuple(self.rules.values()))
        if self.refuses:
            return Result(False, self.refuses)
        if isinstance(message, messages.RuleSet):
            self.rules[message.rule.prefix] = message.rule
        elif isinstance(message, messages.RuleRemove):
            if self.rules.pop(message.prefix, None) is None:
                return Result(False, "no such rule")
        elif isinstance(message, messages.DelayVerdict):
            found = [service for service in self.delayed if message.service.covers(service)]
            if not found:
                return Result(False, "nothing is queued")
            for service in found:
                del self.delayed[service]
        return Result(True)

    def changes(self) -> list[messages.ControllerMessage]:
        return [m for m in self.log if isinstance(m, (messages.RuleSet, messages.RuleRemove))]


class World:
    """One controller (which can be restarted) and nodes that are connected to it or not."""

    def __init__(self, **options: Any) -> None:
        self.now = 1000.0
        self.options = options
        self.nodes: dict[str, FakeNode] = {}
        self.answers: dict[int, dict[str, Any]] = {}
        self.tickets = itertools.count()
        self.connected: set[str] = set()
        self.start()

    def start(self) -> None:
        self.control = ServiceControl(now=self.now, naming=Naming({"example": 0x9C1185}), **self.options)
        self.hand = HandRequests(self.control)
        self.connected.clear()

    def node(self, name: str, **options: Any) -> FakeNode:
        node = FakeNode(name, len(self.nodes) + 1, **options)
        self.nodes[name] = node
        return node

    def connect(self, *names: str) -> None:
        for name in names:
            node = self.nodes[name]
            self.connected.add(name)
            self.run(self.control.handle(node.dpid, 1, node.state(), self.now))

    def lose(self, name: str) -> None:
        self.connected.discard(name)
        self.run(self.control.lost(self.nodes[name].dpid, self.now))

    def bind(self, name: str, prefix: Prefix = WEB, /, **options: Any) -> None:
        node = self.nodes[name]
        node.bindings[prefix] = Binding(prefix, **options)
        if name in self.connected:
            self.run(self.control.handle(node.dpid, 1, messages.Register(node.bindings[prefix]), self.now))

    def unbind(self, name: str, prefix: Prefix = WEB) -> None:
        node = self.nodes[name]
        del node.bindings[prefix]
        if name in self.connected:
            self.run(self.control.handle(node.dpid, 1, messages.Unregister(prefix), self.now))

    def pass_time(self, seconds: float) -> None:
        end = self.now + seconds
        while self.now < end:
            self.now += 0.2
            self.run(self.control.tick(self.now))

    def ask(self, op: str, **fields: Any) -> dict[str, Any]:
        ticket = next(self.tickets)
        self.run(self.hand.handle(ticket, {"op": op, **fields}, self.now))
        return self.answers.pop(ticket, {"ok": None})

    def refused(self, op: str, **fields: Any) -> str:
        answer = self.ask(op, **fields)
        assert answer["ok"] is False, answer
        assert "\n" not in answer["error"]
        return str(answer["error"])

    def run(self, outputs: list[Output]) -> None:
        """Deliver, and settle after every event, as the shim does; the nodes' answers come after all that."""
        answers = [*self._deliver(outputs), *self._deliver(self.control.settle(self.now))]
        for dpid, xid, answer in answers:
            self.run(self.control.handle(dpid, xid, answer, self.now))

    def _deliver(self, outputs: list[Output]) -> list[tuple[int, int, messages.Message]]:
        answers = []
        for output in outputs:
            if isinstance(output, Answer):
                self.answers[output.ticket] = output.body  # type: ignore[index]
                continue
            assert isinstance(output, Send)
            node = next(node for node in self.nodes.values() if node.dpid == output.datapath_id)
            answer = node.obey(output.message)
            if answer is not None:
                answers.append((node.dpid, output.xid, answer))
        return answers


def datacenter(**options: Any) -> World:
    """The figure: client ann, service router cleo, instances dan and eve; all but the instances' binds."""
    world = World(**options)
    world.node("ann")
    world.node("cleo", role="router", serves=(BLOCK,))
    world.node("dan")
    world.node("eve")
    world.node("fay")
    world.connect("ann", "cleo", "dan", "eve", "fay")
    return world


def addresses(world: World, node: str, prefix: Prefix = WEB) -> set[str]:
    rule = world.nodes[node].rules.get(prefix)
    return set(rule.addresses) if rule is not None else set()


def at(*names: str) -> set[str]:
    return {ADDRESS[name] for name in names}


def test_registrations_make_the_figures_tables() -> None:
    """S31, S36, S16: after bind at d and e, table c = {X: d, e}, edge = {X/24: c}, also at the instances."""
    world = datacenter()
    world.bind("dan")
    assert addresses(world, "cleo") == at("dan")
    world.bind("eve")
    assert addresses(world, "cleo") == at("dan", "eve")
    assert set(world.nodes["cleo"].rules) == {WEB}
    for host in ("ann", "dan", "eve", "fay"):
        assert set(world.nodes[host].rules) == {BLOCK}
        assert addresses(world, host, BLOCK) == at("cleo")


def test_the_edge_grows_with_blocks_and_not_with_services() -> None:
    world = datacenter()
    for number in range(50):
        world.bind("dan", NAMING.bind_prefix(f"s{number}.example"))
    assert len(world.nodes["ann"].rules) == 1
    assert len(world.nodes["cleo"].rules) == 50
    assert len(world.nodes["ann"].changes()) == 1, "nothing is sent twice"


def test_unregister_and_death_withdraw() -> None:
    """S33, S34."""
    world = datacenter()
    world.bind("dan")
    world.bind("eve")
    world.unbind("dan")
    assert addresses(world, "cleo") == at("eve")
    world.lose("eve")
    assert world.nodes["cleo"].rules == {}
    world.lose("cleo")
    assert world.nodes["ann"].rules == {}
    world.nodes["cleo"].rules = {}
    world.connect("eve", "cleo")
    assert addresses(world, "cleo") == at("eve") and addresses(world, "ann", BLOCK) == at("cleo")


def test_a_narrower_bind_has_a_rule_of_its_own() -> None:
    """S15: (name, port) takes its SYNs from the wider bind."""
    world = datacenter()
    world.bind("dan")
    world.bind("eve", WEB_8080)
    assert addresses(world, "cleo", WEB) == at("dan")
    assert addresses(world, "cleo", WEB_8080) == at("eve")
    world.unbind("eve", WEB_8080)
    assert set(world.nodes["cleo"].rules) == {WEB}


def test_services_outside_the_routers_blocks_get_no_rule() -> None:
    world = datacenter()
    world.bind("dan", Naming().bind_prefix("web.elsewhere"))
    assert world.nodes["cleo"].rules == {}
    assert world.ask("services")["services"][0]["routers"] == []


def test_several_routers_share_a_block() -> None:
    world = datacenter()
    world.nodes["fay"].role, world.nodes["fay"].serves = "router", (BLOCK,)
    world.lose("fay")
    world.nodes["fay"].rules = {}
    world.connect("fay")
    world.bind("dan")
    assert addresses(world, "fay") == addresses(world, "cleo") == at("dan")
    assert addresses(world, "ann", BLOCK) == at("cleo", "fay")
    assert BLOCK not in world.nodes["cleo"].rules


def test_a_router_that_is_itself_an_instance_gets_no_rule_to_itself() -> None:
    world = datacenter()
    world.bind("cleo")
    assert world.nodes["cleo"].rules == {}
    world.bind("dan")
    assert addresses(world, "cleo") == at("dan")


def test_an_instance_may_name_its_address_and_weight() -> None:
    world = datacenter()
    world.bind("dan", address="10.9.9.9", weight=3)
    world.bind("eve")
    targets = {target.address: target.weight for target in world.nodes["cleo"].rules[WEB].targets}
    assert targets == {"10.9.9.9": 3, ADDRESS["eve"]: 1}
    world.bind("dan", address="10.9.9.9", weight=1)
    assert {target.weight for target in world.nodes["cleo"].rules[WEB].targets} == {1}


@pytest.mark.parametrize("name", SELECTORS)
def test_a_policy_chooses_the_selector_and_only_that(name: str) -> None:
    world = datacenter()
    world.bind("dan")
    world.bind("eve")
    answer = world.ask("policy", service="web.example", policy=name, weights={"dan": 5})
    assert (answer["policy"], answer["weights"]) == (name, {"dan": 5})
    rule = world.nodes["cleo"].rules[WEB]
    assert rule.selector == name
    assert {target.address: target.weight for target in rule.targets} == {ADDRESS["dan"]: 5, ADDRESS["eve"]: 1}


def test_a_policy_of_what_nobody_serves_yet_is_kept_and_said_to_be_so() -> None:
    world = datacenter()
    world.bind("dan")
    for service, known in (
        ("web.example", True),
        (str(BLOCK), True),
        ("wbe.example", False),
        ("web.example:81", False),
    ):
        for words in ({}, {"policy": "round-robin"}):
            answer = world.ask("policy", service=service, **words)
            note = f"nobody serves {answer['name']} yet; the policy holds when somebody does"
            assert answer.get("note") == (None if known else note)
    world.bind("dan", NAMING.bind_prefix("wbe.example"))
    assert "note" not in world.ask("policy", service="wbe.example")
    assert world.nodes["cleo"].rules[NAMING.bind_prefix("wbe.example")].selector == "round-robin"


def test_a_policy_of_a_block_holds_for_its_services_until_one_has_its_own() -> None:
    world = datacenter()
    world.bind("dan")
    world.ask("policy", service=str(BLOCK), policy="maglev")
    assert world.nodes["cleo"].rules[WEB].selector == "maglev"
    world.ask("policy", service="web.example", policy="round-robin")
    assert world.nodes["cleo"].rules[WEB].selector == "round-robin"


def test_bad_policies_are_refused_and_change_nothing() -> None:
    world = datacenter()
    world.bind("dan")
    assert "best" in world.refused("policy", service="web.example", policy="best")
    assert "weight of dan" in world.refused("policy", service="web.example", policy="maglev", weights={"dan": 0})
    assert "zoe" in world.refused("policy", service="web.example", policy="maglev", weights={"zoe": 1})
    assert world.nodes["cleo"].rules[WEB].selector == "weighted-random"


def test_two_choices_gets_load_figures_and_rules_stay_as_they_are() -> None:
    """The figure is in each target of the rule and is refreshed without a new rule."""
    world = datacenter()
    world.bind("dan")
    world.bind("eve")
    world.pass_time(3)
    assert not any(isinstance(m, messages.StatsGet) for node in world.nodes.values() for m in node.log)
    world.ask("policy", service="web.example", policy="two-choices")
    world.nodes["dan"].flows, world.nodes["eve"].flows = 7, 2
    before = len(world.nodes["cleo"].changes())
    world.pass_time(LOAD_INTERVAL * 3)
    assert world.nodes["cleo"].loads == {ADDRESS["dan"]: 7.0, ADDRESS["eve"]: 2.0}
    assert len(world.nodes["cleo"].changes()) == before
    assert sum(isinstance(m, messages.Loads) for m in world.nodes["cleo"].log) >= 4, "also when nothing changed"
    assert not any(isinstance(m, messages.StatsGet) for m in world.nodes["fay"].log), "no instance"
    world.bind("fay")
    figures = {target.address: target.load for target in world.nodes["cleo"].rules[WEB].targets}
    assert figures == {ADDRESS["dan"]: 7.0, ADDRESS["eve"]: 2.0, ADDRESS["fay"]: 0.0}


def in_use(world: World) -> set[str]:
    """Addresses that cleo chooses among."""
    targets = world.nodes["cleo"].rules[WEB].targets
    return {target.address or "" for target in targets if target.priority == max(item.priority for item in targets)}


@pytest.mark.statement("S39")
def test_least_loaded_follows_the_reports_and_not_faster_than_once_in_an_interval() -> None:
    world = datacenter()
    for name in ("dan", "eve", "fay"):
        world.bind(name)
    world.ask("policy", service="web.example", policy="least-loaded")
    world.nodes["dan"].flows, world.nodes["eve"].flows, world.nodes["fay"].flows = 3, 1, 2
    world.pass_time(LOAD_INTERVAL * 2)
    assert in_use(world) == at("eve") and addresses(world, "cleo") == at("dan", "eve", "fay"), "the others stand by"
    # However often instances report, and whatever: one new rule in an interval.
    before = len(world.nodes["cleo"].changes())
    for number in range(100):
        for name in ("dan", "eve", "fay"):
            figure = float((number + len(name) * world.nodes[name].dpid) % 7)
            report = messages.Stats((messages.ServiceLoad(WEB, 0, 0, figure),))
            world.run(world.control.handle(world.nodes[name].dpid, 0, report, world.now))
        world.pass_time(0.2)
    assert 5 < len(world.nodes["cleo"].changes()) - before <= 100 * 0.2 / LOAD_INTERVAL + 1


def test_what_an_instance_says_of_itself_takes_the_place_of_its_flows() -> None:
    world = datacenter()
    world.bind("dan")
    report = messages.Stats((messages.ServiceLoad(WEB, 7, 9, 0.25),))
    world.run(world.control.handle(world.nodes["dan"].dpid, 0, report, world.now))
    (service,) = world.ask("services")["services"]
    assert service["instances"][0]["load"] == 0.25, "told without being asked"
    world.unbind("dan")
    world.bind("dan")
    (service,) = world.ask("services")["services"]
    assert service["instances"][0]["load"] is None


def test_a_policy_of_a_file_is_tried_before_it_is_taken(tmp_path: Path) -> None:
    world = datacenter()
    world.bind("dan")
    path = tmp_path / "mine.py"
    path.write_text(
        "from controllers.policies import Policy\n"
        "class Mine(Policy):\n"
        "    name = 'mine'\n"
        "    def targets(self, candidates):\n"
        "        return [c.target(weight=c.weights) for c in candidates]\n"
    )
    assert "AttributeError" in world.refused("policy", service="web.example", policy=str(path))
    assert world.ask("policy", service="web.example")["policy"] == "weighted-random"
    path.write_text(path.read_text().replace("c.weights", "4"))
    assert world.ask("policy", service="web.example", policy=str(path))["policy"] == "mine"
    assert [target.weight for target in world.nodes["cleo"].rules[WEB].targets] == [4]
    world.start()
    world.connect("cleo", "dan")
    assert world.ask("policy", service="web.example")["policy"] == "mine", "found again by its file"


def test_an_instance_that_returns_does_not_bring_its_old_load() -> None:
    world = datacenter()
    world.bind("dan")
    world.ask("policy", service="web.example", policy="two-choices")
    for leave in (lambda: world.unbind("dan"), lambda: world.lose("dan")):
        world.nodes["dan"].flows = 7
        world.pass_time(LOAD_INTERVAL * 2)
        leave()
        if "dan" in world.connected:
            world.bind("dan")
        else:
            world.connect("dan")
        assert world.nodes["cleo"].rules[WEB].targets[0].load == 0.0


def test_a_node_that_only_reconnects_gets_nothing_anew() -> None:
    world = datacenter()
    world.bind("dan")
    world.lose("ann")
    world.nodes["ann"].log.clear()
    world.connect("ann")
    assert world.nodes["ann"].changes() == []


def test_a_reconnecting_router_loses_what_no_longer_holds() -> None:
    world = datacenter(grace=0.0)
    world.bind("dan")
    world.bind("eve")
    world.lose("cleo")
    world.unbind("dan")
    world.connect("cleo")
    assert addresses(world, "cleo") == at("eve")


def restarted(*order: str, **options: Any) -> World:
    """A controller with dan and eve bound is stopped and another started; then these nodes connect, in this order."""
    world = datacenter(**options)
    world.bind("dan")
    world.bind("eve")
    for node in world.nodes.values():
        node.log.clear()
    world.start()
    world.connect(*order)
    return world


def test_after_a_restart_nothing_is_removed_before_the_targets_nodes_have_reported() -> None:
    """S58, with the service router first: its rule names nodes that nobody has heard of yet."""
    world = restarted("cleo")
    assert world.nodes["cleo"].changes() == []
    assert world.ask("status")["waiting_for"] == sorted(at("dan", "eve"))
    world.connect("ann")
    world.connect("dan")
    assert world.nodes["cleo"].changes() == [] and addresses(world, "cleo") == at("dan", "eve")
    world.connect("eve")
    world.connect("fay")
    assert all(node.changes() == [] for node in world.nodes.values())
    assert world.ask("status")["relearning"] is False


@pytest.mark.parametrize("order", list(itertools.permutations(("ann", "cleo", "dan", "eve"))))
def test_a_restart_changes_no_rule_in_any_order(order: tuple[str, ...]) -> None:
    world = restarted(*order)
    world.connect("fay")
    world.pass_time(GRACE_SECONDS + 1)
    assert all(node.changes() == [] for node in world.nodes.values())


def test_what_was_lost_while_the_controller_was_down_goes_when_all_have_reported() -> None:
    world = datacenter()
    world.bind("dan")
    world.bind("eve")
    world.start()
    world.unbind("dan")
    world.connect("cleo", "dan")
    assert addresses(world, "cleo") == at("dan", "eve"), "eve has not reported"
    world.connect("eve")
    assert addresses(world, "cleo") == at("eve")


def test_what_never_comes_back_goes_when_the_grace_time_has_passed() -> None:
    world = restarted("cleo", "ann", "dan")
    world.pass_time(GRACE_SECONDS - 1)
    assert addresses(world, "cleo") == at("dan", "eve")
    world.pass_time(1.5)
    assert addresses(world, "cleo") == at("dan")
    world.connect("eve")
    assert addresses(world, "cleo") == at("dan", "eve")


def test_new_instances_are_added_while_found_ones_are_kept() -> None:
    world = restarted("cleo", "dan")
    world.connect("fay")
    world.bind("fay")
    assert addresses(world, "cleo") == at("dan", "eve", "fay")


def test_what_is_withdrawn_before_all_have_reported_goes_at_once() -> None:
    world = restarted("cleo", "dan")
    world.unbind("dan")
    assert addresses(world, "cleo") == at("eve")
    world = restarted("cleo", "dan")
    world.lose("dan")
    assert addresses(world, "cleo") == at("eve")


def test_edge_rules_are_kept_while_the_router_is_awaited() -> None:
    world = restarted("ann", "dan", "eve", "fay")
    assert addresses(world, "ann", BLOCK) == at("cleo")
    assert world.nodes["ann"].changes() == []
    world.pass_time(GRACE_SECONDS + 1)
    assert world.nodes["ann"].rules == {}


def test_the_selector_survives_a_restart_and_with_a_file_the_weights_do(tmp_path: Path) -> None:
    world = datacenter()
    world.bind("dan")
    world.ask("policy", service="web.example", policy="maglev")
    world.start()
    world.connect("cleo", "dan", "ann", "eve", "fay")
    assert world.nodes["cleo"].rules[WEB].selector == "maglev"

    book = PolicyBook(str(tmp_path / "policies"))
    book.set(WEB, Setting("round-robin", {"dan": 4}))
    assert PolicyBook(str(tmp_path / "policies")).policy(WEB_8080) == Setting("round-robin", {"dan": 4})
    (tmp_path / "policies").write_text('{"0x12/8": {"policy": "best"}}')
    with pytest.raises(PolicyError, match="best"):
        PolicyBook(str(tmp_path / "policies"))


def test_hand_rules_stand_above_the_policy_and_give_its_place_back() -> None:
    world = datacenter()
    world.bind("dan")
    assert world.ask("add", node="cleo", service="web.example", action="drop")["ok"]
    assert world.nodes["cleo"].rules[WEB].targets[0].action == "drop"
    world.bind("eve")
    assert world.nodes["cleo"].rules[WEB].targets[0].action == "drop", "the policy keeps away"
    assert "change" in world.refused("add", node="cleo", service="web.example", action="delay")
    changed = world.ask("change", node="cleo", service="web.example", action="forward", targets=["eve*3", "10.7.7.7@0"])
    assert changed["ok"]
    targets = {(t.address, t.weight, t.priority) for t in world.nodes["cleo"].rules[WEB].targets}
    assert targets == {(ADDRESS["eve"], 3, 1), ("10.7.7.7", 1, 0)}
    world.nodes["cleo"].log.clear()
    assert world.ask("remove", node="cleo", service="web.example")["ok"]
    assert addresses(world, "cleo") == at("dan", "eve")
    assert len(world.nodes["cleo"].changes()) == 1, "in one step, without a moment without a rule"


@pytest.mark.parametrize("action", ["drop", "delay", "demux", "forward"])
def test_every_action_can_be_pushed_listed_and_removed_at_any_node(action: str) -> None:
    world = datacenter()
    fields = {"demux": {"port": 8080}, "forward": {"targets": ["dan"], "selector": "maglev"}}.get(action, {})
    for node in ("ann", "cleo", "dan"):
        service = "0x123456/24"
        assert world.ask("add", node=node, service=service, action=action, **fields)["ok"]
        listed = world.ask("rules", node=node)["rules"]
        (rule,) = [rule for rule in listed if rule["prefix"] == "0x123456/24"]
        assert rule["targets"][0]["action"] == action and rule["origin"] == "hand"
        assert world.ask("remove", node=node, service=service)["ok"]
        assert Prefix.from_text(service) not in world.nodes[node].rules


def test_a_hand_rule_that_the_node_refuses_is_refused_with_its_reason() -> None:
    world = datacenter()
    world.bind("dan")
    world.nodes["cleo"].refuses = "nothing listens on port 9"
    assert world.refused("add", node="cleo", service="web.example", action="demux", port=9) == (
        "cleo refuses: nothing listens on port 9"
    )
    world.nodes["cleo"].refuses = ""
    assert addresses(world, "cleo") == at("dan")
    world.bind("eve")
    assert addresses(world, "cleo") == at("dan", "eve"), "the policy goes on"


def test_a_policys_rule_that_a_node_refuses_is_shown_and_not_sent_for_ever() -> None:
    world = datacenter()
    world.nodes["cleo"].refuses = "table full"
    world.bind("dan")
    assert len(world.nodes["cleo"].changes()) == 1
    (rule,) = world.ask("rules", node="cleo")["rules"]
    assert rule["refused"] == "table full"
    world.nodes["cleo"].refuses = ""
    world.bind("eve")
    assert addresses(world, "cleo") == at("dan", "eve"), "tried again when it changed"


@pytest.mark.parametrize(
    ("op", "fields", "word"),
    [
        ("rules", {"node": "zoe"}, "no node 'zoe'"),
        ("rules", {}, "node"),
        ("add", {"node": "cleo", "service": "web.example", "action": "fly"}, "fly"),
        ("add", {"node": "cleo", "service": "x" * 64 + ".example", "action": "drop"}, "63"),
        ("add", {"node": "cleo", "service": "0x12/300", "action": "drop"}, "256"),
        ("add", {"node": "cleo", "service": "web.example", "action": "forward"}, "at least one"),
        ("add", {"node": "cleo", "service": "web.example", "action": "forward", "targets": ["zoe"]}, "zoe"),
        ("add", {"node": "cleo", "service": "web.example", "action": "forward", "targets": ["dan*0"]}, "weights"),
        ("add", {"node": "cleo", "service": "web.example", "action": "forward", "targets": ["dan", "dan"]}, "twice"),
        ("add", {"node": "cleo", "service": "web.example", "action": "demux"}, "port"),
        ("change", {"node": "cleo", "service": "nope.example", "action": "drop"}, "no rule"),
        ("remove", {"node": "cleo", "service": "nope.example"}, "no hand-made rule"),
        ("release", {"node": "cleo", "service": "web.example"}, "nothing is queued"),
        ("policy", {"service": "web..example"}, "web..example"),
        ("dance", {}, "dance"),
    ],
)
def test_wrong_requests_are_refused_in_one_line(op: str, fields: dict[str, Any], word: str) -> None:
    assert word in datacenter().refused(op, **fields)


def test_a_policys_rule_cannot_be_removed_by_hand() -> None:
    world = datacenter()
    world.bind("dan")
    assert "policy" in world.refused("remove", node="cleo", service="web.example")


def test_hand_rules_survive_restarts_of_the_controller_and_of_the_node() -> None:
    world = datacenter()
    world.bind("dan")
    world.ask("add", node="cleo", service="web.example", action="drop")
    world.start()
    world.connect("cleo", "dan")
    assert world.nodes["cleo"].rules[WEB].origin == "hand", "adopted from the node's report"
    world.lose("cleo")
    world.connect("cleo")
    assert world.nodes["cleo"].rules[WEB].origin == "hand"
    world.lose("cleo")
    world.nodes["cleo"].rules, world.nodes["cleo"].boot = {}, "boot2"
    world.connect("cleo")
    assert world.nodes["cleo"].rules[WEB].targets[0].action == "drop", "given back to a daemon that began anew"
    world.lose("cleo")
    world.nodes["cleo"].rules = {}
    world.connect("cleo")
    assert addresses(world, "cleo") == at("dan"), "the same daemon without it: it was removed there"


def test_names_of_hand_rules_survive_a_restart() -> None:
    """The nodes tell them: no instance has bound these names, so nobody else knows."""
    world = datacenter()
    for service in ("deep.example", "*.elsewhere"):
        world.ask("add", node="cleo", service=service, action="drop")
    world.start()
    world.connect("cleo", "dan")
    assert world.control.naming.describe(NAMING.bind_prefix("deep.example")) == "deep.example", "from its state"
    assert {rule["name"] for rule in world.ask("rules", node="cleo")["rules"]} == {"deep.example", "*.elsewhere"}
    late = RuleSpec(NAMING.bind_prefix("late.example"), (forward("10.7.7.7"),), origin="hand", name="late.example")
    world.nodes["dan"].rules[late.prefix] = late
    assert "late.example" in {rule["name"] for rule in world.ask("rules", node="dan")["rules"]}, "from its answer"


def test_a_nodes_name_that_is_none_harms_nobody() -> None:
    world = datacenter()
    world.nodes["cleo"].rules[WEB] = RuleSpec(WEB, (forward("10.7.7.7"),), origin="hand", name="no name!")
    (rule,) = world.ask("rules", node="cleo")["rules"]
    assert rule["name"] == str(WEB)


def test_nodes_are_told_the_names_of_what_is_asked_of_them() -> None:
    """They cannot compute them from a prefix, and their refusals are read by people."""
    world = datacenter()
    world.ask("add", node="ann", service="web.example", action="delay")
    world.ask("release", node="ann", service="web.example:80")
    world.ask("remove", node="ann", service="web.example")
    rule, verdict, removal = world.nodes["ann"].log[-3:]
    assert isinstance(rule, messages.RuleSet) and rule.rule.name == "web.example"
    assert isinstance(verdict, messages.DelayVerdict) and verdict.name == "web.example:80"
    assert isinstance(removal, messages.RuleRemove) and removal.name == "web.example"


def test_a_policys_weights_survive_a_restart_as_its_selector_does() -> None:
    world = datacenter()
    for name in ("dan", "eve"):
        world.bind(name, weight=2)
    world.ask("policy", service="web.example", policy="round-robin", weights={"dan": 9})
    before = world.nodes["cleo"].rules[WEB]
    for node in world.nodes.values():
        node.log.clear()
    world.start()
    world.connect("cleo", "ann")
    world.bind("eve", weight=1)  # while nobody knows of it: what the instance asks for is no word of the operator
    world.connect("dan", "eve")
    answer = world.ask("policy", service="web.example")
    assert (answer["policy"], answer["weights"]) == ("round-robin", {"dan": 9})
    rule = world.nodes["cleo"].rules[WEB]
    assert {target.address: target.weight for target in rule.targets} == {ADDRESS["dan"]: 9, ADDRESS["eve"]: 1}
    world.bind("eve", weight=2)
    assert world.nodes["cleo"].rules[WEB].same_as(before)


def test_weights_that_change_no_target_are_kept_as_well() -> None:
    world = datacenter()
    world.bind("dan")
    world.ask("policy", service="web.example", policy="maglev", weights={"eve": 4, "dan": 1})
    world.start()
    world.connect("cleo", "dan", "eve")
    world.bind("eve")
    assert {target.weight for target in world.nodes["cleo"].rules[WEB].targets} == {1, 4}


def delay(world: World, node: str, rule: Prefix, service: Prefix) -> None:
    notice = DelayNotify(service, rule)
    world.nodes[node].delayed[service] = notice
    world.run(world.control.handle(world.nodes[node].dpid, 1, notice, world.now))


def test_a_registration_releases_what_waits_for_it() -> None:
    """S26: DELAY on the block; the rule that the registration brings releases the queued SYN."""
    world = datacenter()
    world.ask("add", node="cleo", service=str(BLOCK), action="delay")
    syn = Prefix.of(NAMING.service_id("web.example"))
    delay(world, "cleo", BLOCK, syn)
    other = Prefix.of(NAMING.service_id("other.example"))
    delay(world, "cleo", BLOCK, other)
    assert len(world.ask("delayed")["delayed"]) == 2
    world.bind("dan", name="web.example")
    assert set(world.nodes["cleo"].delayed) == {other}
    rule_first = [type(m) for m in world.nodes["cleo"].log if not isinstance(m, messages.StatsGet)]
    assert rule_first[-2:] == [messages.RuleSet, messages.DelayVerdict]
    assert len(world.ask("delayed")["delayed"]) == 1


def test_queued_packets_are_released_and_dropped_by_hand() -> None:
    world = datacenter()
    for verdict in ("release", "drop"):
        delay(world, "ann", BLOCK, Prefix.of(NAMING.service_id("web.example")))
        assert world.ask(verdict, node="ann", service="web.example")["ok"]
        sent = world.nodes["ann"].log[-1]
        assert isinstance(sent, messages.DelayVerdict) and sent.verdict == verdict and sent.service == WEB
        assert world.ask("delayed")["delayed"] == []


def test_flows_are_moved_by_hand() -> None:
    world = datacenter()
    assert world.ask("migrate", node="ann", kind="service", which="web.example", to="eth1")["ok"]
    assert world.nodes["ann"].log[-1] == messages.Migrate("service", "web.example", "eth1")
    refused = world.ask("migrate", node="ann", kind="host", which="dan", to="eth1")
    assert not refused["ok"] and "must be one of flow, interface, service" in refused["error"]
    assert not world.ask("migrate", node="nobody", kind="flow", which="7", to="eth1")["ok"]


def test_a_change_by_hand_releases_but_another_delay_or_a_shorter_rule_does_not() -> None:
    world = datacenter()
    world.ask("add", node="ann", service="web.example", action="delay")
    syn = Prefix.of(NAMING.service_id("web.example"))
    delay(world, "ann", WEB, syn)
    world.ask("change", node="ann", service="web.example", action="delay")
    world.ask("add", node="ann", service=str(BLOCK), action="forward", targets=["dan"])
    assert syn in world.nodes["ann"].delayed
    world.ask("change", node="ann", service="web.example", action="forward", targets=["cleo"])
    assert world.nodes["ann"].delayed == {}


def test_what_waits_is_relearned_after_a_restart() -> None:
    world = datacenter()
    world.ask("add", node="cleo", service=str(BLOCK), action="delay")
    delay(world, "cleo", BLOCK, Prefix.of(NAMING.service_id("web.example")))
    world.start()
    world.connect("cleo", "dan")
    world.bind("dan")
    assert world.nodes["cleo"].delayed == {}


def test_a_node_that_does_not_answer_or_goes_away_is_told() -> None:
    world = datacenter()
    world.nodes["cleo"].silent = True
    asked = [{"op": "add", "node": "cleo", "service": "a.example", "action": "drop"}, {"op": "rules", "node": "cleo"}]
    for ticket, request in enumerate(asked, 900):
        world.run(world.hand.handle(ticket, request, world.now))
        assert ticket not in world.answers
    world.pass_time(ANSWER_SECONDS + 0.3)
    assert "did not answer" in world.answers[900]["error"] and "did not answer" in world.answers[901]["error"]
    world.run(world.hand.handle(902, {"op": "rules", "node": "cleo"}, world.now))
    world.lose("cleo")
    assert "lost" in world.answers[902]["error"]


def test_nodes_and_services_are_listed_by_name() -> None:
    world = datacenter()
    world.bind("dan", name="web.example")
    (service,) = world.ask("services")["services"]
    assert (service["name"], service["routers"]) == ("web.example", ["cleo"])
    assert service["instances"] == [{"node": "dan", "address": ADDRESS["dan"], "weight": 1, "load": None}]
    nodes = {node["name"]: node for node in world.ask("nodes")["nodes"]}
    assert nodes["cleo"]["serves"] == ["*.example"] and nodes["cleo"]["rules"] == 1
    assert world.ask("rules", node=ADDRESS["cleo"])["ok"], "a node may be given by its address"


def test_messages_of_unknown_nodes_are_ignored() -> None:
    world = datacenter()
    assert world.control.handle(99, 1, messages.Register(Binding(WEB)), world.now) == []
    assert world.control.handle(1, 5, Result(True), world.now) == []
    assert world.control.handle(1, 5, messages.RuleSet(RuleSpec(WEB, (forward("1.1.1.1"),))), world.now) == []
    assert world.control.lost(99, world.now) == []
