"""The command line, as far as it needs neither root nor a network."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from experiments.benchmarks import command
from experiments.benchmarks.catalogue import BENCHMARKS
from testbed import sandbox
from tests.unit.measure.test_measure_analysis import STORED


def test_the_list_names_every_benchmark_and_its_time(capsys: pytest.CaptureFixture[str]) -> None:
    assert command.main(["--list"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines] == [benchmark.name for benchmark in BENCHMARKS]
    assert all(" s  " in line for line in lines)


def test_the_list_of_a_quick_run_is_of_what_it_would_do(capsys: pytest.CaptureFixture[str]) -> None:
    assert command.main(["--list", "--quick"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert next(line for line in lines if line.startswith("hosts")).endswith("per node (quick)")
    assert any("  20 connections at once" in line for line in lines)


def test_an_unknown_name_is_refused_before_anything_starts(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def never(*, name: str) -> None:
        raise AssertionError("a sandbox was entered")

    monkeypatch.setattr(sandbox, "enter", never)
    assert command.main(["speed"]) == 1
    assert "testbed: no benchmark 'speed'\n  there are: goodput," in capsys.readouterr().err


@pytest.mark.parametrize("count", ["0", "-3", "x", "1001"])
def test_a_number_of_pairs_that_makes_no_sense_is_refused(count: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        command.main(["--pairs", count])
    assert ended.value.code == 2
    assert "pairs is from 1 to 1000" in capsys.readouterr().err or count == "-3"


def test_a_stored_result_is_shown_and_plotted_again(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    shutil.copy(STORED, tmp_path / "result.json")
    assert command.main(["--plot", str(tmp_path / "result.json")]) == 0
    out = capsys.readouterr().out
    assert "A stored result" in out and f"plot: {tmp_path / 'stored.svg'}" in out
    assert (tmp_path / "stored.png").exists()


def test_the_table_in_markdown(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    shutil.copy(STORED, tmp_path / "result.json")
    assert command.main(["--markdown", "--plot", str(tmp_path / "result.json")]) == 0
    assert "### A stored result\n\n| figure | median |" in capsys.readouterr().out


def test_what_is_no_result_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert command.main(["--plot", str(tmp_path / "none.json")]) == 1
    assert "cannot read" in capsys.readouterr().err
