"""Policies that look at the load figures of the instances."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from controllers.policies.base import Candidate, Policy
from serval_node.control.rules import TargetSpec


class LeastLoaded(Policy):
    """The least loaded instance, or several that are equal in turn; the others stand by. Load counts by weight.

    The figures are up to a second old, and until new ones come all SYNs go to the same place: "two-choices" is what
    helps against that.
    """

    name = "least-loaded"
    selector = "round-robin"
    uses_loads = True

    def targets(self, candidates: Sequence[Candidate]) -> Iterable[TargetSpec]:
        least = min(candidate.load / candidate.weight for candidate in candidates)
        return [
            candidate.target() if candidate.load / candidate.weight == least else candidate.standby()
            for candidate in candidates
        ]


class TwoChoices(Policy):
    """Two by chance for each SYN, of which the less loaded by weight; the router adds what it has sent there since."""

    name = "two-choices"
    selector = "two-choices"
    uses_loads = True
