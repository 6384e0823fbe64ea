"""The result file: versioned JSON with everything that was read, from which tables and plots are made again later.

    {"format": "serval-testbed measurement", "version": 1, "created": "2026-11-21T13:00:00+00:00",
     "settings": {"pairs", "seed", "quick"}, "command": [...], "environment": {...}, "ended": null,
     "benchmarks": [{"name", "title", "comparisons": [...], "figures": [...], "parameters": {...}, "bed": {...},
                     "complete", "error", "seconds", "pairs": [PAIR, ...]}]}

A PAIR: {"comparison": index, "number", "attempt", "order": [variant, variant], "void": null or the reason, "used",
         "at": seconds since the start, "subject": READING, "reference": READING, "load": {"before", "subject",
         "reference", "after"}}; a READING: {"metrics", "samples", "facts"}, SI units.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from testbed.measure import files

FORMAT = files.Format(
    "serval-testbed measurement", 1, ("created", "settings", "environment", "benchmarks"), "results/bench"
)


def new(settings: Mapping[str, Any], environment: Mapping[str, Any], command: list[str]) -> dict[str, Any]:
    """A document without benchmarks. `ended` is set when the run did not end by itself."""
    return {
        **FORMAT.head(),
        "created": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "command": command,
        "settings": dict(settings),
        "environment": dict(environment),
        "ended": None,
        "benchmarks": [],
    }


def load(path: Path) -> dict[str, Any]:
    """Read a result file; raises TestbedError when it is none, or of a version that is not known here."""
    return files.load(path, FORMAT)
