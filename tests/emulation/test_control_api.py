"""The control API whole (S22; docs/control-api.md): each message type of the original at a running node, by its own
socket and remotely by the controller; DELAY decided just in time (S26, S27), modes (S61), sets (S24).
"""

from __future__ import annotations

import json
import os
import sys
import time
from contextlib import redirect_stderr, redirect_stdout
from io import StringIO
from typing import Any
from unittest.mock import patch

import pytest

from controllers import ctl
from serval_node.cli import __main__ as cli
from testbed.errors import TestbedError
from tests.emulation.datacenter import Running, heard, wait_for

CONNECT = """
import errno, sys
from serval_node import socket as serval
try:
    with serval.create_connection(sys.argv[1], 20.0) as conn: print(conn.recv(100).decode(), flush=True)
except OSError as error:
    print(errno.errorcode.get(error.errno, error), flush=True)
"""

HOLD = """
import sys
from serval_node import socket as serval
conn = serval.create_connection(sys.argv[1], 10)
print("up", flush=True)
sys.stdin.readline()
"""

SERVER = """
import os, socket, sys
listener = socket.create_server(("0.0.0.0", 0))
for _ in range(int(sys.argv[2])):
    connection, _ = listener.accept()
    with connection: connection.sendall(sys.argv[1].encode())
"""
"""An unmodified program: it serves so many connections, and ends."""


class Refused(Exception):
    """What a command said on standard error."""


def remote(figure: Running, *words: str) -> dict[str, Any]:
    """The answer to a `servicectl` command line; in this process, because starting one for each takes long."""
    request = ctl.request_of(ctl.parser().parse_args(words))
    return figure.net.controller_request(request.pop("op"), **request)


def local(figure: Running, host: str, *words: str) -> str:
    """What a `serval` command line prints; raises Refused."""
    path = figure.net.serval_host(host).control_path
    # The command sets its environment for what it starts; programs of other hosts must not get it.
    with patch.dict(os.environ), redirect_stdout(StringIO()) as printed, redirect_stderr(StringIO()) as said:
        status = cli.main(["--control", path, *words])
    if status:
        raise Refused(said.getvalue())
    return printed.getvalue()


def local_json(figure: Running, host: str, *words: str) -> Any:
    return json.loads(local(figure, host, *words, "--json"))


def offer(figure: Running, host: str, service: str, *, times: int = 1) -> None:
    """A dormant instance, known to the controller."""
    program = (sys.executable, "-c", SERVER, host, str(times))
    figure.popen(host, sys.executable, "-m", "serval_node.cli", "standby", "--service", service, "--", *program)

    def offered() -> list[dict[str, Any]]:
        return [item for item in remote(figure, "services")["services"] if host in item["standbys"]]

    wait_for(f"the offer of {host}", offered)


def waits(figure: Running, host: str) -> list[str]:
    return [row["service"] for row in figure.ask(host, "delayed")["delayed"]]


@pytest.mark.statement("S26")
def test_an_instance_is_started_just_in_time(figure: Running) -> None:
    """connect() to what nobody serves: DELAY, START, the program listens, FORWARD and release, connect() succeeds."""
    remote(figure, "unknown", "*.example", "start")
    wait_for("the DELAY rule at cleo", lambda: figure.table("cleo") == {"*.example": {"DELAY"}})
    offer(figure, "eve", "late.example")
    assert "late.example" not in figure.table("eve"), "nothing runs before it is asked for"
    begun = time.monotonic()
    assert figure.python("ann", CONNECT, "late.example") == "eve\n"
    print(f"connect() to the answer of a program that was not running: {time.monotonic() - begun:.2f} s")
    assert "DELAY" not in figure.table("cleo").get("late.example", set())
    # It serves one connection and ends: offered again, and started again.
    wait_for("the end of its rule", lambda: "late.example" not in figure.table("cleo"))
    assert figure.python("ben", CONNECT, "late.example") == "eve\n"
    assert figure.python("ann", CONNECT, "nobody.example") == "ECONNREFUSED\n", "nobody offers that"
    assert waits(figure, "cleo") == []
    remote(figure, "unknown", "*.example", "off")
    wait_for("the end of the DELAY rule", lambda: figure.table("cleo").get("*.example") is None)


@pytest.mark.statement("S26", "S27")
def test_several_wait_for_one_start(figure: Running) -> None:
    remote(figure, "unknown", "*.example", "start")
    offer(figure, "dan", "both.example", times=2)
    before = figure.ask("cleo", "events")["now"]
    clients = [figure.popen(name, sys.executable, "-c", CONNECT, "both.example") for name in ("ann", "ben")]
    assert [heard(client) for client in clients] == ["dan", "dan"]
    asked = figure.ask("cleo", "events", since=before, kinds=["DelayNotify"])["events"]
    assert [event["service_id"] for event in asked] == ["both.example"], "one notification for two SYNs"
    remote(figure, "unknown", "*.example", "off")
    with pytest.raises(TestbedError, match=r"no node offers a program for never\.example"):
        remote(figure, "start", "never.example")


