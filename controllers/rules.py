"""Which rules every node shall hold, given the directory (slides 26 to 31). Pure.

At a service router: for every registered prefix below what it serves, prefix -> the service's instances. A narrower
bind (a name with a port) is a longer prefix, so it gets a rule of its own and takes its SYNs from the wider bind (S15).
At every other node: each served block -> the routers that serve it; the table grows with blocks, not services (S16).
"""

from __future__ import annotations

from collections.abc import Mapping

from controllers.directory import Directory, Node
from controllers.policies import PolicyBook
from serval_node.control.rules import RuleSpec, forward
from serval_node.wire.serviceid import Prefix

NodeRules = dict[Prefix, RuleSpec]


def desired_rules(
    directory: Directory, policies: PolicyBook, loads: Mapping[Prefix, Mapping[str, float]]
) -> dict[int, NodeRules]:
    """Datapath id -> prefix -> rule, for every connected node. loads: prefix -> address -> figure."""
    routers = directory.routers()
    edges = _edge_rules(routers)
    wanted: dict[int, NodeRules] = {
        datapath_id: _edges_for(node, edges) for datapath_id, node in directory.nodes.items()
    }
    for prefix, instances in directory.services().items():
        for router in routers:
            if not router.is_responsible_for(prefix):
                continue
            # The router's own listener stands beside these targets in its table, it needs no detour over the wire.
            others = [item for item in instances if item.node != router.name]
            if others:
                rule = policies.policy(prefix).rule(prefix, others, loads.get(prefix, {}))
                wanted[router.datapath_id][prefix] = rule
    return wanted


def _edge_rules(routers: list[Node]) -> dict[Prefix, list[Node]]:
    edges: dict[Prefix, list[Node]] = {}
    for router in routers:
        if router.address is not None:
            for block in router.serves:
                edges.setdefault(block, []).append(router)
    return edges


def _edges_for(node: Node, edges: Mapping[Prefix, list[Node]]) -> NodeRules:
    rules: NodeRules = {}
    for block, routers in edges.items():
        if not node.is_responsible_for(block):
            targets = tuple(forward(router.address) for router in routers if router.address is not None)
            rules[block] = RuleSpec(block, targets)
    return rules
