"""The service directory: which nodes are there, and which of them are instances of which service. Pure."""

from __future__ import annotations

from dataclasses import dataclass, field

from serval_node.control.enquiries import Standby
from serval_node.control.messages import Binding, NodeState
from serval_node.wire.serviceid import Prefix


class DirectoryError(Exception):
    """Something is asked for that is not there; one line for the user."""


@dataclass(frozen=True, slots=True, order=True)
class Instance:
    """One node's share of a service. weight: what the node asks for, usually its number of listeners."""

    node: str
    address: str
    weight: int = 1


@dataclass(slots=True)
class Node:
    """A connected node, as it described itself."""

    datapath_id: int
    name: str
    role: str
    boot: str
    addresses: tuple[str, ...]
    serves: tuple[Prefix, ...]
    bindings: dict[Prefix, Binding] = field(default_factory=dict)
    standbys: tuple[Standby, ...] = ()

    @property
    def address(self) -> str | None:
        """The address that others reach it at, unless a binding says another."""
        return self.addresses[0] if self.addresses else None

    def is_responsible_for(self, prefix: Prefix) -> bool:
        """Whether this is a service router that answers for every SYN of this prefix."""
        return any(block.covers(prefix) for block in self.serves)


class Directory:
    """Connected nodes by datapath id, and their registrations."""

    def __init__(self) -> None:
        self.nodes: dict[int, Node] = {}

    def node_state(self, datapath_id: int, state: NodeState) -> Node:
        """Everything known of the node is replaced by what it reports."""
        node = Node(
            datapath_id=datapath_id,
            name=state.name,
            role=state.role,
            boot=state.boot,
            addresses=state.addresses,
            serves=state.serves if state.role == "router" else (),
            bindings={binding.prefix: binding for binding in state.bindings},
            standbys=state.standbys,
        )
        self.nodes[datapath_id] = node
        return node

    def node_lost(self, datapath_id: int) -> Node | None:
        return self.nodes.pop(datapath_id, None)

    def register(self, datapath_id: int, binding: Binding) -> None:
        """Ignored for a node that has not reported its state: that will hold the binding."""
        if datapath_id in self.nodes:
            self.nodes[datapath_id].bindings[binding.prefix] = binding

    def unregister(self, datapath_id: int, prefix: Prefix) -> Binding | None:
        node = self.nodes.get(datapath_id)
        return node.bindings.pop(prefix, None) if node is not None else None

    def find(self, text: str) -> Node:
        """The node with this name or address. Raises DirectoryError."""
        found = [node for node in self.nodes.values() if text == node.name or text in node.addresses]
        if len(found) == 1:
            return found[0]
        if found:
            raise DirectoryError(f"{text} is the name of {len(found)} nodes")
        names = ", ".join(sorted(node.name for node in self.nodes.values())) or "none"
        raise DirectoryError(f"no node {text!r} is connected; connected: {names}")

    def instances(self, prefix: Prefix) -> list[Instance]:
        """The service's instances, by node name."""
        return self.services().get(prefix, [])

    def services(self) -> dict[Prefix, list[Instance]]:
        """Every registered prefix with its instances. A node without an address is none: nothing can be sent there."""
        found: dict[Prefix, list[Instance]] = {}
        for node in sorted(self.nodes.values(), key=lambda node: node.name):
            for prefix, binding in node.bindings.items():
                address = binding.address or node.address
                if address is not None:
                    found.setdefault(prefix, []).append(Instance(node.name, address, binding.weight))
        return dict(sorted(found.items()))

    def standbys(self) -> dict[Prefix, list[Node]]:
        """What is offered to be started, and by which nodes, by name."""
        found: dict[Prefix, list[Node]] = {}
        for node in sorted(self.nodes.values(), key=lambda node: node.name):
            for prefix in dict.fromkeys(item.prefix for item in node.standbys):
                found.setdefault(prefix, []).append(node)
        return found

    def routers(self) -> list[Node]:
        """Service routers that answer for anything, by name."""
        return sorted((node for node in self.nodes.values() if node.serves), key=lambda node: node.name)
