"""Where SYNs go that no rule of the controller or a hand matches: to a service router that was found, else to everyone
on the links, else nowhere (S44, S61).
"""

from __future__ import annotations

from serval_node.daemon.rules import RuleBook
from serval_node.wire.ipv4 import Address


class DefaultRule:
    """Keeps the rule book's stand-in for the default rule."""

    def __init__(self, rules: RuleBook) -> None:
        self._rules = rules
        self._broadcasts: tuple[Address, ...] = ()
        self._router: Address | None = None

    def set_broadcasts(self, addresses: tuple[Address, ...]) -> None:
        """The links of ad hoc mode; none when it is off."""
        self._broadcasts = addresses
        self._apply()

    def set_router(self, address: Address | None) -> None:
        """The service router that was found, None when there is none (any more)."""
        self._router = address
        self._apply()

    def _apply(self) -> None:
        if self._router is not None:
            self._rules.stand_in("router", (self._router,))
        else:
            self._rules.stand_in("adhoc", self._broadcasts)
