"""What can be asked of `serval watch`; apart from its other modules, which only that command loads."""

from __future__ import annotations

SERVICE, FLOW, EVENTS = "service", "flow", "events"
TABLES = (SERVICE, FLOW, EVENTS)

# In seconds. More than five pictures a second nobody sees, and the node has to make each.
SHORTEST_INTERVAL, LONGEST_INTERVAL = 0.2, 3600.0
