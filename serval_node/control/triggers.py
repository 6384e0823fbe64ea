"""What makes a node move flows by itself; each can be switched."""

from __future__ import annotations

TRIGGERS = {
    "link": "a link goes down or loses its carrier",
    "address": "an address is removed",
    "route": "the host's routes lead to the peer another way, or no more over the flow's link",
    "silence": "the path is up and nothing comes back (probes)",
}
"""Name and meaning, in the order of `serval migrate auto`."""
