"""What follows from the stack's events: the event log, the load per service, the accounts of moves, and messages to the
controller.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from serval_node.control.messages import DelayNotify as DelayNotifyMessage
from serval_node.control.messages import FlowEvent, NodeMessage
from serval_node.control.messages import RuleExpired as RuleExpiredMessage
from serval_node.daemon.blackouts import Blackouts
from serval_node.daemon.service_loads import ServiceLoads
from serval_node.sal.events import (
    DelayNotify,
    Event,
    FlowClosed,
    FlowMigrated,
    FlowOpened,
    PathHeard,
    RuleExpired,
)
from serval_node.wire.ipv4 import address_text
from serval_node.wire.serviceid import Prefix


def flow_event(event: FlowOpened | FlowMigrated | FlowClosed) -> FlowEvent:
    """What the controller is told of a flow's begin, move and end."""
    if isinstance(event, FlowOpened):
        return FlowEvent(
            event="opened",
            service=Prefix.of(event.service_id),
            local_flow=event.flow_id,
            peer_flow=event.peer_flow,
            peer=address_text(event.peer_address),
            incoming=event.server,
        )
    if isinstance(event, FlowMigrated):
        return FlowEvent(event="moved", service=Prefix.of(event.service_id), local_flow=event.flow_id)
    return FlowEvent(
        event="reset" if event.reason == "reset" else "closed",
        service=Prefix.of(event.service_id),
        local_flow=event.flow_id,
        incoming=event.server,
    )


def rule_expired(event: RuleExpired) -> RuleExpiredMessage:
    """The end of a rule by its time-out, for the controller."""
    return RuleExpiredMessage(
        event.prefix,
        event.origin,
        event.cause,
        event.seconds,
        event.packets,
        event.bytes,
        event.dropped_packets,
        event.dropped_bytes,
    )


class StackEvents:
    """Hands each event on. `urgent` sends a message at once, `relaxed` makes and sends one with others of the same
    moment.
    """

    def __init__(
        self,
        log: Callable[[Event], None],
        loads: ServiceLoads,
        urgent: Callable[[NodeMessage], None],
        relaxed: Callable[[Callable[[], NodeMessage]], None],
        blackouts: Blackouts,
    ) -> None:
        self._log = log
        self._loads = loads
        self._urgent = urgent
        self._relaxed = relaxed
        self._blackouts = blackouts

    def handle(self, event: Event) -> None:
        if not isinstance(event, PathHeard):  # part of the Blackout that follows from it
            self._log(event)
        self._loads.handle(event)
        self._blackouts.handle(event)
        if isinstance(event, DelayNotify):
            self._urgent(DelayNotifyMessage(Prefix.of(event.service_id), event.prefix))
        elif isinstance(event, RuleExpired):
            self._urgent(rule_expired(event))
        elif isinstance(event, (FlowOpened, FlowMigrated)) or (isinstance(event, FlowClosed) and event.opened):
            self._relaxed(partial(flow_event, event))
