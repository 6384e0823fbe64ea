"""A booted guest, saved: every guest starts from it in a fraction of a second, so that only the first one boots.

It is made once for an image, this machine's QEMU and the way in which it executes: KVM where a guest is seen to boot
with it, else QEMU's own translation (TCG). A device /dev/kvm that can be opened says little: where virtualization is
not nested it is there, and no guest ever comes up.
"""

from __future__ import annotations

import os
import platform
import shlex
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from testbed import processes, symptoms, vm_requirements
from testbed.errors import TestbedError
from testbed.ownership import owned_by_caller
from testbed.vm import image
from testbed.vm.image import Image
from testbed.vm.machine import KERNEL_OPTIONS, Machine, devices

KVM, TCG = "kvm", "tcg"
KVM_DEVICE = "/dev/kvm"
BOOT_SECONDS = {KVM: 8.0, TCG: 120.0}
SAVE_SECONDS = 30.0
_TAP = "vm-boot"
_POLL_SECONDS = 0.01


@dataclass(frozen=True)
class Booted:
    """A saved state with what it was made by and for. `why_not_kvm` is empty where it is KVM."""

    image: Image
    accelerator: str
    state: Path
    why_not_kvm: str = ""

    def restore(self, machine: Machine) -> None:
        """Have a machine of this image and accelerator continue from here; raises TestbedError."""
        begun = time.monotonic()
        # Restoring is no move: the guest's driver need not announce it to anyone.
        machine.qmp.execute("migrate-set-parameters", announce_rounds=0)
        machine.qmp.execute("migrate-set-capabilities", capabilities=[{"capability": "events", "state": True}])
        machine.qmp.execute("migrate-incoming", uri=f"exec:cat {shlex.quote(str(self.state))}")
        _wait_migration(machine, begun)
        machine.qmp.execute("cont")
        machine.wait_running(after=begun)


def booted(say: Callable[[str], None], logs: Path) -> Booted:
    """The state for what this tree holds now, made if there is none. In a sandbox only; raises TestbedError."""
    made = image.current(say)
    version = processes.run([vm_requirements.QEMU, "--version"]).splitlines()[0]
    with image.lock(vm_requirements.DIRECTORY):
        why_not = _kvm_obstacle(version)
        if not why_not:
            try:
                return Booted(made, KVM, _state(made, KVM, version, say, logs))
            except TestbedError as error:
                why_not = f"no guest boots with it: {error.message.splitlines()[0][:200]}"
                _note_obstacle(version, why_not)
        return Booted(made, TCG, _state(made, TCG, version, say, logs), why_not)


def _state(made: Image, accelerator: str, version: str, say: Callable[[str], None], logs: Path) -> Path:
    hardware = image.key(
        [], [version, KERNEL_OPTIONS, *devices(accelerator), _processor() if accelerator == KVM else ""]
    )
    path = made.directory / f"booted-{accelerator}-{hardware}"
    if not path.exists():
        say(f"booting a guest once, by {accelerator.upper()}")
        _boot_and_save(made, accelerator, path, logs)
    return path


def _boot_and_save(made: Image, accelerator: str, path: Path, logs: Path) -> None:
    if not os.access(path.parent, os.W_OK):
        raise TestbedError(
            f"cannot write the saved state of a guest in {path.parent}",
            "whoever this tree belongs to makes it by starting a guest once",
        )
    tap = ["ip", "tuntap", "add", "dev", _TAP, "mode", "tap", "vnet_hdr"]
    processes.run(tap)
    try:
        machine = Machine("boot", [], image=made, accelerator=accelerator, tap=_TAP, logs=logs, boot=True)
        try:
            seconds = BOOT_SECONDS[accelerator]
            if machine.connect_agent().wait_event("ready", timeout=seconds) is None:
                raise machine.complaint(f"a guest did not boot, or not within {seconds:g} s")
            _save(machine, path)
        finally:
            machine.stop()
    finally:
        processes.run(["ip", "link", "del", _TAP])


def _save(machine: Machine, path: Path) -> None:
    begun = time.monotonic()
    part = path.with_name(f".{path.name}.part")
    machine.qmp.execute("stop")
    machine.qmp.execute("migrate", uri=f"exec:cat > {shlex.quote(str(part))}")
    try:
        _wait_migration(machine, begun)
        part.rename(path)
        owned_by_caller(path)
    except TestbedError as error:
        full = symptoms.room(path.parent) < symptoms.FULL_BYTES
        raise TestbedError(error.message, symptoms.disk_hint([path.parent]) if full else error.hint) from None
    finally:
        part.unlink(missing_ok=True)


def _wait_migration(machine: Machine, begun: float) -> None:
    while True:
        told = machine.qmp.execute("query-migrate")
        status = told.get("status")
        if status == "completed":
            return
        if status == "failed" or time.monotonic() > begun + SAVE_SECONDS:
            why = told.get("error-desc") or status
            raise machine.complaint(f"the state of guest {machine.name} was not saved or restored: {why}")
        machine.check_alive()
        time.sleep(_POLL_SECONDS)


# -- KVM


def _kvm_obstacle(version: str) -> str:
    if not os.access(KVM_DEVICE, os.R_OK | os.W_OK):
        return f"{KVM_DEVICE} is missing, or not for this user"
    try:
        return _obstacle_file(version).read_text().strip()
    except FileNotFoundError:
        return ""


def _note_obstacle(version: str, why: str) -> None:
    path = _obstacle_file(version)
    path.write_text(f"{why}\n")
    owned_by_caller(path)


def _obstacle_file(version: str) -> Path:
    """A verdict holds for this kernel, processor and QEMU."""
    facts = image.key([], [version, platform.release(), _processor()])
    return vm_requirements.DIRECTORY / f"without-kvm-{facts}"


def _processor() -> str:
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), "unknown")
