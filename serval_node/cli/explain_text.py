"""How `serval explain` words what a node foretells about a SYN (the answer of the control socket's `explain`). Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

# A SYN comes from a program of this host, or from the network.
PROGRAM, NETWORK = "program", "network"
PASSED_OVER = "passed over: this host is no service router and sends on nothing that comes from the network"
PASSED_OVER_BY_MODE = "passed over: this node's resolution mode leaves out all of its targets"
_SELECTORS = {
    "weighted-random": "by chance, in proportion to the weights",
    "round-robin": "in turn, as often as the weights say",
    "two-choices": "the better of two taken by chance: load plus SYNs sent since it was reported, by weight",
    "maglev": "by the client's address, in a table: always the same one for a client, spread by weight",
    "ring": "by the client's address, on a ring: always the same one for a client, spread by weight",
    "all": "each of them gets a copy, and the first to answer has the connection",
}
_FAILURES = {
    "no_route": "no route to its target",
    "source_full": "the SOURCE list is full",
    "delay_full": "the DELAY queue is full",
    "delay_share": "this client has its share of the DELAY queue",
    "delay_service_full": "this service has its share of the DELAY queue",
    "routing_loop": "loop: this router stands in the SOURCE list already",
}


@dataclass(slots=True)
class TargetView:
    """One target of the winning rule. `share` is its part of the SYNs where that is known; `taken` says whether the
    next SYN gets it, None where chance decides; `next` is a host's name.
    """

    action: str
    where: str
    priority: int
    weight: int
    load: float
    origin: str
    chosen_from: bool
    share: float | None
    taken: bool | None
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


def step_of(answer: Mapping[str, Any], address: str | None) -> Step:
    """The step of a node that gave this answer; `address` is the one that the SYN comes to, None: a program's SYN."""
    side = PROGRAM if address is None else NETWORK
    step = Step(answer["name"], answer["role"], side, address, [])
    for rule in answer["rules"]:
        winner = next((known for known in step.rules if known.wins), None)
        view = RuleView(rule["service"], rule["prefix"], rule["bits"], rule["place"] == "wins", "")
        view.targets = [_target(target, rule, side) for target in rule["targets"]]
        if winner is not None:
            view.why = f"{view.bits} bits are fewer than the winner's {winner.bits}"
        elif view.wins:
            view.why = _why(rule, longer_passed=bool(step.rules))
        else:
            by_mode = side == PROGRAM or step.role == "router"
            view.why = PASSED_OVER_BY_MODE if by_mode else PASSED_OVER
        step.rules.append(view)
    if answer["refusal"] is not None:
        step.outcome, step.errno = _no_rule(side, reset=answer["reset"]), answer["errno"]
    return step


def _why(rule: Mapping[str, Any], *, longer_passed: bool) -> str:
    text = "longest prefix that is not passed over" if longer_passed else "longest prefix that matches"
    text += f", {rule['bits']} bits; "
    if rule["candidates"] == 1:
        return text + "one target to choose from"
    return text + f"{rule['selector']} of {rule['candidates']}: {_SELECTORS.get(rule['selector'], 'unknown here')}"


def _target(target: Mapping[str, Any], rule: Mapping[str, Any], side: str) -> TargetView:
    candidate = target["standing"] == "candidate"
    if candidate:
        outcome = _outcome(target, side)
    elif target["standing"] == "lower-priority":
        highest = max(other["priority"] for other in rule["targets"])
        outcome = f"never while priority {highest} is there"
    else:
        outcome = "not used by this host"
    return TargetView(
        action=target["action"],
        where=target["where"],
        priority=target["priority"],
        weight=target["weight"],
        load=target["load"],
        origin=target["origin"],
        chosen_from=candidate,
        share=target["share"],
        taken=target["taken"],
        outcome=outcome,
        errno=target["errno"],
    )


def _outcome(target: Mapping[str, Any], side: str) -> str:
    """What a target does with the SYN, and how connect() ends then."""
    if target["action"] == "delay" and target["wait"] is not None:
        end = "fails" if side == PROGRAM else "gets no answer then"
        return f"wait for another rule or a verdict, {target['wait']:g} s at most; connect() {end}"
    if target["action"] == "drop":
        if side == PROGRAM:
            return "fail: dropped, connect() fails at once"
        return "fail: dropped without an answer, connect() times out"
    if target["refusal"] is not None:
        reason = _FAILURES.get(target["refusal"], target["refusal"])
        end = "connect() fails at once" if side == PROGRAM else "dropped without an answer, connect() times out"
        return f"fail: {reason}; {end}"
    if target["action"] == "demux":
        return f"deliver to the socket that listens on {target['where']}"
    if target["everyone"]:
        return f"ask everyone on the link, {target['where']}; the first instance that answers is taken"
    return f"forward to {target['where']}"


def _no_rule(side: str, *, reset: bool) -> str:
    if side == PROGRAM:
        return "fail: no rule, connect() fails at once"
    if reset:
        return "fail: no rule, the service router answers with a reset"
    return "fail: no rule that a host may use, no answer; each repeated SYN is resolved anew"


def explain_text(service: str, service_id: str, steps: list[Step]) -> str:
    """The steps for people, each node's rules below its name."""
    short = service_id.rstrip("0") if service_id.rstrip("0") != "0x" else "0x0"
    lines = [f"connect({service}), serviceID {short}{'...' if len(short) < 66 else ''}"]
    for step in steps:
        came = "a SYN of its own program" if step.side == PROGRAM else f"a SYN that comes to {step.address}"
        lines += ["", f"{step.host} ({step.role}), {came}:"]
        if not step.rules:
            lines.append("  no rule matches")
        for rule in step.rules:
            lines.append(f"  {'wins ' if rule.wins else 'loses'}  {rule.service}: {rule.why}")
            lines += [f"         {_target_text(target)}" for target in rule.targets]
        if step.outcome:
            lines.append(f"  => {step.outcome} ({step.errno})")
    return "\n".join(lines)


def _target_text(target: TargetView) -> str:
    share = "" if target.share is None or target.share == 1 else f", {target.share:.0%} of SYNs"
    if target.taken and share:
        share += ", the next one"
    head = f"{target.action.upper()} {target.where}".rstrip()
    numbers = f"priority {target.priority}, weight {target.weight}, load {target.load:g}{share}, by {target.origin}"
    end = f" ({target.errno})" if target.errno else ""
    return f"{head} ({numbers}) => {target.outcome}{end}"
