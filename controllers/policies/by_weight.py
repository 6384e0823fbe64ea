"""Policies that need to know nothing of the instances but their weights."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from controllers.policies.base import Candidate, Policy
from serval_node.control.rules import TargetSpec


class WeightedRandom(Policy):
    """By chance, in proportion to the weights."""

    name = "weighted-random"


class Random(Policy):
    """By chance, each as often as the others."""

    name = "random"
    uses_weights = False

    def targets(self, candidates: Sequence[Candidate]) -> Iterable[TargetSpec]:
        return [candidate.target(weight=1) for candidate in candidates]


class RoundRobin(Policy):
    """One after the other, each as often in a round as its weight says."""

    name = "round-robin"
    selector = "round-robin"


class All(Policy):
    """Each instance gets a copy of each SYN; the first to answer has the connection."""

    name = "all"
    selector = "all"
