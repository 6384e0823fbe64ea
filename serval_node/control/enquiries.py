"""Messages by which the controller asks a node what it would do, has and can do, and starts what waits to be started.

As `messages`, which joins all of them: values with a checked JSON form.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar

from serval_node.control.message_types import MessageType
from serval_node.control.rules import (
    MAX_COUNTER,
    RESOLUTION_MODES,
    MessageError,
    RuleSpec,
    as_object,
    get_address,
    get_flag,
    get_float,
    get_integer,
    get_list,
    get_prefix,
    get_text,
)
from serval_node.wire.serviceid import Prefix

_LARGEST_FLOW = 0xFFFFFFFF


@dataclass(frozen=True, slots=True)
class Resolve:
    """What would a SYN of a program of the node's host meet now? Answered by RESOLVED; nothing is sent or counted."""

    TYPE: ClassVar[MessageType] = MessageType.RESOLVE
    service: Prefix

    def to_json(self) -> dict[str, Any]:
        return {"service": str(self.service)}

    @classmethod
    def from_json(cls, body: Mapping[str, Any]) -> Resolve:
        return cls(get_prefix(body, "service"))


@dataclass(frozen=True, slots=True)
class Resolved:
    """Answer to RESOLVE: the rule that decides, with the targets that can be chosen and the selector that chooses.

    refusal  why a SYN would come to nothing, as the node counts it; empty when it would not
    """

    TYPE: ClassVar[MessageType] = MessageType.RESOLVED
    rule: RuleSpec | None = None
    refusal: str = ""

    def to_json(self) -> dict[str, Any]:
        return {"rule": None if self.rule is None else self.rule.to_json(), "refusal": self.refusal}

    @classmethod
    def from_json(cls, body: Mapping[str, Any]) -> Resolved:
        rule = body.get("rule")
        return cls(None if rule is None else RuleSpec.from_json(rule), get_text(body, "refusal", ""))


@dataclass(frozen=True, slots=True)
class Capabilities:
    """Answer to CAPABILITIES_SET: what the node can do.

    forwarding    it is a service router (the original's one capability, "transit")
    mode          its resolution mode
    delay_limits  packets that may wait under DELAY: in all, for a service, from a sender
    """

    TYPE: ClassVar[MessageType] = MessageType.CAPABILITIES
    forwarding: bool
    mode: str
    delay_limits: tuple[int, int, int] = (0, 0, 0)

    def to_json(self) -> dict[str, Any]:
        return {"forwarding": self.forwarding, "mode": self.mode, "delay_limits": list(self.delay_limits)}

    @classmethod
    def from_json(cls, body: Mapping[str, Any]) -> Capabilities:
        limits = get_list(body, "delay_limits", (0, 0, 0))
        if len(limits) != 3:
            raise MessageError(f"'delay_limits' must be three numbers, not {limits!r}")
        total, service, source = (get_integer({"delay_limits": item}, "delay_limits") for item in limits)
        return cls(get_flag(body, "forwarding"), get_mode(body, "mode"), (total, service, source))


@dataclass(frozen=True, slots=True)
class CapabilitiesSet:
    """Switch what is not None; answered by CAPABILITIES as they are then."""

    TYPE: ClassVar[MessageType] = MessageType.CAPABILITIES_SET
    forwarding: bool | None = None
    mode: str | None = None

    def to_json(self) -> dict[str, Any]:
        given = {"forwarding": self.forwarding, "mode": self.mode}
        return {key: value for key, value in given.items() if value is not None}

    @classmethod
    def from_json(cls, body: Mapping[str, Any]) -> CapabilitiesSet:
        return cls(
            get_flag(body, "forwarding") if "forwarding" in body else None,
            get_mode(body, "mode") if "mode" in body else None,
        )


@dataclass(frozen=True, slots=True)
class FlowsGet:
    """Send FLOWS: those with these local flowIDs, without any all."""

    TYPE: ClassVar[MessageType] = MessageType.FLOWS_GET
    flows: tuple[int, ...] = ()

    def to_json(self) -> dict[str, Any]:
        return {"flows": list(self.flows)}

    @classmethod
    def from_json(cls, body: Mapping[str, Any]) -> FlowsGet:
        return cls(tuple(get_flow_ids(body, "flows")))


