"""Which rule takes a SYN, why, and what becomes of it: tables made by hand, no daemon."""

from __future__ import annotations

from typing import Any

import pytest

from serval_node.cli.explain import Walk, explain_text
from serval_node.cli.explain_rules import NETWORK, PROGRAM, Step, decide

ADDRESSES = {"ann": "10.0.0.1", "cleo": "10.0.0.2", "dan": "10.0.0.4", "eve": "10.0.0.5"}


def target(action: str, where: str = "", **fields: Any) -> dict[str, Any]:
    return {"action": action, "where": where, "priority": 1, "weight": 1, "origin": "hand", **fields}


def entry(bits: int, *targets: dict[str, Any], selector: str = "weighted-random") -> dict[str, Any]:
    name = {0: "default", 24: "*.example", 80: "web.example", 96: "web.example:80"}[bits]
    return {"service": name, "prefix": f"0x9c/{bits}", "bits": bits, "selector": selector, "targets": list(targets)}


DEMUX = target("demux", "198.18.0.1:80", origin="local")


def forward(host: str, **fields: Any) -> dict[str, Any]:
    return target("forward", ADDRESSES[host], **fields)


def node(name: str, *entries: dict[str, Any], role: str = "host") -> dict[str, Any]:
    return {"name": name, "role": role, "addresses": [ADDRESSES[name]], "entries": list(entries)}


def walk(own: dict[str, Any], *others: dict[str, Any]) -> list[Step]:
    seen = {address: item for item in (own, *others) for address in item["addresses"]}
    names = {address: name for name, address in ADDRESSES.items()}
    return Walk(own, seen.get, names).run()


def winner(step: Step) -> tuple[str, list[str]]:
    (rule,) = [rule for rule in step.rules if rule.wins]
    return rule.service, [target.outcome for target in rule.targets]


def test_the_slides_figure_from_the_client_to_the_instances() -> None:
    cleo = node("cleo", entry(80, forward("dan", weight=3), forward("eve")), role="router")
    steps = walk(node("ann", entry(24, forward("cleo")), entry(0, target("drop"))), cleo, node("dan", entry(80, DEMUX)))
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
    step = decide("cleo", "router", NETWORK, None, [entry(80, forward("dan", priority=5), forward("eve", weight=9))])
    first, second = step.rules[0].targets
    assert (first.chosen_from, first.share) == (True, 1.0)
    assert (second.chosen_from, second.share, second.outcome) == (False, None, "never while priority 5 is there")


@pytest.mark.parametrize(
    ("selector", "share", "said"),
    [
        ("weighted-random", 0.25, "in proportion"),
        ("round-robin", 0.25, "in turn"),
        ("hash", 0.25, "client's address"),
        ("two-choices", None, "better of two"),
    ],
)
def test_each_selector_is_explained_with_weight_and_load(selector: str, share: float | None, said: str) -> None:
    targets = [forward("dan", load=2.5), forward("eve", weight=3)]
    step = decide("cleo", "router", NETWORK, None, [entry(80, *targets, selector=selector)])
    rule = step.rules[0]
    assert rule.targets[0].share == share and rule.targets[0].load == 2.5
    assert f"{selector} of 2: " in rule.why and said in rule.why


@pytest.mark.parametrize(
    ("action", "side", "begins", "errno"),
    [
        ("drop", PROGRAM, "fail", "EHOSTUNREACH"),
        ("drop", NETWORK, "fail", "ETIMEDOUT"),
        ("delay", PROGRAM, "wait", "EHOSTUNREACH"),
        ("delay", NETWORK, "wait", "ETIMEDOUT"),
    ],
)
def test_drop_and_delay(action: str, side: str, begins: str, errno: str) -> None:
    shown = decide("cleo", "router", side, None, [entry(80, target(action))]).rules[0].targets[0]
    assert (shown.outcome.split()[0].rstrip(":"), shown.errno) == (begins, errno)


@pytest.mark.parametrize(
    ("role", "side", "errno"),
    [("host", PROGRAM, "ENETUNREACH"), ("router", NETWORK, "ECONNREFUSED"), ("host", NETWORK, "ETIMEDOUT")],
)
def test_no_rule(role: str, side: str, errno: str) -> None:
    step = decide("ann", role, side, None, [])
    assert (step.rules, step.errno) == ([], errno)
    text = explain_text("web.example", "0x" + "0" * 64, [step])
    assert "no rule matches" in text and text.endswith(f"({errno})")


def test_a_host_passes_over_forward_for_a_syn_from_the_network_and_takes_a_shorter_rule() -> None:
    entries = [entry(96, forward("eve")), entry(80, DEMUX, forward("eve")), entry(0, target("drop"))]
    step = decide("dan", "host", NETWORK, "10.0.0.4", entries)
    assert [rule.wins for rule in step.rules] == [False, True, False]
    assert step.rules[0].why.startswith("passed over")
    assert [(shown.chosen_from, shown.share) for shown in step.rules[1].targets] == [(True, 1.0), (False, None)]
    assert decide("dan", "host", PROGRAM, None, entries).rules[0].wins
    assert decide("dan", "router", NETWORK, None, entries).rules[0].wins


def test_loops_are_named_and_each_table_is_shown_once() -> None:
    cleo = node("cleo", entry(24, forward("dan"), forward("eve")), role="router")
    dan = node("dan", entry(24, forward("cleo")), role="router")
    eve = node("eve", entry(24, forward("eve"), forward("dan")), role="router")
    steps = walk(node("ann", entry(24, forward("cleo"))), cleo, dan, eve)
    assert [step.host for step in steps] == ["ann", "cleo", "dan", "eve"]
    assert winner(steps[2])[1][0].startswith("fail: loop: back to cleo")
    itself, onward = winner(steps[3])[1]
    assert itself.startswith("fail: loop: back to eve") and onward == "forward to 10.0.0.4 (dan)"


def test_a_router_that_sends_back_to_a_client_which_is_a_router_too_is_a_loop() -> None:
    cleo = node("cleo", entry(24, forward("ann")), role="router")
    router = walk(node("ann", entry(24, forward("cleo")), role="router"), cleo)
    assert winner(router[-1])[1][0].startswith("fail: loop: back to ann")
    host = walk(node("ann", entry(24, forward("cleo"))), cleo)
    assert [(step.host, step.errno) for step in host] == [("ann", None), ("cleo", None), ("ann", "ETIMEDOUT")]


def test_a_chain_that_fills_the_source_list_ends() -> None:
    def router(number: int) -> dict[str, Any]:
        rule = entry(24, target("forward", f"10.1.0.{number + 1}"))
        return {"name": f"r{number}", "role": "router", "addresses": [f"10.1.0.{number}"], "entries": [rule]}

    steps = walk(node("ann", entry(24, target("forward", "10.1.0.1"))), *map(router, range(1, 40)))
    assert steps[-1].host == "r20", "the client and 19 routers fill the list of 20; the next one drops"
    assert "SOURCE list is full" in winner(steps[-1])[1][0]
