"""E2: two flows share an interface of a server, one moves (slide 46): python -m experiments.nic_load_balancing."""

from __future__ import annotations

from collections.abc import Mapping

from testbed.experiment.actions import Migrate
from testbed.experiment.command import main
from testbed.experiment.record import RunRecord
from testbed.experiment.schedule import Event
from testbed.experiment.specification import (
    EVERY,
    HIGHER,
    LOWER,
    MPTCP,
    MPTCP_TUNED,
    SERVAL,
    SERVAL_UDP,
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
from testbed.measure.statistics import jain
from testbed.report.plots import Bars, Shape, TimeSeries

FLOWS = ("flow1", "flow2")
SETTLE = 0.5, 0.2
"""Of the time before the move, and of that after it, so large a part is left out at its beginning: two cubic flows take
seconds to share a link evenly.
"""
BIN = 0.1
DIP_SECONDS, GAP_SECONDS = 2.0, 0.25
"""After the move: a dip is looked for so long, and a silence that begins later than that has other reasons."""
TOLD = ("serval-udp", "tcp", "serval", "mptcp-tuned")
"""MPTCP as it comes uses both interfaces all the time: an order would take one away."""
FAST, SLOW = 1000.0, 100.0


def scene(values: Mapping[str, float], contender: Contender) -> Scene:
    flows = zip(FLOWS, ("ann", "ben"), strict=True)
    return Scene(
        topology="multihomed-server",
        options={"rate": values["rate"]},
        traffic=tuple(Stream(name=name, source=host, target="dan", service=f"{name}.example") for name, host in flows),
        events=(Event(action=Migrate("flow1", "eth1", host="dan"), at=values["seconds"] / 2, only=TOLD),),
        seconds=values["seconds"],
        calibrate=(("dan", "ann"),),
    )


def moment(run: RunRecord) -> float:
    """When flow1 is told to move, or would have been."""
    told = [float(event["at"]) for event in run.data["events"] if "flow1 moves" in event["name"]]
    return told[0] if told else run.seconds / 2


def before(run: RunRecord) -> list[float]:
    """bit/s of each flow while they share."""
    move = moment(run)
    return [run.bits_per_second(name, SETTLE[0] * move, move) for name in FLOWS]


def after(run: RunRecord) -> list[float]:
    """bit/s of each flow when the move is over."""
    move = moment(run)
    return [run.bits_per_second(name, move + SETTLE[1] * (run.seconds - move), run.seconds) for name in FLOWS]


def dip(run: RunRecord) -> float:
    """Bins of BIN seconds, from the move on, in which flow1 had less than half of what it had before."""
    move, least = moment(run), before(run)[0] / 2
    count = min(int(DIP_SECONDS / BIN), int((run.seconds - move) / BIN))
    bins = [run.bits_per_second("flow1", move + number * BIN, move + (number + 1) * BIN) for number in range(count)]
    return float(sum(value < least for value in bins))


def gap(run: RunRecord) -> float:
    """The longest silence of flow1 around the move, in seconds."""
    move = moment(run)
    return run.largest_gap("flow1", move - BIN, move + GAP_SECONDS)


def busiest(run: RunRecord) -> float | None:
    """Share of the run in which the busiest core was busy."""
    return max(run.data["fidelity"].get("cores") or [], default=None)


def whole(run: RunRecord) -> float:
    """1 when every byte of both was the one that was sent and both lived to the end."""
    return float(all(run.traffic(name)["intact"] and run.traffic(name)["broken"] is None for name in FLOWS))


EXPERIMENT = Experiment(
    name="nic_load_balancing",
    title="Two flows, two interfaces",
    description="""
Two clients fetch from a server as fast as it goes, and both flows leave it over eth0: each has about half of the link.
In the middle flow1 is told to move to eth1. Then both have a link of their own, and their sum is twice what it was; the
move itself should hardly show. Plain TCP cannot be told and goes on sharing. MPTCP (tuned) has a path over each
interface from the beginning, one of them as a backup, and is told at the same moment that eth1 is the one to use: its
kernel takes that for all connections of the host, so both flows move and go on sharing, on the other link.
MPTCP as it comes uses both interfaces from the beginning and is told nothing.
""".strip(),
    source="slide 46",
    statements=("E2", "S12", "S45"),
    contenders=(
        Contender(name="serval-udp", label="Serval inside UDP", transport=SERVAL_UDP),
        Contender(name="tcp", label="kernel TCP", transport=TCP),
        Contender(name="serval", label="Serval", transport=SERVAL),
        Contender(name="mptcp-tuned", label="MPTCP, tuned", transport=MPTCP_TUNED),
        Contender(name="mptcp", label="MPTCP", transport=MPTCP),
    ),
    scene=scene,
    parameters={
        "rate": Parameter(FAST, "Mbit/s", "rate of each link", low=1, high=40000),
        "seconds": Parameter(12.0, "s", "how long data flows; the move is in the middle", low=2, high=600, quick=3.0),
    },
    points=({"rate": FAST}, {"rate": SLOW}),
    quick_points=({"rate": SLOW},),
    against="tcp",
    metrics=(
        Metric(
            name="jain", label="Jain index before", compute=lambda run: jain(before(run)), better=HIGHER, matters=0.02
        ),
        Metric(
            name="ratio",
            label="sum after / sum before",
            compute=lambda run: sum(after(run)) / sum(before(run)),
            better=HIGHER,
            matters=0.05,
        ),
        Metric(name="dip", label="dip", compute=dip, unit="bins of 0.1 s", better=LOWER, matters=1.0),
        Metric(
            name="gap",
            label="longest silence at the move",
            compute=gap,
            unit="ms",
            scale=1e3,
            better=LOWER,
            matters=5.0,
        ),
        Metric(
            name="sum", label="sum after", compute=lambda run: sum(after(run)), unit="Mbit/s", scale=1e-6, better=HIGHER
        ),
        Metric(name="busiest", label="busiest core", compute=busiest, unit="%", scale=100, better=LOWER, matters=5.0),
        Metric(name="whole", label="every byte right", compute=whole),
    ),
    acceptance=tuple(
        wanted
        for name in ("serval-udp", "serval")
        for wanted in (
            Acceptance(text="both have the same before", metric="jain", contender=name, at_least=0.95),
            Acceptance(
                text="the sum doubles on links slower than the machine",
                metric="ratio",
                contender=name,
                at_least=1.9,
                at_most=2.1,
                point={"rate": SLOW},
            ),
            Acceptance(text="a dip of 3 bins at most", metric="dip", contender=name, at_most=3),
            Acceptance(text="no byte is wrong", metric="whole", contender=name, at_least=1, over=EVERY),
        )
    ),
    references={"ratio": Reference(2.0, "slide 46", by_eye=True)},
    plots=(
        TimeSeries(
            name="goodput",
            title="Two flows at 1 Gbit/s, flow1 moved",
            caption="The slide's axis goes to 1000 Mbit/s and 12 s too.",
            flows=FLOWS,
            point={"rate": FAST},
            bin=BIN,
            total=True,
            top=2000.0,
            shapes=(Shape("each flow", ((0, 500), (6, 500), (6, 1000), (12, 1000)), "slide 46", by_eye=True),),
        ),
        TimeSeries(
            name="goodput-slow",
            title="Two flows at 100 Mbit/s, flow1 moved",
            caption="Links that are slower than the machine: raw packets are no faster than the processor is.",
            flows=FLOWS,
            point={"rate": SLOW},
            bin=BIN,
            total=True,
        ),
        Bars(name="ratio", title="Sum after the move, as a multiple of that before", metric="ratio"),
        Bars(name="gap", title="Longest silence at the move", metric="gap"),
    ),
)

if __name__ == "__main__":
    main(EXPERIMENT)
