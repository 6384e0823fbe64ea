"""A result for other programs: tables as CSV, or all of it as indented JSON.

runs.csv     a row for each run: whose, where in the plan, parameters, metrics in their shown unit, trust
bins.csv     a row for each bin of each stream: bytes sent and received
samples.csv  a row for each request, connect and silence of a receiver
events.csv   a row for each event; blackouts.csv one for each move of a flow, with its parts
"""

from __future__ import annotations

import csv
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import repeat
from pathlib import Path
from typing import Any

from testbed.errors import TestbedError
from testbed.ownership import make_directory, owned_by_caller

Document = Mapping[str, Any]
Row = Sequence[Any]

_HEAD = ("run", "attempt", "repetition", "contender", "setting")
_SERIES = ("requests", "connects", "gaps")
_SAMPLE = ("at", "seconds", "connect", "ok", "instance", "error")
_BLACKOUT = ("host", "flow", "service", "cause", "source", "target", "at", "detect", "decide", "signal", "recover")


def tables(document: Document) -> dict[str, tuple[Row, Iterable[Row]]]:
    """File name -> (heading, rows). Times in seconds after zero, sizes in bytes."""
    parameters = list(document["experiment"]["parameters"])
    metrics = document["experiment"]["metrics"]
    shown = [f"{one['name']} [{one['unit']}]" if one["unit"] else one["name"] for one in metrics]
    return {
        "runs.csv": (
            (*_HEAD, "seed", *parameters, *shown, "seconds", "failed", "trustworthy", "doubts"),
            (_run_row(run, parameters, metrics) for run in document["runs"]),
        ),
        "bins.csv": ((*_HEAD, "traffic", "begin", "sent", "received"), _bins(document)),
        "samples.csv": ((*_HEAD, "traffic", "series", *_SAMPLE), _samples(document)),
        "events.csv": ((*_HEAD, "at", "monotonic", "realtime", "source", "name", "facts"), _events(document)),
        "blackouts.csv": ((*_HEAD, *_BLACKOUT), _blackouts(document)),
    }


def write_csv(document: Document, directory: Path) -> list[Path]:
    """Write all tables; returns their paths. Raises TestbedError."""
    written = []
    for name, (heading, rows) in tables(document).items():
        path = directory / name
        try:
            make_directory(directory)
            with path.open("w", newline="") as file:
                writer = csv.writer(file)
                writer.writerow(heading)
                writer.writerows(rows)
            owned_by_caller(path)
        except OSError as error:
            raise TestbedError(f"cannot write {path}: {error.strerror}") from None
        written.append(path)
    return written


def write_json(document: Document, directory: Path) -> Path:
    """Write all of it, indented; returns the path. Raises TestbedError."""
    path = directory / "result-indented.json"
    try:
        make_directory(directory)
        path.write_text(json.dumps(document, indent=2) + "\n")
        owned_by_caller(path)
    except OSError as error:
        raise TestbedError(f"cannot write {path}: {error.strerror}") from None
    return path


def _head(run: Mapping[str, Any]) -> list[Any]:
    return [run["number"], run["attempt"], run["repetition"] + 1, run["contender"], run["setting"] + 1]


def _run_row(run: Mapping[str, Any], parameters: Sequence[str], metrics: Sequence[Mapping[str, Any]]) -> Row:
    values = [run["metrics"].get(metric["name"]) for metric in metrics]
    scaled = [None if value is None else value * metric["scale"] for value, metric in zip(values, metrics, strict=True)]
    return [
        *_head(run),
        run["seed"],
        *(run["point"].get(name) for name in parameters),
        *scaled,
        run["seconds"],
        run["failed"],
        run["fidelity"]["trustworthy"],
        "; ".join(run["fidelity"]["reasons"]),
    ]


def _bins(document: Document) -> Iterator[Row]:
    for run in document["runs"]:
        for name, item in run["traffic"].items():
            if "bin" not in item:
                continue
            # A sender in a virtual machine of the real form tells nothing (null).
            both = zip(item["sent"] or repeat(None), item["received"], strict=False)
            for number, (sent, received) in enumerate(both):
                yield [*_head(run), name, round(number * item["bin"], 9), sent, received]


def _samples(document: Document) -> Iterator[Row]:
    for run in document["runs"]:
        for name, item in run["traffic"].items():
            for series in _SERIES:
                for sample in item.get(series, ()):
                    yield [*_head(run), name, series, *(sample.get(field) for field in _SAMPLE)]


def _events(document: Document) -> Iterator[Row]:
    for run in document["runs"]:
        for event in run["events"]:
            clocks = [clock + event["at"] for clock in (run["zero"], run["realtime"])]
            yield [*_head(run), event["at"], *clocks, event["source"], event["name"], json.dumps(event["facts"])]


def _blackouts(document: Document) -> Iterator[Row]:
    for run in document["runs"]:
        for move in run["blackouts"]:
            yield [*_head(run), *(move.get(field) for field in _BLACKOUT)]
