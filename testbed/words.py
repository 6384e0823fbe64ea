"""Words that a person typed nearly right, and words that a person reads."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """`; did you mean NAME?` for a word that is nearly one of the known ones, else nothing."""
    near = difflib.get_close_matches(word, list(known), 1, cutoff=0.7)
    return f"; did you mean {near[0]}?" if near else ""


def counted(count: int, thing: str) -> str:
    """ "1 run", "3 runs"."""
    return f"{count} {thing}" if count == 1 else f"{count} {thing}s"
