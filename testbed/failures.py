"""What a run says when it fails: the error, what to do, and where its logs are now."""

from __future__ import annotations

import os
import shutil
import tempfile
import time
from pathlib import Path

from testbed import sandbox, symptoms
from testbed.errors import TestbedError, report
from testbed.ownership import make_directory, owned_by_caller

RESULTS = sandbox.ROOT / "results"
LOGS = Path("/run/testbed")
"""Inside the sandbox: what is there goes with it."""


def tell(label: str, error: TestbedError | OSError | MemoryError) -> None:
    """Reports why a run failed, after its logs were copied to where they stay; says where that is."""
    known = error if isinstance(error, TestbedError) else symptoms.explained(error)
    kept = save_logs(label)
    hints = [*(symptoms.hint(known.message) or "").splitlines(), *(known.hint or "").splitlines()]
    hints += [symptoms.disk_hint()] if symptoms.full_places() else []  # not everybody who finds a full disk says so
    hints = [line.strip() for line in hints]
    if isinstance(kept, Path):
        hints = [line.replace(f"{LOGS}{os.sep}", f"{kept}{os.sep}") for line in hints]
    report(TestbedError(known.message, "\n  ".join(dict.fromkeys(hints)) or None))
    if isinstance(kept, Path):
        report(TestbedError(f"the logs were kept in {kept}"))
    elif kept is not None:
        report(kept)


def keep_logs(label: str) -> TestbedError:
    """Copies the run's logs out of the sandbox; returns where they are, or why not, as something to report."""
    kept = save_logs(label)
    if kept is None:
        return TestbedError("there are no logs: nothing was started yet")
    return TestbedError(f"the logs were kept in {kept}") if isinstance(kept, Path) else kept


def save_logs(label: str) -> Path | TestbedError | None:
    """Copies the run's logs below results/, or where that is impossible to the directory for temporary files.

    Returns the copies' directory, why there is none, or None when there is nothing to copy.
    """
    logs = sorted(LOGS.rglob("*.log"))
    if not logs:
        return None
    name = f"failed-{label}-{time.strftime('%Y%m%d-%H%M%S')}"
    problem = ""
    for place in (RESULTS, Path(tempfile.gettempdir())):
        try:
            return _copy(logs, place / name)
        except OSError as error:
            problem += f"; {place}: {error.strerror}"
            shutil.rmtree(place / name, ignore_errors=True)  # half of the logs would mislead
    return TestbedError(
        f"the logs could not be kept{problem}",
        "make room or make one of the two writable, and run it again to see more",
    )


def _copy(logs: list[Path], kept: Path) -> Path:
    make_directory(kept)
    for log in logs:
        target = kept / log.relative_to(LOGS)
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(log, target)
    return owned_by_caller(kept, recursive=True)
