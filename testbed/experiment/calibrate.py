"""Before the first run: do the links do what the scenes ask of them?"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from testbed.errors import TestbedError
from testbed.experiment.live import Tools
from testbed.experiment.plan import Plan, point_words
from testbed.measure import ending
from testbed.ownership import make_directory, owned_by_caller

if TYPE_CHECKING:  # it brings a running Mininet along
    from testbed.calibration import Calibration
    from testbed.network import ServalNetwork

Measure = Callable[["ServalNetwork", Iterable[tuple[str, str]]], "list[Calibration]"]


class Told(Protocol):
    """Who hears how it goes: `testbed.experiment.progress.RunProgress`."""

    def calibrating(self, words: str) -> None: ...

    def calibrated(self, line: str) -> None: ...


def calibrate(plan: Plan, directory: Path, tools: Tools, measure: Measure, told: Told) -> Iterator[dict[str, Any]]:
    """One entry for each network that differs: the paths that its scene names, measured with nothing else on it.

    A path that cannot be measured is no reason not to run; the entry says so. Raises TestbedError only when the results
    cannot be written.
    """
    for setting, contender in plan.calibrations():
        scene = plan.scene(setting, contender)
        place = point_words(plan.points[setting])
        told.calibrating(", ".join("-".join(pair) for pair in scene.calibrate) + (f" at {place}" if place else ""))
        logs = make_directory(directory / "logs" / f"calibration-{setting + 1}-{contender}")
        entry: dict[str, Any] = {
            "setting": setting,
            "contender": contender,
            "good": False,
            "lines": [],
            "paths": [],
            "error": None,
        }
        with ending.undisturbed():
            network = tools.network(tools.build(scene.topology, scene.options), scene, logs, plan.settings.seed)
            try:
                network.start()
                with ending.disturbable():
                    measured = measure(network, scene.calibrate)
                entry["good"] = all(one.good for one in measured)
                entry["lines"] = [f"{one.source} - {one.target}: {line}" for one in measured for line in one.lines()]
                entry["paths"] = [one.as_json() for one in measured]
            except TestbedError as error:
                entry["error"] = str(error).replace("\n  ", "; ")
            finally:
                network.stop()
                tools.collect(logs)
                owned_by_caller(logs, recursive=True)
        for line in [f"not measured: {entry['error']}"] if entry["error"] is not None else entry["lines"]:
            told.calibrated(line)
        yield entry
