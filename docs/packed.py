"""A policy of one's own: as few instances as possible, so that the others can sleep."""

from collections.abc import Iterable, Sequence

from controllers.policies import Candidate, Policy
from serval_node.control.rules import TargetSpec


class Packed(Policy):
    """The first instance by name that has room; one is full with 2 flows for each of its weight."""

    name = "packed"
    uses_loads = True
    full = 2

    def targets(self, candidates: Sequence[Candidate]) -> Iterable[TargetSpec]:
        with_room = [one for one in candidates if one.load < self.full * one.weight]
        chosen = with_room[0] if with_room else min(candidates, key=lambda one: one.load / one.weight)
        return [one.target() if one is chosen else one.standby() for one in candidates]
