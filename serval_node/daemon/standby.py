"""Programs of this host that wait to be started: what `serval standby` offers (docs/just-in-time.md).

An offer is a connection of the local control socket: it lasts as long as the process behind it, which starts the
program itself when it is told to. So the controller can start what this host's user has offered, and nothing else.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from serval_node.control.enquiries import Standby
from serval_node.daemon.control_server import Connection, RequestError
from serval_node.wire.naming import Naming
from serval_node.wire.serviceid import Prefix


@dataclass(slots=True)
class _Offer:
    prefix: Prefix
    started: bool = False


class Standbys:
    """The offers of this host. ``changed`` is called after each change of what `offers` gives."""

    def __init__(self, naming: Naming, changed: Callable[[], None]) -> None:
        self._naming = naming
        self._changed = changed
        self._offers: dict[Connection, _Offer] = {}

    def offers(self) -> tuple[Standby, ...]:
        """In the order in which they were made."""
        return tuple(
            Standby(offer.prefix, self._naming.name_text(offer.prefix), offer.started)
            for offer in self._offers.values()
        )

    def offer(self, connection: Connection, prefix: Prefix) -> None:
        """The program behind a connection would serve this; once for each connection."""
        if connection in self._offers:
            raise RequestError("this connection has an offer already")
        self._offers[connection] = _Offer(prefix)
        self._changed()

    def closed(self, connection: Connection) -> None:
        """The process behind a connection has gone, and what it offered."""
        if self._offers.pop(connection, None) is not None:
            self._changed()

    def start(self, prefix: Prefix, by: str) -> None:
        """Tell the first program that was offered for this prefix, and does not run, to start; raises ValueError when
        there is none. One that runs already is left alone.
        """
        of_prefix = [(connection, offer) for connection, offer in self._offers.items() if offer.prefix == prefix]
        if not of_prefix:
            raise ValueError(f"no program was offered here for {self._naming.describe(prefix)} (serval standby)")
        for connection, offer in of_prefix:
            if not offer.started:
                offer.started = True
                connection.push({"start": self._naming.describe(prefix), "by": by})
                self._changed()
                return
