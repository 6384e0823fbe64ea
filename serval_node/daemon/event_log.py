"""The last events of this node's stack, as JSON: for `serval events`, `watch` and `trace`, and for programs.

What any packet from the network can bring about is kept apart from the rest: a flood of forged SYNs fills its own log
only, and what this host's flows and programs did stays to be read.
"""

from __future__ import annotations

import heapq
import typing
from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass, fields
from enum import Enum
from itertools import takewhile
from typing import Any

from serval_node.sal.events import Event, FlowClosed, Refused, SynDelayed, SynForwarded, SynReceived
from serval_node.wire.serviceid import Prefix, ServiceID

KEPT = 4096
KINDS = tuple(sorted(kind.__name__ for kind in typing.get_args(Event)))
_STRANGERS = (SynReceived, SynForwarded, SynDelayed, Refused)

Describe = Callable[["Prefix | ServiceID"], str]


@dataclass(frozen=True, slots=True)
class Wanted:
    """Which events are asked for: of these kinds, of services that a prefix covers, of one flow (also of a client's, at
    a host that its SYN passes). None: of any.
    """

    kinds: frozenset[str] | None = None
    service: Prefix | None = None
    flow_id: int | None = None

    def __call__(self, event: Any) -> bool:
        if self.kinds is not None and type(event).__name__ not in self.kinds:
            return False
        if self.flow_id is not None and self.flow_id not in (
            getattr(event, "flow_id", None),
            getattr(event, "client_flow", None),
        ):
            return False
        if self.service is None:
            return True
        service_id = getattr(event, "service_id", None)
        return service_id is not None and self.service.covers(Prefix.of(service_id))


EVERYTHING = Wanted()

_Numbered = tuple[int, Any]


class EventLog:
    """A bounded log. Events are turned into JSON when someone asks, so that logging costs an append. They are numbered
    from 1 on; `count` is the last one's number.
    """

    def __init__(self, describe: Describe, kept: int = KEPT) -> None:
        self._describe = describe
        self._kept = kept
        self._own: deque[_Numbered] = deque(maxlen=kept)
        self._strangers: deque[_Numbered] = deque(maxlen=kept)
        self.count = 0

    def add(self, event: Any) -> None:
        self.count += 1
        half_open = isinstance(event, FlowClosed) and event.server and not event.opened
        strange = half_open or isinstance(event, _STRANGERS)
        (self._strangers if strange else self._own).append((self.count, event))

    def since(self, time: float, last: int = KEPT, wanted: Wanted = EVERYTHING) -> list[dict[str, Any]]:
        """Events at or after a monotonic time, oldest first, the `last` ones of them. The clock is the machine's, the
        same on every host.
        """
        return self._last(
            takewhile(lambda event: event.time >= time, (event for _, event in self._latest())), last, wanted
        )

    def after(self, number: int, last: int = KEPT, wanted: Wanted = EVERYTHING) -> list[dict[str, Any]]:
        """Events that were logged after the one of this number, oldest first, the `last` ones of them."""
        return self._last((event for _, event in self._latest(number)), last, wanted)

    def missed(self, number: int) -> int:
        """How many events after the one of this number are not kept any more."""
        news = self.count - number
        return 0 if news <= self._kept else news - sum(1 for _ in self._latest(number))

    def _latest(self, number: int = 0) -> Iterable[_Numbered]:
        """Newest first, down to the one after this number."""
        both = heapq.merge(reversed(self._own), reversed(self._strangers), reverse=True)
        return takewhile(lambda numbered: numbered[0] > number, both)

    def _last(self, events: Iterable[Any], last: int, wanted: Wanted) -> list[dict[str, Any]]:
        """The first `last` of what comes newest first."""
        found: list[dict[str, Any]] = []
        if last:
            for event in events:
                if wanted(event):
                    found.append(event_json(event, self._describe))
                    if len(found) == last:
                        break
        return found[::-1]


def event_json(event: Any, describe: Describe) -> dict[str, Any]:
    """{"event": class name, field: value, ...}; addresses dotted, services by name where known."""
    out = {"event": type(event).__name__}
    for item in fields(event):
        out[item.name] = _value(getattr(event, item.name), describe)
    return out


def _value(value: Any, describe: Describe) -> Any:
    if isinstance(value, (ServiceID, Prefix)):
        return describe(value)
    if isinstance(value, bytes):
        return ".".join(map(str, value)) if len(value) == 4 else value.hex()
    if isinstance(value, Enum):
        return value.name.lower() if isinstance(value, int) else value.value
    if isinstance(value, (tuple, list)):
        return [_value(item, describe) for item in value]
    if hasattr(value, "__dataclass_fields__"):
        return {item.name: _value(getattr(value, item.name), describe) for item in fields(value)}
    return value
