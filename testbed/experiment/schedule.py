"""When something happens in an experiment: timed ("at 4 s") or triggered ("when flow1 has moved 10 MB").

Zero is the moment at which all traffic that starts at 0 is seen to flow. Actions are values with three methods; those
that exist are in `testbed.experiment.actions`.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from testbed.errors import TestbedError

if TYPE_CHECKING:  # results are read where no Mininet is, too
    from mininet.topo import Topo

    from testbed.experiment.traffic import Traffic

BY_ORDER, BY_LINK, BY_NOBODY = "told", "seen", "silent"
"""How those whose path goes learn of it: they were told to move, a link or an address says so, or nobody does. An
action that takes a path away, or has a flow leave it, says which as its `notice`; a report shows the kind case and the
others.
"""


class SpecificationError(TestbedError):
    """An experiment that makes no sense; found before anything is started. The message names the place."""


class Action(Protocol):
    """Something that is done to the running network.

    Actions are carried out one after the other. A class with `beside = True` takes long by its nature, and those that
    follow do not wait for it. One that is done to a virtual machine names that as its `vm`.
    """

    def describe(self) -> str:
        """A few words for logs and plots: "ann's eth0 goes down"."""

    def check(self, topology: Topo, traffic: Mapping[str, Traffic]) -> None:
        """Raises SpecificationError when this cannot be done there. traffic: what flows, by name."""

    def carry_out(self, run: Any) -> Mapping[str, Any]:
        """Do it; `run` is a `testbed.experiment.run.Run`. Raises TestbedError.

        Returns facts for the event log. "at" among them, in seconds after zero, is when it took effect, where that is
        known better than by the return.
        """


class Condition(Protocol):
    """Something that comes true while a run goes on."""

    def describe(self) -> str: ...

    def check(self, topology: Topo, traffic: Mapping[str, Traffic]) -> None:
        """Raises SpecificationError when it can never come true there."""

    def holds(self, run: Any) -> bool:
        """Whether it is true now; called every few milliseconds, so it is cheap."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Event:
    """An action and its moment: exactly one of `at`, seconds, and `when`.

    only    contenders that it is done for ("serval": others have no flow to move); empty: for all
    after   seconds that pass between `when` coming true and the action
    within  seconds after zero within which `when` has to come true; otherwise the run has failed
    """

    action: Action
    at: float | None = None
    when: Condition | None = None
    after: float = 0.0
    within: float = 60.0
    only: tuple[str, ...] = ()

    def check(
        self, topology: Topo, traffic: Mapping[str, Traffic], seconds: float, contenders: Collection[str]
    ) -> None:
        """Raises SpecificationError. seconds: how long the run lasts."""
        name = self.action.describe()
        if (self.at is None) == (self.when is None):
            raise SpecificationError(f"event {name!r} needs either a time or a condition")
        if self.at is not None and not 0 <= self.at < seconds:
            raise SpecificationError(f"event {name!r} at {self.at:g} s is outside the run, which lasts {seconds:g} s")
        if not 0 <= self.after < seconds:
            raise SpecificationError(
                f"event {name!r} {self.after:g} s after its condition is outside the run, which lasts {seconds:g} s"
            )
        if not self.within > 0:
            raise SpecificationError(f"event {name!r}: `within` must be more than 0 s, not {self.within:g}")
        for contender in self.only:
            if contender not in contenders:
                known = ", ".join(contenders)
                raise SpecificationError(f"event {name!r} is for {contender!r}, which does not run; there are: {known}")
        if self.when is not None:
            self.when.check(topology, traffic)
        self.action.check(topology, traffic)

    def described(self) -> dict[str, Any]:
        """For the result file."""
        moment = {"at": self.at} if self.when is None else {"when": self.when.describe(), "after": self.after}
        notice = getattr(self.action, "notice", None)
        return {"action": self.action.describe(), "notice": notice, **moment, "only": list(self.only)}
