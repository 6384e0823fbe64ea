"""Every event of the stack has words of its own."""

from __future__ import annotations

import typing
from dataclasses import fields

from serval_node.cli.event_text import REFUSALS, EventWords
from serval_node.daemon.event_log import event_json
from serval_node.sal import events
from serval_node.sal.service_table import Action, Selector
from serval_node.wire.ipv4 import UdpPorts
from serval_node.wire.naming import Naming

NAMING = Naming({"example": 0x9C1185})
HOSTS = {"10.0.0.1": "ann"}
PLACES = (
    events.FlowMigrating,
    events.FlowMigrated,
    events.PathLost,
    events.PathBack,
    events.PathSilent,
    events.PathAnswers,
    events.PeerMoved,
    events.PathHeard,
    events.Blackout,
    events.PeerBlackout,
)
VALUES: dict[str, object] = {
    "float": 1.0,
    "float | None": None,
    "int": 7,
    "bool": True,
    "str": "no answer",
    "Address": bytes((10, 0, 0, 1)),
    "tuple[Address, ...]": (bytes((10, 0, 0, 1)),),
    "ServiceID": NAMING.service_id("web.example"),
    "Prefix": NAMING.bind_prefix("web.example"),
    "Prefix | None": NAMING.bind_prefix("web.example"),
    "UdpPorts | None": UdpPorts(54324, 54325),
    "Action": Action.FORWARD,
    "Selector": Selector.MAGLEV,
    "Refusal": events.Refusal.DROP_RULE,
}


def test_every_event_is_told_with_its_rule_or_service_and_host_names() -> None:
    for kind in typing.get_args(events.Event):
        # Annotations are text, as written in the module.
        event = kind(**{item.name: VALUES[str(item.type)] for item in fields(kind)})
        text = EventWords(HOSTS).text(event_json(event, NAMING.describe))
        assert "service_id" not in text and "client_flow" not in text, f"{kind.__name__} has no words: {text}"
        # A host that moves is at another of its addresses; its name would say nothing.
        assert "10.0.0.1" not in text or kind in PLACES


def test_what_is_inside_udp_says_so() -> None:
    ports = UdpPorts(54325, 20001)
    service = NAMING.service_id("web.example")
    ann, eve = bytes((10, 0, 0, 1)), bytes((10, 0, 0, 2))
    words = EventWords(HOSTS)

    def told(event: events.Event) -> str:
        return words.text(event_json(event, NAMING.describe))

    assert "inside UDP" in told(events.SynSent(1.0, 7, service, ann, eve, ports))
    assert "inside UDP, peer's port 20001" in told(events.FlowOpened(1.0, 7, 8, service, True, eve, ann, ports))
    moved = told(events.PeerMoved(1.0, 7, service, ann, ann, 1.0, UdpPorts(54325, 20000), ports))
    assert moved.endswith("left 10.0.0.1:20000 for 10.0.0.1:20001")
    for event in (events.SynSent(1.0, 7, service, ann, eve), events.PeerMoved(1.0, 7, service, ann, eve, 1.0)):
        assert "UDP" not in told(event) and ":" not in told(event).removeprefix("RSYN:")


def test_a_refusal_without_a_rule_names_the_service() -> None:
    event = events.Refused(1.0, events.Refusal.NO_RULE, NAMING.service_id("web.example"), bytes(4))
    assert EventWords({}).text(event_json(event, NAMING.describe)) == "no rule matches for web.example"


def test_an_unknown_event_is_told_by_its_fields() -> None:
    assert EventWords({}).text({"event": "FlowMoved", "time": 1.0, "flow_id": 7}) == "flow_id 7"


def test_refusals_are_those_of_the_stack() -> None:
    reasons = {reason.value for reason in events.Refusal}
    assert set(REFUSALS) - {"refused"} <= reasons
