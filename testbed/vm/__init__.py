"""Real virtual machines: QEMU guests that run servald, live-migrated between emulated hosts (docs/vm-migration.md)."""

from __future__ import annotations

from testbed.vm.virtual_machine import VirtualMachine
from testbed.vm_requirements import missing

__all__ = ["VirtualMachine", "missing"]
