"""What is told of a program that ended during its start."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from testbed import processes
from testbed.errors import TestbedError


@pytest.mark.parametrize(
    ("printed", "told"),
    [
        (
            [
                "Traceback (most recent call last):",
                "SyntaxError: x",
                "controller: a.py cannot be imported: SyntaxError: x",
            ],
            "a.py cannot be imported: SyntaxError: x",
        ),
        (
            ["usage: python -m controllers.run [-h]", "python -m controllers.run: error: argument --port: invalid"],
            "argument --port: invalid",
        ),
        (
            ["usage: controllers.run --", "controllers.run --: error: unrecognized arguments: --x"],
            "unrecognized arguments: --x",
        ),
        (["one", "two: three"], "one | two: three"),
        (["controller: first", "another line"], "controller: first | another line"),
        ([], "it printed nothing"),
    ],
)
def test_the_reason_stands_alone_where_the_program_gives_one(printed: list[str], told: str, tmp_path: Path) -> None:
    program = f"import sys; sys.stderr.write({''.join(line + chr(10) for line in printed)!r}); sys.exit(2)"
    log = tmp_path / "it.log"
    with pytest.raises(TestbedError) as caught:
        processes.start("it", [sys.executable, "-c", program], log=log, ready=lambda: False)
    assert caught.value.message == f"it ended during its start with status 2: {told}"
    assert str(log) in str(caught.value)
