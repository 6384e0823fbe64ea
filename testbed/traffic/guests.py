"""A stream's far end inside a real virtual machine: it takes no orders, so only the near end tells of the stream."""

from __future__ import annotations

from typing import Any

from testbed.errors import TestbedError
from testbed.experiment.run import Run
from testbed.experiment.traffic import DOWN, Stream
from testbed.traffic import transports
from testbed.traffic.programs import file_name
from testbed.vm_migration import VmForm

MODULES = ("testbed.traffic.far",)
NOBODY = "-"
"""In the place of a socket for orders and of a file for progress."""


class GuestFar:
    """The program in the guest, with the face of a `programs.Worker`. Raises TestbedError."""

    def __init__(self, run: Run, vm: VmForm, item: Stream, port: int) -> None:
        if item.direction != DOWN:
            raise TestbedError(
                f"stream {item.name}: {item.target} is a virtual machine, which tells nothing of what it received",
                f'let it send: direction="{DOWN}"',
            )
        self._run, self._vm, self._name = run, vm, f"{file_name(item.name)}-far"
        settings = [str(port), str(transports.protocol(run)), transports.congestion(run), NOBODY]
        vm.run(self._name, ["python3", "-m", *MODULES, NOBODY, *settings], modules=MODULES)

    def wait_ready(self) -> None:
        log = self._run.network.logs / "controller.log"
        self._run.network.wait(f"{self._name} listens in {self._vm.name}", self._listens, log=log)

    def _listens(self) -> bool:
        return "ready" in self._vm.output(self._name)

    def order(self, op: str, **arguments: Any) -> dict[str, Any]:
        """Nothing is done, and nothing known: no bins, and no error."""
        return {"bins": None, "error": None}

    def close(self) -> None:
        """There is no connection to it."""

    def stop(self) -> None:
        self._vm.end(self._name)
