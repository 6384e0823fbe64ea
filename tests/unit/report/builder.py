"""A small result, as a run of the engine would leave it, with something of everything that a report shows.

    python -m tests.unit.report.builder     write stored-result.json again

Three contenders at two points, six repetitions; one run of TCP is doubtful, one of MPTCP has failed; one contender was
left out. Each metric is made so that one acceptance holds, one does not, and one cannot be told.
"""

from __future__ import annotations

import json
import random
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mininet.topo import Topo

from testbed.calibration import Calibration, Quantity
from testbed.experiment import plan, result
from testbed.experiment.schedule import BY_ORDER, Event
from testbed.experiment.specification import (
    HIGHER,
    LOWER,
    MPTCP,
    TCP,
    Acceptance,
    Contender,
    Experiment,
    Metric,
    Parameter,
    Reference,
    Scene,
)
from testbed.experiment.traffic import Requests, Stream
from testbed.report.plots import Bars, BlackoutPhases, Cdf, Curve, Instances, Parts, Shape, TimeSeries

STORED = Path(__file__).with_name("stored-result.json")
RUNS, SECONDS, BIN, MOVE_AT = 6, 3.0, 0.1, 1.5
MOVE, CUT = "flow1 moves to eth1", "dan's eth0 goes down, silently"


@dataclass(frozen=True)
class Said:
    """An action that only has a name."""

    words: str
    notice: str | None = None

    def describe(self) -> str:
        return self.words

    def check(self, topology: Topo, traffic: Collection[str]) -> None:
        return

    def carry_out(self, run: Any) -> Mapping[str, Any]:
        return {}


class Pair(Topo):
    def build(self) -> None:
        self.addLink(self.addHost("ann"), self.addHost("dan"))


def never(run: Any) -> float | None:
    raise AssertionError("a report is made without the experiment's code")


def scene(values: Mapping[str, float], contender: Contender) -> Scene:
    return Scene(
        topology="pair",
        traffic=(
            Stream(name="flow1", source="ann", target="dan", service="bulk.example"),
            Stream(name="flow2", source="ann", target="dan", service="bulk.example"),
            Requests(name="web", source="ann", target="dan", service="web.example", rate=5),
        ),
        events=(Event(action=Said(MOVE, BY_ORDER), at=MOVE_AT), Event(action=Said(CUT), at=2.5)),
        seconds=SECONDS,
    )


EXPERIMENT = Experiment(
    name="stored",
    title="Two flows share a link, one moves <away>",
    description="Two flows share eth0. Flow 1 is told to move to eth1.\n\nLater the path goes silently.",
    source="slide 46",
    statements=("E2", "S12"),
    contenders=(
        Contender(name="serval", label="Serval"),
        Contender(name="tcp", label="kernel TCP", transport=TCP),
        Contender(name="mptcp", label="MPTCP as it comes", transport=MPTCP),
        Contender(name="absent", label="MPTCP tuned", transport=MPTCP, missing=lambda: "kernel without MPTCP"),
    ),
    scene=scene,
    metrics=(
        Metric(name="gain", label="flow 1 after / before", compute=never, better=HIGHER, matters=0.1),
        Metric(name="dip", label="longest silence", compute=never, unit="ms", scale=1e3, better=LOWER, matters=5),
        Metric(name="freeze", label="freeze", compute=never, unit="ms", scale=1e3),
    ),
    acceptance=(
        Acceptance(text="flow 1 doubles", metric="gain", contender="serval", at_least=1.8, at_most=2.2),
        Acceptance(text="hardly a dip", metric="dip", contender="serval", at_most=1.0, over="every"),
        Acceptance(text="TCP notices", metric="dip", contender="tcp", at_least=400, point={"rtt_ms": 20}),
    ),
    references={"gain": Reference(2.0, "slide 46", by_eye=True)},
    plots=(
        TimeSeries(
            name="goodput",
            title="Goodput",
            caption="Flow 1 has the whole link after its move.",
            flows=("flow1", "flow2"),
            point={"rtt_ms": 20},
            total=True,
            shapes=(Shape("flow 1", ((0, 50), (1.5, 50), (1.5, 100), (3, 100)), "slide 46", by_eye=True),),
        ),
        TimeSeries(
            name="all-runs",
            title="Goodput of all runs, under a title that is too long for one line "
            + "as titles now and then are " * 3,
            every=True,
            contenders=("serval", "tcp"),
        ),
        Instances(name="instances", title="Who answers", traffic="web", point={"rtt_ms": 20}),
        Cdf(name="dips", title="Silence", metric="dip"),
        Cdf(name="answers", title="Answers", traffic="web", label="time of a request", point={"rtt_ms": 100}),
        BlackoutPhases(name="blackout", title="A blackout"),
        Parts(name="parts", title="What a move is made of", parts=("freeze", "dip"), contenders=("serval",)),
        Bars(name="gains", title="Flow 1 after its move", metric="gain"),
        Bars(name="dips-bars", title="Silence", metric="dip", log=True, references={"tcp": Reference(450, "slide 40")}),
        Curve(
            name="dip-rtt",
            title="Silence against RTT",
            metric="dip",
            x="rtt_ms",
            shapes=(Shape("1 RTT", ((20, 20), (100, 100)), "slide 40"),),
        ),
    ),
    parameters={"rtt_ms": Parameter(20, "ms", "round-trip time", low=0)},
    points=({"rtt_ms": 20}, {"rtt_ms": 100}),
)

