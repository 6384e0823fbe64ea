"""What has changed in the directory since one looked last, as others are told of it (`api`). Pure."""

from __future__ import annotations

from dataclasses import dataclass

from controllers.directory import Directory
from serval_node.wire.serviceid import Prefix


@dataclass(frozen=True, slots=True)
class NodeSeen:
    """A connected node: its name, "host" or "router", its addresses, its OpenFlow datapath id."""

    name: str
    role: str
    addresses: tuple[str, ...]
    datapath_id: int


@dataclass(frozen=True, slots=True)
class InstanceSeen:
    """A service at a node: its prefix, the node's name, the instance's address."""

    prefix: Prefix
    node: str
    address: str


@dataclass(frozen=True, slots=True)
class Changes:
    """In the order in which they are to be told: nobody hears of an instance at a node that he does not know."""

    unregistered: tuple[InstanceSeen, ...]
    down: tuple[NodeSeen, ...]
    up: tuple[NodeSeen, ...]
    registered: tuple[InstanceSeen, ...]


class Watch:
    """Remembers what was told."""

    def __init__(self) -> None:
        self._nodes: dict[int, NodeSeen] = {}
        self._instances: frozenset[InstanceSeen] = frozenset()

    def changes(self, directory: Directory) -> Changes:
        """Since the last call; what came and went between two calls is not told, a node with new addresses is new."""
        nodes = {
            datapath_id: NodeSeen(node.name, node.role, node.addresses, datapath_id)
            for datapath_id, node in directory.nodes.items()
        }
        instances = frozenset(
            InstanceSeen(prefix, item.node, item.address)
            for prefix, items in directory.services().items()
            for item in items
        )
        changes = Changes(
            unregistered=tuple(sorted(self._instances - instances, key=_order)),
            down=tuple(node for key, node in self._nodes.items() if nodes.get(key) != node),
            up=tuple(node for key, node in nodes.items() if self._nodes.get(key) != node),
            registered=tuple(sorted(instances - self._instances, key=_order)),
        )
        self._nodes, self._instances = nodes, instances
        return changes


def _order(instance: InstanceSeen) -> tuple[Prefix, str, str]:
    return instance.prefix, instance.node, instance.address
