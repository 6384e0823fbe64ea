"""The graph of switches: spanning tree and shortest paths. Deterministic, so that a restart finds the same ones."""

from __future__ import annotations

from collections import deque
from collections.abc import Collection, Iterable, Mapping

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


def avoiding(switches: Collection[int], links: Mapping[End, End], silent: Iterable[End]) -> dict[End, End]:
    """The links without those that have a silent end, but for the ones without which a switch would be cut off."""
    left = dict(links)
    for end in sorted(silent):
        rest = {a: b for a, b in left.items() if end not in (a, b)}
        # As many links in a spanning forest: as many parts of the network.
        if len(_forest(switches, rest)) == len(_forest(switches, left)):
            left = rest
    return left


def _forest(switches: Iterable[int], links: Mapping[End, End]) -> frozenset[End]:
    return spanning_tree(neighbours(switches, links))


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
