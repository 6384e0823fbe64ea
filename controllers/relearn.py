"""Restart: what to leave alone until the nodes have told who is there. Pure.

A controller that has just started finds rules at nodes that name instances it has not heard of. They may be dead, or
just later in connecting. It therefore removes no target that it found until every node named as a target in the rules
found so far has reported, or the grace time has passed. New targets are added at once, and what a node itself withdraws
(it unregisters, or its channel is lost after it had reported) goes at once.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from controllers.rules import NodeRules
from serval_node.control.rules import RuleSpec
from serval_node.wire.serviceid import Prefix

GRACE_SECONDS = 15.0
"""How long a node may take to come back; nodes try to reconnect every few seconds."""


class Relearning:
    """Found targets that stay. started: when this controller began, in the time base of every `now`."""

    def __init__(self, started: float, grace: float = GRACE_SECONDS) -> None:
        self._until = started + grace
        self._found: dict[int, dict[Prefix, RuleSpec]] = {}
        self._reported: set[str] = set()

    def node_reported(self, datapath_id: int, addresses: Iterable[str], found: Iterable[RuleSpec], now: float) -> None:
        """A node connected and told its addresses and the rules that it holds from a controller."""
        self._reported.update(addresses)
        if now < self._until:
            self._found[datapath_id] = {rule.prefix: rule for rule in found}

    def node_lost(self, datapath_id: int, addresses: Iterable[str]) -> None:
        """A node that had reported is gone: neither its rules nor the targets that name it need protection."""
        self._found.pop(datapath_id, None)
        gone = set(addresses)
        for rules in self._found.values():
            for prefix in list(rules):
                _drop(rules, prefix, gone)

    def withdrawn(self, prefix: Prefix, addresses: Iterable[str]) -> None:
        """An instance unregistered."""
        gone = set(addresses)
        for rules in self._found.values():
            if prefix in rules:
                _drop(rules, prefix, gone)

    def waiting_for(self) -> list[str]:
        """Addresses in found rules whose nodes have not reported."""
        named = {address for rules in self._found.values() for rule in rules.values() for address in rule.addresses}
        return sorted(named - self._reported)

    def seconds_left(self, now: float) -> float:
        """Of the grace time; 0 when nothing is protected any more."""
        return max(0.0, self._until - now) if self.holding(now) else 0.0

    def holding(self, now: float) -> bool:
        if now >= self._until:
            self._found.clear()
        return bool(self.waiting_for())

    def protect(self, datapath_id: int, wanted: NodeRules, now: float) -> NodeRules:
        """`wanted` with every protected target that it lacks."""
        found = self._found.get(datapath_id)
        if not found or not self.holding(now):
            return wanted
        kept = dict(wanted)
        for prefix, rule in found.items():
            kept[prefix] = _union(wanted[prefix], rule) if prefix in wanted else rule
        return kept


def _union(wanted: RuleSpec, found: RuleSpec) -> RuleSpec:
    named = set(wanted.addresses)
    missing = tuple(target for target in found.targets if target.address is not None and target.address not in named)
    return replace(wanted, targets=wanted.targets + missing)


def _drop(rules: dict[Prefix, RuleSpec], prefix: Prefix, gone: set[str]) -> None:
    rule = rules[prefix]
    targets = tuple(target for target in rule.targets if target.address not in gone)
    if targets:
        rules[prefix] = replace(rule, targets=targets)
    else:
        del rules[prefix]
