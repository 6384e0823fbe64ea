"""The graph of switches: spanning tree and shortest paths. Deterministic, so that a restart finds the same ones."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Mapping

End = tuple[int, int]
"""One end of a link: datapath id, port number."""


def neighbours(switches: Iterable[int], links: Mapping[End, End]) -> dict[int, list[tuple[int, int, int]]]:
    """Switch -> sorted (neighbour, own port, neighbour's port); links are held in both directions."""
    graph: dict[int, list[tuple[int, int, int]]] = {switch: [] for switch in switches}
    for (switch, port), (other, other_port) in links.items():
        if switch in graph and other in graph and switch != other:
            graph[switch].append((other, port, other_port))
    for ends in graph.values():
        ends.sort()
    return graph


def spanning_tree(graph: Mapping[int, list[tuple[int, int, int]]]) -> frozenset[End]:
    """The link ends that are in the tree: breadth first from the lowest datapath id of every component."""
    ends: set[End] = set()
    seen: set[int] = set()
    for root in sorted(graph):
        if root in seen:
            continue
        seen.add(root)
        queue = deque([root])
        while queue:
            switch = queue.popleft()
            for other, port, other_port in graph[switch]:
                if other not in seen:
                    seen.add(other)
                    ends |= {(switch, port), (other, other_port)}
                    queue.append(other)
    return frozenset(ends)


def next_ports(graph: Mapping[int, list[tuple[int, int, int]]], destination: int) -> dict[int, int]:
    """Switch -> port of its first hop on a shortest path to `destination`, for every switch that reaches it."""
    ports: dict[int, int] = {}
    seen = {destination}
    queue = deque([destination])
    while queue:
        switch = queue.popleft()
        for other, _, other_port in graph.get(switch, ()):
            if other not in seen:
                seen.add(other)
                ports[other] = other_port
                queue.append(other)
    return ports
