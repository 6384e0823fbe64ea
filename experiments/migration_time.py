"""E9: what a move takes, against round-trip time and loss (slide 40): python -m experiments.migration_time."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from statistics import fmean, median
from typing import Any

from testbed.experiment.actions import BlackHole, Migrate
from testbed.experiment.command import main
from testbed.experiment.record import RunRecord
from testbed.experiment.schedule import Event
from testbed.experiment.specification import (
    EVERY,
    LOWER,
    MPTCP,
    MPTCP_TUNED,
    SERVAL,
    SERVAL_UDP,
    TCP,
    TCP_RECONNECT,
    Acceptance,
    Contender,
    Experiment,
    Metric,
    Parameter,
    Reference,
    Scene,
)
from testbed.experiment.traffic import Stream
from testbed.report.plots import Bars, BlackoutPhases, Curve, Shape

FLOW, MOVER = "flow", "dan"
TOLD, HOLE = "told", "hole"
SETTLE, TAIL = 0.5, 1.4
DWELL, DWELL_ROUND_TRIPS, DWELL_LOSS = 0.4, 4, 0.05
STALE_TAIL, STALE_ROUND_TRIPS = 4.0, 16
"""Seconds and round trips after a black hole for MPTCP as it comes: a path is given up at its fourth time-out. What
is dead is silent as long, so that it never looks the better."""
PATIENCE = 10.0
"""With much loss TCP pauses for seconds by itself: only a longer silence counts as broken."""
ROUND_TRIPS_MS = (1, 20, 100, 300)
LOSSES = (1, 5, 20)
BEYOND_MS = 5.0
"""What a move may take beyond the round trip: two nodes in Python, each woken once."""
LOSSY_RTT_MS = 20


def dwell(values: Mapping[str, float]) -> float:
    """Seconds between two told moves: where RSYNs get lost, long enough for several."""
    return DWELL + DWELL_ROUND_TRIPS * values["rtt_ms"] / 1e3 + DWELL_LOSS * values["loss"]


def scene(values: Mapping[str, float], contender: Contender) -> Scene:
    round_trip, first = values["rtt_ms"] / 1e3, SETTLE + 5 * values["rtt_ms"] / 1e3
    count = int(values["moves"])
    if contender.options["event"] == TOLD:
        events = [
            Event(action=Migrate(FLOW, f"eth{(number + 1) % 2}", host=MOVER), at=first + number * dwell(values))
            for number in range(count)
        ]
    else:
        events = [Event(action=BlackHole(MOVER, "eth0"), at=first)]
    tail = max(TAIL, dwell(values)) + 10 * round_trip
    if contender.transport in (MPTCP, TCP, TCP_RECONNECT):
        tail = STALE_TAIL + STALE_ROUND_TRIPS * round_trip
    # The last loss may take several time-outs to be mended.
    last = max(float(event.at or 0) for event in events)
    return Scene(
        topology="multihomed-server",
        options={
            "hosts": 1,
            "rate": values["link"],
            "delay": f"{values['rtt_ms'] / 2:g}ms",
            "loss": values["loss"],
            "impairable": 1,
        },
        traffic=(Stream(name=FLOW, source="ann", target=MOVER, service="stream.example", rate=values["rate"]),),
        events=tuple(events),
        seconds=last + tail,
        calibrate=(("ann", MOVER),) if values["loss"] == 0 else (),
    )


def moves(run: RunRecord) -> Sequence[Mapping[str, Any]]:
    """What the mover tells of its moves."""
    return [blackout for blackout in run.blackouts if blackout["host"] == MOVER]


def signal(run: RunRecord) -> float | None:
    """The middle one of a run's moves: from the first RSYN to the RSYN-ACK, in seconds."""
    found = [float(move["signal"]) for move in moves(run)]
    return median(found) if found else None


def beyond(run: RunRecord) -> float | None:
    """What it takes more than the round trip."""
    found = signal(run)
    return None if found is None else found - float(run.point["rtt_ms"]) / 1e3


