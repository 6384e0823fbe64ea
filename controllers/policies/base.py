"""What a policy is: a small class that turns a service's instances into the targets of a rule. Pure.

A policy never sees a SYN (S58). The service router chooses for each, by the selector of the rule; with the controller
stopped it goes on doing so. Established flows never meet a rule again (S43).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import ClassVar

from serval_node.control.rules import DEFAULT_SELECTOR, MAX_NUMBER, TargetSpec, forward

IN_USE, STANDBY = 1, 0
"""Priorities: a router chooses among the targets of the highest one."""


class PolicyError(Exception):
    """A policy that does not exist or cannot be kept; one line for the user."""


@dataclass(frozen=True, slots=True)
class Candidate:
    """One instance as a policy sees it.

    weight  what an operator gave, else what the instance asks for (its listeners)
    load    its open flows, or what it says of itself (`serval load`); 0 when nothing is known, or nobody asks
    """

    node: str
    address: str
    weight: int = 1
    load: float = 0.0

    def target(self, weight: int | None = None) -> TargetSpec:
        """It gets SYNs, in proportion to the weight where the selector looks at weights. Raises PolicyError."""
        weight = self.weight if weight is None else weight
        if not isinstance(weight, int) or not 1 <= weight <= MAX_NUMBER:
            raise PolicyError(f"the weight of {self.node} must be a whole number from 1 on, not {weight!r}")
        return forward(self.address, weight=weight, priority=IN_USE, load=self.load)

    def standby(self) -> TargetSpec:
        """It gets none as long as another does, but keeps what it has: a repeated SYN still finds it (S43)."""
        return forward(self.address, weight=self.weight, priority=STANDBY, load=self.load)


class Policy:
    """All instances, by their weights. Others derive from this class and change what they need.

    name          what operators call it; empty: the name of the class
    selector      how the router chooses among the targets in use (`serval_node.sal.selectors`)
    uses_loads    the instances are asked for their loads, and the rule follows these, both once a second
    uses_weights  whether weights have a meaning here
    """

    name: ClassVar[str] = ""
    selector: ClassVar[str] = DEFAULT_SELECTOR
    uses_loads: ClassVar[bool] = False
    uses_weights: ClassVar[bool] = True

    def targets(self, candidates: Sequence[Candidate]) -> Iterable[TargetSpec]:
        """The rule's targets, from at least one candidate, which come by node name. It is called anew whenever
        something has changed, and should depend on nothing but the candidates.
        """
        return [candidate.target() for candidate in candidates]
