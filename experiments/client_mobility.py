"""E1: a client changes between WiFi and a cellular network (slide 45): python -m experiments.client_mobility."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from statistics import median

from testbed.experiment.actions import BlackHole, LinkDown, LinkUp, Migrate
from testbed.experiment.command import main
from testbed.experiment.record import RunRecord
from testbed.experiment.schedule import Action, Event
from testbed.experiment.specification import (
    EVERY,
    HIGHER,
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
    Scene,
)
from testbed.experiment.traffic import Stream
from testbed.report.plots import Bars, BlackoutPhases, TimeSeries

FLOW = "flow"
SEEN, TOLD, HOLE = "seen", "told", "hole"
"""What becomes of WiFi: its link goes down and comes up, the flow is told to leave it, or it swallows all silently."""
LOST = ("eth0 goes down", "moves to eth1", "becomes a black hole")
BACK = ("eth0 comes up", "moves to eth0")
WIFI, CELL = "ann-eth0", "ann-eth1"
SETTLE, TAIL = 0.5, 1.5
"""Seconds before the first move, and after the last: longer than a transport may be silent at the end (1 s)."""
HOLE_TAIL = 4.5
"""Seconds after a silent loss: MPTCP as it comes gives a path up at its fourth time-out, after three or so."""
BEFORE, AFTER = 0.05, 0.25
"""Seconds around a change in which a silence begins that is the change's."""
MEGA = 1e6


def scene(values: Mapping[str, float], contender: Contender) -> Scene:
    events = list(changes(values, contender.options.get("event", SEEN)))
    last = float(events[-1].at or 0)
    tail = HOLE_TAIL if contender.options.get("event") == HOLE else max(values["dwell"], TAIL)
    return Scene(
        topology="mobile-client",
        options={
            "wifi_rate": values["wifi_rate"],
            "wifi_delay": f"{values['wifi_rtt_ms'] / 2:g}ms",
            "cell_rate": values["cell_rate"],
            "cell_delay": f"{values['cell_rtt_ms'] / 2:g}ms",
        },
        traffic=(Stream(name=FLOW, source="ann", target="dan", service="stream.example", rate=values["rate"]),),
        events=tuple(events),
        seconds=last + tail,
        calibrate=(("ann", "dan"),),
    )


def changes(values: Mapping[str, float], event: str) -> Iterator[Event]:
    """WiFi is lost and comes back in turn; a silent loss is one, since nobody would go back by himself."""
    if event == HOLE:
        yield Event(action=BlackHole("wifi", "r"), at=SETTLE)
        return
    for number in range(int(values["moves"])):
        action: Action = (LinkUp if number % 2 else LinkDown)("ann", "eth0")
        if event == TOLD:
            action = Migrate(FLOW, "eth0" if number % 2 else "eth1")
        yield Event(action=action, at=SETTLE + number * values["dwell"])


def silences(run: RunRecord, kinds: tuple[str, ...]) -> Iterator[float]:
    """The longest silence that begins at each change of these kinds: what was under way may still come first."""
    for event in run.data["events"]:
        if any(words in event["name"] for words in kinds):
            at = float(event["at"])
            yield run.largest_gap(FLOW, at - BEFORE, at + AFTER)


def middle(run: RunRecord, kinds: tuple[str, ...]) -> float | None:
    found = list(silences(run, kinds))
    return median(found) if found else None


def broken(run: RunRecord) -> float:
    """1 for a stream that got no further, 0 for one that lives."""
    return float(run.traffic(FLOW)["broken"] is not None)


def wrong(run: RunRecord) -> float:
    """1 when a byte was another than the one that was sent."""
    return float(not run.traffic(FLOW)["intact"])


def moved(run: RunRecord) -> float | None:
    """Moves of the flow that the client's node tells of; rivals have none."""
    if run.transport not in (SERVAL, SERVAL_UDP):
        return None
    return float(len([blackout for blackout in run.blackouts if blackout["host"] == "ann"]))


def missed(run: RunRecord) -> float | None:
    """Moves that were not made."""
    found = moved(run)
    made = [event for event in run.data["events"] if any(words in event["name"] for words in LOST + BACK)]
    return None if found is None else max(0.0, len(made) - found)


def megabytes(run: RunRecord, interface: str) -> float:
    """What came over an interface, frames and their headers."""
    return float(run.data["counters"]["ann"]["interfaces"][interface]["rx_bytes"]) / MEGA


def saved(run: RunRecord) -> float | None:
    """The share that did not come over the cellular network; None of a stream that broke: it saved nothing."""
    if broken(run):
        return None
    wifi, cell = megabytes(run, WIFI), megabytes(run, CELL)
    return wifi / (wifi + cell)


