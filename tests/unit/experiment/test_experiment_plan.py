"""Which runs there are, in which order, and what is refused before anything is started."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import pytest

from testbed.experiment import plan
from testbed.experiment.plan import Settings
from testbed.experiment.schedule import SpecificationError
from testbed.experiment.specification import MPTCP, MPTCP_TUNED, Contender
from testbed.traffic import mptcp
from tests.unit.experiment.made import EXPERIMENT, SWEPT, build, planned


def test_every_contender_runs_at_every_point_once_in_each_repetition() -> None:
    laid = planned(SWEPT, runs=4, seed=3)
    cells = Counter((turn.repetition, turn.setting, turn.contender) for turn in laid.turns)
    assert set(cells.values()) == {1} and len(cells) == 4 * 3 * 2
    assert [turn.number for turn in laid.turns] == list(range(1, 25))


def test_the_order_is_random_within_a_repetition_and_the_same_for_the_same_seed() -> None:
    orders = [
        tuple((turn.setting, turn.contender) for turn in planned(SWEPT, runs=8, seed=3).turns if turn.repetition == one)
        for one in range(8)
    ]
    assert len(set(orders)) > 1
    assert planned(SWEPT, runs=8, seed=3).turns == planned(SWEPT, runs=8, seed=3).turns
    assert planned(SWEPT, runs=8, seed=3).turns != planned(SWEPT, runs=8, seed=4).turns


def test_contenders_of_one_repetition_meet_the_same_chance() -> None:
    laid = planned(SWEPT, runs=3)
    seeds = {(turn.repetition, turn.setting): set() for turn in laid.turns}
    for turn in laid.turns:
        seeds[turn.repetition, turn.setting].add(turn.seed)
    assert all(len(found) == 1 for found in seeds.values())
    assert len(set.union(*seeds.values())) == len(seeds)


def test_a_contender_that_cannot_run_is_skipped_by_name() -> None:
    laid = planned()
    assert [contender.name for contender in laid.contenders] == ["serval", "tcp"]
    assert [(item.contender.name, item.why) for item in laid.skipped] == [("none", "this kernel has none")]


def test_nobody_left_to_run_is_refused() -> None:
    with pytest.raises(SpecificationError, match=r"no contender can run here: none \(this kernel has none\)"):
        planned(contenders=("none",))


def test_the_others_are_compared_with_the_first_that_runs() -> None:
    assert planned(replace(EXPERIMENT, against="tcp")).against() == "tcp"
    assert planned(replace(EXPERIMENT, against="tcp"), contenders=("serval",)).against() == "serval"


@pytest.mark.parametrize(
    ("which", "rtts"), [(None, [0, 10, 20]), ("all", [0, 10, 20]), ("ends", [0, 20]), ("2", [10]), ("3,1", [0, 20])]
)
def test_points_are_chosen_by_number(which: str | None, rtts: list[float]) -> None:
    assert [point["rtt"] for point in planned(SWEPT, points=which).points] == rtts


def test_a_quick_run_has_two_contenders_and_the_ends() -> None:
    more = replace(SWEPT, contenders=(*SWEPT.contenders[:2], replace(SWEPT.contenders[1], name="third")))
    quick = planned(more, quick=True)
    assert [point["rtt"] for point in quick.points] == [0, 20]
    assert [contender.name for contender in quick.contenders] == ["serval", "tcp"]
    assert [one.name for one in planned(more, quick=True, contenders=("third",)).contenders] == ["third"]


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"points": "4"}, "--points wants all, ends, or numbers from 1 to 3, not '4'"),
        ({"points": "0"}, "--points wants"),
        ({"points": "x"}, "--points wants"),
        ({"given": {"rtt": 5.0}}, "rtt is swept"),
        ({"given": {"rtts": 5.0}}, "no parameter 'rtts'; did you mean rtt"),
        ({"contenders": ("servl",)}, "no contender 'servl'; did you mean serval"),
    ],
)
def test_what_makes_no_sense_is_refused(settings: dict[str, object], words: str) -> None:
    with pytest.raises(SpecificationError, match=words):
        planned(SWEPT, **settings)


@pytest.mark.parametrize("quick", [False, True])
def test_an_experiment_without_a_point_is_refused(quick: bool) -> None:
    with pytest.raises(SpecificationError, match=r"has no point; without a sweep there is one, empty: \(\{\},\)"):
        planned(replace(EXPERIMENT, points=()), quick=quick)


def test_what_the_user_sets_reaches_the_scene() -> None:
    laid = planned(given={"rtt": 40.0})
    assert laid.values(0) == {"rtt": 40.0} and laid.scene(0, "tcp").options == {"delay": 40.0}


def test_each_network_that_differs_is_calibrated_once() -> None:
    def scene(values: dict[str, float], contender: object) -> object:
        return replace(EXPERIMENT.scene(values, contender), calibrate=(("ann", "dan"),))  # type: ignore[arg-type]

    measured = replace(SWEPT, scene=scene)  # type: ignore[arg-type]
    assert planned(measured).calibrations() == [(0, "serval"), (1, "serval"), (2, "serval")]
    assert planned(measured, calibrate=False).calibrations() == []
    assert planned(SWEPT).calibrations() == []
    more = planned(measured, runs=2).total_seconds() - planned(SWEPT, runs=2).total_seconds()
    assert more == pytest.approx(3 * (plan.CALIBRATION_SECONDS + EXPERIMENT.setup_seconds))


def test_the_expected_time_is_that_of_all_runs() -> None:
    laid = plan.make(EXPERIMENT, Settings(runs=5), build)
    each = EXPERIMENT.setup_seconds + plan.AROUND_SECONDS + 0.3
    assert laid.total_seconds() == pytest.approx(10 * each)


@pytest.mark.parametrize("transport", [MPTCP, MPTCP_TUNED])
def test_a_transport_that_the_kernel_lacks_is_left_out_by_name_without_anybody_saying_so(
    transport: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mptcp, "missing", lambda: "kernel without MPTCP")
    rival = Contender(name="rival", label="a rival", transport=transport)
    laid = planned(replace(EXPERIMENT, contenders=(*EXPERIMENT.contenders, rival)), runs=1)
    assert ("rival", "kernel without MPTCP") in [(item.contender.name, item.why) for item in laid.skipped]
    assert "rival" not in [contender.name for contender in laid.contenders]
