"""What follows from the stack's events."""

from __future__ import annotations

from collections.abc import Callable

from serval_node.control.messages import DelayNotify as DelayNotifyMessage
from serval_node.control.messages import FlowEvent, NodeMessage
from serval_node.daemon.blackouts import Blackouts
from serval_node.daemon.event_log import EventLog
from serval_node.daemon.loop import Timer
from serval_node.daemon.service_loads import ServiceLoads
from serval_node.daemon.stack_events import StackEvents
from serval_node.sal.events import DelayNotify, Event, FlowClosed, FlowOpened, SynReceived, SynResolved
from serval_node.sal.service_table import Action, Selector
from serval_node.wire.naming import Naming
from serval_node.wire.serviceid import Prefix

NAMING = Naming({"example": 0x9C1185})
WEB, ID = NAMING.bind_prefix("web.example"), NAMING.service_id("web.example", 80)
CLIENT, OWN = bytes((10, 0, 0, 1)), bytes((10, 0, 0, 4))


def service_loads(tell: Callable[[], None] = lambda: None) -> ServiceLoads:
    return ServiceLoads(Timer, tell)


def opened(flow: int, *, server: bool = True) -> FlowOpened:
    return FlowOpened(1.0, flow, 77, ID, server, OWN, CLIENT)


def closed(flow: int, reason: str = "closed", *, was_open: bool = True, time: float = 2.0) -> FlowClosed:
    return FlowClosed(time, flow, ID, True, was_open, reason)


def test_loads_count_open_and_accepted_flows_per_rule() -> None:
    loads = service_loads()
    events: list[Event] = [
        *(SynReceived(0.5, flow, CLIENT, 9, ID, WEB, 80) for flow in (1, 2, 3)),
        opened(1),
        opened(2),
        opened(4, server=False),
        closed(3, "no third ACK", was_open=False),
        closed(1),
        closed(4),
    ]
    for event in events:
        loads.handle(event)
    assert (loads.open[WEB], loads.accepted[WEB]) == (1, 2)


def test_what_the_controller_is_told() -> None:
    log, urgent, relaxed = EventLog(NAMING.describe), [], []
    told: list[NodeMessage] = urgent
    blackouts = Blackouts(log.add, lambda delay, callback: Timer(delay, callback))
    reactions = StackEvents(log.add, service_loads(), told.append, relaxed.append, blackouts)
    for event in (
        DelayNotify(0.1, ID, WEB),
        opened(1),
        closed(1, "reset"),
        closed(2, was_open=False),
        SynResolved(3.0, 5, ID, WEB, Action.FORWARD, Selector.MAGLEV, 2, OWN),
    ):
        reactions.handle(event)
    assert urgent == [DelayNotifyMessage(Prefix.of(ID), WEB)]
    assert [make() for make in relaxed] == [
        FlowEvent("opened", Prefix.of(ID), 1, 77, "10.0.0.1", True),
        FlowEvent("reset", Prefix.of(ID), 1, incoming=True),
    ]
    assert len(log.since(0)) == 5
    assert log.since(2.5) == [
        {
            "event": "SynResolved",
            "time": 3.0,
            "flow_id": 5,
            "service_id": "web.example:80",
            "prefix": "web.example",
            "action": "forward",
            "selector": "maglev",
            "candidates": 2,
            "target": "10.0.0.4",
        }
    ]


def test_the_log_is_bounded() -> None:
    log = EventLog(NAMING.describe, kept=3)
    for flow in range(10):
        log.add(opened(flow))
    assert [event["flow_id"] for event in log.since(0)] == [7, 8, 9]


def test_a_flood_of_syns_does_not_push_the_rest_out_of_the_log() -> None:
    log = EventLog(NAMING.describe, kept=10)
    log.add(opened(1))
    for number in range(1000):
        log.add(SynReceived(2.0 + number, number, CLIENT, 9, ID, WEB, 80))
        log.add(closed(number, "evicted", was_open=False, time=2.5 + number))
    log.add(closed(1, time=2000.0))
    found = log.since(0)
    own = [event for event in found if event["event"] == "FlowOpened" or event.get("opened")]
    assert [event["flow_id"] for event in own] == [1, 1] and len(found) == 12
    assert [event["time"] for event in found] == sorted(event["time"] for event in found)
    assert len(log.since(0, last=4)) == 4
