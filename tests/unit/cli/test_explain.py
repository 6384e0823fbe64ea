"""`serval explain` from node to node: real stacks behind the daemon's answers, without sockets."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest

from serval_node.cli.explain import Walk
from serval_node.cli.explain_text import NETWORK, PROGRAM, Step, explain_text, step_of
from serval_node.daemon import views
from serval_node.daemon.names import HostNames
from serval_node.daemon.virtual_addresses import VirtualAddresses
from serval_node.sal.explanation import Arrival
from serval_node.sal.service_table import Action, Rule, Selector, Target
from serval_node.wire.ipv4 import address
from serval_node.wire.serviceid import Prefix
from tests.unit.sal.world import NAMING, WEB, WEB_ID, Host, World

ADDRESSES = {"ann": "10.0.0.1", "cleo": "10.0.0.2", "dan": "10.0.0.4", "eve": "10.0.0.5"}
DEMUX = Target(Action.DEMUX, port=80, protocol=6)
DROP, DELAY = Target(Action.DROP), Target(Action.DELAY)


def forward(host: str, **fields: Any) -> Target:
    return Target(Action.FORWARD, address=address(ADDRESSES.get(host, host)), **fields)


def entry(bits: int, *targets: Target, selector: Selector = Selector.WEIGHTED_RANDOM) -> Rule:
    return Rule(Prefix(WEB_ID.raw, bits), targets, selector)


class Net:
    """Nodes that answer `explain` as the daemon's operation does."""

    def __init__(self) -> None:
        self._world = World()
        self._names = HostNames(NAMING, VirtualAddresses(None))
        self._names.name_address(WEB)
        self.nodes: dict[str, tuple[str, str, Host]] = {}

    def add(self, name: str, *rules: Rule, role: str = "host", at: str | None = None) -> None:
        at = at or ADDRESSES[name]
        host = self._world.host(name, at, forwarding=role == "router")
        for rule in rules:
            host.stack.service_table.set_rule(rule, "hand")
        self.nodes[at] = (name, role, host)

    def answer(self, at: str, arrival: Arrival | None) -> dict[str, Any]:
        name, role, host = self.nodes[at]
        return {"name": name, "role": role, **views.explanation(host.stack.explain(WEB_ID, arrival), self._names)}

    def ask(self, at: str, client: str, sources: list[str]) -> Mapping[str, Any] | None:
        if at not in self.nodes:
            return None
        return self.answer(at, Arrival(address(client), address(at), tuple(map(address, sources))))

    def walk(self) -> list[Step]:
        """From the node that was added first."""
        names = {at: name for name, at in ADDRESSES.items()}
        return Walk(self.answer(next(iter(self.nodes)), None), self.ask, names).run()


def step(role: str, side: str, *rules: Rule) -> Step:
    net = Net()
    net.add("cleo", *rules, role=role)
    own = ADDRESSES["cleo"]
    if side == PROGRAM:
        return step_of(net.answer(own, None), None)
    return step_of(net.answer(own, Arrival(address(ADDRESSES["ann"]), address(own))), own)


def winner(step: Step) -> tuple[str, list[str]]:
    (rule,) = [rule for rule in step.rules if rule.wins]
    return rule.service, [target.outcome for target in rule.targets]


def test_the_slides_figure_from_the_client_to_the_instances() -> None:
    net = Net()
    net.add("ann", entry(24, forward("cleo")), entry(0, DROP))
    net.add("cleo", entry(80, forward("dan", weight=3), forward("eve")), role="router")
    net.add("dan", entry(80, DEMUX))
    steps = net.walk()
    assert [(step.host, step.side, step.address) for step in steps] == [
        ("ann", PROGRAM, None),
        ("cleo", NETWORK, "10.0.0.2"),
        ("dan", NETWORK, "10.0.0.4"),
    ]
    text = explain_text("web.example", "0x9c" + "0" * 62, steps).splitlines()
    assert text[0] == "connect(web.example), serviceID 0x9c..."
    assert "ann (host), a SYN of its own program:" in text
    assert "  wins   *.example: longest prefix that matches, 24 bits; one target to choose from" in text
    assert "  loses  default: 0 bits are fewer than the winner's 24" in text
    numbers = "priority 1, weight 3, load 0, 75% of SYNs, by hand"
    assert f"         FORWARD 10.0.0.4 ({numbers}) => forward to 10.0.0.4 (dan)" in text
    assert any("forward to 10.0.0.5 (eve); its table cannot be seen from here" in line for line in text)
    assert any(line.endswith("=> deliver to the socket that listens on 198.18.0.1:80") for line in text)


def test_only_the_highest_priority_is_chosen_from() -> None:
    shown = step("router", NETWORK, entry(80, forward("dan", priority=5), forward("eve", weight=9)))
    first, second = shown.rules[0].targets
    assert (first.chosen_from, first.share) == (True, 1.0)
    assert (second.chosen_from, second.share, second.outcome) == (False, None, "never while priority 5 is there")


