"""What the switch fabric tells switches: flows as values, and the commands that make, delete and confirm them."""

from __future__ import annotations

from dataclasses import dataclass

MULTICAST = "multicast"
"""As a destination in `Match`: the group bit is set."""


@dataclass(frozen=True, slots=True)
class Match:
    """Fields that must agree; None means any."""

    in_port: int | None = None
    source: bytes | None = None
    destination: bytes | str | None = None
    ethertype: int | None = None


@dataclass(frozen=True, slots=True)
class Key:
    """What identifies a flow in a switch."""

    table: int
    priority: int
    match: Match


@dataclass(frozen=True, slots=True)
class Actions:
    """Output to ports, in order; then to the controller; then on to a table. All empty: drop."""

    ports: tuple[int, ...] = ()
    controller: bool = False
    goto: int | None = None


@dataclass(frozen=True, slots=True)
class SetFlow:
    datapath_id: int
    key: Key
    actions: Actions


@dataclass(frozen=True, slots=True)
class DeleteFlow:
    datapath_id: int
    key: Key


@dataclass(frozen=True, slots=True)
class DeleteOldFlows:
    """Delete what is left in a table from before this connection (told by the cookie)."""

    datapath_id: int
    table: int


@dataclass(frozen=True, slots=True)
class PacketOut:
    datapath_id: int
    ports: tuple[int, ...]
    frame: bytes


@dataclass(frozen=True, slots=True)
class Barrier:
    datapath_id: int
    token: int


Command = SetFlow | DeleteFlow | DeleteOldFlows | PacketOut | Barrier
