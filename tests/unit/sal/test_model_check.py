"""The model checker with bounds that take a second; `make model-check` goes further."""

from __future__ import annotations

import pytest

from serval_node.sal.moves import MigrationState
from tests.model_check.checker import Bounds, Checker
from tests.model_check.old_rule import bare_ack_for_a_repeated_rsyn, no_switch_when_crossing


@pytest.mark.parametrize("original", [False, True], ids=["ours", "original"])
@pytest.mark.parametrize("lost", [False, True], ids=["planned", "lost"])
def test_no_interleaving_gets_stuck(original: bool, lost: bool) -> None:
    bounds = Bounds(moves=1, losses=1, copies=0, timeouts=1, old_places_lost=lost)
    verdict = Checker(bounds, original=original).run()
    assert verdict.stuck is None
    assert verdict.complete and verdict.states > 500
    assert verdict.seen == frozenset(MigrationState)


@pytest.mark.parametrize("original", [False, True], ids=["ours", "original"])
def test_two_moves_of_each_end_with_nothing_left_of_the_old_places(original: bool) -> None:
    """An end that follows a peer which has left again must look for it where it was before, too."""
    bounds = Bounds(moves=2, losses=0, copies=0, timeouts=0, old_places_lost=True)
    verdict = Checker(bounds, original=original).run()
    assert verdict.stuck is None and verdict.complete and verdict.states > 500


@pytest.mark.parametrize("rule", [bare_ack_for_a_repeated_rsyn, no_switch_when_crossing])
def test_the_originals_stuck_cases_are_found(rule: object) -> None:
    verdict = Checker(Bounds(), original=True, old_rule=rule).run()
    assert verdict.stuck is not None and len(verdict.stuck.steps) <= 5
