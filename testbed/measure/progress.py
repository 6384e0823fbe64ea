"""What is said while a measurement runs: where it is, and how long it will still take."""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping
from typing import TextIO

from testbed.measure.plan import Turn

SLACK = 1.3
"""A benchmark that will take longer than so many times what it was said to take repeats nothing more and waits for no
quiet machine: a run on a busy machine ends in time, and its result says that it is doubtful."""

LINE_SECONDS = 5.0
"""Without a terminal a line at most this often."""


def duration(seconds: float) -> str:
    """ "45 s", "3 min 20 s"."""
    whole = max(0, round(seconds))
    return f"{whole} s" if whole < 60 else f"{whole // 60} min {whole % 60:02d} s"


class Speaker:
    """Lines of progress: at a terminal each in the place of the one before, unless that is kept; else a few of them."""

    def __init__(self, output: TextIO | None = None) -> None:
        self._output = output or sys.stdout
        self._live = self._output.isatty()
        self._said = time.monotonic()

    def say(self, text: str, *, keep: bool) -> None:
        if self._live:
            self._output.write(f"\r\033[K{text}" + ("\n" if keep else ""))
        elif keep or time.monotonic() - self._said >= LINE_SECONDS:
            self._output.write(text + "\n")
        else:
            return
        self._said = time.monotonic()
        self._output.flush()


class Progress:
    """`expected`: benchmark -> seconds, in the order in which they run."""

    def __init__(self, expected: Mapping[str, float], output: TextIO | None = None) -> None:
        self._expected = dict(expected)
        self._say = Speaker(output).say
        self._name, self._turns, self._done, self._voids = "", 0, 0, 0
        self._begun = time.monotonic()

    def begin(self, name: str, turns: int) -> None:
        self._name, self._turns, self._done, self._voids = name, turns, 0, 0
        self._begun = time.monotonic()
        self._say(f"{name}: {turns} pairs, about {duration(self._expected.get(name, 0))}", keep=True)

    def pair(self, turn: Turn, void: str | None, *, repeated: bool) -> None:
        """A pair was measured; with `repeated` it will be measured again."""
        self._done += not repeated
        if void is not None:
            self._voids += 1
            if self._voids == 1:
                self._say(f"{self._name}: a void pair ({void}); further ones are only counted", keep=True)
        last = self._done == self._turns
        text = f"{self._name}: {self._done} of {self._turns} pairs"
        text += f" ({self._voids} void)" if self._voids else ""
        text += f" in {duration(time.monotonic() - self._begun)}" if last else ""
        overdue = not last and self._rest() <= 0
        self._say(f"{text}; {'longer than announced' if overdue else f'{duration(self.left())} left'}", keep=last)

    def failed(self, name: str, error: str) -> None:
        self._say(f"{name}: failed: {error}", keep=True)

    def left(self) -> float:
        """Seconds: the rest of this benchmark at its pace so far, within SLACK times what it was said to take, as then
        nothing is waited for any more, and the further ones as estimated.
        """
        names = list(self._expected)
        later = names[names.index(self._name) + 1 :] if self._name in names else []
        spent = time.monotonic() - self._begun
        own = spent / self._done * (self._turns - self._done) if self._done else self._expected.get(self._name, 0.0)
        return max(0.0, min(own, self._rest())) + sum(self._expected[name] for name in later)

    def _rest(self) -> float:
        """Seconds until this benchmark will have taken SLACK times what it was said to take."""
        return SLACK * self._expected.get(self._name, 0.0) - (time.monotonic() - self._begun)
