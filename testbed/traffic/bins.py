"""From notes of when how much came to bins and silences. Pure; times in seconds."""

from __future__ import annotations

import heapq
import math
from collections.abc import Iterable, Sequence
from itertools import pairwise

LARGEST = 20
EVERY = 0.1
_ROUNDING = 1e-7


def binned(times: Iterable[float], sizes: Iterable[int], *, zero: float, seconds: float, size: float) -> list[int]:
    """Bytes per bin of `size` seconds, from zero on for `seconds`; what lies outside is left out."""
    bins = [0] * math.ceil(seconds / size - _ROUNDING)
    for time, count in zip(times, sizes, strict=True):
        number = math.floor((time - zero) / size + _ROUNDING)
        if 0 <= number < len(bins):
            bins[number] += count
    return bins


def silences(
    times: Sequence[float], *, zero: float, begin: float, end: float, count: int = LARGEST, every: float = EVERY
) -> list[dict[str, float]]:
    """Times between two receives that lie between `begin` and `end` at least in part, largest first: the `count`
    largest, and of each `every` seconds the largest that begins in them, so that none that an event made is left out.

    A silence from `begin` to the first receive counts, and one from the last receive to `end`. begin, end: on the
    clock of `times`. "at" is when a silence began, counted from zero.
    """
    inside = [time for time in times if begin < time < end]
    before = max((time for time in times if time <= begin), default=begin)
    pairs = [(one, other) for one, other in pairwise([before, *inside, end]) if other > one]
    slots: dict[int, tuple[float, float]] = {}
    for pair in pairs:
        slot = math.floor((pair[0] - zero) / every)
        if slot not in slots or _length(pair) > _length(slots[slot]):
            slots[slot] = pair
    chosen = {*heapq.nlargest(count, pairs, key=_length), *slots.values()}
    return [{"at": one - zero, "seconds": other - one} for one, other in sorted(chosen, key=_length, reverse=True)]


def _length(pair: tuple[float, float]) -> float:
    return pair[1] - pair[0]


def spread(
    intervals: Iterable[tuple[float, float, int]], *, begun: float, zero: float, seconds: float, size: float
) -> list[int]:
    """Bytes per bin from intervals (begin, end, bytes) that count from `begun`: each evenly over the bins it covers."""
    bins = [0.0] * math.ceil(seconds / size - _ROUNDING)
    for first, last, count in intervals:
        one, other = begun + first - zero, begun + last - zero
        for number in range(max(0, math.floor(one / size)), min(len(bins), math.ceil(other / size))):
            share = min(other, (number + 1) * size) - max(one, number * size)
            if last > first and share > 0:
                bins[number] += count * share / (last - first)
    return [round(count) for count in bins]


def still(bins: Sequence[int], size: float, end: float, count: int = LARGEST) -> list[dict[str, float]]:
    """The largest runs of empty bins up to `end`, largest first, as `silences` gives them."""
    found: list[dict[str, float]] = []
    begin: int | None = None
    for number in range(math.floor(end / size + _ROUNDING) + 1):
        empty = number < min(len(bins), math.floor(end / size + _ROUNDING)) and bins[number] == 0
        if empty and begin is None:
            begin = number
        elif not empty and begin is not None:
            found.append({"at": begin * size, "seconds": (number - begin) * size})
            begin = None
    return sorted(found, key=lambda gap: -gap["seconds"])[:count]
