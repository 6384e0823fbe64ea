"""What one node is told at its start: a JSON object, checked key by key.

    {"name": "dan", "node_id": 4, "role": "host",
     "providers": {"example": 1193046}, "serves": [],
     "controller": {"host": "127.0.0.1", "port": 6653},
     "run_dir": "/run/testbed/hosts/dan", "hosts": {"ann": "10.0.1.1"}}

Only `name` is required. Unknown keys are refused, so that a typing error does not become a default.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from ipaddress import AddressValueError, IPv4Address
from typing import Any

from serval_node.control.rules import RESOLUTION_MODES
from serval_node.control.triggers import TRIGGERS
from serval_node.daemon.encapsulation import MODES, choices, mode
from serval_node.sal.adhoc import HOPS, MAX_HOPS
from serval_node.sal.delay_queue import DelayLimits

ROLES = ("host", "router")
CONGESTION = "cubic"
MIGRATE_CONGESTION = ("keep", "reset")


class ConfigError(ValueError):
    """A configuration that cannot be used; the text names the key and what is expected."""


@dataclass(frozen=True, slots=True)
class ControllerAddress:
    """Where the controller listens for OpenFlow, as seen from the namespace in which the channel's socket is
    made.
    """

    host: str
    port: int


@dataclass(frozen=True, slots=True)
class NodeConfig:
    """One node. Addresses are dotted text, times seconds.

    name         the host's name, also in logs and towards the controller
    node_id      16..48 bits below the Serval tag of the datapath id, unique in a run
    role         "host", or "router" for a service router (forwarding on)
    providers    provider label -> 24-bit block, for topologies that declare theirs
    serves       prefixes (text) whose SYNs this router is responsible for; told to the controller
    controller   None: a node without a controller, rules come by hand
    run_dir      directory of control.sock, names.jsonl, servald.log, resolv.conf and hosts
    hosts        host name -> real address, for the host's /etc/hosts
    rules        rules to start with, in the form of the control socket's rule_set
    congestion   congestion control of the connections over sal0; None leaves the namespace's default
    mtu          MTU of the links; None takes the smallest of the host's interfaces
    offload      segmentation offload on sal0; None means: when numpy is there
    auto_migrate what makes flows move by themselves (S49): true, false, or a list of link, address, route, silence
    adhoc        SYNs that no rule matches go to everyone on the link, and such SYNs of others are answered (S44)
    adhoc_relay  in ad hoc mode, send such SYNs of others on over the other links
    adhoc_hops   how many links such a SYN may cross, 1..19
    find_router  look for a service router on the links, and make it the default rule (S61)
    encapsulation  inside UDP: "raw", "udp", or "auto" for those peers that do not answer raw packets (S52)
    encapsulated_peers  the same for single networks of peers: {"10.0.0.0/8": "udp"}
    keepalive    how often a client's flow inside UDP says where it is
    migrate_congestion  "keep": what a lost path swallowed is sent again, and the kernel's congestion window stays;
                 "reset": it is left to the kernel, which slows down (docs/migration.md)
    resolution_mode  which targets of a rule a packet gets: anycast, all, demux-only, forward-only (S61)
    delay        bounds of what waits under DELAY, where they are not the usual: total, per_service, per_source
                 (packets) and seconds
    """

    name: str
    node_id: int = 1
    role: str = "host"
    providers: Mapping[str, int] = field(default_factory=dict)
    serves: tuple[str, ...] = ()
    controller: ControllerAddress | None = None
    run_dir: str = "/run/serval"
    hosts: Mapping[str, str] = field(default_factory=dict)
    rules: tuple[Mapping[str, Any], ...] = ()
    congestion: str | None = CONGESTION
    mtu: int | None = None
    offload: bool | None = None
    auto_migrate: tuple[str, ...] = tuple(TRIGGERS)
    adhoc: bool = False
    adhoc_relay: bool = False
    adhoc_hops: int = HOPS
    find_router: bool = False
    encapsulation: str = "auto"
    encapsulated_peers: Mapping[str, str] = field(default_factory=dict)
    keepalive: float = 15.0
    migrate_congestion: str = "keep"
    resolution_mode: str = RESOLUTION_MODES[-1]
    delay: Mapping[str, float] = field(default_factory=dict)

    @property
    def delay_limits(self) -> DelayLimits:
        given: dict[str, Any] = dict(self.delay)
        return DelayLimits(**given)

    @property
    def forwarding(self) -> bool:
        return self.role == "router"

    @property
    def control_path(self) -> str:
        return os.path.join(self.run_dir, "control.sock")

    @property
    def names_path(self) -> str:
        return os.path.join(self.run_dir, "names.jsonl")

    @property
    def log_path(self) -> str:
        return os.path.join(self.run_dir, "servald.log")

    @property
    def resolv_path(self) -> str:
        return os.path.join(self.run_dir, "resolv.conf")

    @property
    def hosts_path(self) -> str:
        return os.path.join(self.run_dir, "hosts")

    def to_json(self) -> dict[str, Any]:
        """The JSON object that `from_json` reads back."""
        out: dict[str, Any] = {f.name: getattr(self, f.name) for f in fields(self)}
        out["encapsulated_peers"] = dict(self.encapsulated_peers)
        out["providers"], out["hosts"], out["delay"] = dict(self.providers), dict(self.hosts), dict(self.delay)
        out["serves"], out["rules"] = list(self.serves), [dict(rule) for rule in self.rules]
        out["auto_migrate"] = list(self.auto_migrate)
        if self.controller is not None:
            out["controller"] = {"host": self.controller.host, "port": self.controller.port}
        return out

    @classmethod
    def from_json(cls, data: object) -> NodeConfig:
        """Check a decoded JSON object; raises ConfigError."""
        if not isinstance(data, dict):
            raise ConfigError("the configuration must be a JSON object")
        known = [f.name for f in fields(cls)]
        unknown = sorted(set(data) - set(known))
        if unknown:
            raise ConfigError(f"unknown key {unknown[0]!r} in the configuration; known keys: {', '.join(known)}")
        if "name" not in data:
            raise ConfigError("the configuration lacks 'name'")
        values = {key: _CHECKS[key](key, value) for key, value in data.items()}
        return cls(**values)

    @classmethod
    def load(cls, path: str) -> NodeConfig:
        """Read a configuration file; raises ConfigError, also when it cannot be read."""
        try:
            with open(path, encoding="utf-8") as file:
                return cls.from_json(json.load(file))
        except OSError as error:
            raise ConfigError(f"cannot read {path}: {error.strerror}") from None
        except ValueError as error:
            raise ConfigError(f"{path}: {error}") from None


def _name(key: str, value: object) -> str:
    if not isinstance(value, str) or not value or "/" in value or value.startswith("."):
        raise ConfigError(f"{key!r} must be a host's name, not {value!r}")
    return value


def _integer(low: int, high: int) -> Any:
    def check(key: str, value: object) -> int:
        if not isinstance(value, int) or isinstance(value, bool) or not low <= value <= high:
            raise ConfigError(f"{key!r} must be a number from {low} to {high}, not {value!r}")
        return value

    return check


def _optional(check: Any) -> Any:
    return lambda key, value: None if value is None else check(key, value)


def _role(key: str, value: object) -> str:
    if value not in ROLES:
        raise ConfigError(f"{key!r} must be one of {', '.join(ROLES)}, not {value!r}")
    return str(value)


def _migrate_congestion(key: str, value: object) -> str:
    if value not in MIGRATE_CONGESTION:
        raise ConfigError(f"{key!r} must be one of {', '.join(MIGRATE_CONGESTION)}, not {value!r}")
    return str(value)


def _text(key: str, value: object) -> str:
    if not isinstance(value, str) or not value:
        raise ConfigError(f"{key!r} must be text, not {value!r}")
    return value


def _boolean(key: str, value: object) -> bool:
    if not isinstance(value, bool):
        raise ConfigError(f"{key!r} must be true or false, not {value!r}")
    return value


def _providers(key: str, value: object) -> dict[str, int]:
    if not isinstance(value, dict):
        raise ConfigError(f"{key!r} must map provider labels to 24-bit numbers")
    block = _integer(1, (1 << 24) - 1)
    return {_text(key, label): block(f"{key}.{label}", number) for label, number in value.items()}


def _hosts(key: str, value: object) -> dict[str, str]:
    if not isinstance(value, dict):
        raise ConfigError(f"{key!r} must map host names to addresses")
    for name, address in value.items():
        try:
            IPv4Address(address)
        except (AddressValueError, TypeError):
            raise ConfigError(f"{key!r}: {name} has no IPv4 address but {address!r}") from None
    return dict(value)


def _texts(key: str, value: object) -> tuple[str, ...]:
    if not isinstance(value, (list, tuple)):
        raise ConfigError(f"{key!r} must be a list")
    return tuple(_text(key, item) for item in value)


def _triggers(key: str, value: object) -> tuple[str, ...]:
    if isinstance(value, bool):
        return tuple(TRIGGERS) if value else ()
    if not isinstance(value, (list, tuple)) or not all(isinstance(item, str) and item in TRIGGERS for item in value):
        raise ConfigError(f"{key!r} must be true, false or a list of {', '.join(TRIGGERS)}, not {value!r}")
    return tuple(trigger for trigger in TRIGGERS if trigger in value)


def _rules(key: str, value: object) -> tuple[Mapping[str, Any], ...]:
    if not isinstance(value, (list, tuple)) or not all(isinstance(item, dict) for item in value):
        raise ConfigError(f"{key!r} must be a list of rules")
    return tuple(value)


def _encapsulation(key: str, value: object) -> str:
    try:
        return mode(_text(key, value)).value
    except ValueError as error:
        raise ConfigError(f"{key!r}: {error}") from None


def _encapsulated_peers(key: str, value: object) -> dict[str, str]:
    if not isinstance(value, dict):
        raise ConfigError(f"{key!r} must map networks to {', '.join(MODES)}")
    try:
        choices(MODES[0], value)
    except ValueError as error:
        raise ConfigError(f"{key!r}: {error}") from None
    return dict(value)


def _seconds(low: float, high: float) -> Any:
    def check(key: str, value: object) -> float:
        if not isinstance(value, (int, float)) or isinstance(value, bool) or not low <= value <= high:
            raise ConfigError(f"{key!r} must be seconds from {low:g} to {high:g}, not {value!r}")
        return float(value)

    return check


def _controller(key: str, value: object) -> ControllerAddress | None:
    if value is None:
        return None
    if not isinstance(value, dict) or set(value) != {"host", "port"}:
        raise ConfigError(f"{key!r} must be null or hold exactly 'host' and 'port'")
    return ControllerAddress(
        _text("controller.host", value["host"]), _integer(1, 65535)("controller.port", value["port"])
    )


def _resolution_mode(key: str, value: object) -> str:
    if value not in RESOLUTION_MODES:
        raise ConfigError(f"{key!r} must be one of {', '.join(RESOLUTION_MODES)}, not {value!r}")
    return str(value)


def _delay(key: str, value: object) -> dict[str, float]:
    known = [f.name for f in fields(DelayLimits)]
    if not isinstance(value, dict) or not set(value) <= set(known):
        raise ConfigError(f"{key!r} must map some of {', '.join(known)} to numbers")
    packets = _integer(1, 1 << 20)
    for name, number in value.items():
        if name != "seconds":
            packets(f"{key}.{name}", number)
        elif not isinstance(number, (int, float)) or isinstance(number, bool) or not 0 < number <= 3600:
            raise ConfigError(f"'{key}.seconds' must be a number above 0, to 3600, not {number!r}")
    return dict(value)


_CHECKS: dict[str, Any] = {
    "name": _name,
    "node_id": _integer(1, (1 << 48) - 1),
    "role": _role,
    "providers": _providers,
    "serves": _texts,
    "controller": _controller,
    "run_dir": _text,
    "hosts": _hosts,
    "rules": _rules,
    "congestion": _optional(_text),
    "mtu": _optional(_integer(576, 65535)),
    "offload": _optional(_boolean),
    "auto_migrate": _triggers,
    "resolution_mode": _resolution_mode,
    "delay": _delay,
    "adhoc": _boolean,
    "adhoc_relay": _boolean,
    "adhoc_hops": _integer(1, MAX_HOPS),
    "find_router": _boolean,
    "encapsulation": _encapsulation,
    "encapsulated_peers": _encapsulated_peers,
    "keepalive": _seconds(0.1, 3600),
    "migrate_congestion": _migrate_congestion,
}
