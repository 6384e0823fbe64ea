"""Figures as text: a table for the terminal, the same in Markdown for a page."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from testbed.measure import analysis
from testbed.measure.analysis import Outcome
from testbed.measure.statistics import ENOUGH, NO_AIM, TOO_FEW

COLUMNS = ("figure", "median", "95 % interval", "noise", "x calibration", "aim", "verdict", "n")


def number(value: float | None) -> str:
    """Four significant digits, without an exponent where that is readable."""
    if value is None:
        return "-"
    if value == 0:
        return "0"
    if 1e-4 <= abs(value) < 1e5:
        digits = 0 if abs(value) >= 1000 else 4
        return f"{value:.0f}" if not digits else f"{value:#.4g}".rstrip(".")
    return f"{value:.3e}"


def row(outcome: Outcome) -> list[str]:
    interval, unit = outcome.interval, f" {outcome.unit}" if outcome.unit and outcome.values else ""
    sign = ">=" if outcome.better == "higher" else "<="
    said = "" if outcome.verdict == NO_AIM else outcome.verdict
    if outcome.verdict == TOO_FEW:
        said = f"too few (< {ENOUGH})"
    words = [word for word in (said, outcome.strength, "doubtful" if outcome.doubtful else "") if word]
    return [
        outcome.label,
        number(outcome.median) + unit,
        "-" if interval is None else f"{number(interval.low)} .. {number(interval.high)}",
        "-" if outcome.noise is None else f"+-{number(outcome.noise)}",
        "" if outcome.multiple is None else f"{outcome.multiple:.2f}",
        "" if outcome.aim is None else f"{sign} {number(outcome.aim)}",
        ", ".join(words),
        str(outcome.count),
    ]


def text(document: Mapping[str, Any]) -> str:
    """The tables of all benchmarks for a terminal."""
    parts = []
    for entry in document["benchmarks"]:
        rows = [row(outcome) for outcome in analysis.of_benchmark(document, entry)]
        parts.append("\n".join([analysis.heading(document, entry), *aligned([list(COLUMNS), *rows]), *notes(entry)]))
    return "\n\n".join(parts)


def markdown(document: Mapping[str, Any]) -> str:
    """The same to paste into a page, with what it was measured on."""
    environment, settings = document["environment"], document["settings"]
    short = "A quick run, which only shows that it works. " if analysis.quick(document) else ""
    parts = [
        f"{short}Measured {document['created']} on {environment.get('summary', 'an unknown machine')}; at most"
        f" {settings['pairs']} pairs of each kind, seed {settings['seed']}."
    ]
    for entry in document["benchmarks"]:
        rows = [row(outcome) for outcome in analysis.of_benchmark(document, entry)]
        lines = [
            f"### {analysis.heading(document, entry)}",
            "",
            _bar(COLUMNS),
            _bar(["---"] * len(COLUMNS)),
            *(_bar(one) for one in rows),
        ]
        parts.append("\n".join([*lines, "", *notes(entry)]).rstrip())
    return "\n\n".join(parts) + "\n"


def notes(entry: Mapping[str, Any]) -> list[str]:
    """What a reader must know beside the figures: void pairs, doubts, errors, an early end."""
    lines = []
    if count := analysis.void_count(entry):
        lines.append(f"{count} void pairs (machine busy with something else)")
    if (doubt := analysis.doubtful(entry)) is not None:
        lines.append(f"DOUBTFUL: {doubt}")
    if entry["error"] is not None:
        lines.append(f"FAILED: {entry['error']}")
    elif not entry["complete"]:
        lines.append("interrupted: fewer pairs than planned")
    return lines


def aligned(rows: Sequence[Sequence[str]], indent: str = "  ") -> list[str]:
    """Lines in which the columns begin one below the other."""
    widths = [max(len(line[column]) for line in rows) for column in range(len(rows[0]))]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)) for line in rows]
    return [indent + line.rstrip() for line in lines]


def _bar(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"
