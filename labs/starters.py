"""Makes starters from solutions. A solution marks what is to be found out:

    # TODO 1: what is to be done, as the starter shows it
    # <solution>
    the lines that the starter lacks
    # </solution>

In the starter the marked lines, and the marks, are one line: `# your code for TODO 1`. The function around it has a
docstring, so a starter runs, and fails as its sheet says.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

LABS = Path(__file__).resolve().parent
_TODO = re.compile(r"\s*# TODO (\d+):")
_BEGIN, _END = "# <solution>", "# </solution>"


class MarkError(ValueError):
    """A solution whose marks do not fit together; the text names file and line."""


def starter(text: str, name: str = "solution") -> str:
    """The starter of a solution's text. Raises MarkError."""
    return "".join(f"{line}\n" for line in _lines(text, name))


def _lines(text: str, name: str) -> Iterator[str]:
    todo: str | None = None
    begun: int | None = None
    for number, line in enumerate(text.splitlines(), 1):
        place = f"{name}:{number}"
        mark = line.strip()
        if found := _TODO.match(line):
            todo = found[1]
        if mark == _BEGIN:
            if begun is not None or todo is None:
                raise MarkError(f"{place}: {_BEGIN} {'within another one' if begun else 'without a TODO above it'}")
            begun = number
            yield line.replace(_BEGIN, f"# your code for TODO {todo}")
        elif mark == _END:
            if begun is None:
                raise MarkError(f"{place}: {_END} without its beginning")
            begun = todo = None
        elif begun is None:
            yield line
    if begun is not None:
        raise MarkError(f"{name}:{begun}: {_BEGIN} without its end")


def pairs() -> Iterator[tuple[Path, Path]]:
    """(solution, starter) of every lab."""
    for solution in sorted(LABS.glob("*/solution/*.py")):
        yield solution, solution.parent.parent / solution.name
