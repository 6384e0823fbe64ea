"""How the `serval` command prints: aligned columns for people, one JSON document for programs."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Sequence
from typing import Any


def print_json(value: Any) -> None:
    json.dump(value, sys.stdout, indent=2)
    sys.stdout.write("\n")


def columns(header: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    """A table with a header line; columns whose cells are all numbers are right-aligned, empty columns are left
    out.
    """
    texts = [["" if cell is None else str(cell) for cell in row] for row in rows]
    kept = [index for index in range(len(header)) if not texts or any(row[index] for row in texts)]
    widths = {index: max([len(header[index]), *(len(row[index]) for row in texts)]) for index in kept}
    right = {
        index
        for index in kept
        if rows and all(isinstance(row[index], (int, float)) or row[index] is None for row in rows)
    }

    def line(cells: Sequence[str]) -> str:
        parts = [cells[i].rjust(widths[i]) if i in right else cells[i].ljust(widths[i]) for i in kept]
        return "  ".join(parts).rstrip()

    return "\n".join([line(header), *(line(row) for row in texts)])


def size(count: int) -> str:
    """Bytes in a form that fits a column: 999, 1.5k, 20M."""
    value = float(count)
    for unit in ("", "k", "M", "G"):
        if value < 1000:
            return f"{value:.0f}{unit}" if not unit or value >= 10 else f"{value:.1f}{unit}"
        value /= 1000
    return f"{value:.0f}T"


def milliseconds(seconds: float) -> str:
    return f"{seconds * 1000:.2f} ms"


def clock(seconds: float) -> str:
    """A time of day in the local zone, to the millisecond; `seconds` of the epoch."""
    return f"{time.strftime('%H:%M:%S', time.localtime(seconds))}.{int(seconds * 1000) % 1000:03}"
