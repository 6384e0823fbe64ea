"""What one node's table does with a SYN, as `serval explain` tells it. Pure: from the answers of the control socket.

The same decisions as in serval_node.sal (resolution, kernel_side, network_side), which takes them with real packets.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

# A SYN comes from a program of this host, or from the network.
PROGRAM, NETWORK = "program", "network"
_HOST_ACTIONS = ("demux", "delay", "drop")
_SELECTORS = {
    "weighted-random": "by chance, in proportion to the weights",
    "round-robin": "in turn, as often as the weights say",
    "two-choices": "the better of two taken by chance: load plus SYNs sent since it was reported, by weight",
    "hash": "by the client's address: always the same one for a client, spread by weight",
}


@dataclass(slots=True)
class TargetView:
    """One target of the winning rule. `share` is its part of the SYNs where that is known; `next` a host's name."""

    action: str
    where: str
    priority: int
    weight: int
    load: float
    origin: str
    chosen_from: bool
    share: float | None
    outcome: str
    errno: str | None
    next: str | None = None


@dataclass(slots=True)
class RuleView:
    """One rule whose prefix matches, and why it wins or not; targets of the winner only."""

    service: str
    prefix: str
    bits: int
    wins: bool
    why: str
    targets: list[TargetView] = field(default_factory=list)


@dataclass(slots=True)
class Step:
    """One node's table. `outcome` and `errno` are set when no rule decides."""

    host: str
    role: str
    side: str
    address: str | None
    rules: list[RuleView]
    outcome: str | None = None
    errno: str | None = None


def decide(host: str, role: str, side: str, address: str | None, entries: Sequence[Mapping[str, Any]]) -> Step:
    """The step at one node; `entries` are those of its `table` operation for the service, longest prefix first."""
    # On its own host a program's SYN may meet any rule; from the network only a service router sends on.
    restricted = side == NETWORK and role != "router"
    step = Step(host, role, side, address, [])
    winner: RuleView | None = None
    for entry in entries:
        rule = RuleView(entry["service"], entry["prefix"], entry["bits"], False, "")
        step.rules.append(rule)
        if winner is not None:
            rule.why = f"{rule.bits} bits are fewer than the winner's {winner.bits}"
        elif restricted and not any(target["action"] in _HOST_ACTIONS for target in _top(entry)):
            rule.why = "passed over: this host is no service router and sends on nothing that comes from the network"
        else:
            winner = rule
            rule.wins = True
            rule.targets = _targets(entry, side, restricted)
            rule.why = _why(rule, entry, len(step.rules) > 1)
    if winner is None:
        step.outcome, step.errno = _no_rule(side, role)
    return step


def _top(entry: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    highest = max(target["priority"] for target in entry["targets"])
    return [target for target in entry["targets"] if target["priority"] == highest]


def _why(rule: RuleView, entry: Mapping[str, Any], longer_passed: bool) -> str:
    longest = "longest prefix that is not passed over" if longer_passed else "longest prefix that matches"
    candidates = sum(target.chosen_from for target in rule.targets)
    if candidates == 1:
        return f"{longest}, {rule.bits} bits; one target to choose from"
    selector = entry["selector"]
    if len(_top(entry)) > candidates:
        selector = "weighted-random"  # so chooses a host among what it may use of a rule
    return f"{longest}, {rule.bits} bits; {selector} of {candidates}: {_SELECTORS.get(selector, 'unknown here')}"


def _targets(entry: Mapping[str, Any], side: str, restricted: bool) -> list[TargetView]:
    top = _top(entry)
    usable = [target for target in top if not restricted or target["action"] in _HOST_ACTIONS]
    total = sum(target["weight"] for target in usable)
    proportional = entry["selector"] != "two-choices" or len(usable) == 1 or len(usable) < len(top)
    views = []
    for target in entry["targets"]:
        view = TargetView(
            target["action"],
            target["where"],
            target["priority"],
            target["weight"],
            target.get("load", 0.0),
            target["origin"],
            target in usable,
            None,
            *_outcome(target, side),
        )
        if view.chosen_from:
            view.share = view.weight / total if proportional else None
        else:
            lower = view.priority < top[0]["priority"]
            view.outcome = f"never while priority {top[0]['priority']} is there" if lower else "not used by this host"
            view.errno = None
        views.append(view)
    return views


def _outcome(target: Mapping[str, Any], side: str) -> tuple[str, str | None]:
    """What a target does with the SYN, and the errno with which connect() fails in the end."""
    action = target["action"]
    if action == "forward":
        return f"forward to {target['where']}", None
    if action == "demux":
        return f"deliver to the socket that listens on {target['where']}", None
    if action == "delay":
        end = "fails" if side == PROGRAM else "gets no answer then"
        errno = "EHOSTUNREACH" if side == PROGRAM else "ETIMEDOUT"
        return f"wait for another rule or a verdict, 60 s at most; connect() {end}", errno
    if side == PROGRAM:
        return "fail: dropped, connect() fails at once", "EHOSTUNREACH"
    return "fail: dropped without an answer, connect() times out", "ETIMEDOUT"


def _no_rule(side: str, role: str) -> tuple[str, str]:
    if side == PROGRAM:
        return "fail: no rule, connect() fails at once", "ENETUNREACH"
    if role == "router":
        return "fail: no rule, the service router answers with a reset", "ECONNREFUSED"
    return "fail: no rule that a host may use, no answer; each repeated SYN is resolved anew", "ETIMEDOUT"
