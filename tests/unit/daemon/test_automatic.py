"""Which flows move by themselves, and where to (`serval_node.daemon.automatic`), on real stacks in virtual time."""

from __future__ import annotations

from dataclasses import dataclass, field

import pytest

from serval_node.control.triggers import TRIGGERS
from serval_node.daemon import automatic
from serval_node.daemon.automatic import AutomaticMoves
from serval_node.daemon.migrations import Migrations
from serval_node.io.netlink import InterfaceAddress, Link, NetworkChange
from serval_node.sal.events import FlowMigrating, PathAnswers, PathBack, PathLost, PathSilent
from serval_node.wire.ipv4 import Address, address
from tests.unit.sal.conftest import A, E
from tests.unit.sal.test_migration import A2, A3, E2, Moving, make_moving
from tests.unit.sal.world import Host

HERE, OTHER, THIRD, PEER = address(A), address(A2), address(A3), address(E)


@dataclass
class Network:
    """Host a's links: eth0 with A, eth1 with A2; A3 is a second address of eth0 where a test wants it. ``unrouted``:
    (source, destination) without a route.
    """

    links: dict[int, Link] = field(default_factory=lambda: {n: Link(n, f"eth{n}", 1500, True, False) for n in (0, 1)})
    addresses: tuple[InterfaceAddress, ...] = (InterfaceAddress(0, HERE, 24), InterfaceAddress(1, OTHER, 24))
    chosen: Address | None = HERE
    routed: dict[Address, bool] = field(default_factory=lambda: {HERE: True, OTHER: True, THIRD: True})
    unrouted: set[tuple[Address, Address]] = field(default_factory=set)

    def own_addresses(self) -> list[Address]:
        return [entry.address for entry in self.addresses]

    def link_of(self, wanted: Address) -> Link | None:
        return next((self.links[entry.link_index] for entry in self.addresses if entry.address == wanted), None)

    def source_address(self, destination: Address) -> Address | None:
        return self.chosen

    def has_route(self, source: Address, destination: Address) -> bool:
        return self.routed[source] and (source, destination) not in self.unrouted

    def down(self, number: int) -> None:
        self.links[number] = Link(number, f"eth{number}", 1500, False, False)


class Node:
    """Host a with its automatic moves. The clock of decisions is the world's."""

    def __init__(
        self,
        monkeypatch: pytest.MonkeyPatch,
        moving: Moving | None = None,
        host: Host | None = None,
        network: Network | None = None,
    ) -> None:
        self.moving: Moving = moving or make_moving()
        world, host = self.moving.world, host or self.moving.a
        monkeypatch.setattr(automatic.time, "monotonic", lambda: world.now)
        self.host = host
        self._heard = len(host.events)
        self.network = network or Network()
        self.told: list[PathLost | PathBack] = []
        migrations = Migrations(host.stack, self.network, host.settle)  # type: ignore[arg-type]
        self.moves = AutomaticMoves(
            migrations,
            self.network,  # type: ignore[arg-type]
            host.stack.probing,
            self.told.append,
            wanted=TRIGGERS,
        )
        self.moves.network_changed(NetworkChange(routes=True), world.now)

    @property
    def at(self) -> Address:
        return self.moving.ours.local_address

    def silent(self, own: Address, *, after: float = 0.0) -> None:
        self.moving.world.run(after)
        now = self.moving.world.now
        self.moves.heard_of(PathSilent(now, own, PEER, None, now - 0.03))

    def hear(self) -> None:
        """What has happened to the stack since."""
        news, self._heard = self.host.events[self._heard :], len(self.host.events)
        for event in news:
            self.moves.heard_of(event)

    def answers(self, own: Address) -> None:
        self.moves.heard_of(PathAnswers(self.moving.world.now, own, PEER, None))

    def changed(self) -> None:
        self.moves.network_changed(NetworkChange(routes=True), self.moving.world.now)


@pytest.fixture
def node(monkeypatch: pytest.MonkeyPatch) -> Node:
    return Node(monkeypatch)


def test_a_flow_leaves_a_silent_path(node: Node) -> None:
    node.silent(HERE)
    assert node.at == OTHER
    node.moving.exchange()
    assert not node.told


def test_another_link_is_better_than_another_address_of_the_same(node: Node) -> None:
    node.network.addresses = tuple(InterfaceAddress(link, own, 24) for link, own in ((0, HERE), (0, THIRD), (1, OTHER)))
    node.silent(HERE)
    assert node.at == OTHER


def test_without_another_path_it_waits_and_is_told_once(node: Node) -> None:
    node.network.down(1)
    for _ in range(3):
        node.silent(HERE, after=1.0)
    assert node.at == HERE and [type(event) for event in node.told] == [PathLost]
    assert node.moves.lost(node.moving.ours.local_flow) == "no answer on this path"
    node.answers(HERE)
    assert [type(event) for event in node.told] == [PathLost, PathBack]
    assert node.moves.lost(node.moving.ours.local_flow) == ""


def test_a_link_that_comes_takes_the_flow_that_waits(node: Node) -> None:
    node.network.down(1)
    node.silent(HERE)
    node.network.links[1] = Link(1, "eth1", 1500, True, False)
    node.changed()
    assert node.at == OTHER


def test_two_silent_paths_are_not_changed_at_once(node: Node) -> None:
    node.moving.world.cut |= {HERE, OTHER}
    node.silent(HERE)
    node.silent(OTHER, after=0.3)
    assert node.at == OTHER and isinstance(node.told[-1], PathLost)
    node.silent(OTHER, after=automatic.NOT_AGAIN)
    assert node.at == HERE


