"""When flows move, and where to: by hand, and by what the host's links and addresses do (slides 40 and 45, S49).

A flow is lost where it is when its address has gone or its link is down. It then moves to the address that routing
now gives for its peer; while there is none it waits, and moves as soon as a link or an address comes.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from serval_node.daemon.log import log
from serval_node.io.netlink import HostNetwork, NetworkChange
from serval_node.sal.events import PathBack, PathLost
from serval_node.sal.flow_table import Flow
from serval_node.sal.moves import Cause, MigrationRefused
from serval_node.sal.stack import Stack
from serval_node.sal.states import ESTABLISHED, State
from serval_node.wire.ipv4 import Address, address, address_text
from serval_node.wire.serviceid import Prefix

BY_HAND = "by hand"


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of the wish to move one flow; ``refusal`` is empty when its RSYN is on its way."""

    flow_id: int
    source: Address
    target: Address
    refusal: str = ""


class Migrations:
    """Moves flows of one node. ``automatic`` switches what follows from the network alone."""

    def __init__(
        self,
        stack: Stack,
        network: HostNetwork,
        done: Callable[[], None],
        tell: Callable[[PathLost | PathBack], None],
        *,
        automatic: bool,
    ) -> None:
        """``done`` carries out what the stack wants done; ``tell`` hears of flows that wait."""
        self.automatic = automatic
        self._stack = stack
        self._network = network
        self._done = done
        self._tell = tell
        self._waiting: dict[int, str] = {}

    # -- by hand, or by the controller

    def move(
        self, flows: Iterable[Flow], place: str, *, cause: str = BY_HAND, called: float | None = None
    ) -> list[Outcome]:
        """Move flows to ``place``, an interface or one of this host's addresses. ``called`` is when somebody asked.

        Raises ValueError when there is no such place, or no flow at all.
        """
        now = time.monotonic()
        target = self.address_of(place)
        why = Cause(cause, False, now if called is None else called, now)
        chosen = list(flows)
        if not chosen:
            raise ValueError("no flow to move; `serval flows` lists them")
        return [self._start(flow, target, why) for flow in chosen]

    def of_flow(self, flow_id: int) -> list[Flow]:
        """The flow with this local flowID. Raises ValueError."""
        flow = self._stack.flows.get(flow_id)
        if flow is None:
            raise ValueError(f"this host has no flow {flow_id}; `serval flows` lists them")
        return [flow]

    def of_service(self, prefix: Prefix) -> list[Flow]:
        """The open flows to or from services of ``prefix``."""
        return [flow for flow in self._open() if prefix.covers(Prefix.of(flow.service_id))]

    def of_place(self, place: str) -> list[Flow]:
        """The open flows at an interface, or at an address of this host (also one that has gone). Raises ValueError."""
        link = self._network.link_named(place)
        if link is not None:
            there = {entry.address for entry in self._network.addresses if entry.link_index == link.index}
        else:
            there = {_address(place)}
            if not there & {flow.local_address for flow in self._open()}:
                self.address_of(place)
        return [flow for flow in self._open() if flow.local_address in there]

    def address_of(self, place: str) -> Address:
        """The address that an interface has, or ``place`` itself if it is one of ours. Raises ValueError."""
        link = self._network.link_named(place)
        if link is None:
            if place == "sal0":
                raise ValueError(f"sal0 is Serval's own and leads nowhere: {self._places()}")
            wanted = _address(place)
            if not self._network.is_local(wanted):
                raise ValueError(f"{place} is neither an interface nor an address of this host: {self._places()}")
            return wanted
        found = [entry.address for entry in self._network.addresses if entry.link_index == link.index]
        if not found:
            raise ValueError(f"{place} has no IPv4 address: {self._places()}")
        if not link.up:
            raise ValueError(f"{place} is down or has no carrier: {self._places()}")
        return found[0]

    def _places(self) -> str:
        known = []
        for entry in self._network.addresses:
            link = self._network.links.get(entry.link_index)
            if link is not None and not link.loopback:
                known.append(f"{link.name} {address_text(entry.address)}{'' if link.up else ' (down)'}")
        return "here are " + ", ".join(known) if known else "there is none"

    def _open(self) -> list[Flow]:
        return [flow for flow in self._stack.flows if flow.state in ESTABLISHED and flow.state is not State.TIMEWAIT]

    def _start(self, flow: Flow, target: Address, why: Cause) -> Outcome:
        source = flow.local_address
        try:
            self._stack.migrate(flow.local_flow, target, time.monotonic(), why)
        except MigrationRefused as error:
            return Outcome(flow.local_flow, source, target, str(error))
        self._waiting.pop(flow.local_flow, None)
        self._done()
        return Outcome(flow.local_flow, source, target)

    # -- by what the network does

    def network_changed(self, change: NetworkChange, happened: float) -> None:
        """Links or addresses came, went or changed state; ``happened`` is when the kernel's notice was there."""
        if change == NetworkChange():
            return
        flows = self._open()
        for flow in flows:
            self._consider(flow, happened)
        still_open = {flow.local_flow for flow in flows}
        self._waiting = {flow_id: why for flow_id, why in self._waiting.items() if flow_id in still_open}

    def lost(self, flow_id: int) -> str:
        """What a flow has lost that waits where it is; empty for any other."""
        return self._waiting.get(flow_id, "")

    def _consider(self, flow: Flow, happened: float) -> None:
        why, now = self._loss(flow), time.monotonic()
        if why is None:
            if self._waiting.pop(flow.local_flow, None) is not None:
                self._tell(PathBack(now, flow.local_flow, flow.service_id, flow.local_address))
            return
        target = self._way_out(flow) if self.automatic else None
        if target is not None:
            outcome = self._start(flow, target, Cause(why, True, happened, now))
            if not outcome.refusal:
                return
            log(f"flow {flow.local_flow} does not move: {outcome.refusal}")
        if self._waiting.get(flow.local_flow) != why:
            self._waiting[flow.local_flow] = why
            self._tell(PathLost(now, flow.local_flow, flow.service_id, why, flow.local_address))

    def _loss(self, flow: Flow) -> str | None:
        """Why the flow cannot stay where it is, or on the way to where it is going; None: it can."""
        here = flow.local_address
        if flow.migration is not None and flow.migration.move is not None:
            here = flow.migration.move.address
        if here[0] == 127:
            return None
        link = self._network.link_of(here)
        if link is None:
            return "address removed"
        if not link.up:
            return "link down"
        return None

    def _way_out(self, flow: Flow) -> Address | None:
        """The address that routing gives towards the peer, else any other that is up: a dead link keeps its routes."""
        assert flow.peer_address is not None
        network = self._network
        routed = network.source_address(flow.peer_address)
        for candidate in (routed, *network.own_addresses()):
            link = None if candidate is None else network.link_of(candidate)
            if candidate is not None and link is not None and link.up and not link.loopback:
                return candidate
        return None


def _address(text: str) -> Address:
    try:
        return address(text)
    except ValueError:
        raise ValueError(f"{text!r} is neither an interface nor an IPv4 address") from None
