"""The story of one connect, from the event logs of three hosts."""

from __future__ import annotations

from typing import Any

import pytest

from serval_node.cli.event_text import EventWords
from serval_node.cli.trace import Connect, folded, name_passed_over, story, story_text, where_it_stopped

WORDS = EventWords({"10.0.0.1": "ann", "10.0.0.2": "cleo", "10.0.0.4": "dan"})
CONNECT = Connect("ann", 2, "web.example")


def event(kind: str, time: float, **fields: Any) -> dict[str, Any]:
    return {"event": kind, "time": time, **fields}


LOGS = {
    "ann": [
        event(
            "SynResolved",
            1.001,
            flow_id=2,
            service_id="web.example",
            prefix="*.example",
            action="forward",
            selector="weighted-random",
            candidates=1,
            target="10.0.0.2",
        ),
        event("SynSent", 1.002, flow_id=2, service_id="web.example", source="10.0.0.1", destination="10.0.0.2"),
        event(
            "SynAckReceived", 1.006, flow_id=2, peer_flow=3, peer="10.0.0.4", path=["10.0.0.1", "10.0.0.2", "10.0.0.4"]
        ),
        event(
            "FlowOpened", 1.007, flow_id=2, peer_flow=3, server=False, local_address="10.0.0.1", peer_address="10.0.0.4"
        ),
        event("SynSent", 1.008, flow_id=9, service_id="other.example", source="10.0.0.1", destination="10.0.0.2"),
    ],
    "cleo": [
        event(
            "SynForwarded",
            1.003,
            client="10.0.0.1",
            client_flow=2,
            service_id="web.example",
            prefix="web.example",
            selector="round-robin",
            candidates=3,
            received_at="10.0.0.2",
            target="10.0.0.4",
        ),
        event("SynForwarded", 1.009, client="10.0.0.1", client_flow=9),
    ],
    "dan": [
        event(
            "SynReceived",
            1.004,
            flow_id=3,
            client="10.0.0.1",
            client_flow=2,
            service_id="web.example",
            prefix="web.example",
            port=80,
        ),
        event(
            "FlowOpened", 1.008, flow_id=3, peer_flow=2, server=True, local_address="10.0.0.4", peer_address="10.0.0.1"
        ),
        event(
            "FlowOpened", 1.008, flow_id=7, peer_flow=2, server=True, local_address="10.0.0.4", peer_address="10.0.0.1"
        ),
    ],
}


def test_the_slides_steps_in_their_order() -> None:
    steps = [(step.host, step.text) for step in story(CONNECT, LOGS, WORDS)]
    assert steps == [
        ("ann", "rule *.example: FORWARD cleo"),
        ("ann", "SYN {ann, flow 2 -> cleo, flow -; web.example}"),
        ("cleo", "rule web.example: round-robin of 3; destination cleo -> dan, source ann kept"),
        ("dan", "rule web.example: DEMUX to port 80; new flow 3"),
        ("ann", "SYN-ACK {dan, flow 3 -> flow 2} straight from dan; the SYN went ann -> cleo -> dan"),
        ("dan", "ACK; from here data ann, flow 2 <-> dan, flow 3 directly"),
    ]


def test_times_are_those_since_the_start() -> None:
    lines = story_text("web.example", "ann", 1.0, story(CONNECT, LOGS, WORDS), 0.00712).splitlines()
    assert lines[1].split() == ["0.00", "ann", "connect(web.example)"]
    assert [line.split()[0] for line in lines[2:-1]] == ["1.00", "2.00", "3.00", "4.00", "6.00", "8.00"]
    assert lines[-1] == "connect() took 7.12 ms"


def test_nothing_is_known_of_a_connect_that_sent_nothing() -> None:
    assert story(CONNECT, {"ann": []}, WORDS) == []
    assert where_it_stopped([], {"ann"}, WORDS) is None


TO_CLEO = LOGS["ann"][:2]
TO_DAN = LOGS["cleo"][:1]
AT_DAN = LOGS["dan"][:1]


def refused(time: float, reason: str, prefix: str | None) -> dict[str, Any]:
    # A node that never heard the name knows the number only.
    who = {"client": "10.0.0.1", "client_flow": 2, "service_id": "0x9c1185cf"}
    return event("Refused", time, reason=reason, prefix=prefix, **who)


def failed(time: float, reason: str, prefix: str | None = None) -> dict[str, Any]:
    return event("ConnectFailed", time, flow_id=2, service_id="web.example", reason=reason, prefix=prefix)


DELAYED = event("SynDelayed", 1.004, client="10.0.0.1", client_flow=2, service_id="web.example", prefix="*.example")
CLOSED = event("FlowClosed", 1.005, flow_id=3, service_id="web.example", server=True, opened=False, reason="evicted")
ALL = {"ann", "cleo", "dan"}


