"""Medians, exact intervals, noise and verdicts, against values worked out by hand and by counting all cases."""

from __future__ import annotations

import random
import statistics
from itertools import product

import pytest

from testbed.measure.statistics import (
    MET,
    MISSED,
    NO_AIM,
    TOO_FEW,
    Interval,
    bootstrap,
    interval,
    jain,
    noise_width,
    poisson_interval,
    rank,
    verdict,
)


@pytest.mark.parametrize(
    ("count", "expected"),
    # The usual table for the sign test at 5 %, two-sided: critical value plus one.
    [(1, None), (5, None), (6, 1), (8, 1), (9, 2), (11, 2), (12, 3), (15, 4), (17, 5), (20, 6), (25, 8), (30, 10)],
)
def test_the_rank_is_the_one_of_the_sign_test(count: int, expected: int | None) -> None:
    assert rank(count) == expected


def test_ten_values() -> None:
    found = interval([9, 1, 10, 3, 2, 8, 4, 7, 5, 6])
    assert found is not None
    assert (found.median, found.low, found.high) == (5.5, 2, 9)
    assert found.coverage == 1 - 2 * (1 + 10) / 1024
    assert found.half_width == 3.5


def test_six_values_give_their_whole_range_and_five_give_nothing() -> None:
    found = interval([0.9, 1.1, 1.0, 1.2, 0.8, 1.05])
    assert found is not None and (found.low, found.high, found.coverage) == (0.8, 1.2, 0.96875)
    assert interval([1, 2, 3, 4, 5]) is None


@pytest.mark.parametrize("count", [6, 9, 12])
def test_the_coverage_is_exact(count: int) -> None:
    """Each value lies above or below the true median (0) with equal chance: count the cases that enclose it."""
    k = rank(count)
    assert k is not None
    enclosing = sum(1 for signs in product((-1, 1), repeat=count) if sorted(signs)[k - 1] < 0 < sorted(signs)[-k])
    found = interval([float(value) for value in range(count)])
    assert found is not None and found.coverage == enclosing / 2**count >= 0.95


def test_noise_is_half_the_interval_of_equal_pairs() -> None:
    assert noise_width([0.98, 1.0, 1.01, 0.99, 1.02, 1.0]) == pytest.approx(0.02)
    assert noise_width([1.0] * 5) is None


AROUND = Interval(median=0.992, low=0.985, high=0.999, coverage=0.96)


@pytest.mark.parametrize(
    ("noise", "aim", "higher", "expected"),
    [
        (0.005, 0.99, True, MET),  # 0.985 >= 0.99 - 0.005
        (0.004, 0.99, True, MISSED),
        (0.0, 0.985, True, MET),
        (0.002, 0.997, False, MET),  # 0.999 <= 0.997 + 0.002
        (0.001, 0.997, False, MISSED),
        (None, 0.5, True, TOO_FEW),
        (0.001, None, True, NO_AIM),
    ],
)
def test_an_aim_is_met_when_the_worse_end_is_within_the_noise(
    noise: float | None, aim: float | None, higher: bool, expected: str
) -> None:
    assert verdict(AROUND, noise, aim, higher_is_better=higher) == expected


def test_without_an_interval_nothing_is_said() -> None:
    assert verdict(None, 0.1, 0.5, higher_is_better=True) == TOO_FEW
    assert verdict(None, 0.1, None, higher_is_better=True) == TOO_FEW


def test_the_bootstrap_interval_is_that_of_resampled_rows() -> None:
    values = [float(number) for number in range(1, 101)]
    low, high = bootstrap(values, statistics.mean) or (0, 0)
    # The mean of 100 values of variance 833 has a standard error of 2.89.
    assert low == pytest.approx(50.5 - 1.96 * 2.89, abs=0.6) and high == pytest.approx(50.5 + 1.96 * 2.89, abs=0.6)
    assert bootstrap(values, statistics.mean) == (low, high)
    assert bootstrap(values, statistics.mean, seed=1) != (low, high)
    assert bootstrap(values[:5], statistics.mean) is None
    assert bootstrap([1.0] * 6, statistics.median) == (1.0, 1.0)


def test_of_few_values_only_the_exact_interval_holds_what_it_says() -> None:
    chance = random.Random(5)
    held = {"exact": 0, "bootstrap": 0}
    rounds = 400
    for _ in range(rounds):
        values = [chance.gauss(0, 1) for _ in range(10)]
        exact, resampled = interval(values), bootstrap(values, statistics.median, resamples=400)
        assert exact is not None and resampled is not None
        held["exact"] += exact.low <= 0 <= exact.high
        held["bootstrap"] += resampled[0] <= 0 <= resampled[1]
    assert held["exact"] >= 0.95 * rounds > held["bootstrap"]


@pytest.mark.parametrize(
    ("count", "low", "high"),
    # F. Garwood, 1936: the table of exact limits, 95 %.
    [(0, 0.0, 3.689), (1, 0.0253, 5.572), (2, 0.2422, 7.225), (10, 4.795, 18.39), (50, 37.11, 65.92)],
)
def test_the_interval_of_a_count_is_garwoods(count: int, low: float, high: float) -> None:
    assert poisson_interval(count) == pytest.approx((low, high), rel=1e-3, abs=1e-6)


@pytest.mark.parametrize(("values", "expected"), [([5, 5, 5], 1.0), ([1, 0, 0, 0], 0.25), ([1, 3], 0.8)])
def test_jain_says_how_even_shares_are(values: list[float], expected: float) -> None:
    assert jain(values) == pytest.approx(expected)


def test_where_nobody_has_anything_there_is_no_fairness() -> None:
    with pytest.raises(ValueError, match="nobody has anything"):
        jain([0, 0])
