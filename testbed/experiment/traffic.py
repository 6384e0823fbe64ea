"""What flows in an experiment, as data. `testbed.traffic` carries it out over each contender's transport.

Rates in Mbit/s of application data, times in seconds after zero, sizes in bytes. The far end is a service for Serval
and the host's address for everybody else; `target` names the host that serves in both cases. A stream's target can
also be one of the scene's virtual machines (`testbed.experiment.machines`), which then sends.
"""

from __future__ import annotations

import math
import re
from collections.abc import Collection
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from testbed.experiment.schedule import SpecificationError
from testbed.words import did_you_mean

if TYPE_CHECKING:  # results are read where no Mininet is, too
    from mininet.topo import Topo

DOWN, UP = "down", "up"
BIN_SECONDS = 0.01
"""Goodput is counted in bins of so many seconds, at both ends."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Stream:
    """One connection that carries numbered, verified data from its start to its end.

    source     the host that connects
    target     the host that serves
    service    its name for Serval
    rate       Mbit/s; None: as fast as it goes
    direction  DOWN: data towards the source, UP: from it
    seconds    how long; None: until the run ends
    address    the source's address or interface to start from ("eth0" is the first); None: as the routes say
    """

    kind: ClassVar[str] = "stream"
    name: str
    source: str
    target: str
    service: str
    rate: float | None = None
    direction: str = DOWN
    start: float = 0.0
    seconds: float | None = None
    address: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Bulk:
    """An unmodified iperf3 from `source` to `target`, both ends' own words kept beside the bins."""

    kind: ClassVar[str] = "bulk"
    name: str
    source: str
    target: str
    service: str
    direction: str = DOWN
    start: float = 0.0
    seconds: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Requests:
    """Connections one after the other, each with a request and a response that says which instance answered.

    target   the host that contenders without names connect to (a server, or their load balancer)
    rate     requests a second, open loop: a late answer does not delay the next request; None: one after the other
    size     bytes of the response
    count    how many; None: until the run ends
    hold     seconds that a connection is kept open, with one byte a second there and back, before its response
    """

    kind: ClassVar[str] = "requests"
    name: str
    source: str
    target: str
    service: str
    rate: float | None = None
    size: int = 1000
    count: int | None = None
    hold: float = 0.0
    start: float = 0.0
    seconds: float | None = None


Traffic = Stream | Bulk | Requests

_INTERFACE = re.compile(r"eth(\d+)\Z")
_BOUNDS = {"rate": 0.0, "size": 0, "count": 1, "hold": 0.0}
"""The least of each; a rate is more than that."""


def check(item: Traffic, topology: Topo, seconds: float, machines: Collection[str] = ()) -> None:
    """Raises SpecificationError when it cannot flow in this topology within a run of so many seconds.

    machines  names of the scene's virtual machines
    """
    place = f"{item.kind} {item.name!r}"
    hosts = topology.hosts()
    _check_machines(item, place, machines)
    for host in (item.source, item.target):
        if host not in hosts and host not in machines:
            raise SpecificationError(f"{place}: the topology has no host {host!r}; there are: {', '.join(hosts)}")
    if item.source == item.target:
        raise SpecificationError(f"{place}: source and target are both {item.source}")
    for name, least in _BOUNDS.items():
        value = getattr(item, name, None)
        if value is not None and not _fits(value, least, more=name == "rate"):
            wanted = "more than" if name == "rate" else "at least"
            raise SpecificationError(f"{place}: the {name} must be {wanted} {least:g}, not {value}")
    if getattr(item, "direction", DOWN) not in (DOWN, UP):
        raise SpecificationError(f"{place}: the direction is {DOWN!r} or {UP!r}")
    end = seconds if item.seconds is None else item.start + item.seconds
    if item.start < 0 or not item.start < end <= seconds:
        raise SpecificationError(f"{place}: {item.start:g} to {end:g} s is not within the run of {seconds:g} s")

    _check_service(item, topology, place)
    address = getattr(item, "address", None)
    named = None if address is None else _INTERFACE.match(address)
    if named is not None and int(named[1]) >= (count := len(topology.ports.get(item.source, ()))):
        raise SpecificationError(f"{place}: {item.source} has no interface {address!r}, only {count}, from eth0 on")


def _fits(value: Any, least: float, *, more: bool) -> bool:
    number = isinstance(value, int | float) and math.isfinite(value)
    return number and (value > least if more else value >= least)


def _check_service(item: Traffic, topology: Topo, place: str) -> None:
    """A name that no service router is responsible for would lead nowhere."""
    providers = list(getattr(topology, "providers", ()))
    label, dot, provider = item.service.rpartition(".")
    if not (label and dot):
        raise SpecificationError(f"{place}: {item.service!r} is no service name; one is: {item.name}.example")
    if providers and provider not in providers:
        raise SpecificationError(
            f"{place}: {item.service}: the topology has no provider {provider!r}{did_you_mean(provider, providers)};"
            f" there are: {', '.join(providers)}"
        )


def _check_machines(item: Traffic, place: str, machines: Collection[str]) -> None:
    """A machine takes no orders while it runs, so only the other end tells of what flows."""
    if item.source in machines:
        raise SpecificationError(f"{place}: {item.source} is a virtual machine, which can only be a target")
    if item.target not in machines:
        return
    if not isinstance(item, Stream):
        raise SpecificationError(f"{place}: {item.target} is a virtual machine, which can only have streams")
    if item.direction != DOWN:
        raise SpecificationError(
            f"{place}: {item.target} is a virtual machine, which tells nothing of what it received",
            f'let it send: direction="{DOWN}"',
        )


def described(item: Traffic) -> dict[str, Any]:
    """For the result file."""
    return {"kind": item.kind, **{name: getattr(item, name) for name in item.__slots__}}
