"""Only a changed answer of routing moves a flow (`serval_node.daemon.route_watch`)."""

from __future__ import annotations

from serval_node.daemon.route_watch import RouteWatch
from serval_node.wire.ipv4 import Address, address

ONE, TWO, PEER = address("10.0.0.1"), address("10.1.0.1"), address("10.9.0.1")


class Routes:
    """A host with two addresses, each on a link of its own."""

    def __init__(self) -> None:
        self.chosen: Address | None = ONE
        self.routed = {ONE: True, TWO: True}

    def source_address(self, destination: Address) -> Address | None:
        return self.chosen

    def has_route(self, source: Address, destination: Address) -> bool:
        return self.routed[source]


def test_a_new_choice_moves_the_flows_that_were_at_the_old_one() -> None:
    routes = Routes()
    watch = RouteWatch(routes)
    for own in (ONE, TWO):
        watch.note((own, PEER))
    assert watch.changed([(ONE, PEER), (TWO, PEER)]) == {}
    routes.chosen = TWO
    assert watch.changed([(ONE, PEER), (TWO, PEER)]) == {(ONE, PEER): TWO}
    routes.chosen = ONE
    assert watch.changed([(ONE, PEER), (TWO, PEER)]) == {(TWO, PEER): ONE}


def test_a_flow_that_was_put_elsewhere_stays() -> None:
    routes = Routes()
    watch = RouteWatch(routes)
    watch.note((TWO, PEER))
    assert watch.changed([(TWO, PEER)]) == {} and not watch.has_lost((TWO, PEER))
    routes.chosen = None
    assert watch.changed([(TWO, PEER)]) == {}


def test_a_path_without_a_route_is_lost_if_it_had_one() -> None:
    routes = Routes()
    routes.routed[TWO] = False
    watch = RouteWatch(routes)
    used = [(ONE, PEER), (TWO, PEER)]
    for ends in used:
        watch.note(ends)
    routes.routed[ONE] = False
    watch.changed(used)
    assert watch.has_lost((ONE, PEER)) and not watch.has_lost((TWO, PEER))
    watch.changed(used)
    assert watch.has_lost((ONE, PEER))
    routes.routed[ONE] = True
    watch.changed(used)
    assert not watch.has_lost((ONE, PEER))


def test_a_path_that_nobody_has_told_of_is_taken_as_it_is() -> None:
    routes = Routes()
    watch = RouteWatch(routes)
    routes.routed[ONE] = False
    routes.chosen = TWO
    assert watch.changed([(ONE, PEER)]) == {} and not watch.has_lost((ONE, PEER))
