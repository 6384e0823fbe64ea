"""What can be asked of one node by hand, and what waits there or may be started: operations of `requests`. Pure.

rules    node[, service]                      the node's service table, or what a SYN for the service could meet
resolve  node, service                        what a SYN of the node's programs would meet; nothing is sent
stat     node                                 the node's counters, and flows for each service
flows    node[, flows]                        its flows, or those with these flowIDs
mode     node[, mode, forwarding]             its resolution mode, and whether it is a service router; or set them
delayed                                       services with queued packets
release  service[, node]                      resolve the queued packets anew; without a node wherever they wait
drop     service[, node]                      throw them away
refuse   service[, node]                      throw them away, and let their connects fail at once
start    service[, node]                      start a program that is offered for it (`serval standby`)
unknown  [service[, decider]]                 who decides about unknown services of a prefix; "off" for nobody
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from controllers.directory import DirectoryError, Node
from controllers.rules import asked_nodes
from controllers.service_core import Answer, Output, ServiceControl
from serval_node.control import messages
from serval_node.control.enquiries import get_flow_ids
from serval_node.control.rules import get_text
from serval_node.wire.serviceid import Prefix

Request = Mapping[str, Any]


class NodeRequests:
    """Serves these requests against a ServiceControl; raises as `requests` does."""

    def __init__(self, control: ServiceControl) -> None:
        self._control = control
        self.operations: dict[str, Callable[[Request, object, float], list[Output]]] = {
            "rules": self._rules,
            "resolve": self._resolve,
            "stat": self._stat,
            "flows": self._flows,
            "mode": self._mode,
            "delayed": self._delayed,
            "release": self._verdict,
            "drop": self._verdict,
            "refuse": self._verdict,
            "start": self._start,
            "unknown": self._unknown,
        }

    def _send(self, request: Request, message: messages.ControllerMessage, ticket: object, now: float) -> list[Output]:
        return [self._control.send(self._node(request).datapath_id, message, now, ticket)]

    def _rules(self, request: Request, ticket: object, now: float) -> list[Output]:
        service = self._service(request) if "service" in request else None
        return self._send(request, messages.RulesGet(service), ticket, now)

    def _resolve(self, request: Request, ticket: object, now: float) -> list[Output]:
        return self._send(request, messages.Resolve(self._service(request)), ticket, now)

    def _stat(self, request: Request, ticket: object, now: float) -> list[Output]:
        return self._send(request, messages.StatsGet(), ticket, now)

    def _flows(self, request: Request, ticket: object, now: float) -> list[Output]:
        return self._send(request, messages.FlowsGet(tuple(get_flow_ids(request, "flows"))), ticket, now)

    def _mode(self, request: Request, ticket: object, now: float) -> list[Output]:
        return self._send(request, messages.CapabilitiesSet.from_json(request), ticket, now)

    # -- what waits

    def _delayed(self, request: Request, ticket: object, now: float) -> list[Output]:
        control = self._control
        delayed = [
            {
                "node": node.name,
                "service": self._describe_one(notice.service),
                "rule": control.naming.describe(notice.prefix),
                "decider": control.unknown.decider(notice.service),
            }
            for node in sorted(control.directory.nodes.values(), key=lambda node: node.name)
            for notice in control.books[node.datapath_id].delayed.values()
        ]
        return [Answer(ticket, {"ok": True, "delayed": delayed})]

    def _verdict(self, request: Request, ticket: object, now: float) -> list[Output]:
        control, prefix = self._control, self._prefix(request)
        verdict = messages.DelayVerdict(prefix, str(request["op"]))
        if request.get("node") is not None:
            return self._send(request, verdict, ticket, now)
        nodes = [
            number for number, book in control.books.items() if any(prefix.covers(service) for service in book.delayed)
        ]
        if not nodes:
            raise DirectoryError(f"nothing waits for {control.naming.describe(prefix)} at any node")
        # The first node's answer is the request's; the others are told without a ticket.
        outputs: list[Output] = [control.send(number, verdict, now) for number in nodes[1:]]
        return [control.send(nodes[0], verdict, now, ticket), *outputs]

    # -- who decides

    def _start(self, request: Request, ticket: object, now: float) -> list[Output]:
        control, prefix = self._control, self._prefix(request)
        name = control.naming.describe(prefix)
        offering = control.directory.standbys().get(prefix, [])
        if request.get("node") is not None:
            wanted = self._node(request)
            if wanted not in offering:
                also = ", it runs there already" if prefix in wanted.bindings else ""
                raise DirectoryError(f"{wanted.name} offers no program for {name} (serval standby){also}")
            offering = [wanted]
        if not offering:
            running = ", ".join(instance.node for instance in control.directory.instances(prefix))
            also = f"; it runs already at {running}" if running else ""
            raise DirectoryError(f"no node offers a program for {name} (serval standby){also}")
        return [control.send(offering[0].datapath_id, messages.Start(prefix), now, ticket)]

    def _unknown(self, request: Request, ticket: object, now: float) -> list[Output]:
        control = self._control
        if "decider" in request:
            prefix, text = self._prefix(request), get_text(request, "decider")
            if text != "off":
                control.unknown.set(prefix, text)
            elif not control.unknown.remove(prefix):
                raise DirectoryError(f"nobody decides about unknown services of {control.naming.describe(prefix)}")
        listed = [
            {
                "prefix": control.naming.describe(prefix),
                "decider": text,
                "nodes": [node.name for node in asked_nodes(control.directory, prefix)],
            }
            for prefix, text in sorted(control.unknown.deciders.items())
        ]
        return [Answer(ticket, {"ok": True, "unknown": listed})]

    # -- what a request names

    def _node(self, request: Request) -> Node:
        return self._control.directory.find(get_text(request, "node"))

    def _prefix(self, request: Request) -> Prefix:
        return self._control.naming.parse(get_text(request, "service"))

    def _service(self, request: Request) -> Prefix:
        """A single serviceID, as a SYN names it."""
        return self._control.naming.parse(get_text(request, "service"), exact=True)

    def _describe_one(self, service: Prefix) -> str:
        """A name without its number of bits."""
        return self._control.naming.describe(service.service_id if service.exact else service)
