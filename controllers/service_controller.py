"""The service controller app: a shim around `service_core` and `requests`.

All work is done in the app's event loop: what nodes send, what is asked by hand and the clock's ticks arrive there as
events, one after the other.
"""

from __future__ import annotations

import logging
import time
from typing import Any

from controllers import framework
from controllers.framework import hub, ofp_event, set_ev_cls
from controllers.hand import EventHandRequest
from controllers.policies import PolicyBook
from controllers.relearn import GRACE_SECONDS
from controllers.requests import HandRequests
from controllers.service_core import Answer, Output, ServiceControl
from serval_node.control import experimenter
from serval_node.control.rules import MessageError
from serval_node.wire.naming import Naming

LOG = logging.getLogger("controllers.service")

TICK_SECONDS = 0.2


class EventTick(framework.EventBase):
    """Time has passed."""


class ServiceController(framework.App):
    """Set `providers`, `policy_file` and `grace` of the class before the runner makes the instance."""

    OFP_VERSIONS = [framework.OPENFLOW_13]  # noqa: RUF012 - the framework's own spelling

    providers: dict[str, int] | None = None
    policy_file: str | None = None
    grace: float = GRACE_SECONDS

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.control = ServiceControl(
            now=time.monotonic(),
            naming=Naming(self.providers),
            policies=PolicyBook(self.policy_file),
            grace=self.grace,
        )
        self._requests = HandRequests(self.control)
        self.hand_operations = self._requests.operations
        self._datapaths: dict[int, Any] = {}
        self._assemblers: dict[int, experimenter.Assembler] = {}

    def start(self) -> Any:
        thread = super().start()
        hub.spawn(self._tick_loop)
        return thread

    def _tick_loop(self) -> None:
        while self.is_active:
            hub.sleep(TICK_SECONDS)
            if self.events.empty():
                self.send_event(self.name, EventTick())

    @set_ev_cls(EventTick)
    def _on_tick(self, event: EventTick) -> None:
        self._carry_out(self.control.tick(time.monotonic()))

    @set_ev_cls(ofp_event.EventOFPStateChange, [framework.MAIN, framework.DEAD])
    def _on_state_change(self, event: Any) -> None:
        datapath = event.datapath
        if datapath.id is None or not experimenter.is_serval_datapath(datapath.id):
            return
        if event.state == framework.MAIN:
            if datapath.id in self._datapaths and not self._is_current(datapath):
                # The node came back before the end of its old channel was noticed.
                self._carry_out(self.control.lost(datapath.id))
            self._datapaths[datapath.id] = datapath
            self._assemblers[datapath.id] = experimenter.Assembler()
        elif self._is_current(datapath):
            del self._datapaths[datapath.id], self._assemblers[datapath.id]
            self._carry_out(self.control.lost(datapath.id))

    @set_ev_cls(ofp_event.EventOFPExperimenter, framework.MAIN)
    def _on_experimenter(self, event: Any) -> None:
        message, datapath = event.msg, event.msg.datapath
        if message.experimenter != experimenter.EXPERIMENTER or not self._is_current(datapath):
            return
        try:
            decoded = self._assemblers[datapath.id].add(message.exp_type, message.xid, bytes(message.data or b""))
        except MessageError as error:
            LOG.warning("node %012x sent a message of no meaning: %s", datapath.id & (1 << 48) - 1, error)
            return
        if decoded is not None:
            self._carry_out(self.control.handle(datapath.id, message.xid, decoded, time.monotonic()))

    @set_ev_cls(ofp_event.EventOFPErrorMsg, framework.MAIN)
    def _on_error(self, event: Any) -> None:
        message = event.msg
        if message.datapath.id in self._datapaths:
            LOG.warning("node %s answers with error %d/%d", message.datapath.id, message.type, message.code)

    @set_ev_cls(EventHandRequest)
    def _on_hand_request(self, event: EventHandRequest) -> None:
        self._carry_out(self._requests.handle(event, event.request, time.monotonic()))

    def _is_current(self, datapath: Any) -> bool:
        """Whether this is the connection in use, and not one that its node has given up."""
        return self._datapaths.get(datapath.id) is datapath

    def _carry_out(self, outputs: list[Output]) -> None:
        """Send, and then what follows from the change for all nodes; in a burst of events only once at its end."""
        for output in outputs:
            self._put_out(output)
        if self.events.empty():
            for output in self.control.settle(time.monotonic()):
                self._put_out(output)

    def _put_out(self, output: Output) -> None:
        if isinstance(output, Answer):
            if isinstance(output.ticket, EventHandRequest):
                output.ticket.answer(output.body)
            return
        datapath = self._datapaths.get(output.datapath_id)
        if datapath is None:
            return
        for exp_type, data in experimenter.encode(output.message):
            parser = datapath.ofproto_parser
            message = parser.OFPExperimenter(datapath, experimenter.EXPERIMENTER, exp_type, data)
            message.set_xid(output.xid)
            datapath.send_msg(message)
