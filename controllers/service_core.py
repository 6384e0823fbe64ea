"""The service controller's logic: messages of nodes in, messages to nodes out. Pure; `service_controller` is its shim.

It knows of every node what the node reported and what it was sent since, compares that with what the directory and
the policies want, and sends the difference. Hand-made rules stand above policies: where one is, the policy keeps away.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, get_args

from controllers.deciding import Deciding
from controllers.directory import Directory, Node
from controllers.loads import LoadBook
from controllers.policies import PolicyBook
from controllers.relearn import GRACE_SECONDS, Relearning
from controllers.rules import NodeRules, desired_rules
from controllers.unknown import UnknownBook
from serval_node.control import messages
from serval_node.control.messages import ControllerMessage, DelayNotify, Message, NodeState
from serval_node.control.rules import RuleSpec
from serval_node.wire.naming import Naming
from serval_node.wire.serviceid import Prefix

LOG = logging.getLogger("controllers.service")

ANSWER_SECONDS = 5.0
"""How long a node may take to answer a hand-made request."""


@dataclass(frozen=True, slots=True)
class Send:
    """A message for a node. xid: the one to send it with."""

    datapath_id: int
    xid: int
    message: ControllerMessage


@dataclass(frozen=True, slots=True)
class Answer:
    """The answer to a hand-made request; `ticket` is what came with it."""

    ticket: object
    body: dict[str, Any]


Output = Send | Answer

AnswerMessage = (
    messages.Result | messages.Rules | messages.Stats | messages.Resolved | messages.Capabilities | messages.Flows
)
ANSWERS = get_args(AnswerMessage)


@dataclass(slots=True)
class Pending:
    """A request that a node has not answered.

    ticket    the hand-made request behind it, None for the controller's own
    previous  what stood at the rule's prefix before, to be restored when the node refuses
    """

    message: ControllerMessage
    deadline: float
    ticket: object = None
    previous: RuleSpec | None = None


@dataclass(slots=True)
class NodeBook:
    """What the controller knows of one node's tables beside the directory.

    installed  rules of origin "controller", as reported and as sent since
    hand       hand-made rules that the node has acknowledged or reported
    refused    rules that the node would not take, with its reason; not sent again until they change
    delayed    services with queued packets, by the notices that told
    """

    installed: NodeRules = field(default_factory=dict)
    hand: NodeRules = field(default_factory=dict)
    refused: dict[Prefix, tuple[RuleSpec, str]] = field(default_factory=dict)
    delayed: dict[Prefix, DelayNotify] = field(default_factory=dict)
    pending: dict[int, Pending] = field(default_factory=dict)

    def hand_requests(self) -> set[Prefix]:
        """Prefixes of hand-made changes that are under way: whether policies may have them shows in the answer."""
        messages_under_way = [pending.message for pending in self.pending.values() if pending.ticket is not None]
        return {prefix for prefix in map(changed_prefix, messages_under_way) if prefix is not None}


class ServiceControl:
    """All nodes, and which `switches` are connected. `handle`, `lost`, `tick` and `requests.HandRequests` change what
    is known; `settle` brings the nodes in line with it. All return what to send, in order. `now` is in seconds of one
    monotonic clock.
    """

    def __init__(
        self,
        *,
        now: float,
        naming: Naming | None = None,
        policies: PolicyBook | None = None,
        grace: float = GRACE_SECONDS,
    ) -> None:
        self.directory = Directory()
        self.naming = naming or Naming()
        self.policies = policies or PolicyBook()
        self.relearning = Relearning(now, grace)
        self.books: dict[int, NodeBook] = {}
        self.unknown = UnknownBook()
        self._deciding = Deciding(self)
        self.loads = LoadBook(now)
        self.switches: list[int] = []
        self._known_hand_rules: dict[int, tuple[str, NodeRules]] = {}
        self._xid = 0x80000000

    def handle(self, datapath_id: int, xid: int, message: Message, now: float) -> list[Output]:
        """A message of a node; one that only controllers send is ignored."""
        if isinstance(message, NodeState):
            return self._state(datapath_id, xid, message, now)
        node = self.directory.nodes.get(datapath_id)
        if node is None:
            return []
        if isinstance(message, messages.Register):
            self._learn_name(message.binding.name)
            self.directory.register(datapath_id, message.binding)
            LOG.info("register %s @ %s", self.naming.describe(message.binding.prefix), node.name)
            return self._deciding.registered(message.binding.prefix, now)
        if isinstance(message, messages.Unregister):
            self._unregister(node, message.prefix)
        elif isinstance(message, DelayNotify):
            self.books[datapath_id].delayed[message.service] = message
            LOG.info("delayed %s @ %s", self.naming.describe(message.service), node.name)
            return self._deciding.delayed(datapath_id, message, now)
        elif isinstance(message, messages.RuleExpired):
            self._expired(datapath_id, node, message)
        elif isinstance(message, messages.Stats):
            return self._stats(node, message) + self._answered(datapath_id, xid, message, now)
        elif isinstance(message, ANSWERS):
            return self._answered(datapath_id, xid, message, now)
        return []

    def lost(self, datapath_id: int, now: float) -> list[Output]:
        """The channel to a node is gone: its registrations are withdrawn, what was asked of it has failed."""
        node = self.directory.node_lost(datapath_id)
        book = self.books.pop(datapath_id, None)
        if node is None or book is None:
            return []
        LOG.info("lost %s with %d services", node.name, len(node.bindings))
        for binding in node.bindings.values():
            self._forget_load(node, binding)
        self._known_hand_rules[datapath_id] = (node.boot, book.hand)
        self.relearning.node_lost(datapath_id, node.addresses)
        reason = f"the channel to {node.name} was lost before it answered"
        refused = [refuse(pending.ticket, reason) for pending in book.pending.values() if pending.ticket is not None]
        return refused + self._deciding.lost(datapath_id, now)

    def tick(self, now: float) -> list[Output]:
        """To be called a few times a second."""
        outputs: list[Output] = []
        for datapath_id, book in self.books.items():
            for xid in [xid for xid, pending in book.pending.items() if pending.deadline <= now]:
                outputs += self._unanswered(datapath_id, book.pending.pop(xid))
        outputs += self._deciding.tick(now)
        if self.loads.tick(now):
            outputs += [self.send(datapath_id, messages.StatsGet(), now) for datapath_id in self._load_sources()]
        return outputs

    def settle(self, now: float) -> list[Output]:
        """Send every node what it lacks, and remove what no longer holds."""
        outputs: list[Output] = []
        for datapath_id, wanted in self._desired().items():
            book = self.books[datapath_id]
            wanted = self.relearning.protect(datapath_id, wanted, now)
            by_hand = book.hand.keys() | book.hand_requests()
            for prefix, rule in wanted.items():
                if prefix not in by_hand and not rule.same_as(book.installed.get(prefix)):
                    refused = book.refused.get(prefix)
                    if refused is None or not rule.same_as(refused[0]):
                        outputs.append(self.send(datapath_id, messages.RuleSet(rule), now))
            for prefix in [prefix for prefix in book.installed if prefix not in wanted and prefix not in by_hand]:
                outputs.append(self.send(datapath_id, messages.RuleRemove(prefix), now))
        return outputs

    def send(self, datapath_id: int, message: ControllerMessage, now: float, ticket: object = None) -> Send:
        """Prepare a message, and remember what its answer will mean."""
        book = self.books[datapath_id]
        self._xid = 0x80000000 | (self._xid + 1) & 0x7FFFFFFF
        unanswered = isinstance(message, messages.Loads)
        if not unanswered and (ticket is not None or not isinstance(message, messages.StatsGet)):
            pending = Pending(message, now + ANSWER_SECONDS, ticket)
            if isinstance(message, messages.RuleSet):
                pending.previous = book.installed.pop(message.rule.prefix, None)
                book.refused.pop(message.rule.prefix, None)
                if message.rule.origin == "controller":
                    book.installed[message.rule.prefix] = message.rule
            elif isinstance(message, messages.RuleRemove):
                pending.previous = book.installed.pop(message.prefix, None)
            book.pending[self._xid] = pending
        return Send(datapath_id, self._xid, self._named(message))

    def wanted_at(self, datapath_id: int, prefix: Prefix) -> RuleSpec | None:
        """The policy's rule at a node, also where a hand-made one stands in its place."""
        return self._desired()[datapath_id].get(prefix)

    def _desired(self) -> dict[int, NodeRules]:
        return desired_rules(self.directory, self.policies, self.unknown, self.loads.held)

    def _named(self, message: ControllerMessage) -> ControllerMessage:
        """With the name that nodes cannot compute from a prefix, for their lists and refusals."""
        if isinstance(message, messages.RuleSet):
            name = self.naming.name_text(message.rule.prefix)
            return messages.RuleSet(replace(message.rule, name=name))
        if isinstance(message, messages.RuleRemove):
            return replace(message, name=self.naming.name_text(message.prefix))
        if isinstance(message, messages.DelayVerdict):
            return replace(message, name=self.naming.name_text(message.service))
        if isinstance(message, messages.Start):
            return replace(message, name=self.naming.name_text(message.prefix))
        return message

    def _learn_name(self, name: str) -> None:
        """Let lists show a name that a node tells; the naming rule confirms it, or the number stands for itself."""
        if name:
            try:
                self.naming.parse(name)
            except ValueError as error:
                LOG.warning("a node speaks of %r, which is no name here: %s", name, error)

    def _state(self, datapath_id: int, xid: int, state: NodeState, now: float) -> list[Output]:
        before = self.books.get(datapath_id)
        node = self.directory.node_state(datapath_id, state)
        names = [item.name for item in state.bindings] + [rule.name for rule in state.rules]
        for name in [*names, *(item.name for item in state.standbys)]:
            self._learn_name(name)
        from_controller = [rule for rule in state.rules if rule.origin == "controller"]
        book = NodeBook(
            installed={rule.prefix: rule for rule in from_controller},
            hand={rule.prefix: rule for rule in state.rules if rule.origin == "hand"},
            delayed={notice.service: notice for notice in state.delayed},
            pending=before.pending if before is not None else {},
        )
        self.books[datapath_id] = book
        if before is None:
            LOG.info("%s %s reports %d services, %d rules", node.role, node.name, len(node.bindings), len(state.rules))
            for rule in from_controller:
                if rule.decider:
                    self.unknown.found(rule.prefix, rule.decider)
                elif node.is_responsible_for(rule.prefix):
                    self.policies.found(rule)
            for notice in state.delayed:
                self._deciding.delayed_before(datapath_id, notice, now)
            self.relearning.node_reported(datapath_id, node.addresses, from_controller, now)
            return self._restore_hand_rules(node, book, now)
        # In flight since before this report was written: what they will have done counts, not what was before.
        for pending in book.pending.values():
            if isinstance(pending.message, messages.RuleSet) and pending.message.rule.origin == "controller":
                book.installed[pending.message.rule.prefix] = pending.message.rule
            elif isinstance(pending.message, messages.RuleRemove):
                book.installed.pop(pending.message.prefix, None)
        return []

    def _restore_hand_rules(self, node: Node, book: NodeBook, now: float) -> list[Output]:
        """A node whose daemon began anew has lost its hand-made rules; one that only reconnected knows best."""
        boot, rules = self._known_hand_rules.pop(node.datapath_id, (node.boot, {}))
        if boot == node.boot:
            return []
        missing = [rule for prefix, rule in rules.items() if prefix not in book.hand]
        book.hand.update({rule.prefix: rule for rule in missing})
        return [self.send(node.datapath_id, messages.RuleSet(rule), now) for rule in missing]

    def _unregister(self, node: Node, prefix: Prefix) -> None:
        binding = self.directory.unregister(node.datapath_id, prefix)
        if binding is not None:
            LOG.info("unregister %s @ %s", self.naming.describe(prefix), node.name)
            self._forget_load(node, binding)
            self.relearning.withdrawn(prefix, [binding.address] if binding.address else node.addresses)

    def _forget_load(self, node: Node, binding: messages.Binding) -> None:
        self.loads.forget(binding.prefix, binding.address or node.address or "")

    def _stats(self, node: Node, stats: messages.Stats) -> list[Output]:
        """Keep the figures, and pass them on to the routers that choose by them."""
        outputs: list[Output] = []
        for item in stats.services:
            binding = node.bindings.get(item.prefix)
            address = (binding.address or node.address) if binding is not None else None
            if address is None:
                continue
            self.loads.report(item.prefix, address, item.load)
            for datapath_id, book in self.books.items():
                rule = book.installed.get(item.prefix)
                if rule is not None and rule.selector == "two-choices" and address in rule.addresses:
                    message = messages.Loads(item.prefix, {address: item.load})
                    outputs.append(self.send(datapath_id, message, 0.0))
        return outputs

    def _load_sources(self) -> Iterable[int]:
        """Nodes that are instances of a service whose policy looks at loads."""
        for datapath_id, node in self.directory.nodes.items():
            if any(self.policies.policy(prefix).uses_loads for prefix in node.bindings):
                yield datapath_id

    def _expired(self, datapath_id: int, node: Node, message: messages.RuleExpired) -> None:
        """A rule ended by itself: of a policy, `settle` sends it anew if it is still wanted."""
        counted = f"{message.packets} packets, {message.dropped_packets} dropped"
        LOG.info("%s @ %s: %s time-out, %s", self.naming.describe(message.prefix), node.name, message.cause, counted)
        book = self.books[datapath_id]
        if message.origin == "hand":
            book.hand.pop(message.prefix, None)
        elif message.origin == "controller":
            book.installed.pop(message.prefix, None)
            self.unknown.resolved.get(datapath_id, set()).discard(message.prefix)

    def _answered(self, datapath_id: int, xid: int, message: AnswerMessage, now: float) -> list[Output]:
        book, node = self.books[datapath_id], self.directory.nodes[datapath_id]
        pending = book.pending.pop(xid, None)
        if pending is None:
            return []
        request = pending.message
        if isinstance(message, messages.Rules):
            return [Answer(pending.ticket, {"ok": True, "rules": self._listed(book, request, message.rules)})]
        if not isinstance(message, messages.Result):
            body = message.to_json()
            if isinstance(message, messages.Stats):
                named = zip(body["services"], message.services, strict=True)
                body["services"] = [{**row, "name": self.naming.describe(item.prefix)} for row, item in named]
            return [Answer(pending.ticket, {"ok": True, **body})]
        if not message.ok:
            self._refused(node, book, pending, message.reason)
            if isinstance(request, messages.Start):
                outputs = self._deciding.failed(request.prefix, message.reason, now)
                return outputs if pending.ticket is None else [*outputs, refuse(pending.ticket, message.reason)]
            if pending.ticket is None:
                return []
            return [refuse(pending.ticket, f"{node.name} refuses: {message.reason}")]
        if isinstance(request, messages.RuleSet) and request.rule.origin == "hand":
            book.hand[request.rule.prefix] = request.rule
        elif pending.ticket is not None and (prefix := changed_prefix(request)) is not None:
            book.hand.pop(prefix, None)
        outputs = []
        if pending.ticket is not None:
            removed = [rule.to_json() for rule in message.rules]
            outputs.append(Answer(pending.ticket, {"ok": True, **({"removed": removed} if removed else {})}))
        return outputs + self._release(datapath_id, book, request, now)

    def _refused(self, node: Node, book: NodeBook, pending: Pending, reason: str) -> None:
        request = pending.message
        if isinstance(request, messages.DelayVerdict):
            # Nothing waited, or it waits again, and the node tells of that anew.
            _forget_delayed(book, request.service)
            return
        prefix = changed_prefix(request)
        if prefix is None:
            return
        LOG.warning("%s refuses the rule for %s: %s", node.name, self.naming.describe(prefix), reason)
        book.installed.pop(prefix, None)
        # A refused removal means that nothing was there.
        if isinstance(request, messages.RuleSet):
            if pending.previous is not None:
                book.installed[prefix] = pending.previous
            if request.rule.origin == "controller":
                book.refused[prefix] = (request.rule, reason)
            elif pending.ticket is None:
                book.hand.pop(prefix, None)

    def _unanswered(self, datapath_id: int, pending: Pending) -> list[Output]:
        name = self.directory.nodes[datapath_id].name
        LOG.warning("%s does not answer %s", name, pending.message.TYPE.name)
        if pending.ticket is None:
            return []
        return [refuse(pending.ticket, f"{name} did not answer within {ANSWER_SECONDS:g} s")]

    def _release(self, datapath_id: int, book: NodeBook, request: ControllerMessage, now: float) -> list[Output]:
        """After a rule has changed, packets that were queued for want of it are resolved anew (S26)."""
        if isinstance(request, messages.DelayVerdict):
            _forget_delayed(book, request.service)
            return []
        changed = changed_prefix(request)
        if changed is None:
            return []
        if isinstance(request, messages.RuleSet) and any(t.action == "delay" for t in request.rule.targets):
            return []
        released = [
            service
            for service, notice in book.delayed.items()
            if changed.covers(service) and changed.bits >= notice.prefix.bits
        ]
        for service in released:
            del book.delayed[service]
        return [self.send(datapath_id, messages.DelayVerdict(service, "release"), now) for service in released]

    def _listed(self, book: NodeBook, request: ControllerMessage, rules: Sequence[RuleSpec]) -> list[dict[str, Any]]:
        for rule in rules:
            self._learn_name(rule.name)
        listed = [{**rule.to_json(), "name": self.naming.describe(rule.prefix)} for rule in rules]
        asked = request.service if isinstance(request, messages.RulesGet) else None
        for prefix, (rule, reason) in book.refused.items():
            if asked is not None and not prefix.covers(asked):
                continue
            listed.append({**rule.to_json(), "name": self.naming.describe(prefix), "refused": reason})
        return listed


def _forget_delayed(book: NodeBook, prefix: Prefix) -> None:
    for service in [service for service in book.delayed if prefix.covers(service)]:
        del book.delayed[service]


def changed_prefix(message: ControllerMessage) -> Prefix | None:
    """The prefix whose rule this message changes."""
    if isinstance(message, messages.RuleSet):
        return message.rule.prefix
    return message.prefix if isinstance(message, messages.RuleRemove) else None


def refuse(ticket: object, reason: str) -> Answer:
    """The answer that says no."""
    return Answer(ticket, {"ok": False, "error": reason})
