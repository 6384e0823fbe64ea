"""Keep-alives of flows inside UDP: a NAT forgets who has said nothing for a while, or puts him at another port.

A client's flow that is open says where it is every so often, by an RSYN that moves it nowhere. The RSYN carries nonce
and a number of its own and is answered: so it keeps the NAT's mapping, and where that has changed, the peer follows to
the new address and port as it follows a move. Data never does that, and neither does an RSYN that is sent again: its
number is an old one.

Who waits for the next of them waits long. So a client whose probes are answered while its own packets are not (a probe
is answered to where it came from, `probing`) says at once where it is, and that the old path is lost: what its peer has
sent to the port of before is sent again.
"""

from __future__ import annotations

from typing import Protocol

from serval_node.sal.context import Context
from serval_node.sal.flow_table import Flow
from serval_node.sal.states import ESTABLISHED, State

# Most silences have other reasons.
NOT_AGAIN = 1.0


class Announce(Protocol):
    """Sends the RSYN. ``lost``: the path to this host may be lost."""

    def __call__(self, flow: Flow, now: float, *, lost: bool) -> None: ...


class Keepalive:
    """The timers of one stack."""

    def __init__(self, context: Context, announce: Announce) -> None:
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

    def hurry(self, flow: Flow, now: float) -> None:
        """The flow's path is answered, and what it should bring does not come."""
        due, keepalive = flow.keepalive_due, self._context.config.keepalive
        if due is None or not self._wanted(flow) or flow.control.pending is not None:
            return
        if now >= due - keepalive + NOT_AGAIN:
            flow.keepalive_due = now + keepalive
            self._announce(flow, now, lost=True)

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
                self._announce(flow, now, lost=False)
        self._context.at(due, self._run, flow)
