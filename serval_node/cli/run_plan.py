"""Which names the listening sockets of one command get. Pure.

A command that listens on one port is the bare name, whichever kernel port that is, so that servers on 80 and on
8080 are one service. With several ports each is (name, port), and the one called main also takes port field 0,
what connect(name) asks for.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

PORT_ANY = 0
TCP, UDP = "tcp", "udp"

# Transport protocol and kernel port.
Listener = tuple[str, int]


@dataclass(frozen=True, slots=True, order=True)
class Part:
    """One binding that is wanted: the service's port field (-1 stands for the bare name) served by one kernel
    port of TCP, or of UDP.
    """

    field: int
    kernel_port: int
    protocol: str = TCP

    @property
    def service_port(self) -> int | None:
        """None for the bare name, as the control socket spells it."""
        return None if self.field < 0 else self.field


def plan(listeners: Iterable[Listener], main: int | None) -> set[Part]:
    """The bindings for a command that listens there; `main` is the port given with --main, if any. A port of both
    transports counts once, as of a name server.
    """
    there = set(listeners)
    if len({port for _, port in there}) == 1:
        return {Part(-1, port, protocol) for protocol, port in there}
    parts = {Part(port, port, protocol) for protocol, port in there}
    return parts | {Part(PORT_ANY, port, protocol) for protocol, port in there if port == main}


@dataclass(frozen=True, slots=True)
class Step:
    """What to tell servald: bind (or unbind) `part` for these sockets."""

    bind: bool
    part: Part
    inodes: tuple[int, ...]


def steps(
    wanted: set[Part], sockets: Mapping[Listener, frozenset[int]], bound: Mapping[Part, frozenset[int]]
) -> list[Step]:
    """The way from `bound` to `wanted`, new bindings first, so that no SYN meets a gap.

    `sockets` maps a protocol and kernel port to the inodes that listen there, `bound` a part to the inodes that were
    bound for it.
    """
    out = []
    for part in sorted(wanted):
        inodes = sockets.get((part.protocol, part.kernel_port), frozenset())
        if inodes and inodes != bound.get(part):
            out.append(Step(True, part, tuple(sorted(inodes))))
    for part in sorted(bound):
        if part not in wanted:
            out.append(Step(False, part, tuple(sorted(bound[part]))))
    return out