EXPERIMENT = Experiment(
    name="client_mobility",
    title="A client changes between WiFi and a cellular network",
    description="""
A client fetches a stream over WiFi. WiFi is lost, comes back, is lost again; meanwhile the cellular network carries on,
with its own rate and round-trip time. The last change leaves the client on the cellular network. Serval's flow moves
each time, by itself, and goes back when WiFi is back; what comes over each interface is counted. Plain TCP is tied to
its first address: it stands still while WiFi is away, and for good after the last change. With an application that
connects anew after a silence of a second, and goes on where it was, it lives, a second or more later. MPTCP has a path
over each network from the beginning and uses both; tuned, the cellular one is a backup, and a path is given up at its
first time-out.

That is a link that says that it is gone. Two more cases stand beside it. Told: WiFi still carries when the flow is told
to leave it and to come back, the case that flatters. Silent: the access point's link to the network becomes a black
hole, once, and the client's own link stays up; everybody has to find out alone. An application that connects anew comes
from the WiFi address again, for no route has changed, and gets nowhere.

The slide's figure is of a person's month (more than 900 MB of cellular data saved); here the schedule says how long
WiFi is there, so the share that is saved says only that the flow goes back to WiFi when it can.
""".strip(),
    source="slide 45",
    statements=("E1", "S6", "S12", "S45", "S49"),
    contenders=(
        Contender(name="serval", label="Serval"),
        Contender(name="tcp", label="kernel TCP", transport=TCP),
        Contender(name="tcp-reconnect", label="TCP, the application reconnects", transport=TCP_RECONNECT),
        Contender(name="mptcp", label="MPTCP", transport=MPTCP),
        Contender(name="serval-hole", label="Serval, silent loss", options={"event": HOLE}),
        Contender(
            name="mptcp-tuned-hole", label="MPTCP tuned, silent loss", transport=MPTCP_TUNED, options={"event": HOLE}
        ),
        Contender(name="serval-told", label="Serval, told", options={"event": TOLD}),
        Contender(name="mptcp-tuned-told", label="MPTCP tuned, told", transport=MPTCP_TUNED, options={"event": TOLD}),
        Contender(name="mptcp-tuned", label="MPTCP tuned", transport=MPTCP_TUNED),
        Contender(
            name="mptcp-hole",
            label="MPTCP, silent loss",
            transport=MPTCP,
            options={"event": HOLE},
        ),
        Contender(
            name="tcp-reconnect-hole",
            label="TCP, the application reconnects, silent loss",
            transport=TCP_RECONNECT,
            options={"event": HOLE},
        ),
    ),
    scene=scene,
    parameters={
        "moves": Parameter(11, "changes", "WiFi lost, back, ...; odd: ends without it", low=1, high=101, quick=3),
        "dwell": Parameter(1.5, "s", "how long the client stays in a network", low=0.3, high=60, quick=0.4),
        "rate": Parameter(8.0, "Mbit/s", "rate of the stream", low=0.1, high=1000),
        "wifi_rate": Parameter(50.0, "Mbit/s", "rate of WiFi", low=0.1, high=10000),
        "wifi_rtt_ms": Parameter(10.0, "ms", "round-trip time of WiFi", low=0.0, high=2000),
        "cell_rate": Parameter(20.0, "Mbit/s", "rate of the cellular network", low=0.1, high=10000),
        "cell_rtt_ms": Parameter(50.0, "ms", "round-trip time of the cellular network", low=0.0, high=2000),
    },
    against="tcp-reconnect",
    metrics=(
        Metric(name="broken", label="broken streams", compute=broken, better=LOWER),
        Metric(name="wrong", label="streams with wrong bytes", compute=wrong, better=LOWER),
        Metric(
            name="lost",
            label="silence when WiFi is lost (median of a run)",
            unit="ms",
            scale=1e3,
            better=LOWER,
            matters=10,
            compute=lambda run: middle(run, LOST),
        ),
        Metric(
            name="back",
            label="silence when WiFi is back (median of a run)",
            unit="ms",
            scale=1e3,
            better=LOWER,
            matters=10,
            compute=lambda run: middle(run, BACK),
        ),
        Metric(
            name="longest",
            label="longest silence",
            unit="ms",
            scale=1e3,
            better=LOWER,
            matters=10,
            compute=lambda run: run.largest_gap(FLOW),
        ),
        Metric(name="moved", label="moves of the flow", compute=moved),
        Metric(name="missed", label="changes without a move", compute=missed),
        Metric(name="wifi", label="over WiFi", unit="MB", compute=lambda run: megabytes(run, WIFI)),
        Metric(name="cell", label="over the cellular network", unit="MB", compute=lambda run: megabytes(run, CELL)),
        Metric(name="saved", label="not over the cellular network", unit="%", scale=100, better=HIGHER, compute=saved),
    ),
    acceptance=(
        Acceptance(text="Serval's stream never breaks", metric="broken", contender="serval", at_most=0, over=EVERY),
        Acceptance(text="no byte is wrong", metric="wrong", contender="serval", at_most=0, over=EVERY),
        Acceptance(text="every change is a move", metric="missed", contender="serval", at_most=0, over=EVERY),
        *(
            Acceptance(text=f"nor does it {case}", metric="broken", contender=name, at_most=0, over=EVERY)
            for name, case in (("serval-told", "when it is told"), ("serval-hole", "after a silent loss"))
        ),
        Acceptance(text="plain TCP does not outlive the last change", metric="broken", contender="tcp", at_least=1),
    ),
    plots=(
        TimeSeries(
            name="goodput",
            title="Goodput while the client changes networks",
            flows=(FLOW,),
            bin=0.05,
            top=30,
            caption="Each mark is a change: WiFi goes down, comes up.",
        ),
        BlackoutPhases(name="phases", title="Where the time of a move goes (Serval)", host="ann"),
        Bars(name="lost", title="Silence when WiFi is lost", metric="lost", log=True),
        Bars(name="interfaces", title="Data over the cellular network", metric="cell"),
    ),
)

if __name__ == "__main__":
    raise SystemExit(main(EXPERIMENT))