@dataclass(frozen=True, slots=True)
class FlowStat:
    """One flow of a node. Packets and bytes are those of the fast path; addresses are the flow's location now, and
    where a move under way leads.
    """

    flow_id: int
    service: str
    state: str
    incoming: bool
    peer_flow: int = 0
    local: str | None = None
    peer: str | None = None
    packets_out: int = 0
    bytes_out: int = 0
    packets_in: int = 0
    bytes_in: int = 0
    moving_to: str | None = None

    def to_json(self) -> dict[str, Any]:
        return {name: getattr(self, name) for name in self.__slots__}

    @classmethod
    def from_json(cls, data: object) -> FlowStat:
        body = as_object(data, "flow")
        return cls(
            flow_id=get_integer(body, "flow_id", high=_LARGEST_FLOW),
            service=get_text(body, "service", ""),
            state=get_text(body, "state"),
            incoming=get_flag(body, "incoming", False),
            peer_flow=get_integer(body, "peer_flow", 0, high=_LARGEST_FLOW),
            local=get_address(body, "local"),
            peer=get_address(body, "peer"),
            moving_to=get_address(body, "moving_to"),
            **{name: get_integer(body, name, 0) for name in ("packets_out", "bytes_out", "packets_in", "bytes_in")},
        )


@dataclass(frozen=True, slots=True)
class Flows:
    """Answer to FLOWS_GET, in which a flowID that is not there is left out; and to MIGRATE: those that are moving."""

    TYPE: ClassVar[MessageType] = MessageType.FLOWS
    flows: tuple[FlowStat, ...]

    def to_json(self) -> dict[str, Any]:
        return {"flows": [flow.to_json() for flow in self.flows]}

    @classmethod
    def from_json(cls, body: Mapping[str, Any]) -> Flows:
        return cls(tuple(FlowStat.from_json(item) for item in get_list(body, "flows")))


@dataclass(frozen=True, slots=True)
class RuleExpired:
    """A rule ended by its "idle" or "hard" time-out after `seconds`, with these counters."""

    TYPE: ClassVar[MessageType] = MessageType.RULE_EXPIRED
    prefix: Prefix
    origin: str
    cause: str
    seconds: float
    packets: int = 0
    bytes: int = 0
    dropped_packets: int = 0
    dropped_bytes: int = 0

    def to_json(self) -> dict[str, Any]:
        return {**{name: getattr(self, name) for name in self.__slots__}, "prefix": str(self.prefix)}

    @classmethod
    def from_json(cls, body: Mapping[str, Any]) -> RuleExpired:
        return cls(
            get_prefix(body, "prefix"),
            get_text(body, "origin"),
            get_text(body, "cause"),
            get_float(body, "seconds"),
            **{name: get_integer(body, name, 0, 0, MAX_COUNTER) for name in _COUNTERS},
        )


_COUNTERS = ("packets", "bytes", "dropped_packets", "dropped_bytes")


@dataclass(frozen=True, slots=True)
class Standby:
    """A service that a program of a host would serve if it were started: the host's own user has offered it.

    started  it was asked to start, and has not ended since
    """

    prefix: Prefix
    name: str = ""
    started: bool = False

    def to_json(self) -> dict[str, Any]:
        return {"prefix": str(self.prefix), "name": self.name, "started": self.started}

    @classmethod
    def from_json(cls, data: object) -> Standby:
        body = as_object(data, "standby")
        return cls(get_prefix(body, "prefix"), get_text(body, "name", ""), get_flag(body, "started", False))


@dataclass(frozen=True, slots=True)
class Start:
    """Start the program that was offered for this prefix. Answered by RESULT, as soon as the program has been told;
    REGISTER follows when it listens. `name`: as in RULE_REMOVE.
    """

    TYPE: ClassVar[MessageType] = MessageType.START
    prefix: Prefix
    name: str = field(default="", compare=False)

    def to_json(self) -> dict[str, Any]:
        return {"prefix": str(self.prefix), "name": self.name}

    @classmethod
    def from_json(cls, body: Mapping[str, Any]) -> Start:
        return cls(get_prefix(body, "prefix"), get_text(body, "name", ""))


def get_mode(body: Mapping[str, Any], key: str) -> str:
    mode = get_text(body, key)
    if mode not in RESOLUTION_MODES:
        raise MessageError(f"{key!r} must be one of {', '.join(RESOLUTION_MODES)}, not {mode!r}")
    return mode


def get_flow_ids(body: Mapping[str, Any], key: str) -> list[int]:
    """A list of local flowIDs; missing: an empty one."""
    return [get_integer({key: item}, key, high=_LARGEST_FLOW) for item in get_list(body, key, ())]
