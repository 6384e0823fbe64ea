"""VM migration in two forms behind one interface: how an experiment drives a VM, and what is on record about a move.

The real form is a QEMU guest that is migrated live (testbed/vm, docs/vm-migration.md). The light form is a group of
processes that is stopped and plugged in elsewhere. Each result names its form. Pure.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from ipaddress import IPv4Address, IPv4Interface
from typing import Any, Protocol

from testbed.errors import TestbedError

REAL, LIGHT = "real", "light"

PARTS: Mapping[str, tuple[str, str]] = {
    "copy": ("ordered", "stopped"),
    "standstill": ("stopped", "resumed"),
    "address": ("resumed", "asked"),
    "signal": ("asked", "answered"),
    "recover": ("answered", "data"),
}
"""The parts of a move, each with the two moments that it lies between. The VM runs during "copy"; the others together
are what a connection stands still for."""


@dataclass(frozen=True, slots=True)
class MoveRecord:
    """One move of a VM. Moments are seconds on the host's CLOCK_MONOTONIC, None for what was not seen.

    form         "real" or "light"
    ordered      the move was asked for
    stopped      nothing ran any more where the VM was
    resumed      it ran where it is now
    asked        its first Serval packet from the new address: the RSYN of a flow
    answered     the first Serval packet to the new address: the RSYN-ACK
    data         the first packet from or to the new address after that with a segment of a flow in it
    bytes_moved  what the migration itself sent over the network; None where nothing was sent
    figures      what the form says beside that, by name ("qemu_downtime": seconds), plain JSON
    """

    form: str
    source: str
    destination: str
    old_address: str
    new_address: str
    ordered: float
    stopped: float
    resumed: float
    asked: float | None = None
    answered: float | None = None
    data: float | None = None
    bytes_moved: int | None = None
    figures: Mapping[str, Any] = field(default_factory=dict)

    def parts(self) -> dict[str, float]:
        """Seconds of each part of PARTS whose both ends were seen."""
        found: dict[str, float] = {}
        for part, (begin, end) in PARTS.items():
            first, last = getattr(self, begin), getattr(self, end)
            if first is not None and last is not None:
                found[part] = last - first
        return found

    def to_json(self) -> dict[str, Any]:
        """All fields, and the parts."""
        return {**asdict(self), "figures": dict(self.figures), "parts": self.parts()}


class VmForm(Protocol):
    """A VM of either form, in a running network. All calls raise TestbedError, and each wait has its limit."""

    form: str
    """"real" or "light"."""

    @property
    def name(self) -> str:
        """Its name, also that of its Serval node."""

    @property
    def host(self) -> str:
        """The name of the host that it is on now."""

    @property
    def address(self) -> str:
        """Its address now, without the prefix length."""

    def start(self) -> None:
        """Start it, until its Serval node is ready."""

    def ask(self, op: str, **fields: Any) -> dict[str, Any]:
        """One request to the control socket of its Serval node (serval_node.control.local)."""

    def run(self, name: str, argv: Sequence[str], *, modules: Sequence[str] = ()) -> None:
        """Start a program inside, in the background, known as `name` from then on.

        argv     "python3" is the VM's own Python, "serval" the command
        modules  of this project that the program imports, beside serval_node: ["experiments.benchmarks.stream"]
        """

    def output(self, name: str) -> str:
        """What a program has printed until now, on standard output and error."""

    def end(self, name: str) -> str:
        """End a program, unless it has ended by itself, and return all that it printed."""

    def move(self, to: str, *, address: str, gateway: str) -> MoveRecord:
        """Move to another host: `address` is "10.2.0.10/24". Returns when the move is over, and what its Serval node
        does after it has been seen, as far as there are flows.
        """

    def stop(self) -> None:
        """End it. May be called again."""


def check_place(address: str, gateway: str) -> tuple[IPv4Interface, IPv4Address]:
    """The address and gateway of a VM's place, checked against each other; raises TestbedError."""
    try:
        interface, router = IPv4Interface(address), IPv4Address(gateway)
    except ValueError as error:
        raise TestbedError(f"{address} by {gateway} is no place for a VM: {error}", _EXAMPLE) from None
    if "/" not in address or interface.network.prefixlen > 30:
        raise TestbedError(
            f"the VM's address {address} needs the length of a prefix that holds a gateway too", _EXAMPLE
        )
    if router not in interface.network:
        raise TestbedError(f"the gateway {gateway} is not in the subnet {interface.network}", _EXAMPLE)
    if router == interface.ip:
        raise TestbedError(f"the gateway {gateway} is the VM's own address", _EXAMPLE)
    return interface, router


_EXAMPLE = 'for example address="10.2.0.10/24", gateway="10.2.0.254"'
