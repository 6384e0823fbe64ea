"""Real virtual machines: QEMU guests that run servald, live-migrated between emulated hosts (docs/vm-migration.md)."""

from __future__ import annotations

from testbed.vm.requirements import missing
from testbed.vm.virtual_machine import VirtualMachine

__all__ = ["VirtualMachine", "missing"]
