"""Which service has which policy, kept across restarts; and what becomes of a policy that fails."""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Mapping, Sequence
from typing import Any

from controllers.directory import Instance
from controllers.policies.base import Candidate, Policy, PolicyError
from controllers.policies.catalogue import find, name_of
from serval_node.control.rules import DEFAULT_SELECTOR, MAX_NUMBER, RuleSpec, TargetSpec
from serval_node.wire.serviceid import Prefix

LOG = logging.getLogger("controllers.policies")

_SAMPLE = (Instance("a", "192.0.2.1"), Instance("b", "192.0.2.2", 2))
"""What a policy is tried with where nobody serves yet."""


class Setting:
    """A policy with its weights: node name -> weight, in place of what the instances ask for.

    Raises PolicyError for a policy that cannot be found (`catalogue.find`), and for weights that mean nothing.
    """

    def __init__(self, text: str = DEFAULT_SELECTOR, weights: Mapping[str, int] | None = None) -> None:
        self.text, self._policy = find(text)
        self.weights = dict(weights or {})
        self._failure = ""
        for node, weight in self.weights.items():
            if not isinstance(weight, int) or isinstance(weight, bool) or not 1 <= weight <= MAX_NUMBER:
                raise PolicyError(f"the weight of {node} must be a number from 1 on, not {weight!r}")
        if self.weights and not self._policy.uses_weights:
            raise PolicyError(f"{self.name} knows no weights")

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Setting) and (self.text, self.weights) == (other.text, other.weights)

    __hash__ = None  # type: ignore[assignment]

    @property
    def name(self) -> str:
        return name_of(type(self._policy))

    @property
    def uses_loads(self) -> bool:
        return self._policy.uses_loads

    def weight(self, instance: Instance) -> int:
        return self.weights.get(instance.node, instance.weight)

    def check(self, instances: Sequence[Instance]) -> None:
        """Try the policy on these; on some where there are none. Raises PolicyError."""
        self._targets(self._candidates(instances or _SAMPLE, {}))

    def rule(self, prefix: Prefix, instances: Sequence[Instance], loads: Mapping[str, float]) -> RuleSpec:
        """The rule for a service router. loads: address -> figure; what is missing counts as 0.

        Where the policy fails, the log says so once and the instances are chosen by weight.
        """
        candidates = self._candidates(instances, loads)
        selector = self._policy.selector
        try:
            targets = self._targets(candidates)
            self._failure = ""
        except PolicyError as error:
            if str(error) != self._failure:
                LOG.error("%s; by weight instead", error)
            self._failure, selector = str(error), DEFAULT_SELECTOR
            targets = tuple(Policy().targets(candidates))
        # A selector that has its own policy speaks for itself.
        text = "" if self.text == selector else self.text
        weights = tuple(sorted(self.weights.items()))
        return RuleSpec(prefix, targets, selector=selector, policy=text, policy_weights=weights)

    def _candidates(self, instances: Sequence[Instance], loads: Mapping[str, float]) -> list[Candidate]:
        return [
            Candidate(item.node, item.address, self.weight(item), loads.get(item.address, 0.0)) for item in instances
        ]

    def _targets(self, candidates: list[Candidate]) -> tuple[TargetSpec, ...]:
        """Raises PolicyError for whatever a policy that somebody else wrote may do."""
        try:
            targets = tuple(self._policy.targets(candidates))
        except Exception as error:  # what a policy does is up to its author; the caller has weights to fall back on
            LOG.debug("the policy %s has failed", self.name, exc_info=True)
            raise PolicyError(f"the policy {self.name} fails: {type(error).__name__}: {error}") from None
        strangers = [item for item in targets if not isinstance(item, TargetSpec)]
        if strangers:
            raise PolicyError(f"the policy {self.name} gives {strangers[0]!r}, which is no target of a candidate")
        addresses = [target.address for target in targets]
        if not targets or len(set(addresses)) < len(addresses) or set(addresses) - {c.address for c in candidates}:
            raise PolicyError(f"the policy {self.name} must give some of the candidates as targets, each once")
        return targets


class PolicyBook:
    """The policy of every service; the one set for the longest covering prefix counts.

    path  where policies are kept across restarts of the controller; None: in memory only. A policy is the
          operator's word; without a file, a restarted controller still finds policy and weights in the routers'
          rules and keeps those, but has lost the policy of a service that no router had a policy's rule for.
    """

    def __init__(self, path: str | None = None) -> None:
        self._path = path
        self._set: dict[Prefix, Setting] = {}
        self._found: dict[Prefix, Setting] = {}
        self._default = Setting()
        if path is not None and os.path.exists(path):
            self._set = _load(path)

    def policy(self, prefix: Prefix) -> Setting:
        """The one that holds for this service."""
        for book in (self._set, self._found):
            covering = [known for known in book if known.covers(prefix)]
            if covering:
                return book[max(covering, key=lambda known: known.bits)]
        return self._default

    def set(self, prefix: Prefix, setting: Setting) -> None:
        """Raises PolicyError when it cannot be written down; it holds in memory all the same."""
        self._set[prefix] = setting
        if self._path is not None:
            _save(self._path, self._set)

    def found(self, rule: RuleSpec) -> None:
        """A rule of this controller's predecessor was found at a router."""
        if len(rule.addresses) != len(rule.targets) or rule.prefix in self._found:
            return
        weights = dict(rule.policy_weights)
        try:
            self._found[rule.prefix] = Setting(rule.policy or rule.selector, weights)
        except PolicyError as error:
            LOG.error("%s is lost, %s goes on: %s", rule.policy, rule.selector, error)
            self._found[rule.prefix] = Setting(rule.selector, weights)


def _load(path: str) -> dict[Prefix, Setting]:
    try:
        with open(path, encoding="utf-8") as file:
            data = json.load(file)
        return {
            Prefix.from_text(key): Setting(value["policy"], value.get("weights", {})) for key, value in data.items()
        }
    except (OSError, ValueError, KeyError, TypeError, AttributeError, PolicyError) as error:
        raise PolicyError(f"cannot read the policies in {path}: {error}") from None


def _save(path: str, settings: Mapping[Prefix, Setting]) -> None:
    data: dict[str, Any] = {
        str(prefix): {"policy": setting.text, "weights": setting.weights} for prefix, setting in settings.items()
    }
    try:
        with open(path + ".new", "w", encoding="utf-8") as file:
            json.dump(data, file, indent=1)
        os.replace(path + ".new", path)
    except OSError as error:
        raise PolicyError(f"the policy holds only until the controller ends, {path}: {error.strerror}") from None
