"""Events for apps, as a log shows them."""

from __future__ import annotations

import subprocess
import sys

from testbed.sandbox import ROOT

# The framework makes its process a green one, which the other tests must not be.
CHECKS = """
from controllers import api
from controllers.watch import InstanceSeen, NodeSeen
from serval_node.wire.serviceid import Prefix

NODE = NodeSeen("dan", "host", ("10.2.0.1",), 0x5E7A1000000000A)

prefix = Prefix.default()
instance = InstanceSeen(prefix, "dan", "10.2.0.1")
assert repr(api.EventNodeUp(NODE)) == "<EventNodeUp dan (host) at 10.2.0.1, datapath 0x05e7a1000000000a>"
assert repr(api.EventNodeDown(NODE)).startswith("<EventNodeDown dan ")
assert repr(api.EventServiceRegistered("web.example", instance)) == (
    "<EventServiceRegistered web.example on dan at 10.2.0.1>"
)
assert repr(api.EventServiceUnregistered("web.example", instance)).startswith("<EventServiceUnregistered web")
assert repr(api.EventServiceDelayed("web.example", prefix, "cleo")) == "<EventServiceDelayed web.example at cleo>"
"""


def test_events_say_what_they_tell() -> None:
    done = subprocess.run(
        [sys.executable, "-c", CHECKS], cwd=ROOT, capture_output=True, text=True, timeout=20, check=False
    )
    assert done.returncode == 0, done.stderr
