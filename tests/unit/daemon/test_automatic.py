"""Which flows move by themselves, and where to (`serval_node.daemon.automatic`), on real stacks in virtual time."""

from __future__ import annotations

from dataclasses import dataclass, field

import pytest

from serval_node.control.triggers import TRIGGERS
from serval_node.daemon import automatic
from serval_node.daemon.automatic import AutomaticMoves
from serval_node.daemon.migrations import Migrations
from serval_node.io.netlink import InterfaceAddress, Link, NetworkChange
from serval_node.sal.events import PathAnswers, PathBack, PathLost, PathSilent
from serval_node.wire.ipv4 import Address, address
from tests.unit.sal.conftest import A, E
from tests.unit.sal.test_migration import A2, A3, Moving, make_moving

HERE, OTHER, THIRD, PEER = address(A), address(A2), address(A3), address(E)


@dataclass
class Network:
    """Host a's links: eth0 with A, eth1 with A2; A3 is a second address of eth0 where a test wants it."""

    links: dict[int, Link] = field(default_factory=lambda: {n: Link(n, f"eth{n}", 1500, True, False) for n in (0, 1)})
    addresses: tuple[InterfaceAddress, ...] = (InterfaceAddress(0, HERE, 24), InterfaceAddress(1, OTHER, 24))
    chosen: Address | None = HERE
    routed: dict[Address, bool] = field(default_factory=lambda: {HERE: True, OTHER: True, THIRD: True})

    def own_addresses(self) -> list[Address]:
        return [entry.address for entry in self.addresses]

    def link_of(self, wanted: Address) -> Link | None:
        return next((self.links[entry.link_index] for entry in self.addresses if entry.address == wanted), None)

    def source_address(self, destination: Address) -> Address | None:
        return self.chosen

    def has_route(self, source: Address, destination: Address) -> bool:
        return self.routed[source]

    def down(self, number: int) -> None:
        self.links[number] = Link(number, f"eth{number}", 1500, False, False)


class Node:
    """Host a with its automatic moves. The clock of decisions is the world's."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.moving: Moving = make_moving()
        world, host = self.moving.world, self.moving.a
        monkeypatch.setattr(automatic.time, "monotonic", lambda: world.now)
        self.network = Network()
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
