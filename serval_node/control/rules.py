"""Rules and targets as they are spoken about between processes: values with a checked JSON form.

    {"prefix": "0x9c1185d7/80", "selector": "round-robin", "origin": "controller",
     "targets": [{"action": "forward", "address": "10.2.1.1", "priority": 1, "weight": 2, "load": 0.5}]}

The service table itself (`serval_node.sal`) has classes of its own; the daemon translates.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from ipaddress import AddressValueError, IPv4Address
from typing import Any

from serval_node.wire.serviceid import Prefix

ACTIONS = ("forward", "demux", "delay", "drop")
SELECTORS = ("weighted-random", "round-robin", "two-choices", "maglev", "ring", "all")
DEFAULT_SELECTOR = SELECTORS[0]
_OLD_SELECTORS = {"hash": "maglev"}
RESOLUTION_MODES = ("all", "demux-only", "forward-only", "anycast")
"""Resolution modes, in the order of the original's numbers."""
EXPECTATIONS = ("", "absent", "present")
MAX_TIMEOUT = float((1 << 32) - 1)
ORIGINS = ("local", "controller", "hand", "adhoc", "router")
PROTOCOLS = {"tcp": 6, "udp": 17}
PROTOCOL_NAMES = {number: name for name, number in PROTOCOLS.items()}
MAX_NUMBER = (1 << 32) - 1
MAX_COUNTER = (1 << 64) - 1


class MessageError(ValueError):
    """A message or rule that does not mean anything; one line that names the field."""


@dataclass(frozen=True, slots=True)
class TargetSpec:
    """One target of a rule.

    address         forward: the next hop's IPv4 address, dotted
    port            demux: the local listening port
    protocol        demux: "tcp" or "udp"
    listen_address  demux: the listener's address; None stands for any
    priority        only the targets with the highest number are ever chosen
    weight          share among those, 1 or more
    load            figure that the two-choices selector compares (any unit, lower is better)

    The counters (packets and bytes resolved to this target, dropped by it) are filled in by whoever reports rules.
    Neither they nor `load` count when rules are compared: they change by themselves.
    """

    action: str
    address: str | None = None
    port: int | None = None
    protocol: str = "tcp"
    listen_address: str | None = None
    priority: int = 1
    weight: int = 1
    load: float = field(default=0.0, compare=False)
    packets: int = field(default=0, compare=False)
    bytes: int = field(default=0, compare=False)
    dropped_packets: int = field(default=0, compare=False)
    dropped_bytes: int = field(default=0, compare=False)

    def __post_init__(self) -> None:
        if self.action not in ACTIONS:
            raise MessageError(f"action {self.action!r} is none of {', '.join(ACTIONS)}")
        if (self.address is not None) != (self.action == "forward"):
            raise MessageError(f"{self.action}: " + ("an address is missing" if self.address is None else "no address"))
        if (self.port is not None) != (self.action == "demux"):
            raise MessageError(f"{self.action}: " + ("a port is missing" if self.port is None else "takes no port"))
        if self.protocol not in PROTOCOLS:
            raise MessageError(f"protocol {self.protocol!r} is none of {', '.join(PROTOCOLS)}")

    def to_json(self) -> dict[str, Any]:
        """Only what differs from the defaults, so that long lists stay short."""
        out: dict[str, Any] = {"action": self.action}
        for name, default in _TARGET_DEFAULTS.items():
            value = getattr(self, name)
            if value != default:
                out[name] = value
        return out

    @classmethod
    def from_json(cls, data: object) -> TargetSpec:
        """Raises MessageError; unknown keys are ignored, so that later versions can add some."""
        body = as_object(data, "target")
        return cls(
            action=get_text(body, "action"),
            address=get_address(body, "address"),
            port=get_number(body, "port", None, 1, 65535),
            protocol=get_text(body, "protocol", "tcp"),
            listen_address=get_address(body, "listen_address"),
            priority=get_integer(body, "priority", 1, 0, MAX_NUMBER),
            weight=get_integer(body, "weight", 1, 1, MAX_NUMBER),
            load=get_float(body, "load", 0.0),
            **{name: get_integer(body, name, 0, 0, MAX_COUNTER) for name in _COUNTERS},
        )

    def __str__(self) -> str:
        where = self.address or (str(self.port) if self.port else "")
        return f"{self.action} {where}".strip()


_COUNTERS = ("packets", "bytes", "dropped_packets", "dropped_bytes")
_TARGET_DEFAULTS: dict[str, object] = {
    "address": None,
    "port": None,
    "protocol": "tcp",
    "listen_address": None,
    "priority": 1,
    "weight": 1,
    "load": 0.0,
    **dict.fromkeys(_COUNTERS, 0),
}


