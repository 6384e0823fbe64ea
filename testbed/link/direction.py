"""One direction of a relay: which frames it loses, when the others are due, and sending them then. Pure.

Chance comes from a seed, loss and jitter each with a sequence of their own: the n-th frame of a direction has the same
fate in each run with that seed, whatever the other direction carries.
"""

from __future__ import annotations

import random
from bisect import insort
from collections import deque
from collections.abc import Callable
from typing import Any

from testbed.link.shape import MAX_DELAY, Shape

MAX_QUEUED = 256 << 20
"""Bytes under way in one direction: a bound of memory, not a queue. Beyond it frames are dropped and counted."""
LATE = 0.0005
"""Seconds; what leaves more than this after it was due is counted as late."""


class RelayError(ValueError):
    """A setting that makes no sense, or an interface that cannot be used; one line."""


class Direction:
    """Frames one way, each with the monotonic time at which it is due.

    name  of this direction, which chance depends on beside the seed (None: another each time)
    send  sends a frame; raises OSError when that fails
    """

    COUNTS = (
        "forwarded",
        "lost",  # by the asked loss
        "swallowed",  # by the black hole
        "overflowed",  # more than MAX_QUEUED bytes were under way
        "unsent",  # the kernel refused them
        "missed",  # came faster than the relay took them, and the kernel dropped them
        "late",  # sent more than LATE after they were due
    )

    def __init__(self, name: str, seed: int | None, send: Callable[[bytes], object]) -> None:
        self._send = send
        sequences = (random.Random(None if seed is None else f"{seed} {name} {what}") for what in ("loss", "jitter"))
        self._loss_chance, self._jitter_chance = (sequence.random for sequence in sequences)
        self.queue: deque[tuple[float, bytes]] = deque()
        self.queued = 0
        self.delay, self.jitter, self.loss = 0.0, 0.0, 0.0  # loss: from 0 to 1
        self.reorder, self.hole = False, False
        self.reset()

    def reset(self) -> None:
        """All counters from 0 on."""
        self.forwarded = self.lost = self.swallowed = self.overflowed = self.unsent = self.missed = self.late = 0
        self.late_sum = self.late_max = 0.0

    def set(
        self,
        *,
        delay: float | None = None,
        jitter: float | None = None,
        loss: float | None = None,
        reorder: bool | None = None,
        hole: bool | None = None,
    ) -> None:
        """Change what is given: seconds one way, loss in percent. Raises RelayError and changes nothing."""
        new_delay = self.delay if delay is None else float(delay)
        new_jitter = self.jitter if jitter is None else float(jitter)
        if not 0 <= new_delay <= MAX_DELAY:
            raise RelayError(f"delay must be from 0 to {MAX_DELAY:g} s, not {delay!r}")
        if not 0 <= new_jitter <= new_delay:
            raise RelayError(f"jitter must be from 0 to the delay, {new_delay:g} s, not {new_jitter:g}")
        if loss is not None and not 0 <= loss <= 100:
            raise RelayError(f"loss must be from 0 to 100 percent, not {loss!r}")
        self.delay, self.jitter = new_delay, new_jitter
        self.loss = self.loss if loss is None else loss / 100
        self.reorder = self.reorder if reorder is None else bool(reorder)
        self.hole = self.hole if hole is None else bool(hole)

    def take(self, frame: bytes, arrival: float) -> None:
        """A frame that came in at `arrival`."""
        if self.hole:
            self.swallowed += 1
            return
        if self.loss and self._loss_chance() < self.loss:
            self.lost += 1
            return
        if self.queued + len(frame) > MAX_QUEUED:
            self.overflowed += 1
            return
        due = arrival + self.delay
        if self.jitter:
            due += (2 * self._jitter_chance() - 1) * self.jitter
        self.queued += len(frame)
        queue = self.queue
        if queue and due < queue[-1][0]:
            if self.reorder:
                insort(queue, (due, frame), key=_due)
                return
            due = queue[-1][0]  # neither jitter nor a shorter delay overtakes
        queue.append((due, frame))

    def send_due(self, now: float, limit: int) -> None:
        """Send what is due, at most `limit` frames: meanwhile others come in."""
        queue = self.queue
        while queue and limit and queue[0][0] <= now:
            due, frame = queue.popleft()
            limit -= 1
            self.queued -= len(frame)
            try:
                self._send(frame)
            except OSError:  # interface down or full: a wire would lose the frame too
                self.unsent += 1
                continue
            self.forwarded += 1
            late = now - due
            self.late_sum += late
            if late > LATE:
                self.late += 1
            if late > self.late_max:
                self.late_max = late

    def state(self) -> dict[str, Any]:
        """Settings and counters; times in seconds, loss in percent."""
        settings = {
            "delay": self.delay,
            "jitter": self.jitter,
            "loss": self.loss * 100,
            "reorder": self.reorder,
            "hole": self.hole,
        }
        mean = self.late_sum / self.forwarded if self.forwarded else 0.0
        counts = {name: getattr(self, name) for name in self.COUNTS}
        return {**settings, **counts, "late_mean": mean, "late_max": self.late_max}


def _due(entry: tuple[float, bytes]) -> float:
    return entry[0]


def settings_of(shape: Shape) -> dict[str, Any]:
    """What of a shape is a relay's to do: the arguments of `Direction.set`."""
    return {name: getattr(shape, name) for name in ("delay", "jitter", "loss", "reorder", "hole")}
