"""What other apps are told of nodes and services: the difference between two looks at the directory."""

from __future__ import annotations

from controllers.directory import Directory
from controllers.watch import Changes, InstanceSeen, NodeSeen, Watch
from serval_node.control.messages import Binding, NodeState
from serval_node.wire.naming import Naming

NAMING = Naming({"example": 0x9C1185})
WEB, BULK = NAMING.bind_prefix("web.example"), NAMING.bind_prefix("bulk.example")
DAN, EVE = NodeSeen("dan", "host", ("10.2.1.1",), 1), NodeSeen("eve", "host", ("10.2.1.2",), 2)


def report(directory: Directory, seen: NodeSeen, *bindings: Binding) -> None:
    directory.node_state(
        seen.datapath_id,
        NodeState(name=seen.name, role=seen.role, boot="1", addresses=seen.addresses, bindings=bindings),
    )


def changes(**told: tuple[object, ...]) -> Changes:
    return Changes(**{**dict.fromkeys(("unregistered", "down", "up", "registered"), ()), **told})  # type: ignore[arg-type]


def at(seen: NodeSeen, prefix: object) -> InstanceSeen:
    return InstanceSeen(prefix, seen.name, seen.addresses[0])  # type: ignore[arg-type]


def test_each_change_is_told_once() -> None:
    directory, watch = Directory(), Watch()
    assert watch.changes(directory) == changes()
    report(directory, DAN, Binding(WEB))
    report(directory, EVE)
    assert watch.changes(directory) == changes(up=(DAN, EVE), registered=(at(DAN, WEB),))
    assert watch.changes(directory) == changes()
    directory.register(2, Binding(WEB))
    directory.register(2, Binding(BULK))
    assert set(watch.changes(directory).registered) == {at(EVE, WEB), at(EVE, BULK)}
    directory.unregister(2, BULK)
    assert watch.changes(directory) == changes(unregistered=(at(EVE, BULK),))


def test_a_node_takes_its_services_along() -> None:
    directory, watch = Directory(), Watch()
    report(directory, DAN, Binding(WEB), Binding(BULK))
    watch.changes(directory)
    directory.node_lost(1)
    told = watch.changes(directory)
    assert set(told.unregistered) == {at(DAN, WEB), at(DAN, BULK)} and told.down == (DAN,)
    assert (told.up, told.registered) == ((), ())


def test_the_same_again_is_no_news_and_another_address_is() -> None:
    directory, watch = Directory(), Watch()
    report(directory, DAN, Binding(WEB))
    watch.changes(directory)
    report(directory, DAN, Binding(WEB, weight=7))
    assert watch.changes(directory) == changes(), "weights are the policies' affair"
    moved = NodeSeen("dan", "host", ("10.9.9.9",), 1)
    report(directory, moved, Binding(WEB))
    told = watch.changes(directory)
    assert (told.down, told.up) == ((DAN,), (moved,))
    assert (told.unregistered, told.registered) == ((at(DAN, WEB),), (at(moved, WEB),))