@pytest.mark.parametrize(
    ("logs", "reached", "stopped"),
    [
        ({"ann": [failed(1.1, "no_rule")]}, ALL, "at ann: connect fails: no rule matches"),
        ({"ann": [failed(1.1, "drop_rule", "*.example")]}, ALL, "at ann: connect fails: rule *.example: DROP"),
        (
            {"ann": [DELAYED]},
            ALL,
            "at ann: rule *.example: DELAY, the SYN waits for another rule or a verdict, and nobody",
        ),
        (
            {"ann": [DELAYED, failed(9, "delay_expired", "*.example")]},
            ALL,
            "at ann: connect fails: rule *.example: waited too long under DELAY",
        ),
        ({"ann": TO_CLEO}, ALL, "between ann and cleo: the node of cleo runs, but the SYN did not come there"),
        ({"ann": TO_CLEO}, {"ann"}, "between ann and cleo: no node answers on cleo"),
        (
            {"ann": [*TO_CLEO, failed(1.2, "refused")]},
            {"ann"},
            "at cleo or behind it, where this host cannot see: connect fails: answered by a reset",
        ),
        (
            {"ann": [*TO_CLEO, failed(1.2, "refused")], "cleo": [refused(1.1, "no_rule", None)]},
            ALL,
            "at cleo: no rule matches for web.example: no socket",
        ),
        ({"ann": TO_CLEO, "cleo": [refused(1.1, "drop_rule", "web.*")]}, ALL, "at cleo: rule web.*: DROP"),
        ({"ann": TO_CLEO, "cleo": [DELAYED]}, ALL, "at cleo: rule *.example: DELAY"),
        ({"ann": TO_CLEO, "cleo": TO_DAN}, {"ann", "cleo"}, "between cleo and dan: no node answers on dan"),
        (
            {"ann": TO_CLEO, "cleo": [{**TO_DAN[0], "target": "10.9.9.9"}]},
            ALL,
            "between cleo and 10.9.9.9: no host that is known here has the address",
        ),
        (
            {"ann": TO_CLEO, "cleo": TO_DAN, "dan": AT_DAN},
            ALL,
            "at dan: the socket that listens on port 80 did not complete",
        ),
        (
            {"ann": TO_CLEO, "cleo": TO_DAN, "dan": [*AT_DAN, CLOSED]},
            ALL,
            "at dan: flow 3 of web.example ended: evicted",
        ),
    ],
)
def test_where_a_failed_connect_stopped(logs: dict[str, Any], reached: set[str], stopped: str) -> None:
    steps = story(CONNECT, logs, WORDS)
    text = where_it_stopped(steps, reached, WORDS)
    assert text is not None and text.startswith(f"stopped {stopped}")
    assert story_text("web.example", "ann", 1.0, steps, None, text).splitlines()[-1] == text


def test_other_connects_of_the_host_are_left_out() -> None:
    other = {**failed(1.0, "no_rule"), "flow_id": 7}
    elsewhere = {**refused(1.1, "no_rule", None), "client_flow": 7}
    assert [step.host for step in story(CONNECT, {"ann": [other, *TO_CLEO], "cleo": [elsewhere]}, WORDS)] == ["ann"] * 2


def test_a_rule_that_a_host_passes_over_is_named_as_explain_names_it() -> None:
    logs = {"ann": TO_CLEO, "cleo": [refused(1.1, "no_rule", None)]}
    steps = name_passed_over(story(CONNECT, logs, WORDS), {"cleo": "loop.example"})
    said = "rule loop.example is passed over: this host is no service router and sends on nothing"
    assert steps[-1].text.startswith(said)
    assert [step.text for step in steps[:-1]] == [step.text for step in story(CONNECT, {"ann": TO_CLEO}, WORDS)]
    assert (where_it_stopped(steps, ALL, WORDS) or "").startswith(f"stopped at cleo: {said}")
    unknown = name_passed_over(story(CONNECT, logs, WORDS), {"cleo": None})
    assert unknown[-1].text == "no rule matches for web.example"


def test_retransmissions_are_told_with_the_first_of_their_kind() -> None:
    def later(event: dict[str, Any], seconds: float) -> dict[str, Any]:
        return {**event, "time": event["time"] + seconds}

    own = [later(event, seconds) for seconds in (0, 1, 3) for event in TO_CLEO]
    logs = {"ann": [*own, failed(9, "no_rule")], "cleo": [later(refused(1.1, "no_rule", None), s) for s in (0, 3)]}
    texts = [(step.host, step.text.partition("; again")[2]) for step in folded(story(CONNECT, logs, WORDS))]
    assert texts == [("ann", " after 1.0, 3.0 s")] * 2 + [("cleo", " after 3.0 s"), ("ann", "")]


def test_steps_that_do_not_repeat_are_left_as_they_are() -> None:
    steps = story(CONNECT, LOGS, WORDS)
    assert folded(steps) == steps
