"""One end of a link: its interface given a shape, the shape changed while it runs, both read back.

The shape belongs to the interface: an end that is plugged in elsewhere keeps it.
"""

from __future__ import annotations

from collections.abc import Sequence

from mininet.link import Intf

from testbed import hosts
from testbed.errors import TestbedError
from testbed.link import tc
from testbed.link.shape import Shape


def apply(interface: Intf, shape: Shape, *, netem: bool, before: Sequence[str] = ()) -> None:
    """Shape what leaves by this interface. Raises TestbedError, also when tc then shows something else.

    before  shell lines that are run first, in the same go: each program costs as much as all that it does here
    """
    _run(interface, list(before), tc.lines(interface.name, shape, netem=netem), shape, netem=netem)


def change(interface: Intf, before: Shape, after: Shape, *, netem: bool) -> None:
    """From one shape to another, without losing what waits; read back. Raises TestbedError."""
    commands = tc.change_lines(interface.name, before, after, netem=netem)
    _run(interface, [], commands, after, netem=netem)


def check(interface: Intf, shape: Shape, *, netem: bool = False) -> None:
    """Read back what the interface has now; raises TestbedError when it is something else."""
    shown = hosts.script(interface.node, tc.show_lines(interface.name))
    _compare(interface, shown, shape, netem=netem)


def single_frames(interface: Intf, on: bool) -> None:
    """Whether what leaves by this interface is cut into single frames before; raises TestbedError."""
    word = "off" if on else "on"
    hosts.run(interface.node, ["ethtool", "-K", interface.name, "tso", word, "gso", word])


def _run(interface: Intf, lines: list[str], commands: list[str], shape: Shape, *, netem: bool) -> None:
    if commands:
        commands = [*commands, *tc.show_lines(interface.name)]
        lines.append(hosts.batch("tc", [command.removeprefix("tc ") for command in commands]))
    shown = hosts.script(interface.node, lines) if lines else ""
    if commands:
        _compare(interface, shown, shape, netem=netem)


def _compare(interface: Intf, shown: str, shape: Shape, *, netem: bool) -> None:
    try:
        tc.check(shown, shape, netem=netem)
    except TestbedError as error:
        shows = f"tc class show dev {interface.name}; tc qdisc show dev {interface.name}"
        raise TestbedError(
            f"{interface.name}: {error.message}", f"look at: {shows} (in {interface.node.name})"
        ) from None
