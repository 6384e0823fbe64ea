"""A live migration by QEMU: a guest is copied while it runs, and the rest of it while it stands still for a moment."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from testbed.errors import TestbedError
from testbed.vm.machine import Machine

DOWNTIME_LIMITS_MS = (20, 50, 100, 150, 300)
"""How long QEMU may let the guest stand still for the last pages, which it estimates; the next one is taken when the
migration has not come to its end for PATIENCE_SECONDS. A fast link meets the first one, 200 Mbit/s the third or fourth.
"""
PATIENCE_SECONDS = 2.5
LIMIT_SECONDS = 60.0
RESUME_SECONDS = 10.0
FASTEST = 10**10
"""Bytes a second: QEMU limits nothing, the link does."""
CAPABILITIES = ("events", "xbzrle", "multifd", "compress", "postcopy-ram", "auto-converge")
"""Those that a version of QEMU does not have (compress is gone since 9.1) are left alone."""
_POLL_SECONDS = 0.02
_COMPLETED_SECONDS = 5.0


@dataclass(frozen=True, slots=True)
class Transfer:
    """What QEMU says of a migration. Times of CLOCK_MONOTONIC: STOP at the source, RESUME at the destination."""

    ordered: float
    stopped: float
    resumed: float
    bytes_moved: int
    figures: Mapping[str, Any]


def migrate(source: Machine, destination: Machine, address: str) -> Transfer:
    """Move the guest of `source` into `destination`, which listens at `address` of its host; raises TestbedError.

    When it fails the guest goes on at the source.
    """
    prepare(destination)
    prepare(source)
    destination.qmp.execute("migrate-incoming", uri=f"tcp:{address}:0")
    port = _listening_port(destination)
    source.qmp.execute("migrate-set-parameters", max_bandwidth=FASTEST, downtime_limit=DOWNTIME_LIMITS_MS[0])
    ordered = time.monotonic()
    source.qmp.execute("migrate", uri=f"tcp:{address}:{port}")
    patience = _Patience(source, ordered)

    def meanwhile() -> None:
        if not destination.alive:
            raise TestbedError(f"the QEMU that was to take {source.name} has ended", destination.hint)
        patience.look()

    resumed = destination.qmp.wait_event("RESUME", after=ordered, timeout=LIMIT_SECONDS, meanwhile=meanwhile)
    if resumed is None:
        cancel(source)
        raise TestbedError(
            f"the migration of {source.name} did not end within {LIMIT_SECONDS:g} s: it writes faster than the link",
            "move it while less goes on in it, or over a faster link",
        )
    stopped = source.qmp.wait_event("STOP", after=ordered, timeout=RESUME_SECONDS)
    if stopped is None:
        raise source.complaint(f"QEMU of {source.name} did not say when it stopped the guest")
    told = _completed(source)
    ram = told["ram"]
    figures = {
        "qemu_total": told["total-time"] / 1e3,
        "qemu_downtime": told["downtime"] / 1e3,
        "passes": ram["dirty-sync-count"],
        "downtime_limit": patience.limit / 1e3,
    }
    return Transfer(ordered, stopped.time, resumed.time, ram["transferred"], figures)


def prepare(machine: Machine) -> None:
    """Set what migrations go by, all of it: the settings of one migration travel with the guest to the next."""
    known = {item["capability"] for item in machine.qmp.execute("query-migrate-capabilities")}
    states = [{"capability": name, "state": name == "events"} for name in CAPABILITIES if name in known]
    machine.qmp.execute("migrate-set-capabilities", capabilities=states)
    machine.qmp.execute("migrate-set-parameters", announce_rounds=5)


def cancel(source: Machine) -> None:
    """Have the guest stay where it is."""
    source.qmp.execute("migrate_cancel")


class _Patience:
    """Looks at the migration now and then; raises when it failed, and allows a longer standstill when it lasts."""

    def __init__(self, source: Machine, begun: float) -> None:
        self._source = source
        self._looked = self._begun = begun
        self._step = 0

    @property
    def limit(self) -> int:
        """In ms."""
        return DOWNTIME_LIMITS_MS[self._step]

    def look(self) -> None:
        now = time.monotonic()
        if now < self._looked + 5 * _POLL_SECONDS:
            return
        self._looked = now
        self._source.check_alive()
        told = self._source.qmp.execute("query-migrate")
        if told.get("status") in ("failed", "cancelled"):
            why = told.get("error-desc", "QEMU does not say why")
            raise TestbedError(f"the migration of {self._source.name} failed, and it stays where it was: {why}")
        step = min(int((now - self._begun) / PATIENCE_SECONDS), len(DOWNTIME_LIMITS_MS) - 1)
        if step > self._step and told.get("status") == "active":
            self._step = step
            self._source.qmp.execute("migrate-set-parameters", downtime_limit=self.limit)


def _listening_port(destination: Machine) -> int:
    deadline = time.monotonic() + RESUME_SECONDS
    while time.monotonic() < deadline:
        for place in destination.qmp.execute("query-migrate").get("socket-address", ()):
            return int(place["port"])
        time.sleep(_POLL_SECONDS)
    raise destination.complaint(f"QEMU of {destination.name} does not listen for the guest")


def _completed(source: Machine) -> dict[str, Any]:
    """What the source says of the whole; for a moment after the end it says completed without figures."""
    deadline = time.monotonic() + _COMPLETED_SECONDS
    while time.monotonic() < deadline:
        told = source.qmp.execute("query-migrate")
        if told.get("status") == "completed" and told.get("total-time"):
            return told
        time.sleep(_POLL_SECONDS)
    raise source.complaint(f"QEMU of {source.name} did not say how the migration went")
