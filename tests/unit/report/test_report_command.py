"""`testbed report` and `testbed plots`: from result files on disk, also from damaged and unknown ones."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from testbed.cli import main
from testbed.report import find
from tests.unit.report.builder import STORED


def stored(**changed: Any) -> dict[str, Any]:
    return {**json.loads(STORED.read_text()), **changed}


def put(document: Any, directory: Path) -> Path:
    directory.mkdir(parents=True)
    (directory / "result.json").write_text(document if isinstance(document, str) else json.dumps(document))
    return directory


def without_plots() -> dict[str, Any]:
    """A result whose page takes no time."""
    document = stored()
    document["experiment"]["plots"] = []
    return document


def test_a_report_is_a_summary_and_a_page(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = put(without_plots(), tmp_path / "stored" / "1")
    assert main(["report", str(run)]) == 0
    said = capsys.readouterr().out
    assert said.startswith("Two flows share a link") and "NOT HELD     hardly a dip" in said
    assert "report.html" in said.splitlines()[-2] and "index" not in said
    assert (run / "report.html").read_text().startswith("<!DOCTYPE html>")


def test_several_have_an_index_that_can_be_moved_with_them(tmp_path: Path) -> None:
    runs = [put(without_plots(), tmp_path / name / "1") for name in ("one", "two")]
    assert main(["report", str(runs[0]), str(runs[1] / "result.json")]) == 0
    index = (tmp_path / "index.html").read_text()
    assert 'href="one/1/report.html"' in index and 'href="two/1/report.html"' in index


def test_plots_are_written_beside_the_result(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    document = stored()
    document["experiment"]["plots"] = document["experiment"]["plots"][-1:]
    run = put(document, tmp_path / "1")
    assert main(["plots", str(run)]) == 0
    files = {path.name: path.read_bytes()[:5] for path in (run / "plots").iterdir()}
    assert files["dip-rtt.pdf"] == b"%PDF-" and files["dip-rtt.png"][1:4] == b"PNG" and files["dip-rtt.svg"] == b"<?xml"
    assert capsys.readouterr().out.count("dip-rtt") == 3
    first = {path.name: path.read_bytes() for path in (run / "plots").iterdir()}
    assert main(["plots", str(run)]) == 0
    assert {path.name: path.read_bytes() for path in (run / "plots").iterdir()} == first, "the same result, other files"


def test_the_newest_run_of_each_experiment_is_the_default(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("one/20261121-130000", "one/20261121-140000", "two/20261121-120000"):
        put(stored(), tmp_path / name)
    (tmp_path / "one" / "latest").symlink_to("20261121-130000")
    put({"format": "serval-testbed measurement", "version": 1}, tmp_path / "bench" / "20261121-150000")
    (tmp_path / "one" / "20261121-160000").mkdir()  # nothing was written into it
    found = [one.path for one in find.newest(tmp_path)]
    assert found == [tmp_path / "one" / "20261121-140000", tmp_path / "two" / "20261121-120000"]


def test_what_was_interrupted_before_its_first_run_is_passed_over_and_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    kept = put(without_plots(), tmp_path / "one" / "20261121-130000")
    put(stored(runs=[], ended="KeyboardInterrupt"), tmp_path / "one" / "20261121-140000")
    alone = put(stored(runs=[], ended="KeyboardInterrupt"), tmp_path / "two" / "20261121-120000")
    found = find.newest(tmp_path)
    assert [one.path for one in found] == [kept, alone] and found[1].words() is None
    monkeypatch.setattr(find, "newest", lambda: found[:1])
    assert main(["report"]) == 0
    assert "one: 20261121-140000 ended without a run; taken is 20261121-130000" in capsys.readouterr().out
    assert (kept / "report.html").exists()


def test_without_results_it_says_how_to_make_one(tmp_path: Path) -> None:
    with pytest.raises(find.TestbedError, match="make experiment-NAME"):
        find.newest(tmp_path)


def lose_fidelity() -> dict[str, Any]:
    document = stored()
    del document["runs"][3]["fidelity"]
    return document


@pytest.mark.parametrize(
    ("document", "words"),
    [
        (lambda: stored(version=99), "has version 99 of the format; this program reads 1"),
        (lambda: stored(format="something"), "is no result file of this project"),
        (lambda: STORED.read_text()[:5000], "is no result file"),
        (lose_fidelity, "is damaged: KeyError 'fidelity'"),
        (lambda: stored(runs=[{"number": 1}]), "is damaged"),
        (lambda: stored(points=[]), "is damaged"),
        (lambda: {key: value for key, value in stored().items() if key != "runs"}, "lacks 'runs'"),
    ],
)
def test_what_cannot_be_read_is_told_and_the_others_are_made(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], document: Callable[[], Any], words: str
) -> None:
    bad, good = put(document(), tmp_path / "bad" / "1"), put(without_plots(), tmp_path / "good" / "1")
    assert main(["report", str(bad), str(good)]) == 1
    assert words in capsys.readouterr().err
    assert not (bad / "report.html").exists() and (good / "report.html").exists()


def test_wrong_words(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["plots", "--formats", "svg,gif", str(put(without_plots(), tmp_path / "1"))]) == 1
    assert "there is no format 'gif'; there are: svg, png, pdf" in capsys.readouterr().err
    assert main(["report", str(tmp_path / "nothing")]) == 1
    assert "cannot read" in capsys.readouterr().err


def test_a_page_that_cannot_be_written(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = put(without_plots(), tmp_path / "1")
    (run / "report.html").mkdir()
    (run / "plots").write_text("")
    assert main(["report", str(run)]) == 1 and main(["plots", str(run)]) == 1
    said = capsys.readouterr().err
    assert "cannot write" in said and "cannot make" in said


def test_neither_mininet_nor_the_experiment_is_needed(tmp_path: Path) -> None:
    document = stored()
    document["experiment"]["plots"] = document["experiment"]["plots"][-1:]
    run = put(document, tmp_path / "run")
    without = "import sys; sys.modules.update(dict.fromkeys(['mininet', 'experiments'])); from testbed.cli import main;"
    done = subprocess.run(
        [sys.executable, "-c", f"{without} sys.exit(main(['report', {str(run)!r}]))"],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "<svg" in (run / "report.html").read_text()
