"""Headless pictures: where they are drawn and how they are written, for all plots of the testbed."""

from __future__ import annotations

import atexit
import os
import shutil
import tempfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from testbed.errors import TestbedError
from testbed.ownership import caller, owned_by_caller

FORMATS = ("svg", "png")
_DPI = 120
_NO_DATE: dict[str, dict[str, None]] = {"svg": {"Date": None}, "pdf": {"CreationDate": None}, "png": {}}
"""The same result gives the same file, whenever it is drawn."""


def new(width: float, height: float) -> Any:
    """A matplotlib Figure of so many inches, without a display."""
    _leave_home_alone()
    # Only here: the import takes longer than a short benchmark.
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def save(figure: Any, directory: Path, name: str, formats: Iterable[str] = FORMATS) -> list[Path]:
    """Write NAME.svg and so on; returns the paths. Raises TestbedError."""
    import matplotlib

    written = []
    for kind in formats:
        path = directory / f"{name}.{kind}"
        try:
            with matplotlib.rc_context({"svg.hashsalt": name}):  # else the names inside an SVG are drawn anew each time
                figure.savefig(path, dpi=_DPI, metadata=_NO_DATE[kind])
            owned_by_caller(path)
        except OSError as error:
            raise TestbedError(f"cannot write {path}: {error.strerror}") from None
        written.append(path)
    return written


def _leave_home_alone() -> None:
    """Under sudo the cache of fonts would be left in the caller's home, with root as its owner."""
    if caller() is not None and "MPLCONFIGDIR" not in os.environ:
        place = tempfile.mkdtemp(prefix="matplotlib-")
        os.environ["MPLCONFIGDIR"] = place
        atexit.register(shutil.rmtree, place, ignore_errors=True)
