"""One QEMU process with a guest: how it is started, what it is connected by, and how it ends."""

from __future__ import annotations

import itertools
import shutil
from collections.abc import Sequence
from pathlib import Path

from testbed import processes, vm_requirements
from testbed.errors import TestbedError
from testbed.vm.channel import Channel
from testbed.vm.controller_way import ControllerWay
from testbed.vm.guest.names import AGENT_PORT, CONTROLLER_PORT
from testbed.vm.image import Image
from testbed.vm.qmp import Monitor

RUN_DIRECTORY = Path("/run/testbed/vm")
MEMORY = "131080K"
"""128 MiB and 8 KiB. Where the memory is a multiple of 64 pages, QEMU 7.2 with its emulated processor forgets to look
again at pages that it has sent: its fast path over the bitmap of such memory does not make the translated code report
the next store. The moved guest then has old contents in some pages, and crashes or worse. A size that is no such
multiple keeps QEMU off that path (docs/vm-migration.md).
"""
HOST_MTU = 9000
KERNEL_OPTIONS = (
    "console=ttyS0 quiet panic=-1 tsc=reliable mitigations=off random.trust_cpu=on rdinit=/init"
    # On a busy machine the kernel's trial of an emulated timer fails, and it gives up.
    " no_timer_check"
    # Freed memory is zeros, which a migration sends as one byte for a page.
    " init_on_free=1"
)
ACCELERATORS = {
    "kvm": ("-accel", "kvm", "-cpu", "host"),
    "tcg": ("-accel", "tcg,thread=multi,tb-size=64", "-cpu", "max"),
}
QMP_SECONDS = 10.0
RESTORE_SECONDS = 20.0
_CONSOLE_CHARACTERS = 400
_numbers = itertools.count(1)


def devices(accelerator: str) -> list[str]:
    """The hardware. Both ends of a migration, and a saved state, must have the same."""
    return ["-M", "pc", *ACCELERATORS[accelerator], "-smp", "1", "-m", MEMORY, "-nodefaults", "-no-user-config"]


class Machine:
    """A running QEMU, whose guest boots or waits to be restored or moved into.

    name      of the guest, for messages
    inside    what to put before a command so that it runs in the right namespaces
    tap       the TAP there
    """

    def __init__(
        self,
        name: str,
        inside: Sequence[str],
        *,
        image: Image,
        accelerator: str,
        tap: str,
        logs: Path,
        boot: bool = False,
    ) -> None:
        """Start QEMU and connect to its monitor; raises TestbedError. Without `boot` it waits for a state."""
        self.name = name
        number = next(_numbers)
        self._directory = RUN_DIRECTORY / f"{name}-{number}"
        self._directory.mkdir(parents=True, exist_ok=True)
        self._console = logs / f"vm-{name}-{number}-console.log"
        self.monitor: Monitor | None = None
        self._channel: Channel | None = None
        self.controller: ControllerWay | None = None
        logs.mkdir(parents=True, exist_ok=True)
        argv = [vm_requirements.QEMU, *devices(accelerator), "-display", "none", "-no-reboot"]
        argv += [] if boot else ["-incoming", "defer"]
        argv += ["-kernel", str(image.kernel), "-initrd", str(image.initial), "-append", KERNEL_OPTIONS]
        argv += ["-serial", f"file:{self._console}", "-qmp", f"unix:{self._path('qmp')},server=on,wait=off"]
        argv += ["-device", "virtio-serial-pci", *self._port("agent", AGENT_PORT)]
        argv += self._port("controller", CONTROLLER_PORT)
        argv += ["-blockdev", f"driver=file,filename={image.root},node-name=disk,read-only=on"]
        argv += ["-device", "virtio-blk-pci,drive=disk"]
        argv += ["-netdev", f"tap,id=net,ifname={tap},script=no,downscript=no"]
        argv += ["-device", f"virtio-net-pci,netdev=net,romfile=,host_mtu={HOST_MTU}"]
        self._process = processes.start(
            f"QEMU of {name}", [*inside, *argv], log=logs / f"vm-{name}-{number}.log", ready=self._path("qmp").exists
        )
        try:
            self.monitor = Monitor(self._path("qmp"), name)
        except BaseException:
            self.stop()
            raise

    @property
    def alive(self) -> bool:
        return self._process.alive

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def hint(self) -> str:
        """Where to look when something is wrong with it."""
        return f"see {self._console}, and QEMU's own log {self._process.log}"

    @property
    def qmp(self) -> Monitor:
        assert self.monitor is not None
        return self.monitor

    @property
    def agent(self) -> Channel:
        assert self._channel is not None
        return self._channel

    def connect_agent(self) -> Channel:
        """Take the host's end of the agent's port; raises TestbedError."""
        self._channel = Channel(self._path("agent"), self.name)
        return self._channel

    def connect_controller(self, controller: tuple[str, int]) -> ControllerWay:
        """Take the host's end of the guest's way to the controller; raises TestbedError."""
        self.controller = ControllerWay(self._path("controller"), controller, self.name)
        return self.controller

    def begin_controller(self) -> None:
        """Have the guest's node connect to the controller through this end, if there is a controller."""
        if self.controller is not None:
            self.controller.begin()

    def stop(self) -> None:
        """End it. May be called again."""
        for part in (self.controller, self._channel, self.monitor):
            if part is not None:
                part.close()
        self._process.stop()
        shutil.rmtree(self._directory, ignore_errors=True)

    def complaint(self, what: str) -> TestbedError:
        """An error about this machine, with the last words of its console."""
        try:
            lines = self._console.read_text(errors="replace").split("\n")
        except OSError:
            lines = []
        words = " | ".join(line.strip() for line in lines if line.strip()) or "nothing"
        said = words[-_CONSOLE_CHARACTERS:]
        return TestbedError(f"{what}; its console says: {said}", self.hint)

    def wait_running(self, *, after: float, timeout: float = RESTORE_SECONDS) -> None:
        """Wait until QEMU says that the guest runs; raises TestbedError."""
        if self.qmp.wait_event("RESUME", after=after, timeout=timeout, meanwhile=self.check_alive) is None:
            raise self.complaint(f"the guest {self.name} did not run within {timeout:g} s")

    def check_alive(self) -> None:
        """Raises TestbedError when QEMU has ended, as it does when the guest's kernel panics."""
        if not self.alive:
            raise self.complaint(f"QEMU of {self.name} has ended")

    def _path(self, name: str) -> Path:
        return self._directory / name

    def _port(self, name: str, port: str) -> list[str]:
        chardev = f"socket,id={name},path={self._path(name)},server=on,wait=off"
        return ["-chardev", chardev, "-device", f"virtserialport,chardev={name},name={port}"]
