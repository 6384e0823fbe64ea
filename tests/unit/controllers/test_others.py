"""Which apps of others leave the switches to the fabric: those that handle nothing but events about services."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from testbed.sandbox import ROOT

APP = """
from controllers import api
from os_ken.base import app_manager
from os_ken.controller import ofp_event
from os_ken.controller.handler import MAIN_DISPATCHER, set_ev_cls
from os_ken.topology import event

class Mine(app_manager.OSKenApp):
    {handlers}
"""
SERVICES = "@set_ev_cls([api.EventServiceRegistered, api.EventNodeUp])\n    def services(self, ev): pass\n    "
NODES = "@set_ev_cls(api.EventNodeDown)\n    def nodes(self, ev): pass\n    "
PACKETS = "@set_ev_cls(ofp_event.EventOFPPacketIn, MAIN_DISPATCHER)\n    def packets(self, ev): pass\n    "
SWITCHES = "@set_ev_cls(event.EventSwitchEnter)\n    def switches(self, ev): pass\n    "
# The framework makes its process a green one.
PROBE = """
import json, sys
from controllers import others
found = others.load(sys.argv[1:])
print(json.dumps([others.leave_switches(found), any(map(others.handles_packets, found.values()))]))
"""


@pytest.mark.parametrize(
    ("handlers", "leaves", "takes_packets"),
    [
        ([SERVICES], True, False),
        ([SERVICES + NODES], True, False),
        ([SERVICES + PACKETS], False, True),
        ([SERVICES + SWITCHES], False, False),
        (["pass"], False, False),
        ([SERVICES, PACKETS], False, True),
    ],
)
def test_the_fabric_stays_beside_apps_that_cannot_rule_switches(
    handlers: list[str], leaves: bool, takes_packets: bool, tmp_path: Path
) -> None:
    files = []
    for number, text in enumerate(handlers):
        path = tmp_path / f"app_{number}.py"
        path.write_text(APP.format(handlers=text).replace("Mine", f"Mine{number}"))
        files.append(str(path))
    done = subprocess.run(
        [sys.executable, "-c", PROBE, *files], cwd=ROOT, capture_output=True, text=True, timeout=20, check=False
    )
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == [leaves, takes_packets]
