"""E3: a virtual machine moves to another subnet (slide 47): python -m experiments.vm_migration."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

from testbed import vm_requirements
from testbed.experiment.actions import Freeze, MoveVm, Thaw
from testbed.experiment.command import main
from testbed.experiment.machines import Machine
from testbed.experiment.record import RunRecord
from testbed.experiment.schedule import Event
from testbed.experiment.specification import (
    EVERY,
    HIGHER,
    LOWER,
    MPTCP,
    MPTCP_TUNED,
    TCP,
    TCP_RECONNECT,
    Acceptance,
    Contender,
    Experiment,
    Metric,
    Parameter,
    Scene,
)
from testbed.experiment.traffic import DOWN, UP, Stream
from testbed.mobility import precopy
from testbed.report.plots import Bars, Parts, TimeSeries
from testbed.vm_migration import LIGHT, REAL, VmForm
from topologies.vm_migration import place

if TYPE_CHECKING:  # it brings a running Mininet along
    from testbed.network import ServalNetwork

FLOW, VM, HOME, AWAY = "flow", "vic", "hal", "ian"
MOVE, STAY = "move", "stay"
REAL_MTU = 9000
"""A translated guest sends no more than some 25 Mbit/s of smaller packets (docs/vm-migration.md)."""
MEGA = 1e6
SETTLE = 1.0
"""Seconds of either end of the time before, and of that after, that do not count for the rate there."""


def standstill(values: Mapping[str, float]) -> float:
    """How long the light machine stands still, in seconds: as given, or as the model says."""
    if values["standstill"] > 0:
        return values["standstill"]
    bandwidth = values["link"] * MEGA / 8
    return precopy.migrate(values["memory"] * MEGA, values["dirty"] * MEGA, bandwidth).standstill


def scene(values: Mapping[str, float], contender: Contender) -> Scene:
    return real(values) if contender.options["form"] == REAL else light(values, contender.options["event"])


def light(values: Mapping[str, float], event: str) -> Scene:
    """The machine is a host of the topology."""
    at = values["seconds"] / 2
    events: tuple[Event, ...] = (move(at),)
    if event == STAY:
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


def real(values: Mapping[str, float]) -> Scene:
    """The machine is a QEMU guest. Its data goes the same way, but the client connects."""
    address, gateway = place(HOME)
    return Scene(
        topology="vm-migration",
        options={"light": 0, "rate": values["real_link"], "mtu": REAL_MTU},
        machines=(Machine(name=VM, host=HOME, address=address, gateway=gateway, make=guest),),
        traffic=(
            Stream(
                name=FLOW, source="ann", target=VM, service="stream.example", rate=values["real_rate"], direction=DOWN
            ),
        ),
        events=(move(values["seconds"] / 2),),
        seconds=values["seconds"] + values["real_copy"],
        calibrate=((HOME, "ann"),),
    )


def no_real_machine() -> str | None:
    """Why none can run here, and what helps."""
    why = vm_requirements.missing()
    return None if why is None else f"{why}; make setup-vm installs what it needs"


def guest(network: ServalNetwork, machine: Machine) -> VmForm:
    from testbed.vm import VirtualMachine  # only here: it brings a running Mininet along

    return VirtualMachine(
        network, host=machine.host, address=machine.address, gateway=machine.gateway, name=machine.name
    )


def move(at: float) -> Event:
    address, gateway = place(AWAY)
    return Event(action=MoveVm(vm=VM, to=AWAY, address=address, gateway=gateway), at=at)


def moment(run: RunRecord) -> float:
    """When it began: the move was asked for, or the machine was frozen."""
    return min(float(event["at"]) for event in run.data["events"])


def stopped(run: RunRecord) -> float:
    """When the machine stood still: while its memory is copied it runs."""
    found = run.facts.get("moves")
    return float(found[0]["stopped"]) if found else moment(run)


def silence(run: RunRecord) -> float:
    return run.largest_gap(FLOW, stopped(run) - 0.1)


def before(run: RunRecord) -> float:
    return run.bits_per_second(FLOW, SETTLE, moment(run))


def recovered(run: RunRecord) -> float:
    """The rate at the end as a share of the one before."""
    return run.bits_per_second(FLOW, stopped(run) + SETTLE, run.seconds) / before(run)


def part(name: str) -> Callable[[RunRecord], float | None]:
    """A part of the move, in seconds (testbed.vm_migration.PARTS)."""

    def compute(run: RunRecord) -> float | None:
        found = run.facts.get("moves")
        return found[0]["parts"].get(name) if found else None

    return compute


def copied(run: RunRecord) -> float | None:
    """How long the memory was copied; of the light form none is."""
    found = run.facts.get("moves")
    return part("copy")(run) if found and found[0]["form"] == REAL else None


def qemu_downtime(run: RunRecord) -> float | None:
    """What QEMU itself says of the standstill; none for the light form."""
    found = run.facts.get("moves")
    return found[0]["figures"].get("qemu_downtime") if found else None


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

In the light form the machine is a group of processes with a kernel, addresses and a Serval node of its own. Its
processes stand still for as long as iterative pre-copy would take for the last copy (memory, dirty rate and bandwidth
say how long, testbed/mobility/precopy.py), while it is plugged in elsewhere without noticing. No memory is copied, and
its kernel runs on. The control stands still just as long and moves nowhere. Plain TCP is tied to the old address; an
application that connects anew after a silence of a second goes on. MPTCP is told of the new address at once, as by a
network manager; its only path is gone by then, and it opens another.

In the real form the machine is a QEMU guest with a kernel of its own that runs servald; QEMU copies its memory over
the same links while it sends, and then moves it. Its stream is slower and its links are faster, with larger packets:
an emulated processor sends no more, and shares this machine's with everything else (docs/vm-migration.md). So what the
two forms differ by is the form and these. Their silences count from when the machine stands still.
""".strip(),
    source="slide 47",
    statements=("E3", "S5", "S12", "S45"),
    contenders=(
        Contender(name="serval-light", label="Serval, light VM", options={"form": LIGHT, "event": MOVE}),
        Contender(
            name="tcp-light",
            label="kernel TCP, light VM",
            transport=TCP,
            options={"form": LIGHT, "event": MOVE},
        ),
        Contender(name="freeze", label="Serval, standstill without a move", options={"form": LIGHT, "event": STAY}),
        Contender(
            name="tcp-reconnect-light",
            label="TCP, the application reconnects, light VM",
            transport=TCP_RECONNECT,
            options={"form": LIGHT, "event": MOVE},
        ),
        Contender(name="mptcp-light", label="MPTCP, light VM", transport=MPTCP, options={"form": LIGHT, "event": MOVE}),
        Contender(
            name="mptcp-tuned-light",
            label="MPTCP tuned, light VM",
            transport=MPTCP_TUNED,
            options={"form": LIGHT, "event": MOVE},
        ),
        Contender(
            name="vm-real",
            label="Serval in a real VM (QEMU)",
            options={"form": REAL},
            missing=no_real_machine,
        ),
        Contender(
            name="tcp-real",
            label="kernel TCP in a real VM (QEMU)",
            transport=TCP,
            options={"form": REAL},
            missing=no_real_machine,
        ),
    ),
    scene=scene,
    parameters={
        "rate": Parameter(50.0, "Mbit/s", "rate of the stream", low=0.1, high=1000),
        "link": Parameter(200.0, "Mbit/s", "rate of the hosts' links", low=1, high=10000),
        "memory": Parameter(128.0, "MB", "the machine's memory", low=1, high=1e6),
        "dirty": Parameter(5.0, "MB/s", "memory that it writes anew", low=0, high=1e5),
        "standstill": Parameter(0.0, "s", "how long it stands still; 0: as the model says", low=0, high=60),
        "real_rate": Parameter(25.0, "Mbit/s", "rate of the real machine's stream", low=0.1, high=200),
        "real_link": Parameter(1000.0, "Mbit/s", "rate of the hosts' links under the real machine", low=10, high=10000),
        "real_copy": Parameter(8.0, "s", "more time for the real machine, whose memory is copied", low=0, high=600),
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
        Metric(name="copy", label="memory copied while it runs", unit="ms", scale=1e3, compute=copied),
        Metric(name="qemu", label="QEMU's own downtime", unit="ms", scale=1e3, compute=qemu_downtime),
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
        Acceptance(
            text="the real machine's rate comes back to 90 %", metric="recovered", contender="vm-real", at_least=90
        ),
        Acceptance(text="its stream lives", metric="broken", contender="vm-real", at_most=0, over=EVERY),
        Acceptance(text="none of its bytes is wrong", metric="wrong", contender="vm-real", at_most=0, over=EVERY),
        Acceptance(text="plain TCP in it dies", metric="broken", contender="tcp-real", at_least=1),
        Acceptance(text="plain TCP dies", metric="broken", contender="tcp-light", at_least=1),
    ),
    plots=(
        TimeSeries(
            name="goodput",
            title="Goodput while the machine moves",
            flows=(FLOW,),
            bin=0.05,
            top=200,
            caption="The slide's axes go to 200 Mbit/s and 7 s: throughput falls to nothing and comes back."
            " A real machine sends on while its memory is copied, and falls silent after that.",
        ),
        Parts(
            name="parts",
            title="Where the silence comes from",
            parts=("standstill", "address", "signal", "recover"),
            contenders=("serval-light", "vm-real"),
        ),
        Bars(name="silence", title="Receiver's longest silence", metric="silence", log=True),
    ),
)

if __name__ == "__main__":
    raise SystemExit(main(EXPERIMENT))
