"""Which results there are below results/."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from testbed import sandbox
from testbed.errors import TestbedError
from testbed.experiment import result
from testbed.measure import files

RESULTS = sandbox.ROOT / "results"
_HEAD_BYTES = 200


@dataclass(frozen=True, slots=True)
class Newest:
    """An experiment's newest result that says something, and newer ones that ended before their first run."""

    path: Path
    passed_over: tuple[Path, ...] = ()

    def words(self) -> str | None:
        """What was passed over, as a sentence; None when nothing was."""
        if not self.passed_over:
            return None
        names = ", ".join(path.name for path in self.passed_over)
        return f"{self.path.parent.name}: {names} ended without a run; taken is {self.path.name}"


def newest(root: Path = RESULTS) -> list[Newest]:
    """The newest result of each experiment, in the order of their names. Raises TestbedError."""
    found = [_newest_of(runs) for place in _directories(root) if (runs := _runs(place))]
    if not found:
        raise TestbedError(f"there is no result below {root}", "make one: make experiment-NAME; `make help` lists them")
    return found


def _newest_of(results: list[Path]) -> Newest:
    """Of results, oldest first, the last with a run; where none has one, the last."""
    for count, path in enumerate(reversed(results)):
        if not _is_empty(path):
            return Newest(path, tuple(results[len(results) - count :]))
    return Newest(results[-1])


def _is_empty(path: Path) -> bool:
    """Whether it was interrupted before its first run. What cannot be read is not passed over: reading it says so."""
    try:
        return not result.load(path)["runs"]
    except (TestbedError, KeyError):
        return False


def _directories(place: Path) -> list[Path]:
    try:
        return sorted(path for path in place.iterdir() if path.is_dir() and not path.is_symlink())
    except OSError:
        return []


def _runs(place: Path) -> list[Path]:
    """Those with a result of an experiment, oldest first: their names are their times."""
    return [path for path in _directories(place) if _is_experiment(path / files.FILE_NAME)]


def _is_experiment(path: Path) -> bool:
    """Whether it may be one: what says that it is something else is not; what is damaged is, and reading it says so."""
    try:
        with path.open(encoding="utf-8", errors="replace") as file:
            head = file.read(_HEAD_BYTES)
    except OSError:
        return False
    return result.FORMAT.name in head or '"format"' not in head
