"""The pre-copy model, and what a kernel is told for several interfaces."""

from __future__ import annotations

import pytest

from testbed.mobility.multihoming import Home, rules
from testbed.mobility.precopy import LIMIT_SECONDS, MOST_ROUNDS, WAKE_SECONDS, migrate

MEGA = 1e6


def test_an_idle_machine_is_copied_once_and_stands_still_for_its_wake_up() -> None:
    found = migrate(100 * MEGA, 0, 100 * MEGA)
    assert (found.rounds, found.copy, found.standstill, found.copied) == (1, 1.0, WAKE_SECONDS, 100 * MEGA)


def test_rounds_are_a_geometric_series() -> None:
    memory, ratio, bandwidth = 100 * MEGA, 0.5, 100 * MEGA
    found = migrate(memory, ratio * bandwidth, bandwidth)
    # 1, 0.5, 0.25 ... s, until what is left takes at most the limit: the sixth half is the first below 20 ms.
    assert found.rounds == 6
    assert found.copy == pytest.approx((1 - ratio**6) / (1 - ratio))
    assert found.standstill == pytest.approx(ratio**6 + WAKE_SECONDS)
    assert ratio**6 <= LIMIT_SECONDS < ratio**5
    assert found.copied == pytest.approx(memory * (1 - ratio**7) / (1 - ratio))


def test_one_that_writes_as_fast_as_it_is_copied_stands_still_for_all_of_it() -> None:
    found = migrate(100 * MEGA, 200 * MEGA, 100 * MEGA)
    assert found.rounds == 1
    assert found.standstill == pytest.approx(1.0 + WAKE_SECONDS)


def test_rounds_have_an_end() -> None:
    assert migrate(1000 * MEGA, 99 * MEGA, 100 * MEGA).rounds == MOST_ROUNDS


@pytest.mark.parametrize(("memory", "dirty", "bandwidth"), [(0, 1, 1), (1, -1, 1), (1, 1, 0)])
def test_what_is_no_machine_is_refused(memory: float, dirty: float, bandwidth: float) -> None:
    with pytest.raises(ValueError, match="no migration has these"):
        migrate(memory, dirty, bandwidth)


def test_each_address_has_a_rule_that_leads_to_its_own_table() -> None:
    homes = [Home("dan-eth0", "10.2.0.1", 24, "10.2.0.254"), Home("dan-eth1", "10.2.1.1", 24, "10.2.1.254")]
    assert rules(homes) == [
        "rule add from 10.2.0.1 lookup 101 pref 1000",
        "rule add from 10.2.1.1 lookup 102 pref 1000",
    ]
