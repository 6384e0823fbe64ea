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
        """Bytes that the receiver has so far, of requests how many were answered."""


class Run(Protocol):
    """One run. `network` is up; `chance` is seeded; times of `log` and `now` count from the schedule's zero."""

    network: ServalNetwork
    scene: Scene
    contender: Contender
    values: Mapping[str, float]
    chance: random.Random
    logs: Path
    traffic: Mapping[str, Flowing]
    facts: dict[str, Any]

    def now(self) -> float:
        """Seconds since zero."""

    def log(self, name: str, *, at: float | None = None, source: str = "schedule", **facts: Any) -> None:
        """Put an event on record; `at` in seconds since zero, default now."""
