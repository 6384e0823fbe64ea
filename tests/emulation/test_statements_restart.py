"""The controller stops and starts again below the running datacenter (S58): rules stay, and all is relearned."""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from testbed.errors import TestbedError
from tests.emulation.datacenter import Running, heard, wait_for

INSTANCES = ("dan", "eve", "fay")

CONNECT = """
import sys
from serval_node import socket as serval
with serval.create_connection(sys.argv[1], 30) as conn: print(conn.recv(100).decode(), flush=True)
"""


@contextmanager
def frozen(figure: Running, *names: str) -> Iterator[None]:
    """The nodes of these hosts stand still: they cannot reach a controller that starts meanwhile."""
    launcher = figure.net._launcher
    assert launcher is not None
    pids = [launcher.pids[name] for name in names]
    try:
        for pid in pids:
            os.kill(pid, signal.SIGSTOP)
        yield
    finally:
        for pid in pids:
            os.kill(pid, signal.SIGCONT)


def known(figure: Running) -> set[str]:
    """The nodes that the controller knows."""
    return {node["name"] for node in figure.net.controller_request("nodes")["nodes"]}


@pytest.mark.statement("S58")
def test_rules_outlive_the_controller_and_are_relearned(figure: Running) -> None:
    for name in INSTANCES:
        figure.serve(name, "web.example")
    figure.resolves("web.example", *INSTANCES)
    figure.ctl("policy", "web.example", "round-robin")
    wait_for("the policy at cleo", lambda: figure.entry("cleo", "web.example")["selector"] == "round-robin")
    figure.ctl("add", "cleo", "later.example", "delay")
    tables = {name: figure.table(name) for name in figure.address}

    figure.net.stop_controller(crash=True)
    wait_for("the end of the channels", lambda: not figure.ask("cleo", "status")["controller_up"])
    assert {name: figure.table(name) for name in figure.address} == tables
    assert figure.connects("ann", "web.example", 6) == dict.fromkeys(INSTANCES, 2)
    assert figure.connects("ben", "web.example", 3) == dict.fromkeys(INSTANCES, 1)
    waiting = figure.popen("ann", sys.executable, "-c", CONNECT, "later.example")
    wait_for("a SYN in the queue", lambda: figure.ask("cleo", "delayed")["delayed"])

    # The service router comes back first: nobody has yet confirmed what its rules name.
    others = [name for name in figure.address if name != "cleo"]
    with frozen(figure, *others):
        figure.net.start_controller()
        wait_for("cleo at the new controller", lambda: known(figure) == {"cleo"})
        status = figure.net.controller_request("status")
        assert status["relearning"]
        assert set(status["waiting_for"]) >= {figure.address[name] for name in INSTANCES}
        time.sleep(1.0)
        assert figure.table("cleo") == tables["cleo"], "nothing is removed on a report of cleo alone"
    wait_for("all nodes at the new controller", lambda: known(figure) == set(figure.address))
    expected = {"web.example": {f"{name} {figure.address[name]}" for name in INSTANCES}}
    wait_for("the directory", lambda: figure.services() == expected)
    assert not figure.net.controller_request("status")["relearning"]
    assert {name: figure.table(name) for name in figure.address} == tables
    assert figure.entry("cleo", "web.example")["selector"] == "round-robin"
    assert figure.connects("ann", "web.example", 6) == dict.fromkeys(INSTANCES, 2)
    # What waited still waits, is known again, and follows the new controller's rule.
    assert len(figure.net.controller_request("delayed")["delayed"]) == 1
    assert waiting.poll() is None
    figure.serve("gus", "later.example")
    figure.ctl("change", "cleo", "later.example", "forward", "gus")
    assert heard(waiting) == "gus"


@pytest.mark.statement("S58")
def test_names_and_weights_are_relearned_and_refusals_speak_by_name(figure: Running) -> None:
    for name in ("dan", "eve"):
        figure.serve(name, "web.example")
    figure.resolves("web.example", "dan", "eve")
    figure.ctl("policy", "web.example", "round-robin", "dan=9")
    figure.ctl("add", "cleo", "deep.example", "drop")
    figure.net.stop_controller(crash=True)
    wait_for("the end of the channels", lambda: not figure.ask("cleo", "status")["controller_up"])
    figure.net.start_controller()
    wait_for("all nodes at the new controller", lambda: known(figure) == set(figure.address))
    wait_for("the directory", lambda: len(figure.services().get("web.example", ())) == 2)
    rows = {line.split()[0]: line.split() for line in figure.ctl("rules", "cleo").splitlines()}
    assert rows["deep.example"][1] == "hand"
    assert figure.ctl("policy", "web.example") == "web.example round-robin dan=9\n"
    weights = {target["where"]: target["weight"] for target in figure.entry("cleo", "web.example")["targets"]}
    assert weights == {figure.address["dan"]: 9, figure.address["eve"]: 1}
    with pytest.raises(TestbedError, match=r"cleo refuses: nothing waits for silent\.example\n"):
        figure.net.controller_request("release", node="cleo", service="silent.example")
    with pytest.raises(TestbedError, match="cleo refuses: FORWARD to .*: that is this node itself"):
        figure.net.controller_request("add", node="cleo", service="loop.example", action="forward", targets=["cleo"])
    figure.ctl("policy", "web.example", "weighted-random")


@pytest.mark.statement("S58")
def test_what_ended_meanwhile_is_withdrawn(figure: Running) -> None:
    processes = {name: figure.serve(name, "web.example") for name in INSTANCES}
    figure.resolves("web.example", *INSTANCES)
    figure.net.stop_controller()
    processes["eve"].kill()
    figure.serve("gus", "web.example")
    wait_for("the end of the rule at eve", lambda: "web.example" not in figure.table("eve"))
    assert figure.table("cleo")["web.example"] == {f"FORWARD {figure.address[name]}" for name in INSTANCES}
    begun = time.monotonic()
    figure.net.start_controller()
    figure.resolves("web.example", "dan", "fay", "gus")
    print(f"start of the controller to the right rule at cleo: {time.monotonic() - begun:.2f} s")


def test_a_connect_to_what_ended_meanwhile_waits_for_the_controller(figure: Running) -> None:
    """Nobody withdraws without one; a SYN that is sent again after its return finds who is left."""
    processes = {name: figure.serve(name, "web.example") for name in ("dan", "eve")}
    figure.resolves("web.example", "dan", "eve")
    figure.ctl("policy", "web.example", "round-robin")
    wait_for("the policy at cleo", lambda: figure.entry("cleo", "web.example")["selector"] == "round-robin")
    figure.net.stop_controller()
    processes["eve"].kill()
    wait_for("the end of the rule at eve", lambda: "web.example" not in figure.table("eve"))
    connects = [figure.popen("ann", sys.executable, "-c", CONNECT, "web.example") for _ in range(2)]
    wait_for("dan's answer", lambda: any(process.poll() is not None for process in connects))
    time.sleep(1.5)  # longer than the first retransmission takes
    (waiting,) = (process for process in connects if process.poll() is None)
    figure.net.start_controller()
    assert heard(waiting) == "dan"
    figure.ctl("policy", "web.example", "weighted-random")
