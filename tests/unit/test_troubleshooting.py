"""docs/troubleshooting.md: each text is one that the code says, or that a test provokes."""

from __future__ import annotations

import re
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PAGE = ROOT / "docs/troubleshooting.md"
CODE = ("testbed", "serval_node", "controllers", "topologies", "scripts", "tests/sandbox", "tests/unit/testbed")

_TEXTS = re.compile(r"`([^`]+)`")
_JOINED = re.compile(r"""["']\s*\n\s*f?["']""")


def _texts() -> list[str]:
    """The texts in the first columns of the page's tables."""
    rows = [line.split(" | ")[0] for line in PAGE.read_text().splitlines() if line.startswith("| `")]
    return [text for row in rows for text in _TEXTS.findall(row)]


@cache
def _sources() -> tuple[str, ...]:
    """Each file of the code, with texts that go on in the next line in one piece."""
    files = [
        path
        for room in CODE
        for path in sorted((ROOT / room).rglob("*"))
        if path.suffix in ("", ".py") and path.is_file() and path.resolve() != Path(__file__).resolve()
    ]
    return tuple(_JOINED.sub("", path.read_text(errors="replace")) for path in files)


def _pieces(text: str) -> list[str]:
    """What of a text is always the same; its first words may be the program's name."""
    pieces = re.sub(r"^(testbed|setup|serval): |^\*\*\* ", "", text).split("...")
    return [piece.strip(" ;:") for piece in pieces if len(piece.strip(" ;:.,()?")) > 1]


@pytest.mark.parametrize("text", _texts())
def test_the_code_says_it(text: str) -> None:
    pieces = _pieces(text)
    assert pieces, f"nothing of {text!r} is always the same"
    assert any(all(piece in source for piece in pieces) for source in _sources()), f"no code says {text!r}"


def test_the_tables_are_read() -> None:
    assert len(_texts()) > 50


def test_a_text_that_nobody_says_is_found() -> None:
    with pytest.raises(AssertionError, match="no code says"):
        test_the_code_says_it("the moon is ... degrees too far")
