"""What an experiment is. One file in `experiments/` defines one `EXPERIMENT`; it loads without root.

A *contender* is what is measured: Serval in one of its forms, or a rival. A *point* is one setting of the swept
parameters. Each repetition runs every contender at every point once, in random order, on a network built anew with the
same schedule; so a *run* is (repetition, point, contender).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

from testbed.experiment import machines as vms
from testbed.experiment import traffic as flows
from testbed.experiment.machines import Machine
from testbed.experiment.record import RunRecord
from testbed.experiment.schedule import Event, SpecificationError
from testbed.experiment.traffic import Traffic
from testbed.traffic import mptcp
from testbed.words import did_you_mean

if TYPE_CHECKING:  # results are read where no Mininet is, too
    from mininet.topo import Topo

HIGHER, LOWER = "higher", "lower"
MEDIAN, EVERY = "median", "every"

SERVAL, SERVAL_UDP = "serval", "serval-udp"
TCP, TCP_RECONNECT, MPTCP, MPTCP_TUNED = "tcp", "tcp-reconnect", "mptcp", "mptcp-tuned"
TRANSPORTS = (SERVAL, SERVAL_UDP, TCP, TCP_RECONNECT, MPTCP, MPTCP_TUNED)
MPTCP_TRANSPORTS = (MPTCP, MPTCP_TUNED)
BULK_TRANSPORTS = (SERVAL, SERVAL_UDP, TCP)
"""Over these an unmodified iperf3 runs; a Stream runs over all."""

BuildTopology = Callable[[str, Mapping[str, Any]], "Topo"]


def transport_obstacle(transport: str) -> str | None:
    """Why this machine cannot run a transport; None when it can."""
    return mptcp.missing() if transport in MPTCP_TRANSPORTS else None


@dataclass(frozen=True, slots=True)
class Parameter:
    """Something that `--set NAME=VALUE` changes. quick: its value in a quick run; low, high: its bounds, included."""

    default: float
    unit: str
    text: str
    low: float | None = None
    high: float | None = None
    quick: float | None = None

    def fits(self, value: float) -> bool:
        return (self.low is None or value >= self.low) and (self.high is None or value <= self.high)

    def bounds(self) -> str:
        """ "at least 0 and at most 20 %"."""
        words = [] if self.low is None else [f"at least {self.low:g}"]
        words += [] if self.high is None else [f"at most {self.high:g}"]
        return f"{' and '.join(words)} {self.unit}".strip()


@dataclass(frozen=True, slots=True, kw_only=True)
class Contender:
    """What is measured.

    transport  one of TRANSPORTS: how its traffic is carried
    options    what its experiment's scene and its transport want to know: {"policy": "round-robin"}
    missing    says why it cannot run on this machine beside what its transport needs, None when it can
    """

    name: str
    label: str
    transport: str = SERVAL
    options: Mapping[str, Any] = field(default_factory=dict)
    missing: Callable[[], str | None] = lambda: None

    @property
    def rival(self) -> bool:
        """Whether it is carried by something else than Serval."""
        return self.transport not in (SERVAL, SERVAL_UDP)

    def obstacle(self) -> str | None:
        """Why it cannot run on this machine, by its transport or by itself: it is skipped by name. None: it can."""
        return transport_obstacle(self.transport) or self.missing()


@dataclass(frozen=True, slots=True, kw_only=True)
class Scene:
    """One run, laid out: a topology (name and options), what flows, what happens, for how long (seconds).

    calibrate   pairs of hosts whose path is measured and compared with what was asked, before the first run
    controller  more of controllers.run's command line
    services    whether the topology's declared services are started
    machines    virtual machines of the real form: they are started before the traffic
    """

    topology: str
    options: Mapping[str, Any] = field(default_factory=dict)
    traffic: tuple[Traffic, ...]
    events: tuple[Event, ...] = ()
    seconds: float
    calibrate: tuple[tuple[str, str], ...] = ()
    controller: tuple[str, ...] = ()
    services: bool = False
    machines: tuple[Machine, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Metric:
    """One figure of each run, from its record; None where a run has none.

    unit     what it is shown in: value * scale
    better   HIGHER, LOWER, or None where neither is
    matters  the smallest difference that matters, in `unit`; below it two contenders are not distinguishable
    """

    name: str
    label: str
    compute: Callable[[RunRecord], float | None]
    unit: str = ""
    scale: float = 1.0
    better: str | None = None
    matters: float = 0.0


@dataclass(frozen=True, slots=True)
class Reference:
    """What a slide or paper says. by_eye: read off a picture."""

    value: float
    source: str
    by_eye: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Acceptance:
    """What has to hold: the median (or every run) of a metric, in its shown unit, within bounds.

    times_of  another contender, whose median the bounds are multiples of
    point     only runs at these values of swept parameters
    """

    text: str
    metric: str
    contender: str
    at_least: float | None = None
    at_most: float | None = None
    over: str = MEDIAN
    times_of: str | None = None
    point: Mapping[str, float] = field(default_factory=dict)


class Plot(Protocol):
    """One picture; the kinds are in `testbed.report.plots`."""

    def check(self, experiment: Experiment) -> None:
        """Raises SpecificationError when it shows what the experiment does not have."""

    def described(self) -> dict[str, Any]:
        """All that drawing needs, as plain data with "kind" and "name": pictures are made from the result file."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Experiment:
    """One experiment.

    name         that of its module: experiments/NAME.py
    description  what is done and what one should see, in a paragraph or two
    source       where it comes from: "slide 46"
    statements   of features.md: ("E2", "S12")
    parameters   name -> Parameter
    points       settings of swept parameters; each overrides `parameters`
    quick_points those of a quick run (default: the first and the last of `points`)
    scene        parameters of the run, contender -> Scene; pure: it is also called to check and to show the plan
    against      the contender that the others are compared with (default: the first)
    setup_seconds  estimate for building and ending the network of a run
    """

    name: str
    title: str
    description: str
    source: str
    statements: tuple[str, ...]
    contenders: tuple[Contender, ...]
    scene: Callable[[Mapping[str, float], Contender], Scene]
    metrics: tuple[Metric, ...]
    acceptance: tuple[Acceptance, ...] = ()
    references: Mapping[str, Reference] = field(default_factory=dict)
    plots: tuple[Plot, ...] = ()
    parameters: Mapping[str, Parameter] = field(default_factory=dict)
    points: tuple[Mapping[str, float], ...] = ({},)
    quick_points: tuple[Mapping[str, float], ...] = ()
    against: str | None = None
    setup_seconds: float = 4.0

    def values(self, point: Mapping[str, float], given: Mapping[str, float], *, quick: bool) -> dict[str, float]:
        """The parameters of a run: defaults (a quick run's own), what the user set, the point.

        Raises SpecificationError for a name or a value that does not fit.
        """
        chosen = {
            name: parameter.quick if quick and parameter.quick is not None else parameter.default
            for name, parameter in self.parameters.items()
        }
        for name, value in {**given, **point}.items():
            if name not in self.parameters:
                known = ", ".join(self.parameters) or "none"
                near = did_you_mean(name, self.parameters)
                raise SpecificationError(f"{self.name} has no parameter {name!r}{near}; there are: {known}")
            parameter = self.parameters[name]
            if not parameter.fits(value):
                raise SpecificationError(f"{self.name}: {name} must be {parameter.bounds()}, not {value:g}")
            chosen[name] = value
        return chosen

    def chosen_points(self, *, quick: bool) -> tuple[Mapping[str, float], ...]:
        """The points of a run."""
        if not quick:
            return self.points
        return self.quick_points or tuple(self.points[at] for at in sorted({0, len(self.points) - 1}))

    def contender(self, name: str) -> Contender:
        """Raises SpecificationError that lists the known ones."""
        for contender in self.contenders:
            if contender.name == name:
                return contender
        known = [contender.name for contender in self.contenders]
        raise SpecificationError(
            f"{self.name} has no contender {name!r}{did_you_mean(name, known)}; there are: {', '.join(known)}"
        )

    def check(
        self,
        build: BuildTopology,
        given: Mapping[str, float],
        *,
        quick: bool,
        points: Sequence[Mapping[str, float]] | None = None,
    ) -> None:
        """Everything that can be known before anything is started; raises SpecificationError that names the place.

        build   makes a topology from its name and options (`topologies`), and raises what that raises
        points  those that are run, if not all (of a quick run: its own)
        """
        self._check_names()
        for point in self.chosen_points(quick=quick) if points is None else points:
            values = self.values(point, given, quick=quick)
            for contender in self.contenders:
                scene = self.scene(values, contender)
                _check_carried(scene, contender)
                _check_scene(scene, build(scene.topology, scene.options), self.contenders)

    def _check_names(self) -> None:
        names = [contender.name for contender in self.contenders]
        metrics = [metric.name for metric in self.metrics]
        for what, found in (("contender", names), ("metric", metrics)):
            if not found:
                raise SpecificationError(f"{self.name} has no {what}")
            for name in found:
                if found.count(name) > 1:
                    raise SpecificationError(f"{self.name}: {what} {name!r} stands twice")
        for contender in self.contenders:
            if contender.transport not in TRANSPORTS:
                known = ", ".join(TRANSPORTS)
                raise SpecificationError(f"{contender.name}: no transport {contender.transport!r}; there are: {known}")
        for wanted in self.acceptance:
            place = f"{self.name}, acceptance {wanted.text!r}"
            self.contender(wanted.contender)
            if wanted.times_of is not None:
                self.contender(wanted.times_of)
            if wanted.metric not in metrics:
                raise SpecificationError(f"{place}: no metric {wanted.metric!r}; there are: {', '.join(metrics)}")
            if wanted.at_least is None and wanted.at_most is None:
                raise SpecificationError(f"{place} has no bound")
            if wanted.over not in (MEDIAN, EVERY):
                raise SpecificationError(f"{place}: over {MEDIAN!r} or {EVERY!r}, not {wanted.over!r}")
            if not any(wanted.point.items() <= point.items() for point in self.points):
                raise SpecificationError(f"{place}: no point has {dict(wanted.point)}")
        for metric in self.metrics:
            if metric.better not in (HIGHER, LOWER, None):
                raise SpecificationError(f"{metric.name}: better is {HIGHER!r} or {LOWER!r}, not {metric.better!r}")
        if self.against is not None:
            self.contender(self.against)
        for name in self.references:
            if name not in metrics:
                raise SpecificationError(f"{self.name}: a reference for an unknown metric {name!r}")
        for plot in self.plots:
            plot.check(self)


