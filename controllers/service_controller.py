"""The service controller app: a shim around `service_core` and `requests`.

All work is done in the app's event loop: what nodes send, what is asked by hand or by other apps, and the clock's ticks
arrive there as events, one after the other.
"""

from __future__ import annotations

import logging
import time
from typing import Any

from controllers import api, framework, others
from controllers.datapath_app import DatapathApp
from controllers.framework import hub, ofp_event, set_ev_cls
from controllers.hand import EventHandRequest
from controllers.policies import PolicyBook
from controllers.relearn import GRACE_SECONDS
from controllers.requests import HandRequests
from controllers.service_core import Answer, Output, ServiceControl
from controllers.watch import Watch
from serval_node.control import experimenter, openflow
from serval_node.control.messages import DelayNotify
from serval_node.control.rules import MessageError
from serval_node.wire.naming import Naming

LOG = logging.getLogger("controllers.service")


class ServiceController(DatapathApp):
    """Set `providers`, `policy_file`, `grace` and `show_nodes` of the class before the runner makes the instance.

    show_nodes  whether apps of others get the events about Serval nodes too, see `others.shield`
    """

    _EVENTS = api.EVENTS

    serval_nodes = True
    log = LOG
    tick_seconds = 0.2

    providers: dict[str, int] | None = None
    policy_file: str | None = None
    grace: float = GRACE_SECONDS
    show_nodes = False

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
        self._assemblers: dict[int, experimenter.Assembler] = {}
        self._switches: dict[int, Any] = {}
        self._watch = Watch()
        self._news = hub.Queue()

    def start(self) -> Any:
        if not self.show_nodes:
            apps = framework.running_apps()
            aware = [name for name, app in apps.items() if getattr(app, "serval_nodes", False)]
            others.shield(apps[ofp_event.NAME], aware)
        thread = super().start()
        hub.spawn(self._tell_loop)
        return thread

    def tick(self) -> None:
        self._carry_out(self.control.tick(time.monotonic()))

    def joined(self, datapath: Any, *, again: bool) -> None:
        if again:
            self._carry_out(self.control.lost(datapath.id, time.monotonic()))
        self._assemblers[datapath.id] = experimenter.Assembler()

    def left(self, datapath_id: int) -> None:
        del self._assemblers[datapath_id]
        self._carry_out(self.control.lost(datapath_id, time.monotonic()))

    @set_ev_cls(ofp_event.EventOFPStateChange, [framework.MAIN, framework.DEAD])
    def _on_switch(self, event: Any) -> None:
        """Switches are another app's; here they are only counted."""
        switch, number = event.datapath, event.datapath.id
        if number is None or experimenter.is_serval_datapath(number):
            return
        if event.state == framework.MAIN:
            self._switches[number] = switch
        elif self._switches.get(number) is switch:
            del self._switches[number]
        self.control.switches = sorted(self._switches)

    def sent(self, refused: bytes) -> bool:
        """Apps that are shown the nodes may try to make flows there, and are told so themselves."""
        return refused[1:2] == bytes([openflow.Type.EXPERIMENTER])

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
            if isinstance(decoded, DelayNotify):
                self._tell_of_delay(datapath.id, decoded)
            self._carry_out(self.control.handle(datapath.id, message.xid, decoded, time.monotonic()))

    @set_ev_cls(EventHandRequest)
    def _on_hand_request(self, event: EventHandRequest) -> None:
        self._carry_out(self._requests.handle(event, event.request, time.monotonic()))

    def _carry_out(self, outputs: list[Output]) -> None:
        """Send, and then what follows from the change for all nodes; in a burst of events only once at its end."""
        for output in outputs:
            self._put_out(output)
        if self.events.empty():
            for output in self.control.settle(time.monotonic()):
                self._put_out(output)
            if self._observed():
                self._tell_of_changes()

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

    # -- what other apps are told

    def _observed(self) -> bool:
        return any(self.observers.get(event) for event in api.EVENTS)

    def _tell_of_changes(self) -> None:
        changes, describe = self._watch.changes(self.control.directory), self.control.naming.describe
        for instance in changes.unregistered:
            self._news.put(api.EventServiceUnregistered(describe(instance.prefix), instance))
        for node in changes.down:
            self._news.put(api.EventNodeDown(node))
        for node in changes.up:
            self._news.put(api.EventNodeUp(node))
        for instance in changes.registered:
            self._news.put(api.EventServiceRegistered(describe(instance.prefix), instance))

    def _tell_of_delay(self, datapath_id: int, notice: DelayNotify) -> None:
        node = self.control.directory.nodes.get(datapath_id)
        if node is not None:
            service = notice.service.service_id if notice.service.exact else notice.service
            text = self.control.naming.describe(service)
            self._news.put(api.EventServiceDelayed(text, notice.service, node.name))

    def _tell_loop(self) -> None:
        """In a thread of its own: an app that waits for an answer takes no events, and must not hold up that answer."""
        while self.is_active:
            self.send_event_to_observers(self._news.get())
