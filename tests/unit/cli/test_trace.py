"""The story of one connect, from the event logs of three hosts."""

from __future__ import annotations

from typing import Any

from serval_node.cli.trace import story, story_text

HOSTS = {"10.0.0.1": "ann", "10.0.0.2": "cleo", "10.0.0.4": "dan"}


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
    steps = [(step.host, step.text) for step in story("ann", LOGS, HOSTS)]
    assert steps == [
        ("ann", "rule *.example: FORWARD cleo"),
        ("ann", "SYN {ann, flow 2 -> cleo, flow -; web.example}"),
        ("cleo", "rule web.example: round-robin of 3; destination cleo -> dan, source ann kept"),
        ("dan", "rule web.example: DEMUX to port 80; new flow 3"),
        ("ann", "SYN-ACK {dan, flow 3 -> flow 2} straight from dan; the SYN went ann -> cleo -> dan"),
        ("dan", "ACK; from here data ann, flow 2 <-> dan, flow 3 directly"),
    ]


def test_times_are_those_since_the_start() -> None:
    lines = story_text("web.example", "ann", 1.0, story("ann", LOGS, HOSTS), 0.00712).splitlines()
    assert lines[1].split() == ["0.00", "ann", "connect(web.example)"]
    assert [line.split()[0] for line in lines[2:-1]] == ["1.00", "2.00", "3.00", "4.00", "6.00", "8.00"]
    assert lines[-1] == "connect() took 7.12 ms"


def test_a_refused_connect_is_a_short_story() -> None:
    logs = {"ann": [event("ConnectFailed", 1.001, flow_id=2, service_id="web.example", reason="no rule")]}
    assert [step.text for step in story("ann", logs, HOSTS)] == ["connect fails: no rule"]
    assert story("ann", {"ann": []}, HOSTS) == []
