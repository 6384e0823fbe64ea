"""What the `serval` command says instead of a traceback."""

from __future__ import annotations


class CommandError(Exception):
    """One clear line for the user; `status` is the exit status."""

    def __init__(self, text: str, status: int = 1) -> None:
        super().__init__(text)
        self.status = status
