"""Serval for a Ryu app: events about nodes and services, and requests. An app that has a handler for one of these
events, or makes a request, runs in one process with the service controller, which is started for it.

    from controllers import api

    @set_ev_cls(api.EventServiceRegistered)
    def on_service(self, event):
        api.request(self, "policy", service=event.service, policy="round-robin")

docs/ryu-apps.md has a whole app.
"""

from __future__ import annotations

from typing import Any

from controllers import framework
from controllers.hand import EventHandRequest
from controllers.watch import InstanceSeen, NodeSeen
from serval_node.wire.serviceid import Prefix

CONTROLLER = "controllers.service_controller"
APP_NAME = "ServiceController"


class RequestRefused(Exception):
    """The controller or a node refuses; one line that says why."""


class _NodeEvent(framework.EventBase):
    """node: name; role: "host" or "router"; addresses; datapath_id: 64 bits, see `is_serval_datapath`."""

    def __init__(self, node: NodeSeen) -> None:
        super().__init__()
        self.node, self.role = node.name, node.role
        self.addresses, self.datapath_id = node.addresses, node.datapath_id

    def __repr__(self) -> str:
        where = ", ".join(self.addresses)
        return f"<{type(self).__name__} {self.node} ({self.role}) at {where}, datapath {self.datapath_id:#018x}>"


class EventNodeUp(_NodeEvent):
    """A Serval node has connected and told its state."""


class EventNodeDown(_NodeEvent):
    """A node's channel is gone, and its services with it."""


class _ServiceEvent(framework.EventBase):
    """service: text that every request takes; prefix; node: name; address: of the instance."""

    def __init__(self, service: str, instance: InstanceSeen) -> None:
        super().__init__()
        self.service, self.prefix = service, instance.prefix
        self.node, self.address = instance.node, instance.address

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.service} on {self.node} at {self.address}>"


class EventServiceRegistered(_ServiceEvent):
    """A node listens for a service; also told of those that a node had when it connected."""


class EventServiceUnregistered(_ServiceEvent):
    """A node no longer listens for a service, or is gone."""


class EventServiceDelayed(framework.EventBase):
    """A first packet for `service` waits at `node`, by a DELAY rule, for a rule or a verdict."""

    def __init__(self, service: str, prefix: Prefix, node: str) -> None:
        super().__init__()
        self.service, self.prefix, self.node = service, prefix, node

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.service} at {self.node}>"


EVENTS = [EventNodeUp, EventNodeDown, EventServiceRegistered, EventServiceUnregistered, EventServiceDelayed]

# An app with a handler for one of these events brings the controller along.
framework.register_service(CONTROLLER)


def request(app: Any, op: str, **fields: Any) -> dict[str, Any]:
    """Ask the service controller for one operation (`servicectl`'s; fields as in controllers.requests), from any of
    an app's handlers or green threads, and wait for the answer: for changes, the node's.

    Raises RequestRefused, also when it runs for too long or no service controller runs.
    """
    if APP_NAME not in framework.running_apps():
        raise RequestRefused(f"no service controller runs in this process: start {CONTROLLER} beside this app")
    event = EventHandRequest({"op": op, **fields})
    app.send_event(APP_NAME, event)
    answer = event.wait()
    if not answer.pop("ok", False):
        raise RequestRefused(str(answer.get("error", answer)))
    return answer
