"""E8: load balancing over replicas that join, leave and fail (slide 34): python -m experiments.load_balancing."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from testbed.experiment.actions import Balance, Kill, Leave, SetPolicy, StartInstance
from testbed.experiment.command import main
from testbed.experiment.record import RunRecord
from testbed.experiment.schedule import Event
from testbed.experiment.specification import (
    EVERY,
    HIGHER,
    LOWER,
    TCP,
    Acceptance,
    Contender,
    Experiment,
    Metric,
    Parameter,
    Scene,
)
from testbed.experiment.traffic import Requests, Traffic
from testbed.measure.statistics import jain
from testbed.report.plots import Bars, Instances
from testbed.rivals import nft_balancer
from topologies.replicas import BALANCER, REQUESTS, SERVICE

POLICIES = ("round-robin", "weighted-random", "random", "least-loaded", "two-choices", "maglev", "ring")
"""All but `all`, which sends a copy to each and balances nothing."""
BY_CHANCE = ("weighted-random", "random")
BY_CLIENT = ("maglev", "ring")
RIVALS = tuple(f"nft-{how}" for how in nft_balancer.CHOICES)

FIRST = ("d1", "d2", "d3", "d4")
JOINS, LEAVES, FAILS = "e1", "d2", "d3"
BEGIN = 2.0
"""Seconds after zero: until then policies and rivals are being set up."""
HOLDERS, HELD = 3, 3
"""So many clients hold so many connections each from the beginning to the end."""
HEALTH_SECONDS = 1.0
"""How long after a server's death its health check tells a balancer in the path."""
WINDOW = 1.5
"""Connections of so many seconds before and after a change are compared."""


def scene(values: Mapping[str, float], contender: Contender) -> Scene:
    phase, clients = values["phase"], int(values["clients"])
    join, leave, fail = (BEGIN + number * phase for number in (1, 2, 3))
    names = [f"a{number}" for number in range(1, clients + 1)]
    # Who connects by name needs no host to connect to; one that serves stands for it.
    target = FIRST[0] if contender.name in POLICIES else BALANCER
    new = [
        Requests(name=name, source=name, target=target, service=SERVICE, rate=values["rate"], start=BEGIN)
        for name in names
    ]
    seconds = BEGIN + 4 * phase
    held = [
        Requests(
            name=f"held-{name}",
            source=name,
            target=target,
            service=SERVICE,
            rate=20.0,
            count=HELD,
            hold=seconds,
            start=BEGIN,
        )
        for name in names[:HOLDERS]
    ]
    return Scene(
        topology="replicas",
        options={"clients": clients, "replicas": len(FIRST), "spares": 1, "serve": REQUESTS},
        traffic=tuple[Traffic, ...]((*new, *held)),
        events=_events(contender, join, leave, fail),
        seconds=seconds,
        calibrate=(("a1", "d1"),),
        services=True,
    )


def _events(contender: Contender, join: float, leave: float, fail: float) -> tuple[Event, ...]:
    every = (
        Event(action=StartInstance(SERVICE, JOINS), at=join),
        Event(action=Leave(SERVICE, LEAVES), at=leave),
        Event(action=Kill(FAILS, SERVICE), at=fail),
    )
    policy, how = contender.options.get("policy"), contender.options.get("how")
    if policy is not None:
        return (Event(action=SetPolicy(SERVICE, str(policy)), at=0.0), *every)
    # Whoever rules the rival knows at once who listens and who leaves; a death is found by health checks.
    more = {*FIRST, JOINS}
    told = (
        (0.0, FIRST),
        (join, more),
        (leave, more - {LEAVES}),
        (fail + HEALTH_SECONDS, more - {LEAVES, FAILS}),
    )
    return (*every, *(Event(action=Balance(BALANCER, str(how), tuple(sorted(some))), at=at) for at, some in told))


# -- what a record says


