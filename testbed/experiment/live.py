"""One run on a real network: built, conducted, looked at, ended; and the record of it."""

from __future__ import annotations

import json
import random
import shutil
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mininet.topo import Topo

from testbed.errors import TestbedError
from testbed.experiment import machines
from testbed.experiment.conduct import SCHEDULE, Conductor, Start
from testbed.experiment.fidelity import Meter
from testbed.experiment.observe import Observer
from testbed.experiment.plan import Plan, Turn
from testbed.experiment.run import Running
from testbed.experiment.specification import Contender, Scene
from testbed.measure import ending
from testbed.ownership import make_directory, owned_by_caller

if TYPE_CHECKING:  # it brings a running Mininet along
    from testbed.network import ServalNetwork

EVENTS_FILE = "events.jsonl"

BuildNetwork = Callable[[Topo, Scene, Path, int], "ServalNetwork"]
"""(topology, scene, directory for logs, seed) -> a network that is not started."""


class LiveRun:
    """One run while it goes on: `testbed.experiment.run.Run`."""

    def __init__(self, network: ServalNetwork, plan: Plan, turn: Turn, scene: Scene, logs: Path) -> None:
        self.network = network
        self.scene = scene
        self.contender: Contender = plan.experiment.contender(turn.contender)
        self.values: Mapping[str, float] = plan.values(turn.setting)
        self.chance = random.Random(turn.seed)
        self.zero = 0.0
        self.realtime = 0.0
        self.logs = logs
        self.traffic: dict[str, Running] = {}
        self.facts: dict[str, Any] = {}
        self.events: list[dict[str, Any]] = []
        self._lock = threading.Lock()

    def now(self) -> float:
        """Seconds since zero; before it, 0."""
        return time.monotonic() - self.zero if self.zero else 0.0

    def log(self, name: str, *, at: float | None = None, source: str = SCHEDULE, **facts: Any) -> None:
        """Put an event on record; `at` in seconds since zero, default now."""
        event = {"at": self.now() if at is None else at, "name": name, "source": source, "facts": facts}
        with self._lock:
            self.events.append(event)

    def set_zero(self) -> None:
        """The schedule begins now. The two clocks are read between two looks at one of them: of several tries the
        closest counts.
        """
        tries = []
        for _ in range(5):
            before, wall, after = time.monotonic(), time.time(), time.monotonic()
            tries.append((after - before, (before + after) / 2, wall))
        _, monotonic, wall = min(tries)
        self.zero = time.monotonic()
        self.realtime = wall + self.zero - monotonic


@dataclass(frozen=True, slots=True)
class Tools:
    """What a run is made with; tests put others in.

    build      a topology from its name and options
    network    a network of it
    start      one item of traffic
    collect    copies the logs of hosts and nodes, which go with the network, into a directory
    """

    build: Callable[[str, Mapping[str, Any]], Topo]
    network: BuildNetwork
    start: Start
    collect: Callable[[Path], None]
    observer: Callable[[Any], Observer] = Observer
    meter: Callable[[], Meter] = Meter


def carry_out(plan: Plan, turn: Turn, attempt: int, directory: Path, tools: Tools) -> dict[str, Any]:
    """One run from nothing to nothing; its record. What can go wrong in it is in the record as its failure.

    Raises TestbedError only when the results cannot be written. Ctrl-C ends the network in order and goes on its way.
    """
    scene = plan.scene(turn.setting, turn.contender)
    place = Path("logs") / run_name(turn, attempt)
    logs = make_directory(directory / place)
    record: dict[str, Any] = {
        "number": turn.number,
        "repetition": turn.repetition,
        "attempt": attempt,
        "contender": turn.contender,
        "seed": turn.seed,
        "setting": turn.setting,
        "point": plan.values(turn.setting),
        "zero": 0.0,
        "realtime": 0.0,
        "seconds": scene.seconds,
        "failed": None,
        "log": None,
        "events": [],
        "traffic": {},
        "blackouts": [],
        "counters": {},
        "facts": {},
        "fidelity": {"trustworthy": True, "kinds": [], "reasons": []},
        "metrics": {},
        "without": {},
    }
    with ending.undisturbed():
        run = _on_network(plan, turn, scene, logs, record, directory, tools)
    if record["failed"] is not None:
        record["log"] = str(place)
    if run is not None:
        record["events"] = sorted(run.events, key=lambda event: float(event["at"]))
        record["facts"].update(run.facts)
        write_events(directory / EVENTS_FILE, record)
    return record