@pytest.mark.statement("S26")
def test_unknown_services_are_resolved_where_no_router_answers(figure: Running) -> None:
    """At the client's own host: the rule comes with the first SYN, names the instance, and goes by itself."""
    figure.serve("gus", "web.elsewhere")
    remote(figure, "unknown", "*.elsewhere", "resolve")
    wait_for("the DELAY rule at ann", lambda: figure.table("ann").get("*.elsewhere") == {"DELAY"})
    assert figure.python("ann", CONNECT, "web.elsewhere") == "gus\n"
    assert figure.table("ann")["web.elsewhere"] == {f"FORWARD {figure.address['gus']}"}
    assert figure.entry("ann", "web.elsewhere")["targets"][0]["idle_timeout"] == 60
    assert "web.elsewhere" not in figure.table("ben"), "nobody asked there"
    assert figure.python("ann", CONNECT, "nobody.elsewhere") == "ECONNREFUSED\n"
    remote(figure, "unknown", "*.elsewhere", "off")
    wait_for("the end of the DELAY rule", lambda: "*.elsewhere" not in figure.table("ann"))


def targets(figure: Running, service: str) -> list[int]:
    """How many packets each target of ann's rule got."""
    (entry,) = [item for item in local_json(figure, "ann", "table", service) if item["service"] == service]
    return [target["packets"] for target in entry["targets"]]


@pytest.mark.statement("S22", "S24", "S61")
def test_rules_are_added_changed_got_and_removed_here_and_remotely(figure: Running) -> None:
    """ADD, MOD, GET and DEL_SERVICE; RESOLVE; priorities and weights; the mode."""
    for name in ("dan", "eve"):
        figure.serve(name, "set.example")
    dan, eve = figure.address["dan"], figure.address["eve"]
    local(figure, "ann", "rule", "add", "set.example", "forward", f"{dan}*3", f"{eve}@2", "--hard", "600")
    with pytest.raises(Refused, match="change or remove it"):
        local(figure, "ann", "rule", "add", "set.example", "drop")
    assert figure.connects("ann", "set.example", 4) == {"eve": 4}, "the higher priority"
    local(figure, "ann", "rule", "change", "set.example", "forward", dan, eve, "--selector", "round-robin")
    assert figure.connects("ann", "set.example", 4) == {"dan": 2, "eve": 2}
    assert targets(figure, "set.example") == [2, 6], "a target that stays keeps its counters"
    (there,) = [
        rule for rule in remote(figure, "rules", "ann", "set.example")["rules"] if rule["name"] == "set.example"
    ]
    assert [target["packets"] for target in there["targets"]] == [2, 6]
    resolved = remote(figure, "resolve", "ann", "set.example")
    assert [target["address"] for target in resolved["rule"]["targets"]] == [dan, eve]
    assert resolved["refusal"] == ""
    # Every target a copy: the first answer has the connection, the other instance is told that it lost.
    assert remote(figure, "mode", "ann", "all")["mode"] == local_json(figure, "ann", "mode")["mode"] == "all"
    assert sum(figure.connects("ann", "set.example", 3).values()) == 3
    assert targets(figure, "set.example") == [5, 9]
    assert local(figure, "ann", "mode", "anycast").startswith("resolution mode anycast; this host is no service router")
    remote(figure, "change", "ann", "set.example", "drop")
    assert remote(figure, "resolve", "ann", "set.example")["refusal"] == "drop_rule"
    (removed,) = remote(figure, "remove", "ann", "set.example")["removed"]
    assert [target["action"] for target in removed["targets"]] == ["drop"]
    remote(figure, "add", "ann", "set.example", "forward", "dan", "--hard", "0.3")
    wait_for("its end", lambda: "set.example" not in figure.table("ann"))
    log = figure.net.logs / "controller.log"
    wait_for("the notice", lambda: "set.example @ ann: hard time-out" in log.read_text())
    remote(figure, "add", "ann", "set.example", "forward", "eve")
    assert local(figure, "ann", "rule", "remove", "set.example").startswith("removed set.example -> forward")


