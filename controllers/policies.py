"""Policies: functions from a service's instances, their weights and loads to a rule. They never see a SYN (S58).

The choice per SYN is made by the service router from the rule's selector:

    weighted-random   a share of the SYNs in proportion to the weight
    round-robin       one after the other, each as often in a round as its weight says
    two-choices       two at random, of which the less loaded; the controller keeps a load figure in each target
    hash              a consistent hash table over the client's address: few clients change hands when instances do
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from controllers.directory import Instance
from serval_node.control.rules import DEFAULT_SELECTOR, MAX_NUMBER, SELECTORS, RuleSpec, forward
from serval_node.wire.serviceid import Prefix

POLICIES = SELECTORS


class PolicyError(Exception):
    """A policy that does not exist or cannot be kept; one line for the user."""


@dataclass(frozen=True, slots=True)
class Policy:
    """How SYNs are spread. weights: node name -> weight, in place of what the instances ask for."""

    name: str = DEFAULT_SELECTOR
    weights: Mapping[str, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.name not in POLICIES:
            raise PolicyError(f"no policy {self.name!r}; there are {', '.join(POLICIES)}")
        for node, weight in self.weights.items():
            if not isinstance(weight, int) or isinstance(weight, bool) or not 1 <= weight <= MAX_NUMBER:
                raise PolicyError(f"the weight of {node} must be a number from 1 on, not {weight!r}")

    def rule(self, prefix: Prefix, instances: Sequence[Instance], loads: Mapping[str, float]) -> RuleSpec:
        """The rule for a service router. loads: address -> figure; what is missing counts as 0."""
        targets = tuple(
            forward(item.address, weight=self.weights.get(item.node, item.weight), load=loads.get(item.address, 0.0))
            for item in instances
        )
        return RuleSpec(prefix, targets, selector=self.name, policy_weights=tuple(sorted(self.weights.items())))


class PolicyBook:
    """The policy of every service; the one set for the longest covering prefix counts.

    path  where policies are kept across restarts of the controller; None: in memory only. A policy is the
          operator's word; without a file, a restarted controller still finds selector and weights in the routers'
          rules and keeps those, but has lost the policy of a service that no router had a policy's rule for.
    """

    def __init__(self, path: str | None = None) -> None:
        self._path = path
        self._policies: dict[Prefix, Policy] = {}
        self._found: dict[Prefix, Policy] = {}
        if path is not None and os.path.exists(path):
            self._policies = _load(path)

    def policy(self, prefix: Prefix) -> Policy:
        """The policy that holds for this service."""
        for book in (self._policies, self._found):
            covering = [known for known in book if known.covers(prefix)]
            if covering:
                return book[max(covering, key=lambda known: known.bits)]
        return Policy()

    def set(self, prefix: Prefix, policy: Policy) -> None:
        """Raises PolicyError when it cannot be written down; it holds in memory all the same."""
        self._policies[prefix] = policy
        if self._path is not None:
            _save(self._path, self._policies)

    def found(self, rule: RuleSpec) -> None:
        """A rule of this controller's predecessor was found at a router."""
        if len(rule.addresses) == len(rule.targets):
            self._found.setdefault(rule.prefix, Policy(rule.selector, dict(rule.policy_weights)))


def _load(path: str) -> dict[Prefix, Policy]:
    try:
        with open(path, encoding="utf-8") as file:
            data = json.load(file)
        return {Prefix.from_text(key): Policy(value["policy"], value.get("weights", {})) for key, value in data.items()}
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise PolicyError(f"cannot read the policies in {path}: {error}") from None


def _save(path: str, policies: Mapping[Prefix, Policy]) -> None:
    data: dict[str, Any] = {
        str(prefix): {"policy": policy.name, "weights": dict(policy.weights)} for prefix, policy in policies.items()
    }
    try:
        with open(path + ".new", "w", encoding="utf-8") as file:
            json.dump(data, file, indent=1)
        os.replace(path + ".new", path)
    except OSError as error:
        raise PolicyError(f"the policy holds only until the controller ends, {path}: {error.strerror}") from None