def in_round_trips(run: RunRecord) -> float | None:
    found = signal(run)
    return None if found is None else found / (float(run.point["rtt_ms"]) / 1e3)


def worst(run: RunRecord) -> float | None:
    return max((float(move["signal"]) for move in moves(run)), default=None)


def rsyns(run: RunRecord) -> float | None:
    """RSYNs that a move took."""
    found = [float(move["rsyns"]) for move in moves(run)]
    return fmean(found) if found else None


def detect(run: RunRecord) -> float | None:
    """From the last sign of life to the verdict, as far as the node tells; of a told move nothing."""
    found = [float(move["detect"]) for move in moves(run)]
    return median(found) if found else None


def silence(run: RunRecord) -> float:
    """The receiver's longest silence from the first event on; of one that a loss had begun before, the rest."""
    begin = min(float(event["at"]) for event in run.data["events"]) - 0.05
    gaps = run.traffic(FLOW)["gaps"]
    return max(
        (gap["at"] + gap["seconds"] - max(gap["at"], begin) for gap in gaps if gap["at"] + gap["seconds"] > begin),
        default=0.0,
    )


def broken(run: RunRecord) -> float:
    return float(run.traffic(FLOW)["broken"] is not None or not run.traffic(FLOW)["intact"])


def unanswered(run: RunRecord) -> float | None:
    """Told moves that the peer had not answered by the end; rivals do not tell."""
    if run.transport not in (SERVAL, SERVAL_UDP):
        return None
    told = [event for event in run.data["events"] if "moves to" in event["name"]]
    return float(max(0, len(told) - len(moves(run))))