@dataclass(frozen=True, slots=True)
class RuleSpec:
    """What one origin wants for one prefix.

    prefix    serviceIDs that the rule is for; the longest match wins at a node
    targets   the order is kept; DELAY and DROP stand alone
    selector  how one of several targets is chosen per SYN
    origin    "local" (a listener of the node), "controller" (a policy) or "hand"; of the default rule also "adhoc"
              (broadcast) and "router" (a service router that the node found)
    name      the prefix as text, for lists (a serviceID does not give its name away); empty when it is not known
    idle_timeout    seconds without a packet after which the node removes the rule; 0: never
    hard_timeout    seconds after which it removes it anyway; 0: never
    decider         what decides about packets that wait here under DELAY; a node only keeps it, as policy_weights
    policy          which policy made the rule, as an operator named it; policy_weights: node name -> weight, in
              pairs: what an operator gave it. The targets have all of it already; a node only keeps it, so that a
              restarted controller goes on, and can tell weights from what the instances ask for

    Rules are equal when they mean the same: names, load figures and counters do not count.
    """

    prefix: Prefix
    targets: tuple[TargetSpec, ...]
    selector: str = DEFAULT_SELECTOR
    origin: str = "controller"
    name: str = field(default="", compare=False)
    policy_weights: tuple[tuple[str, int], ...] = ()
    idle_timeout: float = 0.0
    hard_timeout: float = 0.0
    decider: str = ""
    policy: str = ""

    def __post_init__(self) -> None:
        for seconds in (self.idle_timeout, self.hard_timeout):
            if not 0.0 <= seconds <= MAX_TIMEOUT:
                raise MessageError(f"a time-out is from 0 (none) to {MAX_TIMEOUT:g} seconds, not {seconds:g}")
        object.__setattr__(self, "selector", selector_name(self.selector))
        if self.selector not in SELECTORS:
            raise MessageError(f"selector {self.selector!r} is none of {', '.join(SELECTORS)}")
        if self.origin not in ORIGINS:
            raise MessageError(f"origin {self.origin!r} is none of {', '.join(ORIGINS)}")
        alone = [target.action for target in self.targets if target.action in ("delay", "drop")]
        if alone and len(self.targets) > 1:
            raise MessageError(f"{alone[0]} must be the only target of its rule")

    @property
    def addresses(self) -> tuple[str, ...]:
        """The addresses of the FORWARD targets."""
        return tuple(target.address for target in self.targets if target.address is not None)

    def same_as(self, other: RuleSpec | None) -> bool:
        """Whether both do the same; the order of targets does not count."""
        return other is not None and self._meaning() == other._meaning()

    def _meaning(self) -> tuple[object, ...]:
        lifetime = self.idle_timeout, self.hard_timeout
        kept = self.policy, self.policy_weights, self.decider
        return self.prefix, self.selector, set(self.targets), lifetime, kept

    def to_json(self) -> dict[str, Any]:
        out: dict[str, Any] = {
            "prefix": str(self.prefix),
            "targets": [target.to_json() for target in self.targets],
            "selector": self.selector,
            "origin": self.origin,
        }
        if self.name:
            out["name"] = self.name
        if self.policy_weights:
            out["policy_weights"] = dict(self.policy_weights)
        for key, value in (
            ("policy", self.policy),
            ("idle_timeout", self.idle_timeout),
            ("hard_timeout", self.hard_timeout),
            ("decider", self.decider),
        ):
            if value:
                out[key] = value
        return out

    @classmethod
    def from_json(cls, data: object) -> RuleSpec:
        """Raises MessageError."""
        body = as_object(data, "rule")
        weights = as_object(body.get("policy_weights", {}), "set of weights")
        return cls(
            prefix=get_prefix(body, "prefix"),
            targets=tuple(TargetSpec.from_json(item) for item in get_list(body, "targets")),
            selector=get_text(body, "selector", DEFAULT_SELECTOR),
            origin=get_text(body, "origin", "controller"),
            name=get_text(body, "name", ""),
            policy=get_text(body, "policy", ""),
            policy_weights=tuple(
                sorted((str(node), get_integer(weights, node, low=1, high=MAX_NUMBER)) for node in weights)
            ),
            idle_timeout=get_float(body, "idle_timeout", 0.0),
            hard_timeout=get_float(body, "hard_timeout", 0.0),
            decider=get_text(body, "decider", ""),
        )

    def __str__(self) -> str:
        return f"{self.prefix} -> {', '.join(map(str, self.targets)) or 'nothing'} ({self.selector})"


def selector_name(text: str) -> str:
    """The selector's name of today; other texts as they are."""
    return _OLD_SELECTORS.get(text, text)


