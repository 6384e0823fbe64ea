"""From notes of when how much came to bins and silences. Pure; times in seconds."""

from __future__ import annotations

import heapq
import math
from collections.abc import Iterable, Sequence
from itertools import pairwise

LARGEST = 20
_ROUNDING = 1e-7


def binned(times: Iterable[float], sizes: Iterable[int], *, zero: float, seconds: float, size: float) -> list[int]:
    """Bytes per bin of `size` seconds, from zero on for `seconds`; what lies outside is left out."""
    bins = [0] * math.ceil(seconds / size - _ROUNDING)
    for time, count in zip(times, sizes, strict=True):
        number = math.floor((time - zero) / size)
        if 0 <= number < len(bins):
            bins[number] += count
    return bins


def silences(
    times: Sequence[float], *, zero: float, begin: float, end: float, count: int = LARGEST
) -> list[dict[str, float]]:
    """The largest times between two receives that lie between `begin` and `end` at least in part, largest first.

    A silence from `begin` to the first receive counts, and one from the last receive to `end`. begin, end: on the
    clock of `times`. "at" is when a silence began, counted from zero.
    """
    inside = [time for time in times if begin < time < end]
    before = max((time for time in times if time <= begin), default=begin)
    marks = [before, *inside, end]
    largest = heapq.nlargest(count, pairwise(marks), key=lambda pair: pair[1] - pair[0])
    return [{"at": one - zero, "seconds": other - one} for one, other in largest if other > one]
