"""What a lab's grader does with what somebody wrote: load it, run the checks in their order, say what each showed.

A check returns what it has seen to be right, or raises StepFailed with what is wrong and where to look. The exit status
is 0 when all passed, 1 when one failed, 2 when the work could not be read or the network not be built.
"""

from __future__ import annotations

import argparse
import importlib.util
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

from testbed.errors import TestbedError
from testbed.tour_steps import Step, StepFailed, run_steps

UNREADABLE = 2


def load(path: Path, wanted: Sequence[str]) -> ModuleType:
    """The module of what somebody wrote, with all the names that a lab wants. Raises TestbedError with its place."""
    if not path.exists():
        raise TestbedError(f"{path} is not there", 'give the file to be graded: ARGS="--work FILE"')
    spec = importlib.util.spec_from_file_location(path.stem, path)
    if spec is None or spec.loader is None:
        raise TestbedError(f"{path} is no Python file")
    module = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
    except Exception as error:  # noqa: BLE001 - whatever a learner's file does wrong is told as one line with its place
        raise TestbedError(f"{_where(error, path)}{type(error).__name__}: {error}") from None
    missing = [name for name in wanted if not hasattr(module, name)]
    if missing:
        raise TestbedError(f"{path} lacks {missing[0]}", "the starter has it: git diff shows what was changed")
    return module


def call(function: Callable[..., Any], *arguments: Any, path: Path) -> Any:
    """Call what somebody wrote; whatever it raises is a StepFailed that names the line."""
    try:
        return function(*arguments)
    except TestbedError as error:
        raise StepFailed(f"{function.__name__}(): {error}") from None
    except Exception as error:  # noqa: BLE001 - as above
        raise StepFailed(f"{_where(error, path)}{function.__name__}(): {type(error).__name__}: {error}") from None


def _where(error: BaseException, path: Path) -> str:
    """ "late_binding.py, line 12: " for an error that came from the file."""
    if isinstance(error, SyntaxError):
        return f"{path.name}, line {error.lineno}: "
    lines = [frame.lineno for frame in traceback.extract_tb(error.__traceback__) if Path(frame.filename) == path]
    return f"{path.name}, line {lines[-1]}: " if lines else ""


def parser(description: str, default: Path) -> argparse.ArgumentParser:
    """The command line that all graders have."""
    made = argparse.ArgumentParser(description=description)
    made.add_argument(
        "--work", type=Path, default=default, metavar="FILE", help="what is graded (default: %(default)s)"
    )
    return made


def grade(steps: Sequence[Step]) -> int:
    """All checks; the exit status."""
    return run_steps(steps, lambda line: print(line, flush=True), what="lab", which="checks")
