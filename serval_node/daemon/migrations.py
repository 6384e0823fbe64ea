"""Which flows move where by hand, or by the controller's wish (slides 40 and 45, S49); `automatic` has the rest."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from serval_node.io.netlink import HostNetwork
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
    """Moves flows of one node."""

    def __init__(self, stack: Stack, network: HostNetwork, done: Callable[[], None]) -> None:
        """``done`` carries out what the stack wants done."""
        self._stack = stack
        self._network = network
        self._done = done

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
        return [self.start(flow, target, why) for flow in chosen]

    def of_flow(self, flow_id: int) -> list[Flow]:
        """The flow with this local flowID. Raises ValueError."""
        flow = self._stack.flows.get(flow_id)
        if flow is None:
            raise ValueError(f"this host has no flow {flow_id}; `serval flows` lists them")
        return [flow]

    def open_flow(self, flow_id: int) -> Flow | None:
        """The flow with this local flowID, if it can move."""
        flow = self._stack.flows.get(flow_id)
        return flow if flow is not None and _is_open(flow) else None

    def of_service(self, prefix: Prefix) -> list[Flow]:
        """The open flows to or from services of ``prefix``."""
        return [flow for flow in self.open_flows() if prefix.covers(Prefix.of(flow.service_id))]

    def of_place(self, place: str) -> list[Flow]:
        """The open flows at an interface, or at an address of this host (also one that has gone). Raises ValueError."""
        link = self._network.link_named(place)
        if link is not None:
            there = {entry.address for entry in self._network.addresses if entry.link_index == link.index}
        else:
            there = {self._parsed(place)}
            if not there & {flow.local_address for flow in self.open_flows()}:
                self._check_own(place)
        return [flow for flow in self.open_flows() if flow.local_address in there]

    def address_of(self, place: str) -> Address:
        """The address that an interface has, or ``place`` itself if it is one of ours; its link is up. Raises
        ValueError.
        """
        link = self._network.link_named(place)
        if link is None:
            return self._own_address(place)
        found = [entry.address for entry in self._network.addresses if entry.link_index == link.index]
        if not found:
            raise ValueError(f"{place} has no IPv4 address: {self._places()}")
        if not link.up:
            raise ValueError(f"{place} is down or has no carrier: {self._places()}")
        return found[0]

    def _own_address(self, place: str) -> Address:
        wanted = self._check_own(place)
        link = self._network.link_of(wanted)
        if link is not None and not link.up:
            raise ValueError(f"{link.name} of {place} is down or has no carrier: {self._places()}")
        return wanted

    def _check_own(self, place: str) -> Address:
        wanted = self._parsed(place)
        if not self._network.is_local(wanted):
            raise ValueError(f"{place} is neither an interface nor an address of this host: {self._places()}")
        return wanted

    def _parsed(self, place: str) -> Address:
        if place == "sal0":
            raise ValueError(f"sal0 is Serval's own and leads nowhere: {self._places()}")
        try:
            return address(place)
        except ValueError:
            raise ValueError(f"{place!r} is neither an interface nor an IPv4 address: {self._places()}") from None

    def _places(self) -> str:
        known = []
        for entry in self._network.addresses:
            link = self._network.links.get(entry.link_index)
            if link is not None and not link.loopback:
                known.append(f"{link.name} {address_text(entry.address)}{'' if link.up else ' (down)'}")
        return "here are " + ", ".join(known) if known else "there is none"

    def open_flows(self) -> list[Flow]:
        """Those that can move."""
        return [flow for flow in self._stack.flows if _is_open(flow)]

    def start(self, flow: Flow, target: Address, why: Cause) -> Outcome:
        """Send a flow's RSYN, if it can move there."""
        source = flow.local_address
        try:
            self._stack.migrate(flow.local_flow, target, time.monotonic(), why)
        except MigrationRefused as error:
            return Outcome(flow.local_flow, source, target, str(error))
        self._done()
        return Outcome(flow.local_flow, source, target)


def _is_open(flow: Flow) -> bool:
    return flow.state in ESTABLISHED and flow.state is not State.TIMEWAIT
