"""`serval events` on a node that answers as a test wants."""

from __future__ import annotations

import argparse
import json
from typing import Any

import pytest

from serval_node.cli import __main__ as cli
from serval_node.cli.errors import CommandError
from serval_node.cli.events import Follower, events
from serval_node.control.local import ControlUnreachable
from serval_node.daemon.event_log import EventLog, Wanted
from serval_node.sal.events import Blackout, Event, FlowClosed, SynForwarded
from serval_node.sal.service_table import Selector
from serval_node.wire.ipv4 import address
from serval_node.wire.naming import Naming

NAMING = Naming({"example": 0x9C1185})
WEB, ID = NAMING.bind_prefix("web.example"), NAMING.service_id("web.example", 80)
OLD, NEW = address("10.1.0.1"), address("10.2.0.1")


def blackout(recover: float | None = 0.001, rsyns: int = 1, time: float = 10.0257) -> Blackout:
    return Blackout(time, 7, ID, "link down", OLD, NEW, 10.0, 0.0031, 0.0002, 0.0214, recover, rsyns)


def closed(flow: int, time: float = 11.0) -> FlowClosed:
    return FlowClosed(time, flow, NAMING.service_id("other.example"), False, True, "closed")


class Node:
    """What answers: a log and a control socket's operations, as the daemon has them."""

    def __init__(self) -> None:
        self.log, self.boot, self.down = EventLog(NAMING.describe, kept=8), "one", False
        self.asked: list[dict[str, Any]] = []

    def request(self, op: str, **fields: Any) -> dict[str, Any]:
        if self.down:
            raise ControlUnreachable("nothing listens there")
        if op == "status":
            return {"name": "ann"}
        if op == "hosts":
            return {"hosts": {"eve": "10.9.0.1"}}
        self.asked.append(fields)
        after, last = fields.pop("after"), fields.pop("last", 4096)
        wanted = Wanted(frozenset(fields["kinds"]) if "kinds" in fields else None)
        found = self.log.after(after, last, wanted)
        missed = self.log.missed(after)
        return {"events": found, "missed": missed, "now": 12.0, "number": self.log.count, "boot": self.boot}

    def add(self, *happened: Event) -> None:
        for event in happened:
            self.log.add(event)


def options(*words: str) -> argparse.Namespace:
    return cli._parser().parse_args(["events", *words])


def follower(node: Node, *words: str) -> Follower:
    return Follower(node, options(*words))  # type: ignore[arg-type]


def test_a_move_is_one_line_with_its_parts() -> None:
    node = Node()
    node.add(blackout())
    (line,) = follower(node).lines(50)
    assert line.split(maxsplit=2)[1:] == [
        "Blackout",
        "flow 7 moved 10.1.0.1 -> 10.2.0.1: link down; detected 3.1 ms, decided 0.2, answered 21.4 (1 RSYN), "
        "data after 1.0 ms",
    ]


def test_a_move_without_data_says_so() -> None:
    node = Node()
    node.add(blackout(None, rsyns=2, time=13.0247))
    (line,) = follower(node).lines(50)
    assert line.endswith("answered 21.4 (2 RSYNs), no data in the 3.0 s since")


def test_json_has_both_clocks_and_all_fields() -> None:
    node = Node()
    node.add(blackout())
    (line,) = follower(node, "--json").lines(50)
    event = json.loads(line)
    assert event["wall"].endswith("+00:00") and event.pop("wall")
    assert event == {
        "host": "ann", "event": "Blackout", "time": 10.0257, "flow_id": 7, "service_id": "web.example:80",
        "cause": "link down", "source": "10.1.0.1", "target": "10.2.0.1", "happened": 10.0, "detect": 0.0031,
        "decide": 0.0002, "signal": 0.0214, "recover": 0.001, "rsyns": 1,
    }  # fmt: skip


