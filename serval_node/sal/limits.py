"""How often this host does what any packet can ask for: else it would work, or shout at others, for an attacker."""

from __future__ import annotations


class RateLimit:
    """So many per second, and up to ``burst`` at once after a pause (a token bucket)."""

    def __init__(self, per_second: float, burst: float) -> None:
        self._per_second = per_second
        self._burst = burst
        self._left = burst
        self._since: float | None = None

    def allows(self, now: float) -> bool:
        """Whether one more may be done now; it counts as done."""
        if self._since is not None:
            self._left = min(self._burst, self._left + (now - self._since) * self._per_second)
        self._since = now
        if self._left < 1:
            return False
        self._left -= 1
        return True
