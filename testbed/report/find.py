"""Which results there are below results/."""

from __future__ import annotations

from pathlib import Path

from testbed import sandbox
from testbed.errors import TestbedError
from testbed.experiment import result
from testbed.measure import files

RESULTS = sandbox.ROOT / "results"
_HEAD_BYTES = 200


def newest(root: Path = RESULTS) -> list[Path]:
    """The directory of the newest run of each experiment, in the order of their names. Raises TestbedError."""
    found = [runs[-1] for place in _directories(root) if (runs := _runs(place))]
    if not found:
        raise TestbedError(f"there is no result below {root}", "make one: make experiment-NAME; `make help` lists them")
    return found


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