def forward(address: str, *, weight: int = 1, priority: int = 1, load: float = 0.0) -> TargetSpec:
    """A FORWARD target."""
    return TargetSpec("forward", address=address, weight=weight, priority=priority, load=load)


_TARGET = re.compile(r"([^*@]+)(?:\*(\d+))?(?:@(\d+))?\Z")


def target_parts(text: str) -> tuple[str, int, int]:
    """Address or name, weight and priority of a FORWARD target as people write it: ADDRESS[*WEIGHT][@PRIORITY].

    Raises MessageError.
    """
    match = _TARGET.match(text)
    if match is None:
        raise MessageError(f"{text!r} is no target; write ADDRESS[*WEIGHT][@PRIORITY]")
    where, weight, priority = match.group(1), int(match.group(2) or 1), int(match.group(3) or 1)
    if not 1 <= weight <= MAX_NUMBER or priority > MAX_NUMBER:
        raise MessageError(f"{text!r}: weights are numbers from 1, priorities from 0, to {MAX_NUMBER}")
    return where, weight, priority


def as_object(data: object, what: str) -> Mapping[str, Any]:
    if not isinstance(data, dict):
        raise MessageError(f"a {what} must be a JSON object")
    return data


_MISSING: Any = object()


def _get(body: Mapping[str, Any], key: str, default: Any) -> Any:
    value = body.get(key, default)
    if value is _MISSING:
        raise MessageError(f"{key!r} is missing")
    return value


def get_text(body: Mapping[str, Any], key: str, default: Any = _MISSING) -> str:
    value = _get(body, key, default)
    if not isinstance(value, str):
        raise MessageError(f"{key!r} must be text, not {value!r}")
    return value


def get_number(body: Mapping[str, Any], key: str, default: Any, low: int, high: int) -> int | None:
    """A whole number in low..high, or None where the default is None and the key is missing or null."""
    value = _get(body, key, default)
    if value is None and default is None:
        return None
    if not isinstance(value, int) or isinstance(value, bool) or not low <= value <= high:
        raise MessageError(f"{key!r} must be a number from {low} to {high}, not {value!r}")
    return value


def get_integer(
    body: Mapping[str, Any], key: str, default: Any = _MISSING, low: int = 0, high: int = MAX_COUNTER
) -> int:
    value = get_number(body, key, default, low, high)
    assert value is not None
    return value


def get_float(body: Mapping[str, Any], key: str, default: Any = _MISSING) -> float:
    value = _get(body, key, default)
    # NaN and infinities are JSON to Python, but no load that can be compared.
    if not isinstance(value, (int, float)) or isinstance(value, bool) or not abs(value) < 1e300:
        raise MessageError(f"{key!r} must be a number, not {value!r}")
    return float(value)


def get_flag(body: Mapping[str, Any], key: str, default: Any = _MISSING) -> bool:
    value = _get(body, key, default)
    if not isinstance(value, bool):
        raise MessageError(f"{key!r} must be true or false, not {value!r}")
    return value


def get_expectation(body: Mapping[str, Any]) -> str:
    """What a change of a rule expects to find at its prefix."""
    expect = get_text(body, "expect", "")
    if expect not in EXPECTATIONS:
        raise MessageError(f"'expect' must be absent or present, not {expect!r}")
    return expect


def get_list(body: Mapping[str, Any], key: str, default: Any = _MISSING) -> list[Any]:
    value = _get(body, key, default)
    if not isinstance(value, (list, tuple)):
        raise MessageError(f"{key!r} must be a list")
    return list(value)


def get_prefix(body: Mapping[str, Any], key: str) -> Prefix:
    return to_prefix(_get(body, key, _MISSING), key)


def to_prefix(value: object, key: str) -> Prefix:
    try:
        return Prefix.from_text(value if isinstance(value, str) else "")
    except ValueError as error:
        raise MessageError(f"{key!r} must be a prefix like 0x9c1185/24: {error}") from None


def get_address(body: Mapping[str, Any], key: str) -> str | None:
    """Dotted IPv4 text in its one usual spelling, or None when missing or null."""
    value = body.get(key)
    return None if value is None else to_address(value, key)


def to_address(value: object, key: str) -> str:
    try:
        return str(IPv4Address(value if isinstance(value, str) else ""))
    except AddressValueError:
        raise MessageError(f"{key!r} must be an IPv4 address, not {value!r}") from None


def get_protocol(body: Mapping[str, Any]) -> int:
    """The number of the transport that "protocol" names, TCP's when it is left out. Raises MessageError."""
    name = get_text(body, "protocol", "tcp")
    if name not in PROTOCOLS:
        raise MessageError(f"'protocol' is one of {', '.join(PROTOCOLS)}, not {name!r}")
    return PROTOCOLS[name]