@pytest.mark.parametrize(
    ("selector", "share", "said", "next_known"),
    [
        (Selector.WEIGHTED_RANDOM, 0.25, "in proportion", False),
        (Selector.ROUND_ROBIN, 0.25, "in turn", True),
        (Selector.MAGLEV, 0.25, "client's address", True),
        (Selector.TWO_CHOICES, None, "better of two", False),
    ],
)
def test_each_selector_is_explained_with_weight_and_load(
    selector: Selector, share: float | None, said: str, next_known: bool
) -> None:
    targets = [forward("dan", load=2.5), forward("eve", weight=3)]
    shown = step("router", NETWORK, entry(80, *targets, selector=selector))
    rule = shown.rules[0]
    assert rule.targets[0].share == share and rule.targets[0].load == 2.5
    assert f"{selector.value} of 2: " in rule.why and said in rule.why
    text = explain_text("web.example", "0x9c" + "0" * 62, [shown])
    assert text.count("of SYNs, the next one") == int(next_known)


@pytest.mark.parametrize(
    ("target", "side", "begins", "errno"),
    [
        (DROP, PROGRAM, "fail", "EHOSTUNREACH"),
        (DROP, NETWORK, "fail", "ETIMEDOUT"),
        (DELAY, PROGRAM, "wait", "EHOSTUNREACH"),
        (DELAY, NETWORK, "wait", "ETIMEDOUT"),
    ],
)
def test_drop_and_delay(target: Target, side: str, begins: str, errno: str) -> None:
    shown = step("router", side, entry(80, target)).rules[0].targets[0]
    assert (shown.outcome.split()[0].rstrip(":"), shown.errno) == (begins, errno)


@pytest.mark.parametrize(
    ("role", "side", "errno"),
    [("host", PROGRAM, "ENETUNREACH"), ("router", NETWORK, "ECONNREFUSED"), ("host", NETWORK, "ETIMEDOUT")],
)
def test_no_rule(role: str, side: str, errno: str) -> None:
    shown = step(role, side)
    assert (shown.rules, shown.errno) == ([], errno)
    text = explain_text("web.example", "0x" + "0" * 64, [shown])
    assert "no rule matches" in text and text.endswith(f"({errno})")


def test_a_target_without_a_route() -> None:
    net = Net()
    net.add("ann", entry(24, forward("cleo")))
    net._world.unreachable.add(address(ADDRESSES["cleo"]))
    (shown,) = net.walk()
    target = shown.rules[0].targets[0]
    assert target.outcome.startswith("fail: no route") and target.errno == "ENETUNREACH"


def test_a_host_passes_over_forward_for_a_syn_from_the_network_and_takes_a_shorter_rule() -> None:
    rules = [entry(96, forward("eve")), entry(80, DEMUX, forward("eve")), entry(0, DROP)]
    shown = step("host", NETWORK, *rules)
    assert [rule.wins for rule in shown.rules] == [False, True, False]
    assert shown.rules[0].why.startswith("passed over")
    assert "not passed over" in shown.rules[1].why
    assert [(target.chosen_from, target.share) for target in shown.rules[1].targets] == [(True, 1.0), (False, None)]
    assert step("host", PROGRAM, *rules).rules[0].wins
    assert step("router", NETWORK, *rules).rules[0].wins


def test_loops_are_named_and_each_table_is_shown_once() -> None:
    net = Net()
    net.add("ann", entry(24, forward("cleo")))
    net.add("cleo", entry(24, forward("dan"), forward("eve")), role="router")
    net.add("dan", entry(24, forward("cleo")), role="router")
    net.add("eve", entry(24, forward("eve"), forward("dan")), role="router")
    steps = net.walk()
    assert [step.host for step in steps] == ["ann", "cleo", "dan", "eve"]
    assert winner(steps[2])[1][0].startswith("fail: loop: back to cleo")
    itself, onward = winner(steps[3])[1]
    assert itself.startswith("fail: loop: back to eve") and onward == "forward to 10.0.0.4 (dan)"


def test_a_router_that_sends_back_to_a_client_which_is_a_router_too_is_a_loop() -> None:
    nets = {}
    for role in ("router", "host"):
        nets[role] = Net()
        nets[role].add("ann", entry(24, forward("cleo")), role=role)
        nets[role].add("cleo", entry(24, forward("ann")), role="router")
    assert winner(nets["router"].walk()[-1])[1][0].startswith("fail: loop: back to ann")
    steps = [(step.host, step.errno) for step in nets["host"].walk()]
    assert steps == [("ann", None), ("cleo", None), ("ann", "ETIMEDOUT")]


def test_a_chain_that_fills_the_source_list_ends() -> None:
    net = Net()
    net.add("ann", entry(24, forward("10.1.0.1")))
    for number in range(1, 40):
        net.add(f"r{number}", entry(24, forward(f"10.1.0.{number + 1}")), role="router", at=f"10.1.0.{number}")
    steps = net.walk()
    assert steps[-1].host == "r20", "the client and 19 routers fill the list of 20; the next one drops"
    assert "SOURCE list is full" in winner(steps[-1])[1][0]
