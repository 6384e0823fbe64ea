"""Emulated networks in sandboxes. What a script needs (docs/mininet.md):

    import testbed

    testbed.enter_sandbox()
    with testbed.ServalNetwork(topology, host=testbed.ServalHost) as net:
        print(net["h1"].serval("table"))

The modules below this package have the rest.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from testbed.errors import TestbedError
    from testbed.hosts import ServalHost
    from testbed.network import ServalNetwork
    from testbed.sandbox import enter as enter_sandbox

__all__ = ["ServalHost", "ServalNetwork", "TestbedError", "enter_sandbox"]

_WHERE = {
    "ServalHost": ("testbed.hosts", "ServalHost"),
    "ServalNetwork": ("testbed.network", "ServalNetwork"),
    "TestbedError": ("testbed.errors", "TestbedError"),
    "enter_sandbox": ("testbed.sandbox", "enter"),
}


def __getattr__(name: str) -> Any:
    """Loaded when asked for: PID 1 of a sandbox imports this package too, without Mininet and in a few milliseconds."""
    if name not in _WHERE:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    module, attribute = _WHERE[name]
    return getattr(importlib.import_module(module), attribute)