def test_each_event_is_shown_once_and_the_last_first() -> None:
    node = Node()
    node.add(closed(1), closed(2), closed(3))
    shown = follower(node)
    assert [line.split()[3] for line in shown.lines(2)] == ["2", "3"]
    assert shown.lines() == []
    node.add(closed(4))
    assert [line.split()[3] for line in shown.lines()] == ["4"]


def test_what_the_log_has_lost_is_counted(capsys: pytest.CaptureFixture[str]) -> None:
    node = Node()
    shown = follower(node)
    shown.lines(0)
    node.add(*(closed(flow) for flow in range(1, 11)))
    assert len(shown.lines()) == 8
    assert capsys.readouterr().err == "serval: 2 events came faster than they could be shown\n"


def test_a_node_that_was_started_again_begins_anew(capsys: pytest.CaptureFixture[str]) -> None:
    node = Node()
    node.add(closed(1), closed(2))
    shown = follower(node)
    shown.lines(50)
    node.down = True
    for _ in range(2):
        with pytest.raises(ControlUnreachable) as error:
            shown.lines()
        shown.wait(str(error.value))
    node.down, node.boot, node.log = False, "two", EventLog(NAMING.describe)
    node.add(closed(3))
    assert [line.split()[3] for line in shown.lines()] == ["3"]
    assert capsys.readouterr().err.splitlines() == [
        "serval: nothing listens there; waiting for it",
        "serval: the node of ann answers again",
    ]


def test_filters_are_the_nodes() -> None:
    node = Node()
    node.add(blackout(), closed(1))
    lines = follower(node, "--kind", "FlowClosed", "--service", "web.example", "--flow", "9").lines(50)
    assert len(lines) == 1 and "FlowClosed" in lines[0]
    assert node.asked == [{"kinds": ["FlowClosed"], "service": "web.example", "flow_id": 9}]


def test_without_follow_it_ends(capsys: pytest.CaptureFixture[str]) -> None:
    node = Node()
    node.add(closed(1))
    assert events(node, options()) == 0  # type: ignore[arg-type]
    assert events(node, options("--follow", "--seconds", "0.01")) == 0  # type: ignore[arg-type]
    assert capsys.readouterr().out.count("FlowClosed") == 2


def test_an_end_without_following_is_refused() -> None:
    with pytest.raises(CommandError, match="--follow"):
        events(Node(), options("--seconds", "1"))  # type: ignore[arg-type]


def test_wanted() -> None:
    forwarded = SynForwarded(1.0, OLD, 9, ID, WEB, Selector.MAGLEV, 1, OLD, NEW)
    assert Wanted()(forwarded) and Wanted(service=WEB)(forwarded) and Wanted(flow_id=9)(forwarded)
    assert not Wanted(flow_id=7)(forwarded)
    assert not Wanted(service=NAMING.bind_prefix("other.example"))(forwarded)
    assert Wanted(frozenset({"FlowClosed"}))(closed(1)) and not Wanted(frozenset({"FlowClosed"}))(forwarded)
    assert not Wanted(service=WEB)(closed(1)) and not Wanted(flow_id=2)(closed(1))


@pytest.mark.parametrize("words", [["--last", "-1"], ["--last", "5000"], ["--flow", "0"], ["--seconds", "nan"]])
def test_wrong_arguments(words: list[str]) -> None:
    with pytest.raises(SystemExit) as end:
        options(*words)
    assert end.value.code == 2


def test_a_flood_of_forged_syns_loses_nothing_of_this_host_and_is_counted() -> None:
    log = EventLog(NAMING.describe, kept=4)
    log.add(closed(1))
    for time in range(10):
        log.add(SynForwarded(float(time), OLD, 9, ID, WEB, Selector.MAGLEV, 1, OLD, NEW))
    assert [event["event"] for event in log.after(0)] == ["FlowClosed", *["SynForwarded"] * 4]
    assert (log.missed(0), log.missed(6), log.missed(7), log.missed(11)) == (6, 1, 0, 0)
    assert [event["time"] for event in log.after(9)] == [8.0, 9.0]
