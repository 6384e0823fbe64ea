"""`testbed reproduce`: which experiment a slide means, and what it says when that has run. The run itself is a stub."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from testbed.cli import main
from testbed.errors import TestbedError
from testbed.experiment import catalogue, command
from testbed.experiment.specification import Experiment
from testbed.report import reproduce
from tests.unit.report.builder import EXPERIMENT, STORED


def about(name: str, source: str) -> Experiment:
    return replace(EXPERIMENT, name=name, source=source)


EXPERIMENTS = [
    about("nic_load_balancing", "slide 46"),
    about("migration_time", "slide 40"),
    about("client_mobility", "slide 45, on the way of slide 40"),
    about("failover", "thesis, chapter 5"),
    about("one", "slides 7 and 8"),
    about("other", "slides 7, 8"),
]


@pytest.mark.parametrize(
    ("source", "numbers"),
    [
        ("slide 46", [46]),
        ("Slides 34 and 37; thesis, table 3", [34, 37]),
        ("slides 1, 2, and 3", [1, 2, 3]),
        ("slide 45, on the way of slide 40", [45, 40]),
        ("thesis, chapter 5; 12 slides", []),
    ],
)
def test_slides_of_a_source(source: str, numbers: list[int]) -> None:
    assert reproduce.slides(source) == numbers


@pytest.mark.parametrize("word", ["slide46", "46", "Slide 46", "slide-46"])
def test_a_slide_is_named_in_many_ways(word: str) -> None:
    assert reproduce.find(reproduce.slide(word), EXPERIMENTS).name == "nic_load_balancing"


def test_who_names_a_slide_first_is_meant() -> None:
    assert reproduce.find(40, EXPERIMENTS).name == "migration_time"
    assert reproduce.find(45, EXPERIMENTS).name == "client_mobility"


@pytest.mark.parametrize(
    ("word", "said"),
    [
        ("figure3", "'figure3' is no slide"),
        ("slide12", "no experiment reproduces slide 12\n.*there are:\n"),
        ("slide8", "several experiments are about slide 8\n.*experiments.one or python -m experiments.other"),
    ],
)
def test_what_cannot_be_reproduced_is_refused(word: str, said: str) -> None:
    with pytest.raises(TestbedError, match=said):
        reproduce.find(reproduce.slide(word), EXPERIMENTS)


def result_with(*kept: int) -> dict[str, Any]:
    """The stored result with some of its acceptances: 0 held, 1 did not hold, 2 held."""
    document = json.loads(STORED.read_text())
    document["experiment"]["acceptance"] = [document["experiment"]["acceptance"][index] for index in kept]
    document["experiment"]["plots"] = []  # drawing them takes time
    return document


def few(document: dict[str, Any]) -> dict[str, Any]:
    document["runs"] = [run for run in document["runs"] if run["repetition"] < 3]
    return document


def absent(document: dict[str, Any]) -> dict[str, Any]:
    wanted = copy.deepcopy(document["experiment"]["acceptance"][0])
    document["experiment"]["acceptance"].append({**wanted, "text": "the absent too", "contender": "absent"})
    return document


Stub = Callable[[dict[str, Any] | None, int], list[Sequence[str]]]


@pytest.fixture
def stub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Stub:
    """Makes the command leave a result (none: it did not come so far) and end with a status; returns its options."""
    given: list[Sequence[str]] = []

    def prepare(document: dict[str, Any] | None, status: int) -> list[Sequence[str]]:
        def run(experiment: Experiment, arguments: Sequence[str], *, finish: Callable[..., None]) -> int:
            given.append(arguments)
            if document is not None:
                finish(document, tmp_path)
            return status

        monkeypatch.setattr(command, "run", run)
        monkeypatch.setattr(catalogue, "every", lambda: EXPERIMENTS)
        return given

    return prepare


@pytest.mark.parametrize(
    ("document", "status", "said"),
    [
        (result_with(0, 2), 0, "slide 46 is reproduced: all that was asked for held"),
        (result_with(0, 1, 2), 1, "slide 46 is NOT reproduced"),
        (few(result_with(0)), 2, "slide 46 cannot be told to be reproduced or not"),
        (absent(result_with(0)), 2, "slide 46 cannot be told"),
        (result_with(), 2, "slide 46 cannot be told"),
    ],
)
def test_the_exit_status_says_how_it_came_out(
    stub: Stub, capsys: pytest.CaptureFixture[str], document: dict[str, Any], status: int, said: str
) -> None:
    stub(document, 0)
    assert main(["reproduce", "slide46"]) == status
    assert said in capsys.readouterr().out


def test_the_comparison_in_words_and_the_figure(stub: Stub, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    document = result_with(0)
    document["experiment"]["plots"] = json.loads(STORED.read_text())["experiment"]["plots"][-1:]
    given = stub(document, 0)
    main(["reproduce", "slide46", "--runs", "6", "--set", "rtt_ms=20"])
    assert given == [["--runs", "6", "--set", "rtt_ms=20"]]
    out = capsys.readouterr().out
    assert "slide 46 has 2.000, read off by eye: 1.3 % more; within the interval" in out
    assert "DOUBTFUL: 2 of 35 runs" in out
    assert {path.suffix for path in (tmp_path / "plots").iterdir()} == {".svg", ".png", ".pdf"}


def test_where_nothing_came_out_the_commands_status_stands(stub: Stub) -> None:
    stub(None, 130)
    assert main(["reproduce", "46"]) == 130


def test_without_a_slide_they_are_listed(stub: Stub, capsys: pytest.CaptureFixture[str]) -> None:
    stub(None, 0)
    assert main(["reproduce"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "there are:" and f"  slide46  {EXPERIMENT.title} (nic_load_balancing)" in lines
    assert not any("failover" in line for line in lines)
