"""What can be asked and ordered by hand, one operation a method. Pure; `hand` serves them, `ctl` sends them.

Requests and answers are those of `serval_node.control.local`. A node is given by name or address, a service in any text
form; names stand for the prefix that bind(name) binds.

    status                                        nodes, switches, and whether found rules are still being kept
    nodes                                         every connected node
    services                                      every registered service: instances, policy, routers
    add      node, service, action, ...           a hand-made rule in place of the policy's; refused when there is one
    change   node, service, action, ...           another rule in place of the one that is there
    remove   node, service                        the hand-made rule; where a policy has one, that one returns
    policy   service[, policy[, weights]]         without a policy: which one holds; "note" when nobody serves it. A
                                                  policy is a name, FILE.py or FILE.py:CLASS, with the file's whole path
    migrate  node, kind, which, to                move flows of the node: a "flow" (flowID), those at an "interface", or
                                                  those of a "service", to an interface or address of the node

`node_requests` has what is asked of one node, and what is decided about packets that wait.

Fields of add and change: action "forward" with targets ["10.2.1.1", "dan*3", "10.2.1.2*1@2"] (address or node, weight,
priority) and selector; "demux" with port and protocol; "delay"; "drop"; idle_timeout and hard_timeout in seconds.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from ipaddress import AddressValueError, IPv4Address
from typing import Any

from controllers.directory import DirectoryError, Node
from controllers.node_requests import NodeRequests
from controllers.policies import PolicyError, Setting
from controllers.service_core import Answer, Output, ServiceControl, refuse
from controllers.unknown import UnknownError
from serval_node.control import messages
from serval_node.control.rules import (
    DEFAULT_SELECTOR,
    MessageError,
    RuleSpec,
    TargetSpec,
    forward,
    get_float,
    get_integer,
    get_list,
    get_text,
    target_parts,
)
from serval_node.wire.naming import ServiceNameError
from serval_node.wire.serviceid import Prefix


class RequestError(Exception):
    """The request cannot be served; one line for the user."""


class HandRequests:
    """Serves requests against a ServiceControl."""

    def __init__(self, control: ServiceControl) -> None:
        self._control = control
        self._operations: dict[str, Callable[[Mapping[str, Any], object, float], list[Output]]] = {
            "status": self._status,
            "nodes": self._nodes,
            "services": self._services,
            "add": self._add,
            "change": self._change,
            "remove": self._remove,
            "policy": self._policy,
            "migrate": self._migrate,
            **NodeRequests(control).operations,
        }

    @property
    def operations(self) -> frozenset[str]:
        return frozenset(self._operations)

    def handle(self, ticket: object, request: Mapping[str, Any], now: float) -> list[Output]:
        """The outputs include the Answer, now or, where a node has to act first, later from ServiceControl."""
        operation = self._operations.get(str(request.get("op")))
        if operation is None:
            return [refuse(ticket, f"unknown operation {request.get('op')!r}")]
        try:
            return operation(request, ticket, now)
        except (RequestError, DirectoryError, PolicyError, UnknownError, MessageError, ServiceNameError) as error:
            return [refuse(ticket, str(error))]

    def _status(self, request: Mapping[str, Any], ticket: object, now: float) -> list[Output]:
        control = self._control
        body = {
            "ok": True,
            "nodes": sorted(node.name for node in control.directory.nodes.values()),
            "relearning": control.relearning.holding(now),
            "grace_left": control.relearning.seconds_left(now),
            "waiting_for": control.relearning.waiting_for(),
            "connected_switches": [f"{datapath_id:016x}" for datapath_id in control.switches],
            "pending": sum(len(book.pending) for book in control.books.values()),
        }
        return [Answer(ticket, body)]

    def _nodes(self, request: Mapping[str, Any], ticket: object, now: float) -> list[Output]:
        nodes = []
        for node in sorted(self._control.directory.nodes.values(), key=lambda node: node.name):
            book = self._control.books[node.datapath_id]
            nodes.append(
                {
                    "name": node.name,
                    "role": node.role,
                    "datapath_id": f"{node.datapath_id:016x}",
                    "addresses": list(node.addresses),
                    "serves": [self._describe(prefix) for prefix in node.serves],
                    "services": len(node.bindings),
                    "rules": len(book.installed) + len(book.hand),
                    "refused": len(book.refused),
                }
            )
        return [Answer(ticket, {"ok": True, "nodes": nodes})]

    def _services(self, request: Mapping[str, Any], ticket: object, now: float) -> list[Output]:
        control = self._control
        services = []
        standbys = control.directory.standbys()
        known = control.directory.services()
        for prefix in sorted(known.keys() | standbys.keys()):
            instances = known.get(prefix, [])
            policy = control.policies.policy(prefix)
            loads = control.loads.latest(prefix)
            services.append(
                {
                    "name": self._describe(prefix),
                    "prefix": str(prefix),
                    "policy": policy.name,
                    "routers": [node.name for node in control.directory.routers() if node.is_responsible_for(prefix)],
                    "instances": [
                        {
                            "node": item.node,
                            "address": item.address,
                            "weight": policy.weight(item),
                            "load": loads.get(item.address),
                        }
                        for item in instances
                    ],
                    "standbys": [node.name for node in standbys.get(prefix, [])],
                }
            )
        return [Answer(ticket, {"ok": True, "services": services})]

    def _add(self, request: Mapping[str, Any], ticket: object, now: float) -> list[Output]:
        node, rule = self._node(request), self._rule(request)
        book = self._control.books[node.datapath_id]
        if rule.prefix in book.hand:
            raise RequestError(
                f"{node.name} has a hand-made rule for {self._describe(rule.prefix)}: change or remove it"
            )
        # A rule of the policy gives way; whether there is one by hand is known here.
        return [self._control.send(node.datapath_id, messages.RuleSet(rule), now, ticket)]

    def _change(self, request: Mapping[str, Any], ticket: object, now: float) -> list[Output]:
        node, rule = self._node(request), self._rule(request)
        book = self._control.books[node.datapath_id]
        if rule.prefix not in book.hand and rule.prefix not in book.installed:
            raise RequestError(f"{node.name} has no rule for {self._describe(rule.prefix)} to change: add one")
        return [self._control.send(node.datapath_id, messages.RuleSet(rule, "present"), now, ticket)]

    def _remove(self, request: Mapping[str, Any], ticket: object, now: float) -> list[Output]:
        node, prefix = self._node(request), self._prefix(request)
        book = self._control.books[node.datapath_id]
        if prefix not in book.hand:
            if prefix in book.installed:
                raise RequestError(
                    f"the rule for {self._describe(prefix)} at {node.name} is a policy's and would come back: "
                    "add one by hand in its place, or unregister the service"
                )
            raise RequestError(f"{node.name} has no hand-made rule for {self._describe(prefix)}")
        # The policy's rule takes the place of the removed one in one step, so that no SYN finds neither.
        wanted = self._control.wanted_at(node.datapath_id, prefix)
        message = messages.RuleSet(wanted) if wanted is not None else messages.RuleRemove(prefix)
        return [self._control.send(node.datapath_id, message, now, ticket)]

    def _policy(self, request: Mapping[str, Any], ticket: object, now: float) -> list[Output]:
        prefix = self._prefix(request)
        served = [found for known, found in self._control.directory.services().items() if prefix.covers(known)]
        if "policy" in request:
            weights = request.get("weights", {})
            if not isinstance(weights, dict):
                raise RequestError("'weights' must map nodes to numbers")
            named = {self._control.directory.find(name).name: weight for name, weight in weights.items()}
            setting = Setting(get_text(request, "policy"), named)
            for instances in served or [[]]:
                setting.check(instances)
            self._control.policies.set(prefix, setting)
        policy, name = self._control.policies.policy(prefix), self._describe(prefix)
        body = {"name": name, "policy": policy.name, "weights": policy.weights}
        if not served:
            body["note"] = f"nobody serves {name} yet; the policy holds when somebody does"
        return [Answer(ticket, {"ok": True, **body})]

    def _migrate(self, request: Mapping[str, Any], ticket: object, now: float) -> list[Output]:
        order = messages.Migrate.from_json(request)
        return [self._control.send(self._node(request).datapath_id, order, now, ticket)]

    def _describe(self, prefix: Prefix) -> str:
        return self._control.naming.describe(prefix)

    def _node(self, request: Mapping[str, Any]) -> Node:
        return self._control.directory.find(get_text(request, "node"))

    def _prefix(self, request: Mapping[str, Any]) -> Prefix:
        return self._control.naming.parse(get_text(request, "service"))

    def _rule(self, request: Mapping[str, Any]) -> RuleSpec:
        action = get_text(request, "action")
        if action == "forward":
            texts = get_list(request, "targets", ())
            if not texts:
                raise RequestError("forward needs at least one address or node")
            targets = tuple(self._forward(str(text)) for text in texts)
            if len({target.address for target in targets}) != len(targets):
                raise RequestError("forward: an address is named twice")
        elif action == "demux":
            port = get_integer(request, "port", low=1, high=65535)
            targets = (TargetSpec("demux", port=port, protocol=get_text(request, "protocol", "tcp")),)
        else:
            targets = (TargetSpec(action),)
        selector = get_text(request, "selector", DEFAULT_SELECTOR)
        idle, hard = get_float(request, "idle_timeout", 0.0), get_float(request, "hard_timeout", 0.0)
        return RuleSpec(self._prefix(request), targets, selector, origin="hand", idle_timeout=idle, hard_timeout=hard)

    def _forward(self, text: str) -> TargetSpec:
        where, weight, priority = target_parts(text)
        try:
            address = str(IPv4Address(where))
        except AddressValueError:
            found = self._control.directory.find(where)
            if found.address is None:
                raise RequestError(f"{found.name} has no address") from None
            address = found.address
        return forward(address, weight=weight, priority=priority)