def _made(run: RunRecord, begin: float, end: float, client: str | None = None) -> list[Mapping[str, Any]]:
    """Short requests that began between two moments, in their order."""
    names = [name for name in run.data["traffic"] if not name.startswith("held-") and client in (None, name)]
    found = [one for name in names for one in run.traffic(name)["requests"] if begin <= one["at"] < end]
    return sorted(found, key=lambda one: float(one["at"]))


def _ready(run: RunRecord) -> float:
    """When the contender's way to balance was in force and requests were made."""
    return max(BEGIN, run.event("gets the policy" if run.contender in POLICIES else "balances over"))


def _steady(run: RunRecord) -> list[int]:
    """Connections of each of the first replicas before another joins."""
    made = _made(run, _ready(run), run.event(f"{SERVICE} starts on"))
    return [sum(one["instance"] == name for one in made) for name in FIRST]


def balance(run: RunRecord) -> float:
    """Jain's index over what it is by chance in the mean: K / (K + N - 1) for K connections over N replicas."""
    counts = _steady(run)
    return jain(counts) * (sum(counts) + len(counts) - 1) / sum(counts)


def busiest(run: RunRecord) -> float:
    """Connections of the busiest over those of the average."""
    counts = _steady(run)
    return max(counts) * len(counts) / sum(counts)


def disruption(run: RunRecord) -> float:
    """Share of connections that go elsewhere than the same client's before a replica left, although theirs is there."""
    leave = run.event(f"{LEAVES} leaves")
    changed = compared = 0
    for name in (name for name in run.data["traffic"] if not name.startswith("held-")):
        before = _instances(_made(run, leave - WINDOW, leave, name))
        after = _instances(_made(run, leave + 0.1, leave + 0.1 + WINDOW, name))
        pairs = [(a, b) for a, b in zip(before, after, strict=False) if a != LEAVES]
        compared += len(pairs)
        changed += sum(a != b for a, b in pairs)
    return changed / compared


def _instances(made: Sequence[Mapping[str, Any]]) -> list[str]:
    return [str(one["instance"]) for one in made if one["error"] is None]


def broken(run: RunRecord) -> float:
    """Held connections that broke or were answered wrongly, but those to the replica that was killed."""
    held = [one for name in run.data["traffic"] if name.startswith("held-") for one in run.traffic(name)["requests"]]
    return float(sum(one["error"] is not None and one["instance"] != FAILS for one in held))


def refused(run: RunRecord) -> float:
    """New connections that failed although no replica had died."""
    return float(sum(one["error"] is not None for one in _made(run, _ready(run), run.event("is killed") - 0.5)))


def lost(run: RunRecord) -> float:
    """New connections that failed after a replica's death."""
    return float(sum(one["error"] is not None for one in _made(run, run.event("is killed"), run.seconds)))


def per_connection(run: RunRecord) -> float:
    """Packets that whoever balances had to handle for each connection: SYNs at the service router, all at a rival."""
    counters, made = run.data["counters"], sum(len(item["requests"]) for item in run.data["traffic"].values())
    if run.contender in POLICIES:
        return float(counters["cleo"]["node"]["resolved_packets"]) / made
    return float(counters[BALANCER]["interfaces"][f"{BALANCER}-eth0"]["rx_packets"]) / made


def _acceptance() -> tuple[Acceptance, ...]:
    wanted = [
        Acceptance(text=f"{name}: as even as chance", metric="balance", contender=name, at_least=0.95, at_most=1.05)
        for name in BY_CHANCE
    ]
    wanted.append(Acceptance(text="turns are even", metric="balance", contender="round-robin", at_least=0.99))
    for name in BY_CLIENT:
        wanted.append(Acceptance(text=f"{name}: clients stay", metric="disruption", contender=name, at_most=1.0))
    for name in POLICIES:
        wanted += [
            Acceptance(text=f"{name}: nothing breaks", metric="broken", contender=name, at_most=0, over=EVERY),
            Acceptance(text=f"{name}: nothing is refused", metric="refused", contender=name, at_most=0, over=EVERY),
            Acceptance(
                text=f"{name}: a SYN for each connection", metric="packets", contender=name, at_least=1, at_most=1.05
            ),
        ]
    wanted += [
        Acceptance(text=f"{name}: every packet", metric="packets", contender=name, at_least=5.0) for name in RIVALS
    ]
    return tuple(wanted)