def test_the_path_that_was_silent_longest_ago_is_tried_first(node: Node) -> None:
    node.network.links[2] = Link(2, "eth2", 1500, True, False)
    node.network.addresses = (*node.network.addresses, InterfaceAddress(2, THIRD, 24))
    node.moving.world.cut |= {HERE, OTHER, THIRD}
    node.silent(HERE)
    assert node.at == OTHER
    node.silent(OTHER, after=1.0)
    assert node.at == THIRD
    node.network.chosen = OTHER
    node.silent(THIRD, after=automatic.NOT_AGAIN + 1)
    assert node.at == HERE


def test_routes_that_prefer_another_link_are_followed(node: Node) -> None:
    node.network.chosen = OTHER
    node.changed()
    assert node.moving.ours.migration is not None and node.at == HERE  # planned: until the peer has answered
    node.moving.exchange()
    assert node.at == OTHER


def test_but_not_onto_a_path_that_is_silent(node: Node) -> None:
    node.silent(OTHER)
    node.network.chosen = OTHER
    node.changed()
    assert node.moving.ours.migration is None


def test_routes_that_prefer_another_address_of_the_same_link_are_not(node: Node) -> None:
    node.network.addresses = (*node.network.addresses, InterfaceAddress(0, THIRD, 24))
    node.network.chosen = THIRD
    node.changed()
    assert node.moving.ours.migration is None


def test_a_link_without_a_route_is_left_for_one_that_has(node: Node) -> None:
    node.network.routed = {HERE: False, OTHER: False}
    node.network.chosen = None
    node.changed()
    assert node.at == HERE and node.moves.lost(node.moving.ours.local_flow) == "no route"
    node.network.routed[OTHER] = True
    node.changed()
    assert node.at == OTHER


@pytest.mark.parametrize("trigger", ["link", "address", "route", "silence"])
def test_a_trigger_that_is_off_moves_nothing_until_it_is_on(node: Node, trigger: str) -> None:
    node.moves.switch([other for other in TRIGGERS if other != trigger])
    assert node.moves.view() == {other: other != trigger for other in TRIGGERS}
    if trigger == "link":
        node.network.down(0)
    elif trigger == "address":
        node.network.addresses = node.network.addresses[1:]
    elif trigger == "route":
        node.network.routed[HERE] = False
    else:
        node.silent(HERE)
    node.changed()
    assert node.at == HERE and isinstance(node.told[-1], PathLost)
    node.moves.switch(TRIGGERS)
    assert node.at == OTHER


def peer_moves(node: Node) -> None:
    """The peer's link goes down, and its RSYN comes from E2."""
    node.moving.move_peer(E2, lost=True, cause="link down")
    node.moving.world.run(5, until=lambda: node.moving.ours.peer_address == address(E2))
    node.hear()


def test_a_flow_goes_where_a_route_leads_to_the_peers_new_address(node: Node) -> None:
    node.network.unrouted = {(HERE, address(E2))}
    peer_moves(node)
    assert node.at == OTHER and not node.told
    (begun,) = [event for event in node.host.events if isinstance(event, FlowMigrating)]
    assert begun.cause == "no route to the peer's new address"
    node.moving.at_rest(A2, E2)


@pytest.mark.parametrize("why", ["a route", "no route before", "no other way", "trigger"])
def test_else_a_flow_stays_when_its_peer_moves(node: Node, why: str) -> None:
    node.network.chosen = OTHER
    if why != "a route":
        node.network.unrouted = {(HERE, address(E2))}
    if why == "no route before":
        node.network.unrouted.add((HERE, PEER))
    elif why == "no other way":
        node.network.unrouted.add((OTHER, address(E2)))
    elif why == "trigger":
        node.moves.switch(["link", "address", "silence"])
    peer_moves(node)
    assert node.at == HERE and not node.told
    node.moving.at_rest(A, E2)


def test_ends_that_move_past_each_other_meet(monkeypatch: pytest.MonkeyPatch) -> None:
    """Three networks without a router: the ends leave the first, one to the second and the other to the third."""
    moving = make_moving()
    third = moving.e.add_address("10.2.3.1")
    ours, theirs = (HERE, OTHER, THIRD), (PEER, address(E2), third)
    nodes = [
        Node(monkeypatch, moving, host, lanes(own, other))
        for host, own, other in ((moving.a, ours, theirs), (moving.e, theirs, ours))
    ]
    moving.move(A2, lost=True)
    moving.move_peer("10.2.3.1", lost=True)
    for _ in range(500):
        moving.world.run(0.01)
        for node in nodes:
            node.hear()
    begun = [event for node in nodes for event in node.host.events if isinstance(event, FlowMigrating)]
    assert len(begun) == 3
    moving.at_rest(A2, E2)


def lanes(own: tuple[Address, ...], other: tuple[Address, ...]) -> Network:
    """A host with an address in each network; routes lead only to the other's address in the same one."""
    network = Network(
        links={number: Link(number, f"eth{number}", 1500, True, False) for number in range(len(own))},
        addresses=tuple(InterfaceAddress(number, each, 24) for number, each in enumerate(own)),
        chosen=own[0],
        routed=dict.fromkeys(own, True),
    )
    network.unrouted = {(mine, its) for mine in own for its in other if own.index(mine) != other.index(its)}
    return network
