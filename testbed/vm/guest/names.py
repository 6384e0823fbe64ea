"""What guest and host call the same; the only module of the guest that the host imports."""

from __future__ import annotations

AGENT_PORT = "serval.agent"
"""Orders and answers."""
CONTROLLER_PORT = "serval.controller"
"""servald's connection to its controller."""