def _contenders() -> tuple[Contender, ...]:
    """In turn first, by either: what a quick run compares."""
    ours = [Contender(name=name, label=f"Serval, {name}", options={"policy": name}) for name in POLICIES]
    theirs = [
        Contender(
            name=f"nft-{how}",
            label=f"nftables, {how}",
            transport=TCP,
            options={"how": how},
            missing=lambda: nft_balancer.missing(),
        )
        for how in nft_balancer.CHOICES
    ]
    theirs.sort(key=lambda one: one.name != "nft-round-robin")
    return (ours[0], theirs[0], *ours[1:], *theirs[1:])


EXPERIMENT = Experiment(
    name="load_balancing",
    title="Load balancing over replicas",
    description="""
Clients make short connections to a service with four replicas, and some hold connections open. A fifth replica joins,
one leaves (it takes no new connections, and ends those that it has in peace), one is killed. Each policy of the service
controller is a contender, and so is a balancer in the path: nftables on a plain host, choosing at random, in turn, by a
hash of each connection or of the client. The service router handles one packet of each connection, its SYN; the rival
handles every packet. No connection that is held may break, but those to the replica that is killed.
A client's connections stay at one replica only with maglev, ring and nft's hash of the client; but nft gives each
server a range of hash values, and when one leaves the others' ranges shift, with some clients. least-loaded shows why
two-choices is there: its loads are a second old. The rival is told of joins and leaves at once, of a death after a
second of health checks.
""".strip(),
    source="slide 34",
    statements=("E8", "S4", "S39", "S43"),
    contenders=_contenders(),
    scene=scene,
    parameters={
        "clients": Parameter(6, "", "clients", low=HOLDERS, high=50),
        "rate": Parameter(8.0, "/s", "new connections of each client", low=1, high=200),
        "phase": Parameter(
            4.0, "s", "each: before the join, between changes, after the last", low=3, high=600, quick=1.2
        ),
    },
    against="round-robin",
    metrics=(
        Metric(name="balance", label="Jain index, over that of chance", compute=balance, better=HIGHER, matters=0.02),
        Metric(name="busiest", label="busiest / average", compute=busiest, better=LOWER, matters=0.05),
        Metric(
            name="disruption",
            label="connections that change their replica when another leaves",
            compute=disruption,
            unit="%",
            scale=100.0,
            better=LOWER,
            matters=1.0,
        ),
        Metric(name="broken", label="held connections that broke", compute=broken, better=LOWER, matters=1.0),
        Metric(name="refused", label="new connections that failed without a death", compute=refused, better=LOWER),
        Metric(name="lost", label="new connections that failed after a death", compute=lost, better=LOWER, matters=1.0),
        Metric(
            name="packets",
            label="packets per connection, at whoever balances",
            compute=per_connection,
            better=LOWER,
            matters=0.5,
        ),
    ),
    acceptance=_acceptance(),
    plots=(
        Bars(name="balance", title="How even, before anything changes", metric="balance"),
        Bars(name="disruption", title="Who changes when another replica leaves", metric="disruption"),
        Bars(name="packets", title="Work for each connection", metric="packets", log=True),
        Instances(
            name="who",
            title="Who answers one client",
            traffic="a1",
            contenders=("round-robin", "least-loaded", "maglev", "nft-client-hash"),
        ),
    ),
)

if __name__ == "__main__":
    main(EXPERIMENT)
