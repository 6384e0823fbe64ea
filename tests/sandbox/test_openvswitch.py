"""The private Open vSwitch."""

from __future__ import annotations

import json
import sys

import pytest

from testbed import openvswitch
from testbed.errors import TestbedError
from tests.sandbox.support import execute

SWITCH = """
import json, os, subprocess, sys, time
from testbed import openvswitch, processes
switch = openvswitch.start()
sessions = {os.getsid(daemon.pid) for daemon in (switch.database, switch.switch)}
datapath = openvswitch.datapath_type()
processes.run(["ovs-vsctl", "--timeout=5", "add-br", "br0", "--", "set", "bridge", "br0",
               "datapath_type=" + datapath.bridge_type])
links = processes.run(["ip", "-br", "link"])
pids = [switch.database.pid, switch.switch.pid]
log = switch.switch.log.read_text()
switch.stop()
switch.stop()
again = openvswitch.start()
bridges = processes.run(["ovs-vsctl", "--timeout=5", "list-br"])
again.stop()
left = processes.run(["ps", "-eo", "args"])
print(json.dumps([sorted(sessions) == sorted(pids), datapath.name, datapath.reason, links, log, bridges, left]))
"""


def test_private_switch() -> None:
    done = execute(sys.executable, "-c", SWITCH)
    assert done.returncode == 0, done.stderr
    own_sessions, name, reason, links, log, bridges, left = json.loads(done.stdout)
    assert own_sessions
    assert name in ("system", "user")
    assert "kernel" in reason
    assert "br0" in links
    assert "Open vSwitch" in log
    assert bridges == "br0\n"
    assert "ovs-vswitchd" not in left
    assert "ovsdb-server" not in left


def test_two_switches_do_not_meet() -> None:
    program = (
        "from testbed import openvswitch, processes\nswitch = openvswitch.start()\n"
        "print(repr(processes.run(['ovs-vsctl', '--timeout=5', 'list-br'])), processes.run(['ip', '-br', 'link']))\n"
        "processes.run(['ovs-vsctl', '--timeout=5', 'add-br', 'br0'])\n"
    )
    for _ in range(2):
        done = execute(sys.executable, "-c", program)
        assert done.stdout.startswith("'' "), done.stderr
        assert "br0" not in done.stdout


def test_not_outside_a_sandbox() -> None:
    with pytest.raises(TestbedError, match="in a sandbox only"):
        openvswitch.start()


def test_missing_switch_is_one_clear_line() -> None:
    program = (
        "import os\nfrom testbed import openvswitch\nfrom testbed.errors import TestbedError, report\n"
        "os.environ['PATH'] = '/nowhere'\ntry:\n    openvswitch.start()\nexcept TestbedError as e:\n    report(e)"
    )
    assert execute(sys.executable, "-c", program).stderr == (
        "testbed: ovsdb-tool: the program ovsdb-tool is missing\n  install what is missing: make setup\n"
    )