def _check_carried(scene: Scene, contender: Contender) -> None:
    machines = [machine.name for machine in scene.machines]
    for item in scene.traffic:
        place = f"{item.kind} {item.name!r} of {contender.name}"
        if isinstance(item, flows.Bulk) and contender.transport not in BULK_TRANSPORTS:
            raise SpecificationError(
                f"{place}: iperf3 cannot run over {contender.transport}",
                f"it runs over {', '.join(BULK_TRANSPORTS)}; a Stream runs over all",
            )
        if item.target in machines and contender.transport == TCP_RECONNECT:
            raise SpecificationError(
                f"{place}: {item.source} would connect anew to the first address of {item.target}, wherever it is",
                "take the light form of the machine: it connects itself, from the address that it has",
            )


def _check_scene(scene: Scene, topology: Topo, contenders: Collection[Contender]) -> None:
    if not 0 < scene.seconds < math.inf:
        raise SpecificationError(f"a run must last more than 0 s, and end, not {scene.seconds:g}")
    vms.check(scene.machines, topology)
    vms.check_moves(scene.machines, topology, scene.events)
    machines = [machine.name for machine in scene.machines]
    flowing: dict[str, Traffic] = {}
    for item in scene.traffic:
        if item.name in flowing:
            raise SpecificationError(f"two flows are called {item.name!r}")
        flowing[item.name] = item
        flows.check(item, topology, scene.seconds, machines)
    known = [contender.name for contender in contenders]
    for event in scene.events:
        event.check(topology, flowing, scene.seconds, known)
    hosts = topology.hosts()
    for pair in scene.calibrate:
        if len(pair) != 2 or pair[0] == pair[1]:
            raise SpecificationError(f"calibrate: a path goes from one host to another, not {' - '.join(pair)}")
        for host in pair:
            if host not in hosts:
                raise SpecificationError(f"calibrate: the topology has no host {host!r}; there are: {', '.join(hosts)}")
