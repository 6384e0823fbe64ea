"""E3: a virtual machine moves to another subnet (slide 47): python -m experiments.vm_migration."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from testbed.experiment.actions import Freeze, MoveVm, Thaw
from testbed.experiment.command import main
from testbed.experiment.record import RunRecord
from testbed.experiment.schedule import Event
from testbed.experiment.specification import (
    EVERY,
    HIGHER,
    LOWER,
    TCP,
    TCP_RECONNECT,
    Acceptance,
    Contender,
    Experiment,
    Metric,
    Parameter,
    Scene,
)
from testbed.experiment.traffic import UP, Stream
from testbed.mobility import precopy
from testbed.report.plots import Bars, Parts, TimeSeries

FLOW, VM, HOME, AWAY = "flow", "vic", "hal", "ian"
MOVE, STAY = "move", "stay"
TO = {"to": AWAY, "address": "10.2.2.10/24", "gateway": "10.2.2.254"}
MEGA = 1e6
SETTLE = 1.0
"""Seconds of either end of the time before, and of that after, that do not count for the rate there."""


def standstill(values: Mapping[str, float]) -> float:
    """How long the machine stands still, in seconds: as given, or as the model says."""
    if values["standstill"] > 0:
        return values["standstill"]
    bandwidth = values["link"] * MEGA / 8
    return precopy.migrate(values["memory"] * MEGA, values["dirty"] * MEGA, bandwidth).standstill


def scene(values: Mapping[str, float], contender: Contender) -> Scene:
    at = values["seconds"] / 2
    events: tuple[Event, ...]
    if contender.options["event"] == MOVE:
        events = (Event(action=MoveVm(vm=VM, **TO), at=at),)
    else:
        events = (Event(action=Freeze(VM), at=at), Event(action=Thaw(VM), at=at + standstill(values)))
    return Scene(
        topology="vm-migration",
        options={
            "rate": values["link"],
            "memory": values["memory"],
            "dirty": values["dirty"],
            "standstill": values["standstill"],
        },
        traffic=(
            Stream(name=FLOW, source=VM, target="ann", service="stream.example", rate=values["rate"], direction=UP),
        ),
        events=events,
        seconds=values["seconds"],
        calibrate=((VM, "ann"),),
    )


def moment(run: RunRecord) -> float:
    """When it began."""
    return min(float(event["at"]) for event in run.data["events"])


def silence(run: RunRecord) -> float:
    return run.largest_gap(FLOW, moment(run) - 0.1)


def before(run: RunRecord) -> float:
    return run.bits_per_second(FLOW, SETTLE, moment(run))


def recovered(run: RunRecord) -> float:
    """The rate at the end as a share of the one before."""
    return run.bits_per_second(FLOW, moment(run) + SETTLE, run.seconds) / before(run)


def part(name: str) -> Callable[[RunRecord], float | None]:
    """A part of the move, in seconds (testbed.vm_migration.PARTS)."""

    def compute(run: RunRecord) -> float | None:
        found = run.facts.get("moves")
        return found[0]["parts"].get(name) if found else None

    return compute


def broken(run: RunRecord) -> float:
    return float(run.traffic(FLOW)["broken"] is not None)


def wrong(run: RunRecord) -> float:
    return float(not run.traffic(FLOW)["intact"])


EXPERIMENT = Experiment(
    name="vm_migration",
    title="A virtual machine moves to another subnet",
    description="""
A virtual machine sends a stream to a client, moves to a host in another subnet in the middle, and gets another address
there. Throughput falls to nothing and comes back. The silence is taken apart: the standstill of the machine, the time
until its first packet from the new address (wake-up and address), the RSYN exchange, and the first data after that.

This is the light form: the machine is a group of processes with a kernel, addresses and a Serval node of its own. Its
processes stand still for as long as iterative pre-copy would take for the last copy (memory, dirty rate and bandwidth
say how long, testbed/mobility/precopy.py), while it is plugged in elsewhere without noticing. No memory is copied, and
its kernel runs on. The control stands still just as long and moves nowhere. Plain TCP is tied to the old address; an
application that connects anew after a silence of a second goes on.
""".strip(),
    source="slide 47",
    statements=("E3", "S5", "S12", "S45"),
    contenders=(
        Contender(name="serval-light", label="Serval, light VM", options={"event": MOVE}),
        Contender(name="freeze", label="Serval, standstill without a move", options={"event": STAY}),
        Contender(name="tcp-light", label="kernel TCP, light VM", transport=TCP, options={"event": MOVE}),
        Contender(
            name="tcp-reconnect-light",
            label="TCP, the application reconnects, light VM",
            transport=TCP_RECONNECT,
            options={"event": MOVE},
        ),
    ),
    scene=scene,
    parameters={
        "rate": Parameter(50.0, "Mbit/s", "rate of the stream", low=0.1, high=1000),
        "link": Parameter(200.0, "Mbit/s", "rate of the hosts' links", low=1, high=10000),
        "memory": Parameter(128.0, "MB", "the machine's memory", low=1, high=1e6),
        "dirty": Parameter(5.0, "MB/s", "memory that it writes anew", low=0, high=1e5),
        "standstill": Parameter(0.0, "s", "how long it stands still; 0: as the model says", low=0, high=60),
        "seconds": Parameter(7.0, "s", "how long data flows; the move is in the middle", low=3, high=600, quick=3.0),
    },
    against="freeze",
    metrics=(
        Metric(
            name="silence",
            label="receiver's longest silence",
            unit="ms",
            scale=1e3,
            better=LOWER,
            matters=10,
            compute=silence,
        ),
        Metric(
            name="recovered", label="rate after, of that before", unit="%", scale=100, better=HIGHER, compute=recovered
        ),
        Metric(name="before", label="rate before", unit="Mbit/s", scale=1e-6, compute=before),
        Metric(name="standstill", label="standstill", unit="ms", scale=1e3, compute=part("standstill")),
        Metric(name="address", label="wake-up and address", unit="ms", scale=1e3, compute=part("address")),
        Metric(name="signal", label="RSYN to RSYN-ACK", unit="ms", scale=1e3, compute=part("signal")),
        Metric(name="recover", label="to the first data", unit="ms", scale=1e3, compute=part("recover")),
        Metric(name="broken", label="streams that broke", better=LOWER, compute=broken),
        Metric(name="wrong", label="streams with wrong bytes", better=LOWER, compute=wrong),
    ),
    acceptance=(
        Acceptance(
            text="the rate comes back to 90 %", metric="recovered", contender="serval-light", at_least=90, over=EVERY
        ),
        Acceptance(text="the stream lives", metric="broken", contender="serval-light", at_most=0, over=EVERY),
        Acceptance(text="no byte is wrong", metric="wrong", contender="serval-light", at_most=0, over=EVERY),
        Acceptance(text="plain TCP dies", metric="broken", contender="tcp-light", at_least=1),
    ),
    plots=(
        TimeSeries(
            name="goodput",
            title="Goodput while the machine moves",
            flows=(FLOW,),
            bin=0.05,
            top=200,
            caption="The slide's axes go to 200 Mbit/s and 7 s: throughput falls to nothing and comes back.",
        ),
        Parts(
            name="parts",
            title="Where the silence comes from",
            parts=("standstill", "address", "signal", "recover"),
            contenders=("serval-light",),
        ),
        Bars(name="silence", title="Receiver's longest silence", metric="silence", log=True),
    ),
)

if __name__ == "__main__":
    raise SystemExit(main(EXPERIMENT))
