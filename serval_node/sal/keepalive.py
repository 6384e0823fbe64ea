"""Keep-alives of flows inside UDP: a NAT forgets who has said nothing for a while, or puts him at another port.

A client's flow that is open says where it is every so often, by an RSYN that moves it nowhere. The RSYN carries nonce
and a number of its own and is answered: so it keeps the NAT's mapping, and where that has changed, the peer follows to
the new address and port as it follows a move. Data never does that, and neither does an RSYN that is sent again: its
number is an old one.
"""

from __future__ import annotations

from collections.abc import Callable

from serval_node.sal.context import Context
from serval_node.sal.flow_table import Flow
from serval_node.sal.states import ESTABLISHED, State


class Keepalive:
    """The timers of one stack. ``announce(flow, now)`` sends the RSYN."""

    def __init__(self, context: Context, announce: Callable[[Flow, float], None]) -> None:
        self._context = context
        self._announce = announce

    def follow(self, flow: Flow, now: float) -> None:
        """The flow has just said where it is, in a handshake or a move."""
        if not self._wanted(flow):
            return
        running = flow.keepalive_due is not None
        flow.keepalive_due = now + self._context.config.keepalive
        if not running:
            self._context.at(flow.keepalive_due, self._run, flow)

    def _wanted(self, flow: Flow) -> bool:
        is_open = flow.state in ESTABLISHED and flow.state is not State.TIMEWAIT and not flow.resetting
        return is_open and flow.ports is not None and not flow.server

    def _run(self, flow: Flow, now: float) -> None:
        due = flow.keepalive_due
        if due is None or not self._wanted(flow):
            flow.keepalive_due = None
            return
        if now >= due:
            due = flow.keepalive_due = now + self._context.config.keepalive
            # What is under way says where the flow is as well.
            if flow.control.pending is None:
                self._announce(flow, now)
        self._context.at(due, self._run, flow)
