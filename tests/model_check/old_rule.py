"""The original's rules where it gets stuck (protocol notes 3.4), put into our stacks: what the checker has to find."""

from __future__ import annotations

from types import MethodType
from typing import Any

from serval_node.sal.moves import MigrationState
from serval_node.wire.sal_header import ControlFlag
from serval_node.wire.serial import serial_add, serial_leq
from tests.model_check.ends import End


def bare_ack_for_a_repeated_rsyn(end: End) -> None:
    """A repeated RSYN gets a pure ACK, to the old address; the mover takes that for an acknowledgement of its RSYN and
    afterwards believes no RSYN-ACK.
    """
    migration: Any = end.stack._transfer._migration
    flow = end.flow
    assert flow is not None
    context: Any = end._context

    def answer_again(self: Any, flow: Any, source: Any, segment: Any, now: float) -> None:
        context.send(flow, (flow.control.make(ControlFlag.ACK),), b"")

    receive_rsyn_ack = migration.receive_rsyn_ack

    def only_while_unacknowledged(self: Any, flow: Any, source: Any, control: Any, segment: Any, now: float) -> Any:
        record = flow.migration
        if record is not None and record.move is not None and control.ackno != serial_add(flow.control.snd_una, 1):
            return None
        return receive_rsyn_ack(flow, source, control, segment, now)

    def acknowledge(self: Any, ackno: int) -> Any:
        if serial_leq(self.snd_una, ackno) and serial_leq(ackno, self.snd_nxt):
            self.snd_una = ackno
            if self.pending is not None and self.pending.verno != ackno:
                self.pending = None
        return None

    migration.answer_again = MethodType(answer_again, migration)
    migration.receive_rsyn_ack = MethodType(only_while_unacknowledged, migration)
    _patch_control(flow, acknowledge)


def _patch_control(flow: Any, acknowledge: Any) -> None:
    control = flow.control
    flow.control = type("OldControl", (type(control),), {"acknowledge": acknowledge, "__slots__": ()})(_NoRandom())
    for name in type(control).__slots__:
        setattr(flow.control, name, getattr(control, name))


class _NoRandom:
    """Numbers come from the control state that is replaced."""

    def getrandbits(self, bits: int) -> int:
        return 0


def no_switch_when_crossing(end: End) -> None:
    """Where both ends move at once, neither switches its own address."""
    migration: Any = end.stack._transfer._migration
    receive_rsyn_ack = migration.receive_rsyn_ack

    def crossing(self: Any, flow: Any, source: Any, control: Any, segment: Any, now: float) -> Any:
        record = flow.migration
        stays = record is not None and record.state is MigrationState.RSYN_SENT_RECV
        local = flow.local_address
        acknowledged = receive_rsyn_ack(flow, source, control, segment, now)
        if stays and acknowledged is not None:
            flow.local_address = local
        return acknowledged

    migration.receive_rsyn_ack = MethodType(crossing, migration)
