"""What happens around the DELAY queue: notices, verdicts, release by a change of rules, time-out (S26)."""

from __future__ import annotations

from collections.abc import Callable

from serval_node.sal.context import Context
from serval_node.sal.delay_queue import Delayed
from serval_node.sal.events import ConnectFailed, DelayNotify, Refusal, SynDelayed
from serval_node.sal.resolution import UNREACHABLE_CODES
from serval_node.sal.service_table import Action
from serval_node.wire.serviceid import Prefix


class Waiting:
    """Packets under DELAY. ``take_up(delayed, now)`` resolves one again."""

    def __init__(self, context: Context, take_up: Callable[[Delayed, float], None]) -> None:
        self._context = context
        self._take_up = take_up
        self._rules_changed = False
        context.service_table.on_change(self._note_change)

    def _note_change(self) -> None:
        self._rules_changed = True

    def next_timer(self) -> float | None:
        """When ``run`` has something to do; 0 for at once."""
        oldest = self._context.delay_queue.oldest()
        if oldest is None:
            return None
        return 0.0 if self._rules_changed else oldest + self._context.config.delay_timeout

    def run(self, now: float) -> None:
        """Take up what changed rules decided, and discard what has waited too long."""
        if self._rules_changed:
            self._rules_changed = False
            self.release_decided(now)
        for delayed in self._context.delay_queue.expired(now - self._context.config.delay_timeout):
            self._discard(delayed, Refusal.DELAY_EXPIRED, now)

    def put(self, delayed: Delayed, now: float) -> None:
        """Keep a packet that met a DELAY rule; the first one for a service is told about."""
        context = self._context
        refusal = context.delay_queue.put(delayed)
        if refusal is not None:
            self._discard(delayed, refusal, now)
            return
        context.events.append(SynDelayed(now, delayed.client, delayed.client_flow, delayed.service_id, delayed.prefix))
        if context.delay_queue.needs_notice(delayed.service_id):
            context.events.append(DelayNotify(now, delayed.service_id, delayed.prefix))

    def verdict(self, prefix: Prefix, *, release: bool, now: float) -> int:
        """Resolve again (release) or discard everything that waits for a service of ``prefix``; how many that were."""
        taken = self._context.delay_queue.take(prefix)
        for delayed in taken:
            if release:
                self._take_up(delayed, now)
            else:
                self._discard(delayed, Refusal.DELAY_DROPPED, now)
        return len(taken)

    def release_decided(self, now: float) -> None:
        """After a change of rules: what no longer meets DELAY goes on."""
        for service_id in self._context.delay_queue.services():
            entry = self._context.service_table.lookup(service_id)
            if entry is None or entry.action is not Action.DELAY:
                self.verdict(Prefix.of(service_id), release=True, now=now)

    def _discard(self, delayed: Delayed, reason: Refusal, now: float) -> None:
        context = self._context
        context.refuse_syn(reason, now, delayed.service_id, delayed.client, delayed.client_flow, delayed.prefix)
        if delayed.from_kernel:
            self._failed(delayed, reason, now)

    def _failed(self, delayed: Delayed, reason: Refusal, now: float) -> None:
        """A program's connect() has waited for nothing."""
        self._context.unreachable(delayed.packet, UNREACHABLE_CODES[reason])
        self._context.events.append(
            ConnectFailed(now, delayed.client_flow, delayed.service_id, reason.value, delayed.prefix)
        )
