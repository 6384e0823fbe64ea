"""All experiments load, make sense, and are short where they have to be; nothing is started."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from experiments import __main__ as row
from experiments import _short
from testbed import cli, sandbox
from testbed.experiment import build, catalogue, describe, plan, result
from testbed.experiment.plan import Settings
from tests.unit.experiment import made
from tests.unit.experiment.made import SWEPT

QUICK_SECONDS = 3.0
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


def test_all_of_them_fit_into_the_time_that_the_row_has(capsys: pytest.CaptureFixture[str]) -> None:
    settings = Settings(runs=6)
    found = _short.fit(catalogue.every(), 60 * row.MINUTES, settings, build.topology)
    assert sum(one.seconds for one in found) <= ROW_SECONDS
    assert row.main(["--plan", "--seed", "1"]) == 0
    assert "together about" in capsys.readouterr().out


def test_a_row_leaves_out_contenders_and_points_and_never_repetitions() -> None:
    whole = plan.make(SWEPT, Settings(runs=6, points="ends"), made.build).total_seconds()
    for share, points, contenders in (
        (1.01 * whole, "ends", ()),
        (0.99 * whole, "ends", ("serval",)),
        (0.49 * whole, "1", ("serval",)),
        (0.01 * whole, "1", ("serval",)),
    ):
        one_left = replace(SWEPT, contenders=SWEPT.contenders[:2])
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(_short, "FEW", 1)
            (found,) = _short.fit([one_left], share, Settings(runs=6), made.build)
        assert (found.plan.settings.points, found.plan.settings.contenders) == (points, contenders)
        assert found.plan.settings.runs == 6


def test_what_one_leaves_of_its_share_goes_to_the_next() -> None:
    whole = plan.make(SWEPT, Settings(runs=6, points="ends"), made.build).total_seconds()
    small = replace(SWEPT, points=({"rtt": 0.0},))
    first, second = _short.fit([small, SWEPT], 1.55 * whole, Settings(runs=6), made.build)
    assert first.seconds == pytest.approx(whole / 2) and second.seconds == pytest.approx(whole)
    assert second.words() == ["--runs", "6", "--seed", "0", "--points", "ends"]


def test_the_guide_shows_the_whole_of_its_example() -> None:
    page = (sandbox.ROOT / "docs" / "experiments.md").read_text()
    source = (sandbox.ROOT / "docs" / "first_experiment.py").read_text()
    assert f"```python\n{source}```" in page
