"""What a share says that was counted: exact intervals (C. J. Clopper, E. S. Pearson, Biometrika 26, 1934). Pure."""

from __future__ import annotations

import math
from collections.abc import Callable

_STEPS = 50


def interval(hits: int, tries: int, confidence: float = 0.95) -> tuple[float, float]:
    """The probabilities under which neither so few nor so many hits of `tries` are rarer than (1 - confidence) / 2."""
    if not 0 <= hits <= tries or tries < 1:
        raise ValueError(f"{hits} of {tries} is no count")
    tail = (1 - confidence) / 2
    low = 0.0 if hits == 0 else _solve(lambda share: 1 - at_most(hits - 1, tries, share) < tail)
    high = 1.0 if hits == tries else _solve(lambda share: at_most(hits, tries, share) > tail)
    return low, high


def expected(share: float, tries: int, confidence: float = 0.95) -> tuple[int, int]:
    """The fewest and the most hits of `tries` whose interval has this probability in it."""
    tail = (1 - confidence) / 2
    fewest = next(k for k in range(tries + 1) if at_most(k, tries, share) > tail)
    most = next(k for k in range(tries, -1, -1) if k == 0 or 1 - at_most(k - 1, tries, share) > tail)
    return fewest, most


def at_most(hits: int, tries: int, share: float) -> float:
    """The probability of at most so many hits."""
    if share <= 0 or hits >= tries:
        return 1.0
    if share >= 1:
        return 0.0
    hit, miss, all_ways = math.log(share), math.log1p(-share), math.lgamma(tries + 1)
    terms = (
        all_ways - math.lgamma(k + 1) - math.lgamma(tries - k + 1) + k * hit + (tries - k) * miss
        for k in range(hits + 1)
    )
    return min(1.0, math.fsum(map(math.exp, terms)))


def _solve(below: Callable[[float], bool]) -> float:
    """The share at which `below` ceases to be so, by halving."""
    low, high = 0.0, 1.0
    for _ in range(_STEPS):
        middle = (low + high) / 2
        low, high = (middle, high) if below(middle) else (low, middle)
    return (low + high) / 2
