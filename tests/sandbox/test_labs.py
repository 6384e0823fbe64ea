"""Labs: the solution passes its grader, and the starter fails as the sheet says."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from tests.sandbox.first_hour import run
from tests.sandbox.support import ROOT

pytestmark = pytest.mark.usefixtures("host_unchanged")

LAB = ROOT / "labs" / "late-binding"
GRADE = (sys.executable, str(LAB / "grade.py"))
SOLUTION = LAB / "solution" / "late_binding.py"


def test_the_solution_passes() -> None:
    done = run(*GRADE, "--work", str(SOLUTION))
    assert done.returncode == 0, done.stdout
    assert done.stdout.endswith("lab: 5 of 5 checks passed\n"), done.stdout


def test_the_starter_fails_as_the_sheet_says() -> None:
    done = run(*GRADE)
    assert done.returncode == 1, done.stdout
    sheet = (LAB / "README.md").read_text()
    shown = sheet.partition("```text\n[1/5]")[2].partition("```")[0]
    for line in shown.replace("...\n", "").strip().splitlines():
        assert line in done.stdout, f"the sheet says {line!r}, the grader:\n{done.stdout}"
    assert "Traceback" not in done.stdout


def test_wrong_lines_are_named(tmp_path: Path) -> None:
    work, text = tmp_path / "late_binding.py", SOLUTION.read_text()
    for old, new in (
        ('"*.example", "forward"', '"web.example", "forward"'),
        ('"change", "web.example"', '"add", "web.example"'),
        ("return socket.create_connection((self.name, 80)", "socket.create_connection((self.name, 80)"),
    ):
        assert old in text
        text = text.replace(old, new)
    work.write_text(text)
    done = run(*GRADE, "--work", str(work))
    assert done.returncode == 1, done.stdout
    assert "that is not the block *.example" in done.stdout
    assert "instances_changed(): cleo: " in done.stdout
    assert "LateBinding.connect() returned None and no socket" in done.stdout
    assert done.stdout.endswith("lab: 2 of 5 checks passed\n"), done.stdout


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("def at_the_edge(:\n", "late_binding.py, line 1: SyntaxError"),
        ("x = 1\n", "late_binding.py lacks at_the_edge"),
        (None, "late_binding.py is not there"),
    ],
)
def test_a_file_that_cannot_be_read(text: str | None, words: str, tmp_path: Path) -> None:
    work = tmp_path / "late_binding.py"
    if text is not None:
        work.write_text(text)
    done = run(*GRADE, "--work", str(work))
    assert (done.returncode, words in done.stdout) == (2, True), done.stdout
