"""What is done to a link: cut at one end, its carrier taken away, a black hole in it, other properties, flapping.

Each names the link by one of its ends (`places`): LinkDown("eve", "eth0"), ChangeLink("r1", "r2", delay="40ms").
"""

from __future__ import annotations

import time
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from mininet.topo import Topo

from testbed import rtnetlink
from testbed.errors import TestbedError
from testbed.experiment.actions import places
from testbed.experiment.actions.places import LinkEnd
from testbed.experiment.run import Run
from testbed.experiment.schedule import BY_LINK, BY_NOBODY, SpecificationError
from testbed.link import status
from testbed.link.emulated import EmulatedLink
from testbed.link.planned import check_link


@dataclass(frozen=True, slots=True)
class LinkDown:
    """The interface `to` of a node, or its link to the node `to`, is taken down at this end: `ip link set ... down`.

    The kernel drops the routes over it, and the node at the other end loses its carrier.
    """

    notice: ClassVar[str] = BY_LINK
    node: str
    to: str

    def describe(self) -> str:
        return f"{places.spoken(self.node, self.to)} goes down"

    def check(self, topology: Topo, traffic: Collection[str]) -> None:
        places.find_end(topology, self.node, self.to, self.describe())

    def carry_out(self, run: Run) -> Mapping[str, Any]:
        end, _ = _found(run, self.node, self.to)
        with rtnetlink.opened(run.network.find(self.node)) as netlink:
            return {"at": netlink.set_up(end.interface, False) - run.zero}


@dataclass(frozen=True, slots=True)
class LinkUp:
    """A link that is down at either end comes up again, with the routes that the topology declares over it."""

    node: str
    to: str

    def describe(self) -> str:
        return f"{places.spoken(self.node, self.to)} comes up"

    def check(self, topology: Topo, traffic: Collection[str]) -> None:
        places.find_end(topology, self.node, self.to, self.describe())

    def carry_out(self, run: Run) -> Mapping[str, Any]:
        _, link = _found(run, self.node, self.to)
        if link.wire_ends is not None:
            with rtnetlink.opened() as netlink:
                for wire in link.wire_ends:
                    netlink.set_up(wire, True)
        at = 0.0
        for end in (link.intf1, link.intf2):
            with rtnetlink.opened(end.node) as netlink:
                at = netlink.set_up(end.name, True) - run.zero
        return {"at": at, "routes": status.change([link], up=True)}


@dataclass(frozen=True, slots=True)
class CarrierLost:
    """A node's interface loses its carrier: the far end of the cable is gone, its own end stays up. LinkUp mends it."""

    notice: ClassVar[str] = BY_LINK
    node: str
    to: str

    def describe(self) -> str:
        return f"{places.spoken(self.node, self.to)} loses its carrier"

    def check(self, topology: Topo, traffic: Collection[str]) -> None:
        places.find_end(topology, self.node, self.to, self.describe())

    def carry_out(self, run: Run) -> Mapping[str, Any]:
        end, link = _found(run, self.node, self.to)
        near, far = (link.intf1, link.intf2) if link.intf1.name == end.interface else (link.intf2, link.intf1)
        if link.wire_ends is None:
            place, interface = far.node, far.name
        else:  # the far end of this one's cable is the relay's
            place, interface = None, link.wire_ends[(link.intf1, link.intf2).index(near)]
        with rtnetlink.opened(place) as netlink:
            return {"at": netlink.set_up(interface, False) - run.zero}


@dataclass(frozen=True, slots=True)
class BlackHole:
    """A link swallows everything and stays up, in both directions or only `one_way`, what leaves by this end; with
    on=False it carries again.
    """

    node: str
    to: str
    on: bool = True
    one_way: bool = False

    def describe(self) -> str:
        way = " one way" if self.one_way else ""
        return f"{places.spoken(self.node, self.to)} {'becomes a black hole' if self.on else 'carries again'}{way}"

    @property
    def notice(self) -> str | None:
        return BY_NOBODY if self.on else None

    def check(self, topology: Topo, traffic: Collection[str]) -> None:
        _check_change(topology, self.node, self.to, self.describe(), hole=self.on)

    def carry_out(self, run: Run) -> Mapping[str, Any]:
        end, link = _found(run, self.node, self.to)
        link.change(hole=self.on, towards=_other(end, link) if self.one_way else None)
        return {"at": run.now()}


