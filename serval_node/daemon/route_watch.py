"""What the host's routes say about the paths in use, kept so that a change of it can be told from what was always so.

A flow may be where routing would not have put it: somebody moved it there, or its peer came that way. That alone moves
nothing. Only a changed answer does: another source address is chosen towards the peer, or no route is left over the
link of the flow's address. The answers are those of all tables and rules, so what changes elsewhere changes nothing.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Protocol

from serval_node.wire.ipv4 import Address

Ends = tuple[Address, Address]
"""Own address, peer's address."""


class Routing(Protocol):
    """What is asked of the host's network."""

    def source_address(self, destination: Address) -> Address | None:
        """The own address that routing chooses towards a destination."""

    def has_route(self, source: Address, destination: Address) -> bool:
        """Whether there is a route over the link of this own address."""


class RouteWatch:
    """The answers for the paths of one node."""

    def __init__(self, routing: Routing) -> None:
        self._routing = routing
        self._chosen: dict[Address, Address | None] = {}
        self._routed: dict[Ends, bool] = {}
        self._lost: set[Ends] = set()

    def note(self, ends: Ends) -> None:
        """A flow is between these addresses from now on."""
        if ends in self._routed:
            return
        local, peer = ends
        self._routed[ends] = self._routing.has_route(local, peer)
        self._chosen.setdefault(peer, self._routing.source_address(peer))

    def has_lost(self, ends: Ends) -> bool:
        """Whether there was a route over the link of this own address, and is none now."""
        return ends in self._lost

    def changed(self, used: Iterable[Ends]) -> dict[Ends, Address]:
        """Routes, links or addresses may have changed. The paths that flows use whose own address was the one chosen by
        routing, and is no more: each with the address that is chosen now.
        """
        paths = set(used)
        chosen = {peer: self._routing.source_address(peer) for peer in {peer for _, peer in paths}}
        elsewhere: dict[Ends, Address] = {}
        for ends in paths:
            local, peer = ends
            now = chosen[peer]
            if now is not None and now != local and self._chosen.get(peer) == local:
                elsewhere[ends] = now
        routed = {ends: self._routing.has_route(*ends) for ends in paths}
        self._lost = {
            ends for ends in paths if not routed[ends] and (self._routed.get(ends, False) or ends in self._lost)
        }
        self._chosen, self._routed = chosen, routed
        return elsewhere
