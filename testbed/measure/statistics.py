"""Medians with an exact interval, and what may be said about an aim.

The interval is distribution-free: its ends are two of the sorted values themselves (H. A. David, H. N. Nagaraja,
"Order Statistics", 3rd edition, 2003, section 7.1). The k-th smallest and the k-th largest of n values enclose the
median of what they were drawn from with probability 1 - 2 P(B < k), B binomial with n trials and probability 1/2.
With five values even the smallest and the largest reach 93.75 % only: an interval of 95 % exists from six on.

A bootstrap interval (B. Efron, R. J. Tibshirani, "An Introduction to the Bootstrap", 1993, chapter 13: percentiles) is
there for what is no single median, such as the ratio of two, and beside the exact one. Alone it would claim too much:
of medians of ten values it encloses the true one less often than it says (a test shows how much).

What is counted in a time has an exact interval, too, if one event says nothing about the next (F. Garwood, "Fiducial
limits for the Poisson distribution", Biometrika 28, 1936): its ends are the means with which so few, or so many, would
be seen with a probability of 2.5 % each. Where nothing was seen it goes up to 3.69.
"""

from __future__ import annotations

import math
import random
import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeVar

Row = TypeVar("Row")

CONFIDENCE = 0.95
ENOUGH = 6
"""From this many values on a 95 % interval exists."""
CLAIM = 20
"""From this many pairs on the documentation may state a figure."""
RESAMPLES = 2000

MET, MISSED, TOO_FEW, NO_AIM = "met", "missed", "too few", "no aim"


@dataclass(frozen=True, slots=True)
class Interval:
    """A median, or a rate, and its interval. `coverage` is the exact probability, at least the one asked for."""

    median: float
    low: float
    high: float
    coverage: float

    @property
    def half_width(self) -> float:
        return (self.high - self.low) / 2


def rank(count: int, confidence: float = CONFIDENCE) -> int | None:
    """The largest k for which the k-th smallest and k-th largest of `count` values enclose the median with at least
    this probability; None when there is no such k.
    """
    found, outside = None, 0.0
    for k in range(1, count // 2 + 1):
        outside += math.comb(count, k - 1) / 2**count
        if 1 - 2 * outside < confidence:
            break
        found = k
    return found


def interval(values: Sequence[float], confidence: float = CONFIDENCE) -> Interval | None:
    """The median of `values` with its exact interval; None when there are too few values for one."""
    k = rank(len(values), confidence)
    if k is None:
        return None
    ordered = sorted(values)
    outside = sum(math.comb(len(values), i) for i in range(k)) / 2 ** len(values)
    return Interval(statistics.median(ordered), ordered[k - 1], ordered[-k], 1 - 2 * outside)


def bootstrap(
    rows: Sequence[Row],
    statistic: Callable[[Sequence[Row]], float],
    confidence: float = CONFIDENCE,
    *,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> tuple[float, float] | None:
    """The percentile bootstrap interval of a statistic of `rows`, which are drawn whole: a row may be a pair.

    None below ENOUGH rows. The same rows and seed give the same interval.
    """
    if len(rows) < ENOUGH:
        return None
    chance = random.Random(seed)
    found = sorted(statistic(chance.choices(rows, k=len(rows))) for _ in range(resamples))
    outside = (1 - confidence) / 2
    return found[math.floor(outside * resamples)], found[math.ceil((1 - outside) * resamples) - 1]


def poisson_interval(count: int, confidence: float = CONFIDENCE) -> tuple[float, float]:
    """The means that go with an event having been seen `count` times."""
    outside = (1 - confidence) / 2
    low = 0.0 if count == 0 else _mean_with(lambda mean: _at_most(count - 1, mean) < 1 - outside, count)
    return low, _mean_with(lambda mean: _at_most(count, mean) < outside, count)


def _at_most(count: int, mean: float) -> float:
    """The probability of no more than `count` where `mean` are to be expected."""
    return math.fsum(math.exp(k * math.log(mean) - mean - math.lgamma(k + 1)) for k in range(count + 1))


def _mean_with(beyond: Callable[[float], bool], count: int) -> float:
    """The smallest mean that is `beyond`, by halving."""
    low, high = 1e-9, 10.0 + count + 10 * math.sqrt(count)
    while high - low > 1e-9 * high:
        middle = (low + high) / 2
        low, high = (low, middle) if beyond(middle) else (middle, high)
    return high


def noise_width(equal: Sequence[float]) -> float | None:
    """How far this procedure may be off where there is nothing to find: half the width of the interval of pairs of
    the same with the same. None when there are too few.
    """
    found = interval(equal)
    return None if found is None else found.half_width


def verdict(found: Interval | None, noise: float | None, aim: float | None, *, higher_is_better: bool) -> str:
    """Whether an aim is met: the interval's worse end lies within the noise width of it.

    `noise` has the unit of the aim. Without an aim NO_AIM; TOO_FEW without an interval or without a noise width.
    """
    if aim is None:
        return NO_AIM if found is not None else TOO_FEW
    if found is None or noise is None:
        return TOO_FEW
    good = found.low >= aim - noise if higher_is_better else found.high <= aim + noise
    return MET if good else MISSED


def percentile(values: Sequence[float], share: float) -> float:
    """The smallest of the values that `share` percent of them do not exceed (the nearest rank); 0 without values."""
    if not values:
        return 0.0
    return sorted(values)[max(0, math.ceil(len(values) * share / 100) - 1)]


def jain(values: Sequence[float]) -> float:
    """Jain's fairness index (R. Jain, D. Chiu, W. Hawe, "A Quantitative Measure of Fairness", DEC-TR-301, 1984): 1 when
    all have the same, 1/n when one of n has everything. Raises ValueError when nobody has anything.
    """
    squares = sum(value * value for value in values)
    if squares == 0:
        raise ValueError("nobody has anything: there is no fairness")
    return sum(values) ** 2 / (len(values) * squares)
