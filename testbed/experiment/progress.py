"""What is said while an experiment runs: which run it is, and how long the rest will take."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TextIO

from testbed.experiment.plan import Plan, Turn, point_words
from testbed.measure.progress import Speaker, duration
from testbed.words import counted


class RunProgress:
    """Estimates from the plan, corrected by how long the runs so far took against their estimates."""

    def __init__(self, plan: Plan, output: TextIO | None = None, clock: Callable[[], float] = time.monotonic) -> None:
        self._plan, self._clock = plan, clock
        self._speaker = Speaker(output)
        self._left = {turn.number: plan.seconds(turn) for turn in plan.turns}
        self._expected = self._spent = 0.0
        self._begun = clock()

    def calibrating(self, words: str) -> None:
        self._speaker.say(f"measuring the links: {words}", keep=False)

    def calibrated(self, line: str) -> None:
        self._speaker.say(f"  {line}", keep=True)

    def begin(self, turn: Turn, attempt: int) -> None:
        self._begun = self._clock()
        again = " again" if attempt else ""
        self._speaker.say(f"{self._words(turn)}{again}; {duration(self.left())} left", keep=False)

    def done(self, turn: Turn, failed: str | None, *, again: bool) -> None:
        """A run is over; with `again` it will be repeated."""
        took = self._clock() - self._begun
        self._spent += took
        expected = self._left[turn.number]
        self._expected += expected
        if not again:
            del self._left[turn.number]
        if failed is not None:
            what = "failed, and is repeated" if again else "failed"
            self._speaker.say(f"{self._words(turn)} {what}: {failed}", keep=True)
        elif not self._left:
            self._speaker.say(f"{counted(len(self._plan.turns), 'run')} in {duration(self._spent)}", keep=True)
        else:
            self._speaker.say(f"{self._words(turn)} took {took:.0f} s; {duration(self.left())} left", keep=False)

    def left(self) -> float:
        """Seconds."""
        pace = self._spent / self._expected if self._expected else 1.0
        return pace * sum(self._left.values())

    def _words(self, turn: Turn) -> str:
        point = point_words(self._plan.points[turn.setting])
        at = f" at {point}" if point else ""
        return f"run {turn.number} of {len(self._plan.turns)}: {turn.contender}{at}"
