"""What a learner's file does wrong is told as one line with its place."""

from __future__ import annotations

from pathlib import Path

import pytest

from labs import grading
from testbed.errors import TestbedError
from testbed.tour_steps import StepFailed

WORK = """def divide(number):
    return 1 / number


def refuse(host):
    raise host
"""


@pytest.fixture
def work(tmp_path: Path) -> Path:
    path = tmp_path / "work.py"
    path.write_text(WORK)
    return path


def test_what_is_right_is_called(work: Path) -> None:
    module = grading.load(work, ["divide"])
    assert grading.call(module.divide, 2, path=work) == 0.5


def test_an_error_names_its_line(work: Path) -> None:
    module = grading.load(work, ["divide", "refuse"])
    with pytest.raises(StepFailed, match=r"^work.py, line 2: divide\(\): ZeroDivisionError"):
        grading.call(module.divide, 0, path=work)
    with pytest.raises(StepFailed, match=r"^refuse\(\): no such host"):
        grading.call(module.refuse, TestbedError("no such host"), path=work)


def test_a_missing_name_is_named(work: Path) -> None:
    with pytest.raises(TestbedError, match="work.py lacks multiply"):
        grading.load(work, ["divide", "multiply"])


def test_the_last_line_counts(capsys: pytest.CaptureFixture[str]) -> None:
    def fails() -> str:
        raise StepFailed("no")

    assert grading.grade([("one", lambda: "yes"), ("two", fails)]) == 1
    assert capsys.readouterr().out.endswith("FAIL no\n\nlab: 1 of 2 checks passed\n")
    assert grading.grade([("one", lambda: "yes")]) == 0