MANIFEST = {
    "summary": "2 cores of a test, Linux 6.1, Python 3.11",
    "kernel": "6.1.0",
    "commit": "0123456789ab+",
    "packages": {"numpy": "2.2.6"},
    "programs": {"iproute2": None},
}


MEASURED = (
    Quantity("rate", "Mbit/s", 100.0, 97.0, 95.0, 101.0),
    Quantity("delay", "ms", 20.0, 23.1, 19.8, 20.2, "one way, the median of 200 probes"),
)


def document() -> dict[str, Any]:
    """The result; the same at each call."""
    settings = plan.Settings(runs=RUNS, seed=7)
    laid_out = plan.make(EXPERIMENT, settings, lambda name, options: Pair())
    made = result.new(laid_out, MANIFEST, ["python", "-m", "experiments.stored", "--runs", "6", "--seed", "7"])
    made["created"] = "2026-11-21T13:00:00+00:00"
    made["calibration"] = [
        {
            "setting": 0,
            "contender": "serval",
            "good": False,
            "lines": [f"ann - dan: {quantity.line()}" for quantity in MEASURED],
            "paths": [Calibration("ann", "dan", MEASURED).as_json()],
            "error": None,
        }
    ]
    made["runs"] = [_run(laid_out, turn) for turn in laid_out.turns]
    return json.loads(json.dumps(made))


def _run(laid_out: plan.Plan, turn: plan.Turn) -> dict[str, Any]:
    chance = random.Random(turn.number)
    rtt = laid_out.points[turn.setting]["rtt_ms"] / 1e3
    moved = turn.contender != "tcp"
    dip = round((rtt if moved else 0.45) * chance.uniform(0.9, 1.2), 4)
    doubtful = turn.contender == "tcp" and turn.repetition == 2
    failed = turn.contender == "mptcp" and (turn.repetition, turn.setting) == (4, 1)
    after = 100 if turn.contender == "serval" else 75 if moved else 50
    reasons = ["the hypervisor took 7 % of the CPU time"] if doubtful else []
    return {
        "number": turn.number,
        "repetition": turn.repetition,
        "attempt": 0,
        "contender": turn.contender,
        "seed": turn.seed,
        "setting": turn.setting,
        "point": laid_out.values(turn.setting),
        "zero": 8000.0 + turn.number,
        "realtime": 1.7e9,
        "seconds": SECONDS,
        "failed": "web: no answer within 10 s" if failed else None,
        "log": "logs/run/web.log" if failed else None,
        "events": [
            {"at": MOVE_AT, "name": MOVE, "source": "schedule", "facts": {}},
            {"at": 2.5, "name": CUT, "source": "schedule", "facts": {}},
            {"at": 1.51, "name": "RSYN", "source": "serval", "facts": {}},
        ],
        "traffic": {} if failed else {
            "flow1": _stream(chance, 50, after, dip),
            "flow2": _stream(chance, 50, after, 0),
            "web": {"kind": "requests", "requests": [_request(chance, at, rtt) for at in range(12)]},
        },
        "blackouts": [
            {"host": "ann", "service": "bulk.example", "flow": "flow1", "cause": "told", "source": "ann-eth0",
             "target": "ann-eth1", "at": MOVE_AT, "detect": None, "decide": 0.001, "signal": rtt, "recover": 0.002,
             "rsyns": 1}
        ] if turn.contender == "serval" else [],
        "counters": {},
        "facts": {},
        "fidelity": {"trustworthy": not doubtful, "reasons": reasons, "kinds": ["steal"] if doubtful else []},
        "metrics": {} if failed else {
            "gain": round(after / 50 * chance.uniform(0.97, 1.03), 3),
            "dip": dip,
            "freeze": 0.004 if turn.contender == "serval" else None,
        },
        "without": {},
    }  # fmt: skip


def _stream(chance: random.Random, before: float, after: float, dip: float) -> dict[str, Any]:
    """Mbit/s before and after the move, nothing for a while between."""
    bins = []
    for index in range(round(SECONDS / BIN)):
        at = index * BIN
        rate = 0 if MOVE_AT <= at < MOVE_AT + dip - BIN / 2 else before if at < MOVE_AT else after
        bins.append(round(rate * 1e6 / 8 * BIN * chance.uniform(0.97, 1.03)))
    gaps = [{"at": MOVE_AT, "seconds": dip}] if dip else []
    return {"kind": "stream", "bin": BIN, "sent": bins, "received": bins, "bytes": sum(bins), "intact": True,
            "broken": None, "connects": [{"at": 0.0, "seconds": 0.02, "ok": True}], "gaps": gaps}  # fmt: skip


def _request(chance: random.Random, index: int, rtt: float) -> dict[str, Any]:
    error = "no answer within 1 s" if index == 7 else None
    seconds = round(2 * rtt + chance.uniform(0, 0.01), 4)
    return {"at": round(index * 0.25, 2), "connect": rtt, "seconds": seconds, "instance": chance.choice(["dan", "eve"]),
            "error": error}  # fmt: skip


if __name__ == "__main__":
    STORED.write_text(json.dumps(document(), separators=(",", ":")) + "\n")
