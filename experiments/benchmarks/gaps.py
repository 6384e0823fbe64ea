"""From the times at which a receiver got data to the gap that an event made. Pure.

Time is cut into bins of a millisecond from the event on, and only bins count: a gap of n says that data came in one bin
and then in the n-th after it. Where something comes in every bin the gap is 1.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise

BIN = 0.001
_ROUNDING = 1e-7


@dataclass(frozen=True, slots=True)
class Gap:
    """`bins` from one receive to the next; `begin`: the bin of the first of them, 0 being that of the event."""

    bins: int
    begin: int


def window(round_trip: float) -> float:
    """Seconds after an event within which a gap begins that is the event's: later ones have other reasons."""
    return 2 * round_trip + 0.050


def gaps(times: Sequence[float], event: float, seconds: float) -> list[Gap]:
    """The gaps that end after `event` and begin not later than `seconds` after it, largest first."""
    bins = [math.floor((time - event) / BIN + _ROUNDING) for time in times]
    last = math.floor(seconds / BIN + _ROUNDING)
    found = [Gap(after - before, before) for before, after in pairwise(bins) if after >= 0 and before <= last]
    return sorted(found, key=lambda gap: (-gap.bins, gap.begin))


def largest(times: Sequence[float], event: float, seconds: float) -> Gap:
    """The largest of them. Raises ValueError when the data ends before the window does: nothing can be said then."""
    if not times or times[0] > event or times[-1] < event + seconds:
        raise ValueError("the stream does not cover the time after the event")
    return gaps(times, event, seconds)[0]


def limit_ms(event: str, direction: str, round_trip_ms: float) -> tuple[float, str] | None:
    """What is aimed at for the gap of an event, in ms, and its formula; None where it is the difference that counts."""
    formulas: Iterable[tuple[tuple[str, ...], str, float, float]] = (
        (("down", "carrier"), "down", 1.0, 10.0),
        (("down", "carrier"), "up", 1.0, 25.0),
        (("hole",), direction, 2.5, 40.0),
    )
    for events, where, times, plus in formulas:
        if event in events and where == direction:
            return times * round_trip_ms + plus, f"{times:g} RTT + {plus:g} ms"
    return None
