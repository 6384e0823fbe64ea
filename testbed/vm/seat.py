"""A guest's place on an emulated host: a TAP in the host's bridge, and a QEMU that the guest runs or will run in."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from testbed import hosts
from testbed.hosts import EmulatedNode
from testbed.vm import plug
from testbed.vm.machine import Machine
from testbed.vm.saved import Booted


@dataclass(frozen=True)
class Seat:
    """Of one host; `leave` gives it up."""

    node: EmulatedNode
    tap: str
    machine: Machine

    @classmethod
    def take(
        cls, node: EmulatedNode, name: str, booted: Booted, *, controller: tuple[str, int] | None, logs: Path
    ) -> Seat:
        """Make it, for a guest of this name; raises TestbedError and leaves nothing then."""
        plug.make_bridge(node)
        tap = plug.make_tap(node, name)
        try:
            machine = Machine(
                name,
                hosts.inside(node, []),
                image=booted.image,
                accelerator=booted.accelerator,
                tap=tap,
                logs=logs,
            )
            seat = cls(node, tap, machine)
        except BaseException:
            plug.remove_tap(node, tap)
            raise
        try:
            # Both ends of the ports are taken before the guest runs: it is not told when that changes unseen.
            machine.connect_agent()
            if controller is not None:
                machine.connect_controller(controller)
        except BaseException:
            seat.leave()
            raise
        return seat

    def leave(self) -> None:
        """End QEMU and unplug it; raises TestbedError."""
        self.machine.stop()
        plug.remove_tap(self.node, self.tap)
