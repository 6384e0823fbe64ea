"""The account of each move: one record with all its parts, once the peer is heard over the new path.

A move's parts are known at different times: cause, decision and RSYNs with the RSYN-ACK, the first segment after that,
if one comes at all. A record waits for it until the flow ends, moves again, or has been quiet for `QUIET_SECONDS`: then
it says that nothing came.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from serval_node.daemon.loop import Timer
from serval_node.sal.events import Blackout, Event, FlowClosed, FlowMigrated, PathHeard, PeerBlackout, PeerMoved

QUIET_SECONDS = 120.0
"""Linux lets its TCP pause no longer between two retransmissions (TCP_RTO_MAX): a flow that is silent for this time has
nothing to say."""

Record = Blackout | PeerBlackout


@dataclass(slots=True)
class _Waiting:
    """A record that lacks its end only. `answered` is when `recover` begins."""

    record: Record
    answered: float
    timer: Timer


class Blackouts:
    """Makes the records of one node from its stack's events, in their order."""

    def __init__(
        self,
        tell: Callable[[Record], None],
        call_later: Callable[[float, Callable[[], None]], Timer],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """`tell` hears of each record once, when it is complete."""
        self._tell = tell
        self._call_later = call_later
        self._clock = clock
        # Of one flow both ends may move: its own record and the peer's, by flowID and kind.
        self._waiting: dict[tuple[int, type[Record]], _Waiting] = {}
        # The path over which a flow was heard last: it may be heard there before its RSYN-ACK comes.
        self._heard: dict[int, PathHeard] = {}

    def handle(self, event: Event) -> None:
        if isinstance(event, FlowMigrated):
            self._moved(event)
        elif isinstance(event, PeerMoved):
            self._await(_of_peer(event), event.asked)
        elif isinstance(event, PathHeard):
            self._heard[event.flow_id] = event
            for kind in (Blackout, PeerBlackout):
                self._hear(event, kind)
        elif isinstance(event, FlowClosed):
            self._heard.pop(event.flow_id, None)
            for kind in (Blackout, PeerBlackout):
                self._complete((event.flow_id, kind), None, event.time)

    def _moved(self, event: FlowMigrated) -> None:
        self._await(_of_own(event), event.time)
        before = self._heard.get(event.flow_id)
        if before is not None and before.local == event.target and before.time >= event.started:
            self._complete((event.flow_id, Blackout), 0.0, event.time)

    def _hear(self, event: PathHeard, kind: type[Record]) -> None:
        key = event.flow_id, kind
        waiting = self._waiting.get(key)
        if waiting is None:
            return
        here = event.local if kind is Blackout else event.peer
        if waiting.record.target == here:
            self._complete(key, max(0.0, event.time - waiting.answered), event.time)

    def _await(self, record: Record, answered: float) -> None:
        key = record.flow_id, type(record)
        self._complete(key, None, record.time)
        timer = self._call_later(QUIET_SECONDS, partial(self._give_up, key))
        self._waiting[key] = _Waiting(record, answered, timer)

    def _give_up(self, key: tuple[int, type[Record]]) -> None:
        self._complete(key, None, self._clock())

    def _complete(self, key: tuple[int, type[Record]], recover: float | None, now: float) -> None:
        waiting = self._waiting.pop(key, None)
        if waiting is None:
            return
        waiting.timer.cancel()
        waiting.record.recover = recover
        waiting.record.time = now
        self._tell(waiting.record)


def _of_own(event: FlowMigrated) -> Blackout:
    return Blackout(
        event.time,
        event.flow_id,
        event.service_id,
        event.cause,
        event.source,
        event.target,
        event.happened,
        event.detected - event.happened,
        event.started - event.detected,
        event.time - event.started,
        None,
        event.rsyns,
    )


def _of_peer(event: PeerMoved) -> PeerBlackout:
    return PeerBlackout(event.time, event.flow_id, event.service_id, event.source, event.target, event.asked, None)
