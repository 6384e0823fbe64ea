"""Results without a network: an experiment, and documents whose runs have the metrics that a test wants."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

from mininet.topo import Topo

from testbed.experiment import plan, result
from testbed.experiment.plan import Plan, Settings
from testbed.experiment.schedule import Event
from testbed.experiment.specification import (
    EVERY,
    LOWER,
    TCP,
    Acceptance,
    Contender,
    Experiment,
    Metric,
    Parameter,
    Reference,
    Scene,
)
from testbed.experiment.traffic import Stream


class Pair(Topo):
    """Two hosts on one link."""

    def build(self) -> None:
        self.addHost("ann")
        self.addHost("dan")
        self.addLink("ann", "dan")


def build(name: str, options: Mapping[str, Any]) -> Topo:
    return Pair()


STREAM = Stream(name="flow", source="ann", target="dan", service="bulk.example", rate=10)
EVENTS: tuple[Event, ...] = ()


def scene(values: Mapping[str, float], contender: Contender) -> Scene:
    options = {"delay": values["rtt"]}
    return Scene(topology="pair", options=options, traffic=(STREAM,), events=EVENTS, seconds=0.3)


EXPERIMENT = Experiment(
    name="made",
    title="A made-up experiment",
    description="Nothing happens.",
    source="slide 0",
    statements=("E0",),
    contenders=(
        Contender(name="serval", label="Serval"),
        Contender(name="tcp", label="kernel TCP", transport=TCP),
        Contender(name="none", label="nothing", transport=TCP, missing=lambda: "this kernel has none"),
    ),
    scene=scene,
    metrics=(
        Metric(
            name="gap",
            label="longest silence",
            compute=lambda run: run.largest_gap("flow"),
            unit="ms",
            scale=1e3,
            better=LOWER,
            matters=5.0,
        ),
        Metric(name="bytes", label="bytes", compute=lambda run: run.traffic("flow")["bytes"]),
    ),
    acceptance=(
        Acceptance(text="short", metric="gap", contender="serval", at_most=30.0),
        Acceptance(text="always short", metric="gap", contender="serval", at_most=40.0, over=EVERY),
        Acceptance(text="half of TCP's", metric="gap", contender="serval", at_most=0.5, times_of="tcp"),
    ),
    references={"gap": Reference(20.0, "slide 0", by_eye=True)},
    parameters={"rtt": Parameter(0.0, "ms", "round-trip time", low=0.0, high=100.0)},
)

SWEPT = replace(EXPERIMENT, points=({"rtt": 0.0}, {"rtt": 10.0}, {"rtt": 20.0}))


def planned(experiment: Experiment = EXPERIMENT, **settings: Any) -> Plan:
    return plan.make(experiment, Settings(**settings), build)


def document(gap: Callable[[plan.Turn], float | None], experiment: Experiment = EXPERIMENT, **settings: Any) -> Any:
    """A result in which each run has the gap (seconds) that the function says, None: it failed."""
    laid = planned(experiment, **settings)
    made = result.new(laid, {"summary": "a test's machine"}, ["test"])
    for turn in laid.turns:
        made["runs"].append(run(turn, gap(turn), laid.values(turn.setting)))
    return made


def run(turn: plan.Turn, gap: float | None, values: Mapping[str, float]) -> dict[str, Any]:
    """One run of a result."""
    return {
        "number": turn.number,
        "repetition": turn.repetition,
        "attempt": 0,
        "contender": turn.contender,
        "seed": turn.seed,
        "setting": turn.setting,
        "point": dict(values),
        "zero": 100.0,
        "realtime": 1.7e9,
        "seconds": 0.3,
        "failed": "it did not work" if gap is None else None,
        "log": "logs/run-001" if gap is None else None,
        "events": [{"at": 0.1, "name": "ann's link goes down", "source": "schedule", "facts": {}}],
        "traffic": {
            "flow": {
                "kind": "stream",
                "bin": 0.1,
                "sent": [1000, 0, 1000],
                "received": [900, 100, 1000],
                "bytes": 2000,
                "intact": True,
                "broken": None,
                "connects": [{"at": -0.01, "seconds": 0.002, "ok": True}],
                "gaps": [{"at": 0.1, "seconds": gap}],
            }
        },
        "blackouts": [],
        "counters": {},
        "facts": {},
        "fidelity": {"trustworthy": True, "kinds": [], "reasons": []},
        "metrics": {} if gap is None else {"gap": gap, "bytes": 2000},
        "without": {},
    }
