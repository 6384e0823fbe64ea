"""What the controller asks of this node, and its answers (slides 20 and 30)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from serval_node.control import messages
from serval_node.control.channel import Request
from serval_node.control.messages import (
    CapabilitiesSet,
    Flows,
    FlowsGet,
    Loads,
    Migrate,
    Resolve,
    Result,
    RuleRemove,
    Rules,
    RuleSet,
    RulesGet,
    Start,
    StatsGet,
)
from serval_node.daemon import views
from serval_node.daemon.log import log
from serval_node.sal.delay_queue import DelayVerdict

if TYPE_CHECKING:
    from serval_node.daemon.controller_link import ControllerLink
    from serval_node.daemon.node import Node


class ControllerRequests:
    """Answers each request once, by what it asks for or by RESULT with the reason of a refusal."""

    link: ControllerLink

    def __init__(self, node: Node) -> None:
        self._node = node

    def handle(self, request: Request) -> None:
        """A refusal is an answer to the controller and never an exception here."""
        try:
            self._handle(request)
        except ValueError as error:  # RuleError, MessageError and ListenerRefused are
            log(f"refused to the controller: {error}")
            if not isinstance(request.message, Loads):
                self.link.result(request.xid, str(error))

    def _handle(self, request: Request) -> None:
        message, node = request.message, self._node
        if isinstance(message, RuleSet):
            self._learn_name(message.rule.name)
            node.rules.set(message.rule, message.expect)
            self.link.result(request.xid)
        elif isinstance(message, RuleRemove):
            self._learn_name(message.name)
            self.link.answer(request.xid, Result(True, rules=(node.rules.remove(message.prefix),)))
        elif isinstance(message, RulesGet):
            rules = node.rules.all() if message.service is None else node.rules.matching(message.service.service_id)
            self.link.answer(request.xid, Rules(rules))
        elif isinstance(message, Loads):
            node.rules.set_loads(message.prefix, message.loads)
        elif isinstance(message, messages.DelayVerdict):
            self._learn_name(message.name)
            node.delay_verdict(message.service, DelayVerdict(message.verdict))
            self.link.result(request.xid)
        elif isinstance(message, Migrate):
            self.link.answer(request.xid, self._migrate(message))
        elif isinstance(message, StatsGet):
            self.link.answer(request.xid, views.stats(node))
        elif isinstance(message, Resolve):
            outlook = node.stack.explain(message.service.service_id)
            self.link.answer(request.xid, views.resolved(outlook, node.names.naming))
        elif isinstance(message, CapabilitiesSet):
            node.set_capabilities(forwarding=message.forwarding, mode=message.mode)
            self.link.answer(request.xid, views.capabilities(node))
        elif isinstance(message, FlowsGet):
            wanted, rows = message.flows, views.flows(node)
            rows = [row for row in rows if row["flow_id"] in wanted] if wanted else rows
            self.link.answer(request.xid, Flows(views.flow_stats(rows)))
        elif isinstance(message, Start):
            self._learn_name(message.name)
            node.standbys.start(message.prefix, by="by the controller")
            self.link.result(request.xid)
        else:
            raise ValueError(f"{type(message).__name__} is not a request that a node serves")

    def _migrate(self, message: Migrate) -> Flows:
        """The flows that are moving now. Raises ValueError with the first refusal, also when other flows
        did start to move.
        """
        migrations = self._node.migrations
        if message.kind == "flow":
            flows = migrations.of_flow(int(message.which) if message.which.isdecimal() else 0)
        elif message.kind == "interface":
            flows = migrations.of_place(message.which)
        else:
            flows = migrations.of_service(self._node.names.naming.parse(message.which))
        outcomes = migrations.move(flows, message.to, cause="by the controller")
        refused = [item.refusal for item in outcomes if item.refusal]
        if refused:
            raise ValueError(f"{len(refused)} of {len(outcomes)} flows do not move: {refused[0]}")
        moving = {item.flow_id for item in outcomes}
        return Flows(views.flow_stats([row for row in views.flows(self._node) if row["flow_id"] in moving]))

    def _learn_name(self, name: str) -> None:
        """Let lists and refusals speak by name; a name that means something else here is left out."""
        if name:
            try:
                self._node.names.naming.parse(name)
            except ValueError as error:
                log(f"the controller's name {name!r}: {error}")
