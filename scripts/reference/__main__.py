"""Writes what is made from other files: `python -m scripts.reference`; --check only compares it.

Pages of docs/ come from the code, the labs' starters from their solutions.

Exit status: 0, with --check 1 and one line for each page that is behind the code.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

from labs import starters
from scripts.reference import api, commands
from tests import statements


def _starter(solution: Path) -> str:
    return starters.starter(solution.read_text("utf-8"), str(solution))


PAGES: dict[Path, Callable[[], str]] = {
    commands.PAGE: commands.page,
    api.PAGE: api.page,
    statements.PAGE: lambda: statements.page(statements.shown()),
    **{made: partial(_starter, solution) for solution, made in starters.pairs()},
}


def main(arguments: Sequence[str]) -> int:
    stale = [page for page, text in PAGES.items() if not page.exists() or page.read_text("utf-8") != text()]
    for page in stale:
        if "--check" in arguments:
            print(f"{page} is behind the code: make reference", file=sys.stderr)
        else:
            page.write_text(PAGES[page](), encoding="utf-8")
    return 1 if stale and "--check" in arguments else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