EXPERIMENT = Experiment(
    name="migration_time",
    title="What a move takes, against round-trip time and loss",
    description="""
A server has two interfaces, and a stream flows from it to a client behind a link with a round-trip time and a loss. The
server is told to move the flow, again and again, or its first interface becomes a black hole without a word.

Told: RSYN, RSYN-ACK, ACK. From the RSYN to the RSYN-ACK one round trip passes; where either gets lost, the RSYN is sent
again after a time-out that doubles, and the times lie on its steps. Data flows on over the old path meanwhile, so the
receiver's silence is shorter than that. Silent: first somebody has to notice, which takes round trips too, and what the
old path swallowed is sent again. MPTCP (tuned: one path is a backup, a path is given up at its first time-out) has the
second path open beforehand and needs a retransmission time-out to find out; as it comes it uses both paths and gives
one up at its fourth. Told, its kernel prefers the other path; nothing on the wire answers, so of its move there is only
the receiver's silence. TCP is tied to the address in the black hole, and an application that connects anew knows no
other: their silences last until the end of the run.

The black hole swallows what leaves the server and what comes to it; the loss is on the client's link, in both
directions, so a move's packets and data meet it on either path.
""".strip(),
    source="slide 40",
    statements=("E9", "S45", "S46"),
    contenders=(
        Contender(name="told", label="Serval, told", options={"event": TOLD, "patience": PATIENCE}),
        Contender(name="hole", label="Serval, silent black hole", options={"event": HOLE, "patience": PATIENCE}),
        Contender(
            name="mptcp-hole",
            label="MPTCP tuned, silent black hole",
            transport=MPTCP_TUNED,
            options={"event": HOLE, "patience": PATIENCE},
        ),
        Contender(
            name="mptcp-told",
            label="MPTCP tuned, told",
            transport=MPTCP_TUNED,
            options={"event": TOLD, "patience": PATIENCE},
        ),
        Contender(
            name="mptcp-default-hole",
            label="MPTCP, silent black hole",
            transport=MPTCP,
            options={"event": HOLE, "patience": PATIENCE},
        ),
        Contender(name="tcp-hole", label="kernel TCP, silent black hole", transport=TCP, options={"event": HOLE}),
        Contender(
            name="tcp-reconnect-hole",
            label="TCP, the application reconnects, silent black hole",
            transport=TCP_RECONNECT,
            options={"event": HOLE},
        ),
    ),
    scene=scene,
    parameters={
        "rtt_ms": Parameter(20.0, "ms", "round-trip time", low=0.0, high=2000),
        "loss": Parameter(0.0, "%", "loss in each direction", low=0.0, high=50),
        "moves": Parameter(8, "moves", "told moves in a run", low=1, high=100, quick=2),
        "rate": Parameter(2.0, "Mbit/s", "rate of the stream", low=0.1, high=100),
        "link": Parameter(100.0, "Mbit/s", "rate of the links", low=1, high=10000),
    },
    points=(
        *({"rtt_ms": float(rtt), "loss": 0.0} for rtt in ROUND_TRIPS_MS),
        *({"rtt_ms": float(LOSSY_RTT_MS), "loss": float(loss)} for loss in LOSSES),
    ),
    quick_points=({"rtt_ms": 20.0, "loss": 5.0},),
    against="told",
    metrics=(
        Metric(name="signal", label="RSYN to RSYN-ACK", unit="ms", scale=1e3, better=LOWER, matters=2, compute=signal),
        Metric(
            name="beyond", label="beyond the round trip", unit="ms", scale=1e3, better=LOWER, matters=2, compute=beyond
        ),
        Metric(name="round_trips", label="RSYN to RSYN-ACK in round trips", better=LOWER, compute=in_round_trips),
        Metric(name="worst", label="longest of a run", unit="ms", scale=1e3, better=LOWER, matters=5, compute=worst),
        Metric(name="rsyns", label="RSYNs for a move", better=LOWER, matters=0.1, compute=rsyns),
        Metric(
            name="detect", label="until it is noticed", unit="ms", scale=1e3, better=LOWER, matters=5, compute=detect
        ),
        Metric(
            name="silence",
            label="receiver's longest silence",
            unit="ms",
            scale=1e3,
            better=LOWER,
            matters=10,
            compute=silence,
        ),
        Metric(name="broken", label="streams that broke", better=LOWER, compute=broken),
        Metric(name="unanswered", label="moves without an answer", better=LOWER, compute=unanswered),
    ),
    references={"round_trips": Reference(1.0, "slide 40: one round trip")},
    acceptance=(
        *(
            Acceptance(
                text=f"one round trip at {rtt} ms and no loss",
                metric="beyond",
                contender=TOLD,
                at_least=-0.5,
                at_most=BEYOND_MS,
                point={"rtt_ms": float(rtt), "loss": 0.0},
            )
            for rtt in ROUND_TRIPS_MS
        ),
        Acceptance(
            text="at 20 % loss RSYNs are sent again",
            metric="rsyns",
            contender=TOLD,
            at_least=1.1,
            at_most=3,
            point={"rtt_ms": float(LOSSY_RTT_MS), "loss": 20.0},
        ),
        *(
            Acceptance(
                text=f"moves are answered at {loss} % loss",
                metric="unanswered",
                contender=TOLD,
                at_most=0,
                point={"rtt_ms": float(LOSSY_RTT_MS), "loss": float(loss)},
            )
            for loss in LOSSES
        ),
        *(
            Acceptance(text=f"no stream breaks: {name}", metric="broken", contender=name, at_most=0, over=EVERY)
            for name in (TOLD, HOLE)
        ),
    ),
    plots=(
        Curve(
            name="rtt",
            title="A told move against the round-trip time",
            metric="signal",
            x="rtt_ms",
            log_x=True,
            log_y=True,
            contenders=(TOLD,),
            point={"loss": 0.0},
            shapes=(Shape("one round trip", ((1, 1), (300, 300)), "slide 40"),),
        ),
        Curve(
            name="loss",
            title="The longest told move of a run against loss",
            metric="worst",
            x="loss",
            contenders=(TOLD,),
            point={"rtt_ms": float(LOSSY_RTT_MS)},
        ),
        Bars(name="silence", title="Receiver's longest silence", metric="silence", log=True),
        BlackoutPhases(name="phases", title="Where the time goes", host=MOVER),
    ),
)

if __name__ == "__main__":
    raise SystemExit(main(EXPERIMENT))
