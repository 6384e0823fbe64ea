"""What actions and traffic see of the run that they are part of."""

from __future__ import annotations

import random
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:  # it brings a running Mininet along
    from testbed.network import ServalNetwork

from testbed.experiment.specification import Contender, Scene


class Flowing(Protocol):
    """One item of traffic while it flows."""

    def received(self) -> int:
        """Bytes that the receiver has so far, of requests how many were answered. Cheap."""

    def port(self) -> int | None:
        """The kernel's port of its connection now, at the host that is its source: tells its flow from others to the
        same service. None while there is no connection.
        """


class Running(Flowing, Protocol):
    """One item of traffic as the runner sees it: what `testbed.traffic.start(run, item)` returns.

    Its calls come in the order in which they stand here; each waits within a limit, and raises TestbedError that names
    a log. That a connection breaks is no error but a result.
    """

    def wait_ready(self) -> None:
        """Until both ends run and the far end can be reached; nothing flows yet."""

    def begin(self) -> None:
        """Let it flow, and return at once. Called at the item's `start`; what starts at 0 is called before zero."""

    def flowing(self) -> bool:
        """Whether the receiver has had something by now."""

    def end(self) -> None:
        """Stop sending, and return at once. Called `seconds` after the start, or when the run ends."""

    def finish(self) -> dict[str, Any]:
        """Wait until what was sent has arrived or is lost, and return the entry under "traffic" of the run's record
        (`testbed.experiment.record`): times and bins count from `run.zero`, what was before it is left out.
        """

    def stop(self) -> None:
        """End its programs, at once and whatever their state: it is always called, also after an error."""


class Run(Protocol):
    """One run. `network` is up; `chance` is seeded; times of `log` and `now` count from the schedule's zero.

    zero   CLOCK_MONOTONIC of the schedule's zero; before it is set, 0
    facts  what an action or traffic wants on record beside its events
    """

    network: ServalNetwork
    scene: Scene
    contender: Contender
    values: Mapping[str, float]
    chance: random.Random
    zero: float
    logs: Path
    facts: dict[str, Any]

    @property
    def traffic(self) -> Mapping[str, Flowing]:
        """What flows, by name."""

    def now(self) -> float:
        """Seconds since zero."""

    def log(self, name: str, *, at: float | None = None, source: str = "schedule", **facts: Any) -> None:
        """Put an event on record; `at` in seconds since zero, default now."""
