"""The command line of an experiment, without root and network; results shown again, and exported."""

from __future__ import annotations

import csv
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from testbed import sandbox
from testbed.experiment import __main__ as results
from testbed.experiment import build, command
from testbed.measure import files
from tests.unit.experiment import made
from tests.unit.experiment.made import EXPERIMENT, SWEPT, document


@pytest.fixture(autouse=True)
def _no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    def never(*, name: str) -> None:
        raise AssertionError("a sandbox was entered")

    monkeypatch.setattr(sandbox, "enter", never)
    monkeypatch.setattr(build, "topology", made.build)


def test_the_list_names_all_that_one_can_choose(capsys: pytest.CaptureFixture[str]) -> None:
    assert command.run(SWEPT, ["--list"]) == 0
    out = capsys.readouterr().out
    assert out.startswith("made: A made-up experiment (slide 0)\n\nNothing happens.\n")
    assert "none    nothing     cannot run here: this kernel has none" in out
    assert "3  rtt=20" in out and "rtt  0 ms  round-trip time  at least 0 and at most 100 ms" in out
    assert "lower is better, 5.000 ms matters" in out
    assert "half of TCP's  gap of serval at most 0.5000 times that of tcp" in out


def test_the_plan_is_that_of_the_run_with_its_seed(capsys: pytest.CaptureFixture[str]) -> None:
    assert command.run(EXPERIMENT, ["--plan", "--runs", "3", "--seed", "5"]) == 0
    first = capsys.readouterr().out
    assert first.splitlines()[-1].endswith("--seed 5 runs it so") and len(first.splitlines()) == 1 + 6 + 1
    assert first.startswith("left out: none: this kernel has none\n")
    assert command.run(EXPERIMENT, ["--plan", "--runs", "3", "--seed", "5"]) == 0
    assert capsys.readouterr().out == first


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--contenders", "servl"], "no contender 'servl'; did you mean serval?"),
        (["--points", "7"], "--points wants all, ends, or numbers from 1 to 3"),
        (["--set", "rtts=3"], "no parameter 'rtts'; did you mean rtt?"),
        (["--set", "rtt=300", "--points", "1"], "rtt is swept"),
        (["--contenders", "none"], "no contender can run here: none (this kernel has none)"),
    ],
)
def test_what_makes_no_sense_is_refused_before_anything_starts(
    words: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert command.run(SWEPT, words) == 1
    assert said in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--runs", "0"], "a number of runs is from 1 to 1000, not '0'"),
        (["--set", "rtt"], "NAME=VALUE is wanted, not 'rtt': it has no ="),
        (["--set", "rtt=x"], "NAME=VALUE is wanted, not 'rtt=x': 'x' is no number"),
        (["--run", "3"], "unrecognized arguments"),
        (["--contenders", ","], "names are wanted, separated by commas, not ','"),
    ],
)
def test_options_that_are_none_are_refused(words: list[str], said: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        command.run(EXPERIMENT, words)
    assert ended.value.code == 2 and said in capsys.readouterr().err


def test_a_result_that_could_not_be_written_is_not_said_to_be_there(tmp_path: Path) -> None:
    path = tmp_path / "result.json"
    assert command._kept(path) == "none; it could not be written"
    path.touch()
    assert command._kept(path) == str(path)


def test_a_topology_that_makes_no_sense_is_refused(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.undo()
    assert command.run(EXPERIMENT, ["--plan"]) == 1
    assert "topology pair: no topology 'pair'; there are: " in capsys.readouterr().err
    wrong = replace(
        EXPERIMENT,
        scene=lambda values, who: replace(EXPERIMENT.scene(values, who), topology="datacenter", options={"racks": 0}),
    )
    assert command.run(wrong, ["--plan"]) == 1
    assert "topology datacenter: racks" in capsys.readouterr().err


def test_main_ends_the_program_with_the_status() -> None:
    with pytest.raises(SystemExit) as ended:
        command.main(EXPERIMENT, ["--contenders", "servl"])
    assert ended.value.code == 1


def saved(directory: Path, **settings: Any) -> Path:
    found = document(lambda turn: 0.02, **settings)
    found["runs"][0]["blackouts"] = [{"host": "ann", "flow": "flow", "cause": "link down", "at": 0.1, "detect": 0.001}]
    files.save(found, directory / files.FILE_NAME, indent=None)
    return directory


def test_a_result_is_shown_again(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert results.main(["show", str(saved(tmp_path, runs=6))]) == 0
    assert capsys.readouterr().out.startswith("A made-up experiment: slide 0\n  12 of 12 runs")
    assert results.main(["show", str(tmp_path / "result.json")]) == 0


def rows(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def test_tables_hold_every_run_bin_sample_event_and_move(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert results.main(["export", str(saved(tmp_path, runs=2)), "--csv"]) == 0
    place = tmp_path / "export"
    assert capsys.readouterr().out.splitlines() == [
        str(place / name) for name in ("runs.csv", "bins.csv", "samples.csv", "events.csv", "blackouts.csv")
    ]
    runs = rows(place / "runs.csv")
    assert [run["run"] for run in runs] == ["1", "2", "3", "4"]
    assert runs[0]["gap [ms]"] == "20.0" and runs[0]["rtt"] == "0.0" and runs[0]["trustworthy"] == "True"
    bins = rows(place / "bins.csv")
    assert len(bins) == 4 * 3 and bins[1] == {**bins[1], "begin": "0.1", "sent": "0", "received": "100"}
    assert [row["series"] for row in rows(place / "samples.csv")][:2] == ["connects", "gaps"]
    events = rows(place / "events.csv")
    assert events[0]["name"] == "ann's link goes down" and events[0]["monotonic"] == "100.1"
    assert rows(place / "blackouts.csv")[0]["cause"] == "link down"


def test_everything_as_json_elsewhere(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    place = tmp_path / "elsewhere"
    assert results.main(["export", str(saved(tmp_path)), "--json", "--directory", str(place)]) == 0
    (path,) = capsys.readouterr().out.split()
    assert json.loads(Path(path).read_text())["experiment"]["name"] == "made"
    assert not (place / "runs.csv").exists()


def test_what_is_no_result_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert results.main(["show", str(tmp_path)]) == 1
    assert "cannot read" in capsys.readouterr().err
    files.save({"format": "serval-testbed measurement", "version": 1}, tmp_path / files.FILE_NAME)
    assert results.main(["show", str(tmp_path)]) == 1
    assert "is no result file of this project" in capsys.readouterr().err
