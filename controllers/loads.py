"""Load figures of instances: what they report, and what policies go by. Pure.

Reports come when they come; what policies see changes once in an interval, so that no rule follows loads faster than
that, however many instances report.
"""

from __future__ import annotations

from collections.abc import Mapping

from serval_node.wire.serviceid import Prefix

LOAD_INTERVAL = 1.0
"""Seconds between questions for load figures, and between rules that follow from them."""

ANSWER_SECONDS = 0.1
"""How long after a question the answers count for the next rules."""

Figures = dict[Prefix, dict[str, float]]


class LoadBook:
    """Figures by service and address. `now`: seconds of one monotonic clock."""

    def __init__(self, now: float, interval: float = LOAD_INTERVAL) -> None:
        self.held: Figures = {}
        self._latest: Figures = {}
        self._interval = interval
        self._next_question = now
        self._next_rules: float | None = None

    def report(self, prefix: Prefix, address: str, figure: float) -> None:
        self._latest.setdefault(prefix, {})[address] = figure

    def forget(self, prefix: Prefix, address: str) -> None:
        """The instance is gone."""
        for figures in (self._latest, self.held):
            figures.get(prefix, {}).pop(address, None)

    def latest(self, prefix: Prefix) -> Mapping[str, float]:
        """Address -> figure, as last reported."""
        return self._latest.get(prefix, {})

    def tick(self, now: float) -> bool:
        """Whether the instances are to be asked now. A while after that the figures are those that policies go by."""
        if self._next_rules is not None and now >= self._next_rules:
            self._next_rules = None
            self.held = {prefix: dict(figures) for prefix, figures in self._latest.items()}
        if now < self._next_question:
            return False
        self._next_question = now + self._interval
        if self._next_rules is None:
            self._next_rules = now + ANSWER_SECONDS
        return True
