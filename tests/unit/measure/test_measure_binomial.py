"""Exact intervals of a share."""

from __future__ import annotations

import pytest

from testbed.measure.binomial import at_most, expected, interval


@pytest.mark.parametrize(
    ("hits", "tries", "low", "high"),
    # Of the tables in textbooks: 0 of 10, 5 of 10, 10 of 10, and the rule of three for none of many.
    [(0, 10, 0.0, 0.3085), (5, 10, 0.1871, 0.8129), (10, 10, 0.6915, 1.0), (0, 1000, 0.0, 0.00368)],
)
def test_intervals_are_the_known_ones(hits: int, tries: int, low: float, high: float) -> None:
    assert interval(hits, tries) == (pytest.approx(low, abs=1e-4), pytest.approx(high, abs=1e-4))


def test_a_tail_is_the_sum_of_its_terms() -> None:
    assert at_most(1, 3, 0.5) == pytest.approx(0.5)
    assert (at_most(0, 5, 0.0), at_most(4, 5, 1.0), at_most(5, 5, 1.0)) == (1.0, 0.0, 1.0)


def test_what_is_expected_are_the_counts_whose_interval_has_the_share() -> None:
    for share in (0.01, 0.3):
        fewest, most = expected(share, 200, 0.99)
        inside = [k for k in range(201) if interval(k, 200, 0.99)[0] <= share <= interval(k, 200, 0.99)[1]]
        assert (fewest, most) == (inside[0], inside[-1])
    assert expected(1.0, 50) == (50, 50)


def test_no_count_is_refused() -> None:
    with pytest.raises(ValueError, match="5 of 4"):
        interval(5, 4)
