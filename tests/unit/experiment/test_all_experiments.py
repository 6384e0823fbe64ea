"""All experiments load, make sense, and are short where they have to be; nothing is started."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from experiments import __main__ as experiments
from experiments import _short
from testbed import cli, sandbox
from testbed.experiment import build, catalogue, describe, plan, result
from testbed.experiment.plan import Settings
from testbed.experiment.specification import TCP_RECONNECT, Contender
from testbed.rivals import nft_balancer
from testbed.traffic import mptcp
from tests.unit.experiment import made
from tests.unit.experiment.made import SWEPT

QUICK_SECONDS = 7.0
"""3 s where one thing happens; an experiment of several phases needs some more."""
ROW_SECONDS = 20 * 60


def test_every_experiment_is_sound_and_can_be_kept() -> None:
    for experiment in catalogue.every():
        for settings in (Settings(), Settings(quick=True, runs=1)):
            laid = plan.make(experiment, settings, build.topology)
            kept = json.loads(json.dumps(result.new(laid, {}, [])))
            assert kept["experiment"]["name"] == experiment.name == experiment.name.lower()
            assert describe.plan(laid) and describe.experiment(experiment)


def test_a_quick_run_is_quick() -> None:
    for experiment in catalogue.every():
        laid = plan.make(experiment, Settings(quick=True, runs=1), build.topology)
        for turn in laid.turns:
            seconds = laid.scene(turn.setting, turn.contender).seconds
            assert seconds <= QUICK_SECONDS, f"{experiment.name}: a quick run of {turn.contender} takes {seconds:g} s"


def test_the_testbed_lists_them(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["experiments"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines[:-1]] == [experiment.name for experiment in catalogue.every()]


def test_the_row_takes_less_than_twenty_minutes(capsys: pytest.CaptureFixture[str]) -> None:
    row, _ = _short.fit(catalogue.every(), 60 * experiments.MINUTES, Settings(runs=6), build.topology)
    assert sum(one.seconds for one in row) <= ROW_SECONDS
    assert experiments.main(["--plan", "--seed", "1"]) == 0
    out = capsys.readouterr().out
    assert "together about" in out and all(name in out for name in catalogue.names())


@pytest.mark.parametrize("why", [None, "kernel without MPTCP"])
def test_in_the_row_every_experiment_has_a_rival(why: str | None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mptcp, "missing", lambda: why)
    # It needs root, or a kernel that lets users make namespaces.
    monkeypatch.setattr(nft_balancer, "missing", lambda: None)
    row, _ = _short.fit(catalogue.every(), 60 * experiments.MINUTES, Settings(runs=6), build.topology)
    assert "migration_time" in [one.name for one in row]
    for one in row:
        assert {contender.rival for contender in one.plan.contenders} == {True, False}, one.name


def test_a_row_leaves_out_contenders_and_points_and_never_repetitions() -> None:
    others = [
        Contender(name="frozen", label="stands still", options={"event": "freeze"}),
        Contender(name="again", label="connects anew", transport=TCP_RECONNECT, options={"event": "freeze"}),
    ]
    three = replace(SWEPT, contenders=(others[0], *SWEPT.contenders[:2]))
    whole = plan.make(three, Settings(runs=6, points="ends"), made.build).total_seconds()
    for share, points, contenders in (
        (1.01, "ends", ()),
        (0.99, "1", ()),
        (0.49, "1", ("serval", "tcp")),
    ):
        (found,), left_out = _short.fit([three], share * whole, Settings(runs=6), made.build)
        assert (found.plan.settings.points, found.plan.settings.contenders) == (points, contenders)
        assert found.plan.settings.runs == 6 and not left_out
    alone = replace(SWEPT, contenders=(SWEPT.contenders[0], others[1]), acceptance=())
    (found,), _ = _short.fit([alone], 0.51 * whole, Settings(runs=6), made.build)
    assert [one.name for one in found.plan.contenders] == ["serval", "again"], "none meets the same"


def test_all_get_one_more_contender_before_one_gets_both_ends() -> None:
    three = replace(SWEPT, contenders=(*SWEPT.contenders[:2], Contender(name="again", label="again")))
    whole = plan.make(three, Settings(runs=6, points="ends"), made.build).total_seconds()
    row, _ = _short.fit([three, replace(three, name="other")], 1.3 * whole, Settings(runs=6), made.build)
    assert [len(one.plan.contenders) for one in row] == [3, 3] and {one.plan.settings.points for one in row} == {"1"}


def test_what_does_not_fit_at_its_shortest_is_left_out_and_the_others_share_the_time() -> None:
    long = replace(SWEPT, name="long", setup_seconds=1000.0)
    other = replace(SWEPT, name="other")
    whole = plan.make(SWEPT, Settings(runs=6, points="ends"), made.build).total_seconds()
    row, left_out = _short.fit([long, SWEPT, other], 1.55 * whole, Settings(runs=6), made.build)
    assert [one.name for one in row] == ["made", "other"] and [one.name for one in left_out] == ["long"]
    assert row[0].seconds == pytest.approx(whole) and row[1].seconds == pytest.approx(whole / 2)
    assert row[0].words() == ["--runs", "6", "--seed", "0", "--points", "ends"]


@pytest.mark.parametrize("minutes", ["-1", "0", "nan", "inf", "soon"])
def test_a_time_that_is_none_is_refused(minutes: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        experiments.main(["--plan", "--minutes", minutes])
    assert ended.value.code == 2
    assert f"a number of minutes is wanted, not '{minutes}'" in capsys.readouterr().err


def test_a_row_without_time_for_any_is_no_success(capsys: pytest.CaptureFixture[str]) -> None:
    assert experiments.main(["--plan", "--minutes", "0.1"]) == 1
    shown = capsys.readouterr()
    assert "left out: it does not fit into 0.1 min" in shown.out and "not enough time for any of them" in shown.err


def test_the_guide_shows_the_whole_of_its_example() -> None:
    page = (sandbox.ROOT / "docs" / "experiments.md").read_text()
    source = (sandbox.ROOT / "docs" / "first_experiment.py").read_text()
    assert f"```python\n{source}```" in page
