"""Which rules every node shall hold, given the directory (slides 26 to 31). Pure.

At a service router: for every registered prefix below what it serves, prefix -> the service's instances. A narrower
bind (a name with a port) is a longer prefix, so it gets a rule of its own and takes its SYNs from the wider bind (S15).
At every other node: each served block -> the routers that serve it; the table grows with blocks, not services (S16).
Where unknown services of a prefix are decided (`unknown`): prefix -> DELAY, at its routers, or everywhere without any.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from controllers.directory import Directory, Node
from controllers.policies import PolicyBook
from controllers.unknown import UnknownBook
from serval_node.control.rules import RuleSpec, TargetSpec, forward
from serval_node.wire.serviceid import Prefix

NodeRules = dict[Prefix, RuleSpec]

RESOLVED_IDLE_SECONDS = 60.0
"""A service that was resolved at a node for those that waited there is forgotten when nobody has asked for so long."""


def desired_rules(
    directory: Directory, policies: PolicyBook, unknown: UnknownBook, loads: Mapping[Prefix, Mapping[str, float]]
) -> dict[int, NodeRules]:
    """Datapath id -> prefix -> rule, for every connected node. loads: prefix -> address -> figure."""
    routers = directory.routers()
    edges = _edge_rules(routers)
    wanted: dict[int, NodeRules] = {
        datapath_id: _edges_for(node, edges) for datapath_id, node in directory.nodes.items()
    }
    for prefix, instances in directory.services().items():
        for node in directory.nodes.values():
            resolved = prefix in unknown.resolved.get(node.datapath_id, ())
            if not node.is_responsible_for(prefix) and not resolved:
                continue
            # The node's own listener stands beside these targets in its table, it needs no detour over the wire.
            others = [item for item in instances if item.node != node.name]
            if others:
                rule = policies.policy(prefix).rule(prefix, others, loads.get(prefix, {}))
                if not node.is_responsible_for(prefix):
                    rule = replace(rule, idle_timeout=RESOLVED_IDLE_SECONDS)
                wanted[node.datapath_id][prefix] = rule
    for prefix, decider in unknown.deciders.items():
        delay = RuleSpec(prefix, (TargetSpec("delay"),), decider=decider)
        for node in asked_nodes(directory, prefix):
            wanted[node.datapath_id].setdefault(prefix, delay)
    return wanted


def asked_nodes(directory: Directory, prefix: Prefix) -> list[Node]:
    """Where what nobody serves is found out: at the service routers that answer for it, where there is none at every
    node.
    """
    routers = [node for node in directory.routers() if node.is_responsible_for(prefix)]
    return routers or sorted(directory.nodes.values(), key=lambda node: node.name)


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
