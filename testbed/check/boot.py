"""The proof: two Serval hosts on a switch, with a controller, and a connection by a service's name."""

from __future__ import annotations

import time
from pathlib import Path

from mininet.topo import Topo

from testbed.check.findings import MISSING, OK, Finding
from testbed.errors import TestbedError
from testbed.hosts import ServalHost
from testbed.network import ServalNetwork

NAME = "two Serval hosts"
_SERVICE, _WORDS = "echo.example", "hello by name"


class TwoHosts(Topo):
    """As small as a network with a service can be."""

    def build(self) -> None:
        switch = self.addSwitch("s1")
        for name in ("ann", "dan"):
            self.addLink(self.addHost(name), switch, bw=100, delay="1ms")


def look(logs: Path) -> Finding:
    """Build it, connect, take it down."""
    begun = time.monotonic()
    try:
        with ServalNetwork(TwoHosts(), host=ServalHost, logs=logs) as net:
            up = time.monotonic() - begun
            with net.serval_host("dan").bind(_SERVICE, answer=_WORDS):
                begun = time.monotonic()
                heard = net.serval_host("ann").serval("connect", _SERVICE)
                took = time.monotonic() - begun
    except (TestbedError, OSError) as error:
        hint = error.hint if isinstance(error, TestbedError) else None
        return Finding(NAME, MISSING, str(error).splitlines()[0], hint or f"the logs are in {logs}")
    if _WORDS not in heard:
        return Finding(NAME, MISSING, f"ann got {heard!r} from {_SERVICE}", f"the logs are in {logs}")
    said = f"up in {up:.1f} s; ann reached dan by the name {_SERVICE} (a command of {took:.2f} s)"
    return Finding(NAME, OK, said)
