"""Starters are made from solutions, and nothing of the solution is left in them."""

from __future__ import annotations

import pytest

from labs.starters import MarkError, pairs, starter

SOLUTION = '''def rule(host):
    """One rule."""
    # TODO 1: write it
    # <solution>
    secret(host)
    # </solution>
'''


def test_the_solution_is_cut_out() -> None:
    assert starter(SOLUTION) == (
        'def rule(host):\n    """One rule."""\n    # TODO 1: write it\n    # your code for TODO 1\n'
    )


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("# <solution>\n", "x.py:1: # <solution> without a TODO above it"),
        ("# TODO 1: a\n# <solution>\n# <solution>\n", "x.py:3: # <solution> within another one"),
        ("# TODO 1: a\n# <solution>\n", "x.py:2: # <solution> without its end"),
        ("# </solution>\n", "x.py:1: # </solution> without its beginning"),
        (SOLUTION + "# <solution>\n# </solution>\n", "x.py:7: # <solution> without a TODO above it"),
    ],
)
def test_marks_that_do_not_fit(text: str, words: str) -> None:
    with pytest.raises(MarkError, match=words):
        starter(text, "x.py")


@pytest.mark.parametrize("pair", list(pairs()), ids=lambda pair: pair[0].parent.parent.name)
def test_each_starter_is_its_solution_without_the_solution(pair: tuple) -> None:
    solution, made = pair
    assert made.read_text() == starter(solution.read_text()), "make reference writes the starters"
    assert "<solution>" not in made.read_text()
    compile(made.read_text(), str(made), "exec")
