"""Which flows move by themselves, and where to (slides 40 and 45, S49): by what links, addresses and routes do, and
because nothing comes back. Each of the triggers can be switched.

A flow is lost where it is when its address has gone, its link is down, no route is left over its link, or its path is
silent. It moves to the best address that is not; while there is none it waits, which is told once, and goes as soon as
a link, an address or a route comes. Where routing prefers another address than it did, a flow follows while its old
path still carries it. When the peer has moved to where no route leads over the flow's link, it goes where one does.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection

from serval_node.control.triggers import TRIGGERS
from serval_node.daemon.log import log
from serval_node.daemon.migrations import Migrations
from serval_node.daemon.route_watch import Ends, RouteWatch
from serval_node.io.netlink import HostNetwork, NetworkChange
from serval_node.sal.events import FlowMigrated, FlowOpened, PathAnswers, PathBack, PathLost, PathSilent, PeerMoved
from serval_node.sal.flow_table import Flow
from serval_node.sal.moves import Cause
from serval_node.sal.places import Place
from serval_node.sal.probing import Probing
from serval_node.wire.ipv4 import Address

NO_ANSWER = "no answer on this path"
_LINK_DOWN, _ADDRESS_REMOVED, _NO_ROUTE, _ROUTE_CHANGED = "link down", "address removed", "no route", "route changed"
_PEER_ELSEWHERE = "no route to the peer's new address"
_TRIGGER_OF = {
    _LINK_DOWN: "link",
    _ADDRESS_REMOVED: "address",
    _NO_ROUTE: "route",
    _ROUTE_CHANGED: "route",
    NO_ANSWER: "silence",
}
# A path that was silent is not tried again for so long; and so long it is the last to be tried.
NOT_AGAIN, LAST_CHOICE = 2.0, 60.0
# So long after a move of its own a client does not go after its peer.
STAYS = 1.0
# So many silent paths are remembered without a look whether some are old.
_FEW = 256

_Path = tuple[Address, Place]


class AutomaticMoves:
    """Decides for one node. ``wanted`` are the triggers that are on."""

    def __init__(
        self,
        migrations: Migrations,
        network: HostNetwork,
        probing: Probing,
        tell: Callable[[PathLost | PathBack], None],
        *,
        wanted: Collection[str],
    ) -> None:
        """``tell`` hears of flows that wait."""
        self._migrations = migrations
        self._network = network
        self._probing = probing
        self._tell = tell
        self._waiting: dict[int, str] = {}
        self._routes = RouteWatch(network)
        # Paths that were found silent and not heard of since: when, by the clock of events.
        self._silent: dict[_Path, float] = {}
        self.wanted: frozenset[str] = frozenset()
        self.switch(wanted)

    # -- the policy

    def switch(self, wanted: Collection[str]) -> None:
        """From now on these triggers are on, and no other. Flows that wait for one of them move now."""
        self.wanted = frozenset(wanted)
        self._probing.switch(on="silence" in self.wanted)
        if not self._probing.on:
            self._silent.clear()
        now = time.monotonic()
        for flow in self._migrations.open_flows():
            if flow.local_flow in self._waiting:
                self._consider(flow, now)

    def view(self) -> dict[str, bool]:
        """Each trigger, and whether it is on."""
        return {trigger: trigger in self.wanted for trigger in TRIGGERS}

    def lost(self, flow_id: int) -> str:
        """What a flow has lost that waits where it is; empty for any other."""
        return self._waiting.get(flow_id, "")

    # -- what happens

    def network_changed(self, change: NetworkChange, happened: float) -> None:
        """Links, addresses or routes came, went or changed; ``happened`` is when the kernel's notice was there."""
        if change == NetworkChange():
            return
        flows = self._migrations.open_flows()
        elsewhere = self._routes.changed(_ends(flow) for flow in flows)
        for flow in flows:
            preferred = elsewhere.get(_ends(flow))
            if not self._consider(flow, happened) and preferred is not None:
                self._follow(flow, preferred, happened)
        still_open = {flow.local_flow for flow in flows}
        self._waiting = {flow_id: why for flow_id, why in self._waiting.items() if flow_id in still_open}

    def heard_of(self, event: object) -> None:
        """An event of the stack: where flows are, and which paths are silent."""
        if isinstance(event, FlowOpened):
            self._routes.note((event.local_address, event.peer_address))
        elif isinstance(event, FlowMigrated | PeerMoved):
            flow = self._migrations.open_flow(event.flow_id)
            if flow is not None:
                # The peer has just been heard there.
                self._silent.pop((_place(flow), flow.peer), None)
                self._routes.note(_ends(flow))
                if not self._consider(flow, event.time) and isinstance(event, PeerMoved):
                    self._go_along(flow, event)
        elif isinstance(event, PathSilent):
            path = event.address, Place(event.peer, event.ports)
            self._forget_old(event.time)
            self._silent[path] = event.time
            self._reconsider(path, event.since)
        elif isinstance(event, PathAnswers):
            path = event.address, Place(event.peer, event.ports)
            if self._silent.pop(path, None) is not None:
                self._reconsider(path, event.time)

    def _forget_old(self, now: float) -> None:
        if len(self._silent) < _FEW:
            return
        used = {(_place(flow), flow.peer) for flow in self._migrations.open_flows()}
        self._silent = {path: when for path, when in self._silent.items() if path in used or now < when + LAST_CHOICE}

    def _reconsider(self, path: _Path, happened: float) -> None:
        for flow in self._migrations.open_flows():
            if (_place(flow), flow.peer) == path:
                self._consider(flow, max(happened, flow.placed))

    # -- decisions

    def _consider(self, flow: Flow, happened: float) -> bool:
        """Whether the flow is lost where it is; if so it moves, or waits."""
        why, now = self._loss(flow), time.monotonic()
        if why is None:
            if self._waiting.pop(flow.local_flow, None) is not None:
                self._tell(PathBack(now, flow.local_flow, flow.service_id, _place(flow)))
            return False
        target = self._way_out(flow, why, now) if _TRIGGER_OF[why] in self.wanted else None
        if target is not None and self._move(flow, target, Cause(why, True, happened, now)):
            self._waiting.pop(flow.local_flow, None)
        elif self._waiting.get(flow.local_flow) != why:
            self._waiting[flow.local_flow] = why
            self._tell(PathLost(now, flow.local_flow, flow.service_id, why, _place(flow)))
        return True

    def _follow(self, flow: Flow, preferred: Address, happened: float) -> None:
        """Routing prefers another address than the one that it had chosen for this flow, which still works."""
        now = time.monotonic()
        link = self._network.link_of(preferred)
        moving = flow.migration is not None and flow.migration.move is not None
        if "route" not in self.wanted or moving or link is None or not link.up or link.loopback:
            return
        if link == self._network.link_of(flow.local_address):
            return  # another address of the same link: nothing is gained
        if now < self._silent.get((preferred, flow.peer), -LAST_CHOICE) + LAST_CHOICE:
            return
        self._move(flow, preferred, Cause(_ROUTE_CHANGED, False, happened, now))

    def _go_along(self, flow: Flow, event: PeerMoved) -> None:
        """The peer has moved. If no route leads there over this flow's link, as one did to where it was, what is sent
        from here does not arrive; the flow goes to an address from which one does, if there is any.

        Both ends may move at the same time, past each other. If then each went after the other, they would change
        places for ever: it is the server that goes, and a client that has just moved stays.
        """
        record, network, now = flow.migration, self._network, time.monotonic()
        moved = None if record is None else record.moved
        if "route" not in self.wanted or (not flow.server and moved is not None and now < moved + STAYS):
            return
        # Where this flow was when the peer was there.
        before = flow.local_address if record is None or record.move is None else record.move.left
        if network.has_route(_place(flow), flow.peer.address) or not network.has_route(before, event.source):
            return
        target = self._way_out(flow, _NO_ROUTE, now)
        if target is not None:
            self._move(flow, target, Cause(_PEER_ELSEWHERE, True, event.asked, now))

    def _move(self, flow: Flow, target: Address, why: Cause) -> bool:
        outcome = self._migrations.start(flow, target, why)
        if outcome.refusal:
            log(f"flow {flow.local_flow} does not move: {outcome.refusal}")
        return not outcome.refusal

    def _loss(self, flow: Flow) -> str | None:
        """Why the flow cannot stay where it is, or on the way to where it is going; None: it can."""
        here = _place(flow)
        if here[0] == 127:
            return None
        link = self._network.link_of(here)
        if link is None:
            return _ADDRESS_REMOVED
        if not link.up:
            return _LINK_DOWN
        if self._routes.has_lost((here, flow.peer.address)):
            return _NO_ROUTE
        return NO_ANSWER if (here, flow.peer) in self._silent else None

    def _way_out(self, flow: Flow, why: str, now: float) -> Address | None:
        """Where to: what routing gives towards the peer, else an address with a route, else any: a dead link keeps its
        routes. Paths that were silent come last; another address of the link that was left comes after other links.
        """
        here, peer, network = _place(flow), flow.peer, self._network
        routed = network.source_address(peer.address)
        left = network.link_of(here)
        best: tuple[tuple[bool, float, bool, bool, bool], Address] | None = None
        for candidate in network.own_addresses():
            link = network.link_of(candidate)
            if link is None or not link.up or link.loopback or candidate == here:
                continue
            has_route = network.has_route(candidate, peer.address)
            if why == _NO_ROUTE and not has_route:
                continue
            silent = self._silent.get((candidate, peer), -LAST_CHOICE)
            if now < silent + NOT_AGAIN:
                continue
            last = now < silent + LAST_CHOICE
            rank = (last, silent if last else 0.0, link == left, candidate != routed, not has_route)
            if best is None or rank < best[0]:
                best = rank, candidate
        return None if best is None else best[1]


def _place(flow: Flow) -> Address:
    """Where the flow is, or is going."""
    if flow.migration is not None and flow.migration.move is not None:
        return flow.migration.move.address
    return flow.local_address


def _ends(flow: Flow) -> Ends:
    return _place(flow), flow.peer.address
