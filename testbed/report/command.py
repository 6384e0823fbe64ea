"""`testbed plots` and `testbed report`: pictures and pages, made again from result files."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from testbed.errors import TestbedError, report
from testbed.experiment import result, summary
from testbed.measure import canvas, files
from testbed.ownership import make_directory
from testbed.report import find, page

FORMATS = ("svg", "png", "pdf")
PLOTS = "plots"


def plots(runs: Sequence[Path], formats: Sequence[str] = FORMATS) -> int:
    """Returns the exit status: 1 when something could not be drawn."""
    for name in formats:
        if name not in FORMATS:
            raise TestbedError(f"there is no format {name!r}; there are: {', '.join(FORMATS)}")
    status = 0
    for run in _chosen(runs):
        try:
            document = result.load(run)
            for path in draw(document, _directory(run), formats):
                print(_shown(path))
        except TestbedError as error:
            report(error)
            status = 1
    return status


def reports(runs: Sequence[Path]) -> int:
    """Returns the exit status: 1 when a result could not be read or a page not be written."""
    status, made = 0, []
    for run in _chosen(runs):
        try:
            document = result.load(run)
            directory = _directory(run)
            print(_summary(document, directory))
            path = write(document, directory)
            print(f"\nreport: {_shown(path)}\n")
            made.append((document, path))
        except TestbedError as error:
            report(error)
            status = 1
    if len(made) > 1:
        print(f"index: {_shown(_index(made))}")
    return status


def draw(document: Mapping[str, Any], directory: Path, formats: Iterable[str] = FORMATS) -> list[Path]:
    """Write the pictures into DIRECTORY/plots; returns their paths. Raises TestbedError."""
    figures = _figures(document, directory)
    place = directory / PLOTS
    try:
        make_directory(place)
    except OSError as error:
        raise TestbedError(f"cannot make {place}: {error.strerror}") from None
    chosen = list(formats)
    return [
        path
        for name, (_, figure) in figures.items()
        if figure is not None
        for path in canvas.save(figure, place, name, chosen)
    ]


def write(document: Mapping[str, Any], directory: Path) -> Path:
    """Write DIRECTORY/report.html. Raises TestbedError."""
    figures = _figures(document, directory)
    return page.write(_readable(lambda: page.report(document, figures), directory), directory / page.FILE_NAME)


def _chosen(runs: Sequence[Path]) -> Sequence[Path]:
    """Those that are named, or the newest; says which newer ones have nothing to show. Raises TestbedError."""
    if runs:
        return runs
    found = find.newest()
    for one in found:
        if (words := one.words()) is not None:
            print(words)
    return [one.path for one in found]


def _summary(document: Mapping[str, Any], directory: Path) -> str:
    return _readable(lambda: summary.text(document), directory)


def _figures(document: Mapping[str, Any], directory: Path) -> dict[str, Any]:
    return _readable(lambda: page.figures_of(document), directory)


def _readable(make: Any, directory: Path) -> Any:
    """What `make` returns. A file that has the right head and not what belongs below it is told as what it is."""
    try:
        return make()
    except (KeyError, IndexError, TypeError, ValueError, AttributeError) as error:
        raise TestbedError(
            f"{directory / files.FILE_NAME} is damaged: {type(error).__name__} {error}",
            "take it from where it was made, or make the run again",
        ) from error


def _index(made: Sequence[tuple[Mapping[str, Any], Path]]) -> Path:
    """Above all pages, with relative links: it can be moved together with them."""
    top = Path(os.path.commonpath([path.resolve().parent for _, path in made]))
    entries = [(document, path.resolve().relative_to(top).as_posix()) for document, path in made]
    return page.write(page.index(entries), top / page.INDEX_NAME)


def _directory(run: Path) -> Path:
    return run if run.is_dir() else run.parent


def _shown(path: Path) -> str:
    """Relative where that is shorter."""
    return min(str(path), os.path.relpath(path), key=len)
