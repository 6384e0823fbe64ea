"""Every statement of docs/statements.md is shown by a test of the running system, and the page says by which."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests import statements
from tests.statements import STATEMENTS, Shown

NUMBERS = (7, 9, 10, 11, 13, 15, 16, 18, 19, 20, 21, 23, 25, 26, *range(28, 34), *range(36, 44), 51, 58)
BEYOND = ("100 MB", "200 connections", "close orders", "half-close", "reset")
REQUIRED = frozenset({*(f"S{number}" for number in NUMBERS), *BEYOND})


@pytest.fixture(scope="module")
def found() -> list[Shown]:
    return statements.shown()


@pytest.mark.parametrize("statement", sorted(REQUIRED | STATEMENTS.keys()))
def test_a_test_of_the_running_system_shows_it(found: list[Shown], statement: str) -> None:
    assert statement in STATEMENTS, "the table of statements has lost it"
    assert [item for item in found if item.statement == statement and item.on_the_running_system]


def test_markers_name_known_statements(found: list[Shown]) -> None:
    assert {item.statement for item in found} - STATEMENTS.keys() == set()


def test_the_page_is_current(found: list[Shown]) -> None:
    assert statements.PAGE.read_text(encoding="utf-8") == statements.page(found), "run: python -m tests.statements"


def test_markers_are_read_without_importing(tmp_path: Path) -> None:
    (tmp_path / "emulation").mkdir()
    source = '@pytest.mark.statement("S1", "reset")\nasync def test_it(): ...\n\n@pytest.mark.slow\ndef test_b(): ...\n'
    (tmp_path / "emulation" / "test_a.py").write_text("raise SystemExit\n" + source)
    assert statements.shown(tmp_path) == [
        Shown("S1", "emulation/test_a.py", "test_it"),
        Shown("reset", "emulation/test_a.py", "test_it"),
    ]
    (tmp_path / "test_c.py").write_text("@pytest.mark.statement(name)\ndef test_it(): ...\n")
    with pytest.raises(ValueError, match=r"test_c\.py:1: a statement is named by a string"):
        statements.shown(tmp_path)
