"""The last events of this node's stack, as JSON, for `serval trace` and for whoever watches the node.

What any packet from the network can bring about is kept apart from the rest: a flood of forged SYNs fills its own log
only, and what this host's flows and programs did stays to be read.
"""

from __future__ import annotations

import heapq
from collections import deque
from collections.abc import Callable
from dataclasses import fields
from enum import Enum
from operator import attrgetter
from typing import Any

from serval_node.sal.events import FlowClosed, Refused, SynDelayed, SynForwarded, SynReceived
from serval_node.wire.serviceid import Prefix, ServiceID

KEPT = 4096
_STRANGERS = (SynReceived, SynForwarded, SynDelayed, Refused)

Describe = Callable[["Prefix | ServiceID"], str]


class EventLog:
    """A bounded log. Events are turned into JSON when someone asks, so that logging costs an append."""

    def __init__(self, describe: Describe, kept: int = KEPT) -> None:
        self._describe = describe
        self._own: deque[Any] = deque(maxlen=kept)
        self._strangers: deque[Any] = deque(maxlen=kept)

    def add(self, event: Any) -> None:
        half_open = isinstance(event, FlowClosed) and event.server and not event.opened
        (self._strangers if half_open or isinstance(event, _STRANGERS) else self._own).append(event)

    def since(self, time: float, last: int = KEPT) -> list[dict[str, Any]]:
        """Events at or after a monotonic time, oldest first, the `last` ones of them. The clock is the machine's, the
        same on every host.
        """
        found: list[dict[str, Any]] = []
        latest = heapq.merge(reversed(self._own), reversed(self._strangers), key=attrgetter("time"), reverse=True)
        for event in latest:
            if event.time < time or len(found) == last:
                break
            found.append(event_json(event, self._describe))
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
