"""The one error that the testbed shows to its user: what is wrong, and what to do about it."""

from __future__ import annotations

import sys


class TestbedError(Exception):
    """Something the user can understand and mostly mend: one line that says what, and perhaps one that says how."""

    __test__ = False  # pytest takes every class called Test... for a collection of tests

    def __init__(self, message: str, hint: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint

    def __str__(self) -> str:
        return self.message if self.hint is None else f"{self.message}\n  {self.hint}"


def report(error: TestbedError) -> None:
    """Prints the error on standard error."""
    print(f"testbed: {error}", file=sys.stderr, flush=True)
