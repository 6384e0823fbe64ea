"""What nodes and their controller tell each other: values with a checked JSON form (bytes: `experimenter`).

Requests of the controller carry an xid, which the node's answer repeats. What asks without
changing rules is in `enquiries`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar

from serval_node.control.enquiries import (
    Capabilities,
    CapabilitiesSet,
    Flows,
    FlowsGet,
    Resolve,
    Resolved,
    RuleExpired,
    Standby,
    Start,
)
from serval_node.control.message_types import MessageType
from serval_node.control.rules import (
    MAX_NUMBER,
    MessageError,
    RuleSpec,
    as_object,
    get_address,
    get_expectation,
    get_flag,
    get_float,
    get_integer,
    get_list,
    get_prefix,
    get_text,
    to_address,
    to_prefix,
)
from serval_node.wire.serviceid import Prefix

MIGRATE_KINDS = ("flow", "interface", "service")
"""What an order to move names: one flow, all flows at an interface or address, all flows of a service."""

VERDICTS = ("release", "drop", "refuse")
"""On what waits under DELAY."""


def _with_name(body: dict[str, Any], name: str) -> dict[str, Any]:
    return {**body, "name": name} if name else body


@dataclass(frozen=True, slots=True)
class Binding:
    """A service that has at least one listener at a node (slide 27).

    prefix   80 bits for bind(name), 96 for bind(name, port), as in the node's DEMUX rule
    address  None: reachable at any of the node's addresses; else only at this one
    weight   what the instance asks for, usually its number of listeners
    name     the text that was bound, for lists; empty when it was bound by number
    """

    prefix: Prefix
    address: str | None = None
    weight: int = 1
    name: str = ""

    def to_json(self) -> dict[str, Any]:
        out: dict[str, Any] = {"prefix": str(self.prefix)}
        if self.address is not None:
            out["address"] = self.address
        if self.weight != 1:
            out["weight"] = self.weight
        if self.name:
            out["name"] = self.name
        return out

    @classmethod
    def from_json(cls, data: object) -> Binding:
        body = as_object(data, "binding")
        return cls(
            prefix=get_prefix(body, "prefix"),
            address=get_address(body, "address"),
            weight=get_integer(body, "weight", 1, 1, MAX_NUMBER),
            name=get_text(body, "name", ""),
        )


@dataclass(frozen=True, slots=True)
class DelayNotify:
    """A first packet for this service was queued by the DELAY rule of `prefix`; sent once until a verdict."""

    TYPE: ClassVar[MessageType] = MessageType.DELAY_NOTIFY
    service: Prefix
    prefix: Prefix

    def to_json(self) -> dict[str, Any]:
        return {"service": str(self.service), "prefix": str(self.prefix)}

    @classmethod
    def from_json(cls, data: object) -> DelayNotify:
        body = as_object(data, "delay notice")
        return cls(get_prefix(body, "service"), get_prefix(body, "prefix"))


@dataclass(frozen=True, slots=True)
class NodeState:
    """Everything that a node has to say; sent at every connect, on STATE_GET, and when hand rules change locally.

    boot       random text, the same as long as the daemon lives: a new one means that its tables began empty
    addresses  IPv4 addresses other than loopback and sal0, the one to register services with first
    serves     prefixes whose SYNs this service router answers for; empty at hosts
    rules      the rules that the controller set and the hand-made ones, by origin; local listeners are `bindings`
    delayed    services with packets in the DELAY queue
    standbys   services that a program of this host would serve if it were started
    """

    TYPE: ClassVar[MessageType] = MessageType.NODE_STATE
    name: str
    role: str
    boot: str
    addresses: tuple[str, ...]
    serves: tuple[Prefix, ...] = ()
    bindings: tuple[Binding, ...] = ()
    rules: tuple[RuleSpec, ...] = ()
    delayed: tuple[DelayNotify, ...] = ()
    standbys: tuple[Standby, ...] = ()

    def to_json(self) -> dict[str, Any]:
        return {
            "name": self.name,
            "role": self.role,
            "boot": self.boot,
            "addresses": list(self.addresses),
            "serves": [str(prefix) for prefix in self.serves],
            "bindings": [binding.to_json() for binding in self.bindings],
            "rules": [rule.to_json() for rule in self.rules],
            "delayed": [notice.to_json() for notice in self.delayed],
            "standbys": [standby.to_json() for standby in self.standbys],
        }

    @classmethod
    def from_json(cls, body: Mapping[str, Any]) -> NodeState:
        role = get_text(body, "role")
        if role not in ("host", "router"):
            raise MessageError(f"'role' must be host or router, not {role!r}")
        return cls(
            name=get_text(body, "name"),
            role=role,
            boot=get_text(body, "boot"),
            addresses=tuple(to_address(item, "addresses") for item in get_list(body, "addresses")),
            serves=tuple(to_prefix(item, "serves") for item in get_list(body, "serves", ())),
            bindings=tuple(Binding.from_json(item) for item in get_list(body, "bindings", ())),
            rules=tuple(RuleSpec.from_json(item) for item in get_list(body, "rules", ())),
            delayed=tuple(DelayNotify.from_json(item) for item in get_list(body, "delayed", ())),
            standbys=tuple(Standby.from_json(item) for item in get_list(body, "standbys", ())),
        )


@dataclass(frozen=True, slots=True)
class Register:
    """A service got its first listener, or its address or weight changed (slide 27: "Register X @addr")."""

    TYPE: ClassVar[MessageType] = MessageType.REGISTER
    binding: Binding

    def to_json(self) -> dict[str, Any]:
        return self.binding.to_json()

    @classmethod
    def from_json(cls, body: Mapping[str, Any]) -> Register:
        return cls(Binding.from_json(body))


@dataclass(frozen=True, slots=True)
class Unregister:
    """The last listener of the service is gone (slide 28)."""

    TYPE: ClassVar[MessageType] = MessageType.UNREGISTER
    prefix: Prefix

    def to_json(self) -> dict[str, Any]:
        return {"prefix": str(self.prefix)}

    @classmethod
    def from_json(cls, body: Mapping[str, Any]) -> Unregister:
        return cls(get_prefix(body, "prefix"))


@dataclass(frozen=True, slots=True)
class FlowEvent:
    """A flow came, moved or went. event: "opened", "moved" (this end of it), "closed" or "reset"; flow ids as in the
    node's flow table, `peer` the other end's address.
    """

    TYPE: ClassVar[MessageType] = MessageType.FLOW_EVENT
    event: str
    service: Prefix
    local_flow: int
    peer_flow: int = 0
    peer: str | None = None
    incoming: bool = False

    def to_json(self) -> dict[str, Any]:
        return {
            "event": self.event,
            "service": str(self.service),
            "local_flow": self.local_flow,
            "peer_flow": self.peer_flow,
            "peer": self.peer,
            "incoming": self.incoming,
        }

    @classmethod
    def from_json(cls, body: Mapping[str, Any]) -> FlowEvent:
        return cls(
            event=get_text(body, "event"),
            service=get_prefix(body, "service"),
            local_flow=get_integer(body, "local_flow"),
            peer_flow=get_integer(body, "peer_flow", 0),
            peer=get_address(body, "peer"),
            incoming=get_flag(body, "incoming", False),
        )


@dataclass(frozen=True, slots=True)
class ServiceLoad:
    """How busy a node is with one of its bindings: flows open now, flows accepted since the daemon's start.

    figure   what the instance says of itself, in any unit, in the place of its open flows; None: it says nothing
    """

    prefix: Prefix
    flows: int
    accepted: int = 0
    figure: float | None = None

    @property
    def load(self) -> float:
        """What policies compare; lower is better."""
        return float(self.flows) if self.figure is None else self.figure

    def to_json(self) -> dict[str, Any]:
        body = {"prefix": str(self.prefix), "flows": self.flows, "accepted": self.accepted}
        return body if self.figure is None else {**body, "figure": self.figure}

    @classmethod
    def from_json(cls, data: object) -> ServiceLoad:
        body = as_object(data, "service")
        figure = None if body.get("figure") is None else get_float(body, "figure")
        return cls(get_prefix(body, "prefix"), get_integer(body, "flows"), get_integer(body, "accepted", 0), figure)


@dataclass(frozen=True, slots=True)
class Stats:
    """Load per binding, and the node's counters by name: the answer to STATS_GET, and without being asked for when an
    instance has given a figure.
    """

    TYPE: ClassVar[MessageType] = MessageType.STATS
    services: tuple[ServiceLoad, ...] = ()
    counters: Mapping[str, int] | None = None

    def to_json(self) -> dict[str, Any]:
        return {"services": [item.to_json() for item in self.services], "counters": dict(self.counters or {})}

    @classmethod
    def from_json(cls, body: Mapping[str, Any]) -> Stats:
        counters = as_object(body.get("counters", {}), "set of counters")
        return cls(
            services=tuple(ServiceLoad.from_json(item) for item in get_list(body, "services", ())),
            counters={str(key): get_integer(counters, key) for key in counters},
        )


@dataclass(frozen=True, slots=True)
class Result:
    """Whether the request with the same xid was carried out; when not, why. `rules`: what a removal took away, with its
    last counters.
    """

    TYPE: ClassVar[MessageType] = MessageType.RESULT
    ok: bool
    reason: str = ""
    rules: tuple[RuleSpec, ...] = ()

    def to_json(self) -> dict[str, Any]:
        body: dict[str, Any] = {"ok": self.ok, "reason": self.reason}
        if self.rules:
            body["rules"] = [rule.to_json() for rule in self.rules]
        return body

    @classmethod
    def from_json(cls, body: Mapping[str, Any]) -> Result:
        rules = tuple(RuleSpec.from_json(item) for item in get_list(body, "rules", ()))
        return cls(get_flag(body, "ok"), get_text(body, "reason", ""), rules)


@dataclass(frozen=True, slots=True)
class Rules:
    """Answer to RULES_GET: one rule per prefix and origin, counters filled in."""

    TYPE: ClassVar[MessageType] = MessageType.RULES
    rules: tuple[RuleSpec, ...]

    def to_json(self) -> dict[str, Any]:
        return {"rules": [rule.to_json() for rule in self.rules]}

    @classmethod
    def from_json(cls, body: Mapping[str, Any]) -> Rules:
        return cls(tuple(RuleSpec.from_json(item) for item in get_list(body, "rules")))


@dataclass(frozen=True, slots=True)
class StateGet:
    """Send NODE_STATE (again)."""

    TYPE: ClassVar[MessageType] = MessageType.STATE_GET

    def to_json(self) -> dict[str, Any]:
        return {}

    @classmethod
    def from_json(cls, body: Mapping[str, Any]) -> StateGet:
        return cls()


@dataclass(frozen=True, slots=True)
class RuleSet:
    """Add the rule, or put it in place of whatever else the controller or a hand set for its prefix.

    The targets of local listeners stay as they are; a target that stays keeps its counters. `expect`: refuse it where
    such a rule is "present" already (to add) or "absent" (to change); empty: either. Answered by RESULT.
    """

    TYPE: ClassVar[MessageType] = MessageType.RULE_SET
    rule: RuleSpec
    expect: str = ""

    def to_json(self) -> dict[str, Any]:
        body = self.rule.to_json()
        return {**body, "expect": self.expect} if self.expect else body

    @classmethod
    def from_json(cls, body: Mapping[str, Any]) -> RuleSet:
        return cls(RuleSpec.from_json(body), get_expectation(body))


@dataclass(frozen=True, slots=True)
class RuleRemove:
    """Remove what the controller or a hand set for the prefix; refused when there is nothing. Answered by RESULT.

    name: the prefix as text, for the node's refusal; empty when it is not known.
    """

    TYPE: ClassVar[MessageType] = MessageType.RULE_REMOVE
    prefix: Prefix
    name: str = field(default="", compare=False)

    def to_json(self) -> dict[str, Any]:
        return _with_name({"prefix": str(self.prefix)}, self.name)

    @classmethod
    def from_json(cls, body: Mapping[str, Any]) -> RuleRemove:
        return cls(get_prefix(body, "prefix"), get_text(body, "name", ""))


@dataclass(frozen=True, slots=True)
class RulesGet:
    """Send RULES: the whole service table, or what a SYN for `service` could meet, longest prefix first."""

    TYPE: ClassVar[MessageType] = MessageType.RULES_GET
    service: Prefix | None = None

    def to_json(self) -> dict[str, Any]:
        return {} if self.service is None else {"service": str(self.service)}

    @classmethod
    def from_json(cls, body: Mapping[str, Any]) -> RulesGet:
        return cls(get_prefix(body, "service") if "service" in body else None)


@dataclass(frozen=True, slots=True)
class Loads:
    """New load figures (address -> figure) for the targets of one rule; each starts the count of SYNs anew.

    Not answered: the next figures come soon.
    """

    TYPE: ClassVar[MessageType] = MessageType.LOADS
    prefix: Prefix
    loads: Mapping[str, float]

    def to_json(self) -> dict[str, Any]:
        return {"prefix": str(self.prefix), "loads": dict(self.loads)}

    @classmethod
    def from_json(cls, body: Mapping[str, Any]) -> Loads:
        loads = as_object(body.get("loads"), "set of loads")
        return cls(get_prefix(body, "prefix"), {to_address(key, "loads"): get_float(loads, key) for key in loads})


@dataclass(frozen=True, slots=True)
class DelayVerdict:
    """What becomes of the queued packets of all services that `service` covers: "release" resolves them anew, "drop"
    throws them away, "refuse" lets their connects fail at once. Answered by RESULT, which refuses when nothing is
    queued, and when what was released is queued again by a DELAY rule. `name`: as in RULE_REMOVE.
    """

    TYPE: ClassVar[MessageType] = MessageType.DELAY_VERDICT
    service: Prefix
    verdict: str
    name: str = field(default="", compare=False)

    def to_json(self) -> dict[str, Any]:
        return _with_name({"service": str(self.service), "verdict": self.verdict}, self.name)

    @classmethod
    def from_json(cls, body: Mapping[str, Any]) -> DelayVerdict:
        verdict = get_text(body, "verdict")
        if verdict not in VERDICTS:
            raise MessageError(f"'verdict' must be one of {', '.join(VERDICTS)}, not {verdict!r}")
        return cls(get_prefix(body, "service"), verdict, get_text(body, "name", ""))


@dataclass(frozen=True, slots=True)
class StatsGet:
    """Send STATS."""

    TYPE: ClassVar[MessageType] = MessageType.STATS_GET

    def to_json(self) -> dict[str, Any]:
        return {}

    @classmethod
    def from_json(cls, body: Mapping[str, Any]) -> StatsGet:
        return cls()


@dataclass(frozen=True, slots=True)
class Migrate:
    """Move flows to ``to``, an interface or address of the node (slide 40). ``kind``: "flow" (``which`` is its local
    flowID in decimal), "interface" (all at an interface or address) or "service". Answered by FLOWS, those
    whose RSYNs are on their way; FLOW_EVENT tells of each flow that has moved.
    """

    TYPE: ClassVar[MessageType] = MessageType.MIGRATE
    kind: str
    which: str
    to: str

    def to_json(self) -> dict[str, Any]:
        return {"kind": self.kind, "which": self.which, "to": self.to}

    @classmethod
    def from_json(cls, body: Mapping[str, Any]) -> Migrate:
        kind = get_text(body, "kind")
        if kind not in MIGRATE_KINDS:
            raise MessageError(f"'kind' must be one of {', '.join(MIGRATE_KINDS)}, not {kind!r}")
        return cls(kind, get_text(body, "which"), get_text(body, "to"))


NodeMessage = (
    NodeState
    | Register
    | Unregister
    | DelayNotify
    | FlowEvent
    | Stats
    | Result
    | Rules
    | Resolved
    | Capabilities
    | Flows
    | RuleExpired
)
ControllerMessage = (
    StateGet
    | RuleSet
    | RuleRemove
    | RulesGet
    | Loads
    | DelayVerdict
    | StatsGet
    | Migrate
    | Resolve
    | CapabilitiesSet
    | FlowsGet
    | Start
)
Message = NodeMessage | ControllerMessage