def _on_network(
    plan: Plan, turn: Turn, scene: Scene, logs: Path, record: dict[str, Any], directory: Path, tools: Tools
) -> LiveRun | None:
    """Builds the network, has the run conducted, and takes it down; fills the record as far as it comes."""
    run: LiveRun | None = None
    network = tools.network(tools.build(scene.topology, scene.options), scene, logs, turn.seed)
    try:
        network.start()
        if scene.services:
            network.start_services()
        ending.heed()
        run = LiveRun(network, plan, turn, scene, logs)
        machines.start(scene.machines, network, run.facts)
        ending.heed()
        if plan.settings.capture:
            _capture(network, directory / "capture" / logs.name)
        _conducted(run, record, tools)
    except TestbedError as error:
        record["failed"] = str(error).replace("\n  ", "; ")
    finally:
        if not network.stop():
            record["facts"]["unclean"] = "the network did not end in order"
        tools.collect(logs)
        owned_by_caller(logs, recursive=True)
    return run


def run_name(turn: Turn, attempt: int) -> str:
    """ "run-003-serval", of a repeated run "run-003-serval-again"."""
    return f"run-{turn.number:03d}-{turn.contender}" + ("" if not attempt else f"-again-{attempt}")


def _conducted(run: LiveRun, record: dict[str, Any], tools: Tools) -> None:
    """Has the schedule played, and fills the record."""
    conductor = Conductor(run, run.traffic, tools.start, run.set_zero)
    observer, meter = tools.observer(run.network), tools.meter()
    try:
        conductor.prepare()
        observer.begin()
        meter.begin()
        conductor.play()
        relays = observer.relays()
        record["zero"], record["realtime"] = run.zero, run.realtime
        record["fidelity"] = meter.finish(relays)
        record["counters"] = observer.counters()
        record["traffic"] = dict(conductor.finish())
        services = {item.service: item.name for item in run.scene.traffic}
        record["blackouts"] = observer.blackouts(run.zero, services)
        record["facts"].update(observer.facts())
    finally:
        meter.stop()
        conductor.stop()


def _capture(network: ServalNetwork, directory: Path) -> None:
    from testbed.capture import Capture

    capture = Capture(network.hosts, directory)
    network.undo_at_stop("the capture", capture.stop)


def write_events(path: Path, record: Mapping[str, Any]) -> None:
    """Append a run's events, one JSON object per line, with both clocks; raises TestbedError."""
    lines = [
        json.dumps(
            {
                "run": record["number"],
                "attempt": record["attempt"],
                "contender": record["contender"],
                "monotonic": record["zero"] + event["at"],
                "realtime": record["realtime"] + event["at"],
                **event,
            }
        )
        for event in record["events"]
    ]
    try:
        with path.open("a") as file:
            file.writelines(f"{line}\n" for line in lines)
        owned_by_caller(path)
    except OSError as error:
        raise TestbedError(f"cannot write {path}: {error.strerror}") from None


def collect_logs(source: Path, target: Path) -> None:
    """Copy all logs below a directory, and remove it: the next run's hosts have the same names."""
    for log in sorted(source.rglob("*.log")):
        place = target / log.relative_to(source)
        try:
            make_directory(place.parent)
            shutil.copyfile(log, place)
        except OSError as error:
            raise TestbedError(f"cannot keep {log}: {error.strerror}") from None
    shutil.rmtree(source, ignore_errors=True)
