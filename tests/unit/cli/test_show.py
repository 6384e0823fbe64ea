"""What lists look like."""

from __future__ import annotations

from typing import Any

import pytest

from serval_node.cli.output import columns, size
from serval_node.cli.show import flows_text, table_text

HEADER = "SERVICEID ACTION SOCK/ADDR PRIO WEIGHT PACKETS BYTES DROPPED BY NOTE"


def target(action: str, where: str, **fields: Any) -> dict[str, Any]:
    out = {"action": action, "where": where, "priority": 1, "weight": 1, "packets": 0, "bytes": 0, "dropped_packets": 0}
    return {**out, "origin": "hand", "idle_timeout": 0.0, "hard_timeout": 0.0, **fields}


def entry(service: str, *targets: dict[str, Any], **fields: Any) -> dict[str, Any]:
    out = {"service": service, "targets": list(targets), "selector": "weighted-random", "narrower_than": None}
    return {**out, **fields}


def test_the_service_table_has_the_slides_columns() -> None:
    text = table_text(
        [
            entry("web.example", target("forward", "10.0.0.4", packets=12), target("forward", "10.0.0.5")),
            entry("web.example:80", target("demux", "198.18.0.1:80"), narrower_than="web.example"),
            entry("default", target("drop", "", bytes=1500)),
        ]
    )
    lines = text.splitlines()
    assert " ".join(lines[0].split()) == HEADER
    assert " ".join(lines[1].split()) == "web.example FORWARD 10.0.0.4 1 1 12 0 0 hand weighted-random"
    assert lines[2].split() == ["FORWARD", "10.0.0.5", "1", "1", "0", "0", "0", "hand"]
    assert lines[3].endswith("takes its SYNs from web.example")
    assert lines[4].split() == ["default", "DROP", "1", "1", "0", "1.5k", "0", "hand"]


def test_the_flow_table() -> None:
    flow = {
        "flow_id": 4711,
        "socket": "198.18.0.1:40000",
        "state": "CONNECTED",
        "incoming": False,
        "service": "web.example",
        "local": "10.0.0.1",
        "peer": "10.0.0.4",
        "peer_flow": 99,
        "bytes_out": 100,
        "bytes_in": 2_000_000,
        "moving_to": "",
        "rsyns": 0,
        "lost": "",
    }
    header, row = flows_text([flow]).splitlines()
    assert header.split()[:2] == ["FLOWID", "SOCKET"]
    assert " ".join(row.split()) == "4711 198.18.0.1:40000 CONNECTED -> web.example 10.0.0.1 10.0.0.4 99 100 2.0M"
    assert "10.0.0.1 -> 10.1.0.1 (RSYN 2)" in flows_text([{**flow, "moving_to": "10.1.0.1", "rsyns": 2}])
    assert "  10.0.0.1 (RSYN 1)" in flows_text([{**flow, "moving_to": "10.0.0.1", "rsyns": 1}])
    assert "  10.0.0.1 (link down)" in flows_text([{**flow, "lost": "link down"}])


def test_an_empty_table_still_has_its_header() -> None:
    assert table_text([]).split()[0] == "SERVICEID"


def test_columns_are_aligned_and_empty_ones_left_out() -> None:
    assert columns(["A", "B", "C"], [["x", None, 1], ["yyy", "", 200]]) == "A      C\nx      1\nyyy  200"


@pytest.mark.parametrize(
    ("count", "text"),
    [(0, "0"), (999, "999"), (1000, "1.0k"), (15_000, "15k"), (2_500_000, "2.5M"), (10**16, "10000T")],
)
def test_sizes(count: int, text: str) -> None:
    assert size(count) == text
