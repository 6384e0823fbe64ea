"""Just in time: a notice of delayed packets, the decider's word, and what follows from it for the nodes. Pure.

A start is over when the service is registered, and has failed when the node refuses it, is lost, or START_SECONDS have
passed; then what waits is refused, and the clients learn it.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from controllers import unknown
from controllers.directory import Instance, Node
from controllers.unknown import Unknown
from serval_node.control import messages
from serval_node.control.messages import DelayNotify
from serval_node.wire.serviceid import Prefix

if TYPE_CHECKING:
    from controllers.service_core import Output, ServiceControl

LOG = logging.getLogger("controllers.unknown")

START_SECONDS = 30.0
"""How long a started program may take to listen; half of what packets wait under DELAY."""

RECONNECT_SECONDS = 3.0
"""After its restart the controller learns what waits before it knows all nodes: these come back within that time."""


@dataclass(slots=True)
class Starting:
    """A program that was told to start at a node. waiting: (datapath id, service) of the packets that it is for."""

    datapath_id: int
    deadline: float
    waiting: set[tuple[int, Prefix]] = field(default_factory=set)


class Deciding:
    """Asks the deciders of a ServiceControl, once for each notice."""

    def __init__(self, control: ServiceControl) -> None:
        self._control = control
        self._starting: dict[Prefix, Starting] = {}
        self._later: list[tuple[float, int, DelayNotify]] = []

    def delayed(self, datapath_id: int, notice: DelayNotify, now: float) -> list[Output]:
        """First packets wait at a node."""
        control = self._control
        text = control.unknown.decider(notice.service)
        node = control.directory.nodes.get(datapath_id)
        if text is None or node is None:
            return []
        case = self._case(node, notice.service)
        decision = unknown.decide(text, case)
        LOG.info("%s at %s: %s says %s", case.name, node.name, text, decision)
        if isinstance(decision, unknown.Start):
            return self._start(decision.node, datapath_id, notice.service, now)
        if isinstance(decision, unknown.Forward):
            return self._forward(datapath_id, notice.service, now)
        if isinstance(decision, unknown.Wait):
            return []
        verdict = "drop" if isinstance(decision, unknown.Drop) else "refuse"
        return [self._verdict(datapath_id, notice.service, verdict, now)]

    def delayed_before(self, datapath_id: int, notice: DelayNotify, now: float) -> None:
        """A node that has just connected says that packets wait there: decided when the others have had time too."""
        self._later.append((now + RECONNECT_SECONDS, datapath_id, notice))

    def registered(self, prefix: Prefix, now: float) -> list[Output]:
        """A started program listens: the packets go where it is."""
        outputs: list[Output] = []
        for begun in [key for key in self._starting if key.covers(prefix) or prefix.covers(key)]:
            for datapath_id, service in self._starting.pop(begun).waiting:
                outputs += self._forward(datapath_id, service, now)
        return outputs

    def failed(self, prefix: Prefix, reason: str, now: float) -> list[Output]:
        """A program does not start; nothing for a prefix that nobody was told to start."""
        starting = self._starting.pop(prefix, None)
        if starting is None:
            return []
        LOG.warning("%s is not started: %s", self._control.naming.describe(prefix), reason)
        return [
            self._verdict(datapath_id, service, "refuse", now)
            for datapath_id, service in sorted(starting.waiting)
            if datapath_id in self._control.books
        ]

    def lost(self, datapath_id: int, now: float) -> list[Output]:
        """A node is gone, with what was to start there."""
        self._control.unknown.resolved.pop(datapath_id, None)
        gone = [prefix for prefix, item in self._starting.items() if item.datapath_id == datapath_id]
        return [output for prefix in gone for output in self.failed(prefix, "its node is gone", now)]

    def tick(self, now: float) -> list[Output]:
        outputs: list[Output] = []
        due, self._later = [item for item in self._later if item[0] <= now], [i for i in self._later if i[0] > now]
        for _, datapath_id, notice in due:
            book = self._control.books.get(datapath_id)
            if book is not None and notice.service in book.delayed:
                outputs += self.delayed(datapath_id, notice, now)
        for prefix in [prefix for prefix, item in self._starting.items() if item.deadline <= now]:
            outputs += self.failed(prefix, f"it does not listen after {START_SECONDS:g} s", now)
        return outputs

    # -- the parts of it

    def _case(self, node: Node, service: Prefix) -> Unknown:
        directory = self._control.directory
        offers = directory.standbys()
        return Unknown(
            service,
            self._control.naming.describe(service.service_id),
            node.name,
            tuple(item.name for prefix in _covering(offers, service) for item in offers[prefix]),
            tuple(item for item in self._instances(service) if item.node != node.name),
        )

    def _instances(self, service: Prefix) -> list[Instance]:
        services = self._control.directory.services()
        covering = _covering(services, service)
        return services[covering[0]] if covering else []

    def _start(self, name: str, datapath_id: int, service: Prefix, now: float) -> list[Output]:
        control = self._control
        offers = control.directory.standbys()
        for prefix in _covering(offers, service):
            node = next((item for item in offers[prefix] if item.name == name), None)
            if node is None:
                continue
            starting = self._starting.get(prefix)
            if starting is not None:
                starting.waiting.add((datapath_id, service))
                return []
            waiting = {(datapath_id, service)}
            self._starting[prefix] = Starting(node.datapath_id, now + START_SECONDS, waiting)
            return [control.send(node.datapath_id, messages.Start(prefix), now)]
        LOG.warning("%s does not offer %s", name, control.naming.describe(service.service_id))
        return [self._verdict(datapath_id, service, "refuse", now)]

    def _forward(self, datapath_id: int, service: Prefix, now: float) -> list[Output]:
        """The rule follows from what is known now (`settle`), and releases; where the node has it already, at once."""
        control = self._control
        covering = _covering(control.directory.services(), service)
        if datapath_id not in control.books or not covering:
            return []
        node = control.directory.nodes[datapath_id]
        if not node.is_responsible_for(covering[0]):
            control.unknown.resolved.setdefault(datapath_id, set()).add(covering[0])
        wanted = control.wanted_at(datapath_id, covering[0])
        if wanted is not None and wanted.same_as(control.books[datapath_id].installed.get(covering[0])):
            return [self._verdict(datapath_id, service, "release", now)]
        return []

    def _verdict(self, datapath_id: int, service: Prefix, verdict: str, now: float) -> Output:
        return self._control.send(datapath_id, messages.DelayVerdict(service, verdict), now)


def _covering(known: dict[Prefix, list[Node]] | dict[Prefix, list[Instance]], service: Prefix) -> list[Prefix]:
    """The prefixes that cover a service, longest first."""
    return sorted((prefix for prefix in known if prefix.covers(service)), key=lambda prefix: -prefix.bits)