@dataclass(frozen=True, slots=True)
class ChangeLink:
    """A link gets another rate (Mbit/s or "10Mbit"), delay and jitter (one way, "40ms"), loss (percent) or queue (full
    frames); what is None stays. Both directions, or only `one_way`, what leaves by this end.
    """

    node: str
    to: str
    rate: float | str | None = None
    delay: str | None = None
    jitter: str | None = None
    loss: float | None = None
    queue: int | None = None
    one_way: bool = False

    def describe(self) -> str:
        way = " one way" if self.one_way else ""
        return f"{places.spoken(self.node, self.to)} gets {', '.join(self._words()) or 'nothing new'}{way}"

    def check(self, topology: Topo, traffic: Collection[str]) -> None:
        if not self._words():
            raise SpecificationError(f"{self.describe()}: say what changes: rate, delay, jitter, loss or queue")
        _check_change(topology, self.node, self.to, self.describe(), **self._changes())

    def carry_out(self, run: Run) -> Mapping[str, Any]:
        end, link = _found(run, self.node, self.to)
        link.change(towards=_other(end, link) if self.one_way else None, **self._changes())
        return {"at": run.now()}

    def _changes(self) -> dict[str, Any]:
        return {name: getattr(self, name) for name in ("rate", "delay", "jitter", "loss", "queue")}

    def _words(self) -> list[str]:
        rate = self.rate if isinstance(self.rate, str) or self.rate is None else f"{self.rate:g} Mbit/s"
        words = [] if rate is None else [rate]
        words += [] if self.delay is None else [f"{self.delay} delay"]
        words += [] if self.jitter is None else [f"{self.jitter} jitter"]
        words += [] if self.loss is None else [f"{self.loss:g} % loss"]
        return words + ([] if self.queue is None else [f"a queue of {self.queue} frames"])


@dataclass(frozen=True, slots=True)
class Flap:
    """An interface goes down and comes up again `count` times, once in `period` seconds, half of it down.

    Each change is an event of its own; the action lasts as long as all of them.
    """

    notice: ClassVar[str] = BY_LINK
    beside: ClassVar[bool] = True
    node: str
    to: str
    count: int
    period: float

    def describe(self) -> str:
        return f"{places.spoken(self.node, self.to)} flaps {self.count} times, every {self.period:g} s"

    def check(self, topology: Topo, traffic: Collection[str]) -> None:
        places.find_end(topology, self.node, self.to, self.describe())
        if self.count < 1 or self.period <= 0:
            raise SpecificationError(f"{self.describe()}: count is at least 1, the period more than 0 s")

    def carry_out(self, run: Run) -> Mapping[str, Any]:
        begun = run.now()
        changes = (LinkDown(self.node, self.to), LinkUp(self.node, self.to))
        for number in range(2 * self.count):
            time.sleep(max(0.0, begun + number * self.period / 2 - run.now()))
            change = changes[number % 2]
            facts = dict(change.carry_out(run))
            run.log(change.describe(), at=facts.pop("at"), source="flap", **facts)
        return {"at": begun}


def _found(run: Run, node: str, to: str) -> tuple[LinkEnd, EmulatedLink]:
    """The end that the topology has, and the link that is there now; raises TestbedError."""
    end = places.find_end(run.network.topo, node, to, "link")
    for link in run.network.links:
        if end.interface in (link.intf1.name, link.intf2.name):
            return end, link
    raise TestbedError(f"{node} has no interface {end.interface}")


def _other(end: LinkEnd, link: EmulatedLink) -> str:
    """The node at the other end of a link, as it is now."""
    one, other = link.ends
    return str((other if one.name == end.interface else one).node.name)


def _check_change(topology: Topo, node: str, to: str, what: str, **changes: Any) -> None:
    """Raises SpecificationError for a link that is not there, or that cannot be changed so."""
    end = places.find_end(topology, node, to, what)
    try:
        check_link(f"{end.node}-{end.other}", places.options_of(topology, end), **changes)
    except TestbedError as error:
        raise SpecificationError(f"{what}: {error.message}", error.hint) from None