@pytest.mark.statement("S22", "S26", "S27")
def test_what_waits_is_listed_and_decided_here_and_remotely(figure: Running) -> None:
    """DELAY_NOTIFY and DELAY_VERDICT, three verdicts, at a router and at the client's own host."""
    before = remote(figure, "stat", "ann")["counters"]
    for host, words in (("cleo", ("refuse", "cleo", "q.example")), ("ann", ("refuse", "q.example"))):
        remote(figure, "add", host, "q.example", "delay")
        client = figure.popen("ann", sys.executable, "-c", CONNECT, "q.example")
        wait_for("the SYN in the queue", lambda host=host: waits(figure, host) == ["q.example"])
        (row,) = local_json(figure, host, "delayed")
        assert (row["rule"], row["packets"], len(row["waiting"])) == ("q.example", 1, 1)
        assert row["waiting"][0]["client"] == (figure.address["ann"] if host == "cleo" else "")
        assert [item["node"] for item in remote(figure, "delayed")["delayed"]] == [host]
        with pytest.raises(TestbedError, match="the rule q.example -> DELAY still stands"):
            remote(figure, "release", host, "q.example")
        with pytest.raises(Refused, match="still stands"):
            local(figure, host, "delayed", "release", "q.example")
        wait_for("the new notice", lambda: remote(figure, "delayed")["delayed"])
        remote(figure, *words)
        assert heard(client) == "ECONNREFUSED"
        remote(figure, "remove", host, "q.example")
    local(figure, "ann", "rule", "add", "q.example", "delay")
    client = figure.popen("ann", sys.executable, "-c", CONNECT, "q.example")
    wait_for("the SYN in the queue", lambda: waits(figure, "ann"))
    local(figure, "ann", "delayed", "drop", "q.example")
    assert heard(client) == "EHOSTUNREACH"
    after = remote(figure, "stat", "ann")["counters"]
    assert [after[key] - before.get(key, 0) for key in ("delay_refused", "delay_dropped")] == [1, 1]
    assert figure.entry("ann", "q.example")["dropped_packets"] == 1


@pytest.mark.statement("S22")
def test_what_a_node_is_has_and_does_is_told_here_and_remotely(figure: Running) -> None:
    """REGISTER and UNREGISTER, SERVICE_STAT, CAPABILITIES, STATS_QUERY, MIGRATE, and DUMMY's "I am here"."""
    server = figure.popen("dan", sys.executable, "-m", "http.server", "8099")
    wait_for("the server", lambda: [s for s in figure.ask("dan", "listeners")["listeners"] if s["port"] == 8099])
    local(figure, "dan", "bind", "told.example", "8099")
    figure.resolves("told.example", "dan")
    assert figure.services()["told.example"] == {f"dan {figure.address['dan']}"}
    client = figure.start("ann", HOLD, "told.example")
    near = figure.flow("ann", "told.example")
    (shown,) = local_json(figure, "ann", "flows", str(near["flow_id"]))
    (there,) = remote(figure, "flows", "ann", str(near["flow_id"]))["flows"]
    assert shown["peer_flow"] == there["peer_flow"] == near["peer_flow"]
    with pytest.raises(Refused, match="this host has no flow 1;"):
        local(figure, "ann", "flows", str(near["flow_id"]), "1")
    assert local_json(figure, "ann", "table", "default") == []
    local(figure, "ann", "rule", "add", "default", "drop")
    assert [entry["service"] for entry in local_json(figure, "ann", "table", "default")] == ["default"]
    local(figure, "ann", "rule", "remove", "default")
    assert (there["state"], there["peer"]) == ("CONNECTED", figure.address["dan"])
    figure.flow("dan", "told.example")
    stat, own = remote(figure, "stat", "dan"), local_json(figure, "dan", "stat")["counters"]
    assert [(item["name"], item["flows"]) for item in stat["services"]] == [("told.example", 1)]
    for counters in (stat["counters"], own):
        assert (counters["services"], counters["instances"]) == (1, 1)
        assert counters["resolved_packets"] >= 1
        assert counters["resolved_bytes"] >= 88
    here = str(near["flow_id"]), figure.address["ann"]
    with pytest.raises(TestbedError, match="is at .* already"):
        remote(figure, "migrate", "ann", "flow", *here)
    with pytest.raises(Refused, match="is at .* already|did not move"):
        local(figure, "ann", "migrate", "flow", *here)
    assert {"ann", "dan"} <= set(remote(figure, "status")["nodes"])
    assert local_json(figure, "dan", "stat")["status"]["pid"]
    # Transit: cleo is the service router, until it is told not to be.
    assert remote(figure, "mode", "cleo")["forwarding"] is True
    remote(figure, "mode", "cleo", "--forwarding", "off")
    wait_for("the end of the block's rule at ann", lambda: "*.example" not in figure.table("ann"))
    local(figure, "cleo", "mode", "--forwarding", "on")
    figure.resolves("told.example", "dan")
    wait_for("the block's rule at ann", lambda: "*.example" in figure.table("ann"))
    local(figure, "dan", "bind", "told.example", "8099", "--remove")
    wait_for("UNREGISTER", lambda: not figure.services())
    assert client.poll() is None
    assert server.poll() is None
