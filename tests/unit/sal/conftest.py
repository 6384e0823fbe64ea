"""The figure of the slides: client a, service router c, instances d and e."""

from __future__ import annotations

from dataclasses import dataclass

import pytest

from serval_node.sal.service_table import Rule
from tests.unit.sal.fake_tcp import Listener, Socket
from tests.unit.sal.world import NAMING, WEB_BIND, Host, World, forward

A, C, D, E = "10.0.0.1", "10.0.1.1", "10.0.2.1", "10.0.3.1"


@dataclass
class Pair:
    """A client and a server without a router between; ``connect`` gives both ends of a connection."""

    world: World
    a: Host
    e: Host
    listener: Listener

    def connect(self) -> tuple[Socket, Socket]:
        before = len(self.listener.queue)
        client = self.a.connect()
        self.world.run(until=lambda: len(self.listener.queue) > before and client.state == "ESTABLISHED")
        return client, self.listener.queue[-1]


@dataclass
class Figure:
    """Client a, whose edge rule is X/24 -> c; router c; instances d and e, in c's rule while they listen."""

    world: World
    a: Host
    c: Host
    d: Host
    e: Host

    def point(self, *instances: str, **fields: object) -> None:
        """c's rule for the web service; nothing removes it."""
        table = self.c.stack.service_table
        if instances:
            table.set_rule(Rule(WEB_BIND, forward(*instances, **fields)), "controller")
        else:
            table.remove_rule(WEB_BIND, "controller")


def make_pair(seed: int = 1, **config: object) -> Pair:
    world = World(seed)
    a, e = world.host("a", A, **config), world.host("e", E, **config)
    a.stack.service_table.set_rule(Rule(NAMING.block("example"), forward(E)), "controller")
    return Pair(world, a, e, e.serve())


def make_figure(seed: int = 1) -> Figure:
    world = World(seed)
    figure = Figure(
        world, world.host("a", A), world.host("c", C, forwarding=True), world.host("d", D), world.host("e", E)
    )
    figure.a.stack.service_table.set_rule(Rule(NAMING.block("example"), forward(C)), "controller")
    return figure


@pytest.fixture
def pair() -> Pair:
    return make_pair()


@pytest.fixture
def figure() -> Figure:
    return make_figure()
