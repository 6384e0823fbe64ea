"""The kernel's tables of a node's network namespace, changed from outside by netlink.

A program in the node (`hosts.run`) takes some milliseconds of which nobody knows in which one it acted. Here the change
itself takes well under one, so that the moment of an event is known: each call returns it.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from mininet.node import Node
from pyroute2 import IPRoute
from pyroute2.netlink.exceptions import NetlinkError

from testbed import linux
from testbed.errors import TestbedError


class Netlink:
    """One open socket. Calls return CLOCK_MONOTONIC when the kernel had done it, and raise TestbedError."""

    def __init__(self, node: str, route: Any) -> None:
        self._node, self._route = node, route

    def set_up(self, interface: str, up: bool) -> float:
        """Take an interface down, or bring it up."""
        index = self._index(interface)
        what = f"{interface} {'up' if up else 'down'}"
        return self._done(what, lambda: self._route.link("set", index=index, state="up" if up else "down"))

    def enslave(self, interface: str, bridge: str | None) -> float:
        """Make an interface a port of a bridge, in one step also where it was another's; None: of no bridge."""
        index = self._index(interface)
        master = 0 if bridge is None else self._index(bridge)
        return self._done(f"{interface} to {bridge}", lambda: self._route.link("set", index=index, master=master))

    def _index(self, interface: str) -> int:
        found = self._route.link_lookup(ifname=interface)
        if not found:
            raise TestbedError(f"{self._node} has no interface {interface}")
        return int(found[0])

    def _done(self, what: str, call: Callable[[], object]) -> float:
        try:
            call()
        except (NetlinkError, OSError) as error:
            raise TestbedError(f"{self._node}: {what}: {error}") from None
        return time.monotonic()


@contextmanager
def opened(node: Node | None = None) -> Iterator[Netlink]:
    """Netlink of a node's namespace: a host's or router's own; a switch's, and that of no node, is the run's.

    Raises TestbedError.
    """
    name = "the run's namespace" if node is None else node.name
    try:
        if node is not None and node.inNamespace:
            # pyroute2's own way in is a fork, which on a busy machine takes longer than many an event may be late.
            with linux.network_of(node.pid):
                route = IPRoute()
        else:
            route = IPRoute()
    except (NetlinkError, OSError) as error:
        raise TestbedError(f"{name}: no netlink socket: {error}") from None
    with route:
        yield Netlink(name, route)
