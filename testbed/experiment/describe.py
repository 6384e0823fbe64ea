"""Experiments and plans in words, for people who are about to run one."""

from __future__ import annotations

import textwrap
from pathlib import Path

from testbed.experiment import build, catalogue
from testbed.experiment import plan as planning
from testbed.experiment.plan import DEFAULT_RUNS, Plan, Settings, point_words
from testbed.experiment.specification import EVERY, Acceptance, Experiment, Metric
from testbed.measure.progress import duration
from testbed.measure.statistics import ENOUGH
from testbed.measure.table import aligned, number
from testbed.words import counted

WIDTH = 110


def experiment(one: Experiment) -> str:
    """What it consists of: `--list`."""
    parts = [f"{one.name}: {one.title} ({one.source})", textwrap.fill(" ".join(one.description.split()), WIDTH)]
    rows = [[contender.name, contender.label, contender.obstacle() or ""] for contender in one.contenders]
    rows = [[name, label, f"cannot run here: {why}" if why else ""] for name, label, why in rows]
    parts.append(_table("contenders (--contenders)", rows))
    if one.points != ({},):
        rows = [[str(number), point_words(point)] for number, point in enumerate(one.points, 1)]
        parts.append(_table("points (--points)", rows))
    rows = [
        [name, f"{found.default:g} {found.unit}".strip(), found.text, found.bounds()]
        for name, found in one.parameters.items()
    ]
    parts.append(_table("parameters (--set)", rows))
    parts.append(_table("metrics", [_metric(metric) for metric in one.metrics]))
    parts.append(_table("asked for", [[wanted.text, _bounds(wanted)] for wanted in one.acceptance]))
    return "\n\n".join(part for part in parts if part)


def _metric(metric: Metric) -> list[str]:
    words = [] if metric.better is None else [f"{metric.better} is better"]
    words += [f"{number(metric.matters)} {metric.unit}".strip() + " matters"] if metric.matters else []
    return [metric.name, f"{metric.label} [{metric.unit}]" if metric.unit else metric.label, ", ".join(words)]


def _bounds(wanted: Acceptance) -> str:
    words = [] if wanted.at_least is None else [f"at least {number(wanted.at_least)}"]
    words += [] if wanted.at_most is None else [f"at most {number(wanted.at_most)}"]
    times = f" times that of {wanted.times_of}" if wanted.times_of is not None else ""
    every = " in every run" if wanted.over == EVERY else ""
    at = f", {point_words(wanted.point)}" if wanted.point else ""
    return f"{wanted.metric} of {wanted.contender} {' and '.join(words)}{times}{every}{at}"


def _table(title: str, rows: list[list[str]]) -> str:
    return "\n".join([title, *aligned(rows)]) if rows else ""


def plan(laid: Plan) -> str:
    """Every run in its order, and the time: `--plan`."""
    rows = [
        [
            str(turn.number),
            f"repetition {turn.repetition + 1}",
            turn.contender,
            point_words(laid.points[turn.setting]),
            f"{laid.scene(turn.setting, turn.contender).seconds:g} s",
            f"seed {turn.seed}",
        ]
        for turn in laid.turns
    ]
    measured = laid.calibrations()
    lines = [f"the links are measured first, in {counted(len(measured), 'network')}"] if measured else []
    lines += [f"left out: {one.contender.name}: {one.why}" for one in laid.skipped]
    seed = laid.settings.seed
    return "\n".join([*lines, *aligned(rows), f"about {duration(laid.total_seconds())}; --seed {seed} runs it so"])


def show() -> int:
    """Print the catalogue: `testbed experiments`; returns the exit status."""
    for one in catalogue.every():
        seconds = planning.make(one, Settings(), build.topology).total_seconds()
        print(f"{one.name:<24} {duration(seconds):>14}  {one.title} ({one.source})")
    print(f'make experiment-NAME runs one, {DEFAULT_RUNS} times, which takes so long; ARGS="--help" has its options')
    return 0


def beginning(laid: Plan, directory: Path) -> str:
    """What is said before anything is started."""
    settings = laid.settings
    names = ", ".join(contender.name for contender in laid.contenders)
    points = f" at {counted(len(laid.points), 'point')}" if laid.points != ({},) else ""
    lines = [
        f"{laid.experiment.title} ({laid.experiment.source}): {counted(len(laid.turns), 'run')}, about"
        f" {duration(laid.total_seconds())}; seed {settings.seed}",
        f"  {settings.runs} x {names}{points}, to {directory}",
        *(f"  left out: {one.contender.name}: {one.why}" for one in laid.skipped),
    ]
    if settings.quick:
        lines.append("  a quick run: it only shows that it works, and no links are measured")
    elif settings.runs < ENOUGH:
        lines.append(f"  with fewer than {ENOUGH} runs there is no interval and no verdict")
    return "\n".join(lines)
