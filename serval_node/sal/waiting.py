"""What happens around the DELAY queue: notices, verdicts, release by a change of rules, time-out (S26, S27)."""

from __future__ import annotations

from collections.abc import Callable

from serval_node.sal.context import Context
from serval_node.sal.delay_queue import Delayed, DelayVerdict
from serval_node.sal.events import ConnectFailed, DelayNotify, Refusal, SynDelayed
from serval_node.sal.resets import refuse_program, refuse_unknown
from serval_node.sal.resolution import UNREACHABLE_CODES
from serval_node.sal.service_table import Action
from serval_node.wire.encapsulation import open_packet
from serval_node.wire.sal_header import decode
from serval_node.wire.serviceid import Prefix


class Waiting:
    """Packets under DELAY. ``take_up(delayed, now)`` resolves one again."""

    def __init__(self, context: Context, take_up: Callable[[Delayed, float], None]) -> None:
        self._context = context
        self._queue = context.delay_queue
        self._take_up = take_up
        self._rules_changed = False
        context.service_table.on_change(self._note_change)

    def _note_change(self) -> None:
        self._rules_changed = True

    def next_timer(self) -> float | None:
        """When ``run`` has something to do; 0 for at once."""
        oldest = self._queue.oldest()
        if oldest is None:
            return None
        return 0.0 if self._rules_changed else oldest + self._queue.limits.seconds

    def run(self, now: float) -> None:
        """Take up what changed rules decided, and discard what has waited too long."""
        if self._rules_changed:
            self._rules_changed = False
            self.release_decided(now)
        for delayed in self._queue.expired(now - self._queue.limits.seconds):
            self._discard(delayed, Refusal.DELAY_EXPIRED, now)

    def put(self, delayed: Delayed, now: float, *, later: Refusal = Refusal.DUPLICATE_SYN) -> None:
        """Keep a packet that met a DELAY rule; the first one for a service is told about. ``later`` is what a packet
        with the key of one that waits is: a copy of a SYN, or another datagram of its sender, which is lost.
        """
        context = self._context
        if self._queue.holds(delayed.key):
            context.refuse(later, now)
            return
        obstacle = self._queue.put(delayed)
        if obstacle is not None:
            self._discard(delayed, obstacle, now)
            return
        context.events.append(SynDelayed(now, delayed.client, delayed.client_flow, delayed.service_id, delayed.prefix))
        if self._queue.needs_notice(delayed.service_id):
            context.events.append(DelayNotify(now, delayed.service_id, delayed.prefix))

    def verdict(self, prefix: Prefix, verdict: DelayVerdict, now: float) -> int:
        """Carry out a verdict on everything that waits for a service of ``prefix``; how many packets that were.

        What is released meets the rules again, and waits again where they still say DELAY.
        """
        taken = self._queue.take(prefix)
        for delayed in taken:
            if verdict is DelayVerdict.RELEASE:
                self._take_up(delayed, now)
            elif verdict is DelayVerdict.DROP:
                self._discard(delayed, Refusal.DELAY_DROPPED, now)
            else:
                self._refuse(delayed, now)
        return len(taken)

    def release_decided(self, now: float) -> None:
        """After a change of rules: what no longer meets DELAY goes on."""
        for service_id in self._queue.services():
            entry = self._context.service_table.lookup(service_id)
            if entry is None or entry.action is not Action.DELAY:
                self.verdict(Prefix.of(service_id), DelayVerdict.RELEASE, now)

    def _discard(self, delayed: Delayed, reason: Refusal, now: float) -> None:
        """The packet goes nowhere; a program of this host learns it, the network does not."""
        self._count(delayed, reason, now)
        if delayed.from_kernel:
            self._context.unreachable(delayed.packet, UNREACHABLE_CODES[reason])
            self._failed(delayed, reason, now)

    def _refuse(self, delayed: Delayed, now: float) -> None:
        """The client is told that nobody serves this: connect() fails with ECONNREFUSED, wherever it is."""
        self._count(delayed, Refusal.DELAY_REFUSED, now)
        if delayed.from_kernel:
            refuse_program(self._context, delayed.packet)
            self._failed(delayed, Refusal.DELAY_REFUSED, now)
            return
        header, data = open_packet(delayed.packet)
        packet = decode(data)
        if packet.control is not None:
            refuse_unknown(self._context, header, packet, packet.control, now)

    def _count(self, delayed: Delayed, reason: Refusal, now: float) -> None:
        """In the DELAY rule too, if it is still there: what it kept, it has dropped now."""
        context = self._context
        context.refuse_syn(reason, now, delayed.service_id, delayed.client, delayed.client_flow, delayed.prefix)
        table = context.service_table
        entry = table.get(delayed.prefix)
        rule = [entry.counters, entry.slots[0].counters] if entry and entry.action is Action.DELAY else []
        for counters in (table.totals, *rule):
            counters.dropped(len(delayed.packet))

    def _failed(self, delayed: Delayed, reason: Refusal, now: float) -> None:
        """A program's connect() has waited for nothing."""
        self._context.events.append(
            ConnectFailed(now, delayed.client_flow, delayed.service_id, reason.value, delayed.prefix)
        )
