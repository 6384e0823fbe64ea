"""The result file of an experiment: versioned JSON with everything that was seen. Pictures, report and export are made
from it alone, years later too.

    {"format": "serval-testbed experiment", "version": 1, "created": "2026-11-21T13:00:00+00:00", "command": [...],
     "ended": null or why it did not end by itself,
     "settings": {"runs", "seed", "quick", "given": {parameter: value}, "contenders": [names],
                  "points": which, "capture"},                     what was asked for; none and null: all of them
     "experiment": {"name", "title", "description", "source", "statements", "against",
                    "contenders": [{"name", "label", "transport", "options"}], "skipped": [{"name", "label", "why"}],
                    "metrics": [{"name", "label", "unit", "scale", "better", "matters"}],
                    "acceptance": [...], "references": {metric: {...}}, "plots": [...], "parameters": {name: {...}}},
     "points": [{"rtt_ms": 20}, ...],                                the swept values; one empty one without a sweep
     "scenes": [{"setting", "contender", "topology", "options", "seconds", "traffic": [...], "events": [...],
                 "machines": [...]}],
     "plan": [{"number", "repetition", "setting", "contender", "seed"}, ...],
     "calibration": [{"setting", "contender", "good", "lines": [...], "paths": [{...}], "error"}],
     "manifest": {...},                                              what it ran on (`testbed.measure.environment`)
     "runs": [RUN, ...]}                                             `testbed.experiment.record`

A run that failed stands among `runs` with its reason; one that was repeated has the same number and the next attempt.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, fields
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from testbed.experiment.plan import Plan
from testbed.experiment.record import RunRecord
from testbed.experiment.specification import Experiment
from testbed.experiment.traffic import described
from testbed.measure import files

FORMAT = files.Format(
    "serval-testbed experiment",
    1,
    ("created", "settings", "experiment", "points", "scenes", "plan", "calibration", "manifest", "runs"),
    "results",
)


def new(plan: Plan, manifest: Mapping[str, Any], command: Sequence[str]) -> dict[str, Any]:
    """A document without runs. `ended` is set when it does not end by itself."""
    settings = plan.settings
    return {
        **FORMAT.head(),
        "created": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "command": list(command),
        "ended": None,
        "settings": {
            "runs": settings.runs,
            "seed": settings.seed,
            "quick": settings.quick,
            "given": dict(settings.given),
            "contenders": list(settings.contenders),
            "points": settings.points,
            "capture": settings.capture,
        },
        "experiment": _experiment(plan),
        "points": [dict(point) for point in plan.points],
        "scenes": _scenes(plan),
        "plan": [asdict(turn) for turn in plan.turns],
        "calibration": [],
        "manifest": dict(manifest),
        "runs": [],
    }


def _experiment(plan: Plan) -> dict[str, Any]:
    experiment: Experiment = plan.experiment
    return {
        "name": experiment.name,
        "title": experiment.title,
        "description": experiment.description,
        "source": experiment.source,
        "statements": list(experiment.statements),
        "against": plan.against(),
        "contenders": [
            {"name": one.name, "label": one.label, "transport": one.transport, "options": dict(one.options)}
            for one in plan.contenders
        ],
        "skipped": [{"name": one.contender.name, "label": one.contender.label, "why": one.why} for one in plan.skipped],
        # All of it but the function that computes it.
        "metrics": [
            {item.name: getattr(metric, item.name) for item in fields(metric) if item.name != "compute"}
            for metric in experiment.metrics
        ],
        "acceptance": [{**asdict(wanted), "point": dict(wanted.point)} for wanted in experiment.acceptance],
        "references": {name: asdict(reference) for name, reference in experiment.references.items()},
        "plots": [plot.described() for plot in experiment.plots],
        "parameters": {name: asdict(parameter) for name, parameter in experiment.parameters.items()},
    }


def _scenes(plan: Plan) -> list[dict[str, Any]]:
    found = []
    for setting in range(len(plan.points)):
        for contender in plan.contenders:
            scene = plan.scene(setting, contender.name)
            found.append(
                {
                    "setting": setting,
                    "contender": contender.name,
                    "topology": scene.topology,
                    "options": dict(scene.options),
                    "seconds": scene.seconds,
                    "services": scene.services,
                    "controller": list(scene.controller),
                    "traffic": [described(item) for item in scene.traffic],
                    "events": [event.described() for event in scene.events],
                    "machines": [machine.described() for machine in scene.machines],
                }
            )
    return found


def load(path: Path) -> dict[str, Any]:
    """Read a result, given its file or its directory; raises TestbedError."""
    return files.load(path / files.FILE_NAME if path.is_dir() else path, FORMAT)


def good_runs(document: Mapping[str, Any]) -> list[RunRecord]:
    """The runs that went through, in the order of the plan."""
    found = [RunRecord(run) for run in document["runs"] if run["failed"] is None]
    return sorted(found, key=lambda run: run.data["number"])


def runs_of(document: Mapping[str, Any], contender: str, setting: int) -> list[RunRecord]:
    """Those of a contender at one of the points."""
    return [run for run in good_runs(document) if (run.contender, run.data["setting"]) == (contender, setting)]


def failed_runs(document: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """The runs of the plan that failed for good: no attempt went through."""
    good = {run.data["number"] for run in good_runs(document)}
    last = {run["number"]: run for run in document["runs"] if run["number"] not in good}
    return [last[number] for number in sorted(last)]
