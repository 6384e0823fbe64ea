"""Rules as they are spoken about (serval_node.control.rules) and as the service table holds them.

A prefix has at most one rule from outside: what the controller or a hand set last. The targets of local
listeners stand beside it in the same entry and are not touched by it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from typing import Any

from serval_node.control.rules import (
    DEFAULT_SELECTOR,
    PROTOCOL_NAMES,
    PROTOCOLS,
    RuleSpec,
    TargetSpec,
    get_float,
    get_list,
    get_text,
)
from serval_node.daemon.listeners import ListenerRefused, choose
from serval_node.daemon.virtual_addresses import SAL0_ADDRESS
from serval_node.io.sock_diag import InetSocket
from serval_node.sal.service_table import Action, Entry, Rule, RuleError, Selector, ServiceTable, Slot, Target
from serval_node.wire.ipv4 import PROTOCOL_TCP, Address, address, address_text
from serval_node.wire.naming import Naming
from serval_node.wire.serviceid import Prefix, ServiceID

_DEFAULT = Prefix.default()
_OUTSIDE = ("controller", "hand")
_STAND_INS = ("adhoc", "router")
_STAND_IN_PRIORITY = 0


class RuleBook:
    """Sets, removes and lists rules of a service table.

    A DEMUX target from outside names a local listening port. It too lives only as long as the socket that
    listened there when the rule came: `reconcile` is told which sockets there are.

    `listening` lists the sockets of a transport protocol that could serve. `naming` gives rules and refusals their
    names; `is_local` tells the node's own addresses, which no rule may forward to.
    """

    def __init__(
        self,
        table: ServiceTable,
        listening: Callable[[int], list[InetSocket]],
        naming: Naming,
        is_local: Callable[[Address], bool],
    ) -> None:
        self._table = table
        self._listening = listening
        self._naming = naming
        self._is_local = is_local
        # What the controller wants kept with its rules, and the table has no use for.
        self._kept: dict[Prefix, RuleSpec] = {}
        self._demux: dict[tuple[Prefix, tuple[object, ...]], frozenset[int]] = {}
        self._stand_in: tuple[str, tuple[Address, ...]] = ("adhoc", ())

    def set(self, spec: RuleSpec, expect: str = "") -> None:
        """Put a rule in the place of what the controller or a hand set for its prefix; raises RuleError, also where
        such a rule is not "absent" or "present" as expected.

        A refused rule changes nothing.
        """
        if spec.origin not in _OUTSIDE:
            raise RuleError(f"a rule of origin {spec.origin} is set by listening, not by a message")
        there = any(_rule_of(self._table.get(spec.prefix), origin) for origin in _OUTSIDE)
        if expect == "absent" and there:
            raise RuleError(f"there is a rule for {self._naming.describe(spec.prefix)} already: change or remove it")
        if expect == "present" and not there:
            raise RuleError(f"there is no rule for {self._naming.describe(spec.prefix)} to change: add one")
        cookies: dict[tuple[Prefix, tuple[object, ...]], frozenset[int]] = {}
        targets = []
        for item in spec.targets:
            target = self._target(item)
            if target.action is Action.DEMUX:
                target, found = self._find_listener(target)
                cookies[spec.prefix, target.identity] = found
            targets.append(target)
        rule = Rule(spec.prefix, tuple(targets), Selector(spec.selector), spec.idle_timeout, spec.hard_timeout)
        try:
            self._replace(rule, spec.origin)
        except RuleError as error:
            # The table knows no names.
            raise RuleError(str(error).replace(str(spec.prefix), self._naming.describe(spec.prefix))) from None
        self._forget(spec.prefix)
        self._demux.update(cookies)
        if spec.policy or spec.policy_weights or spec.decider:
            self._kept[spec.prefix] = spec

    def _replace(self, rule: Rule, origin: str) -> None:
        other = next(name for name in _OUTSIDE if name != origin)
        entry = self._table.get(rule.prefix)
        replaced = _rule_of(entry, other)
        if replaced is not None:
            self._table.remove_rule(rule.prefix, other)
        if rule.prefix == _DEFAULT:
            self._withdraw(*_STAND_INS)
        try:
            self._table.set_rule(rule, origin)
        except RuleError:
            if replaced is not None:
                self._table.set_rule(replaced, other)
            self._fill_in()
            raise

    # -- the default rule that nobody set

    def stand_in(self, origin: str, next_hops: tuple[Address, ...]) -> None:
        """FORWARD what no rule matches to all of these, for as long as neither the controller nor a hand has a default
        rule. It takes the place of the last one; none: there is no more such rule.
        """
        if origin not in _STAND_INS:
            raise RuleError(f"a default rule of origin {origin} stands in for nothing")
        self._stand_in = origin, next_hops
        self._withdraw(*(name for name in _STAND_INS if name != origin or not next_hops))
        self._fill_in()

    def default_origin(self) -> str | None:
        """Whose rule takes what no longer prefix matches; None: nobody's."""
        entry = self._table.get(_DEFAULT)
        origins = (*_OUTSIDE, *_STAND_INS)
        return next((origin for origin in origins if _rule_of(entry, origin) is not None), None)

    def _fill_in(self) -> None:
        origin, next_hops = self._stand_in
        entry = self._table.get(_DEFAULT)
        if next_hops and all(_rule_of(entry, name) is None for name in _OUTSIDE):
            targets = tuple(Target(Action.FORWARD, hop, priority=_STAND_IN_PRIORITY) for hop in next_hops)
            self._table.set_rule(Rule(_DEFAULT, targets, Selector.ALL), origin)

    def _withdraw(self, *origins: str) -> None:
        for origin in origins:
            if _rule_of(self._table.get(_DEFAULT), origin) is not None:
                self._table.remove_rule(_DEFAULT, origin)

    def _target(self, item: TargetSpec) -> Target:
        next_hop = None if item.address is None else address(item.address)
        if next_hop is not None and (next_hop == SAL0_ADDRESS or self._is_local(next_hop)):
            raise RuleError(f"FORWARD to {item.address}: that is this node itself; its own listeners need no such rule")
        if next_hop is not None and (next_hop[0] == 0 or next_hop[0] >> 4 == 14):
            raise RuleError(f"FORWARD to {item.address}: that is no host's address")
        return Target(
            action=Action[item.action.upper()],
            address=next_hop,
            port=item.port,
            protocol=None if item.port is None else PROTOCOLS[item.protocol],
            listen_address=None if item.listen_address is None else address(item.listen_address),
            priority=item.priority,
            weight=item.weight,
            load=item.load,
        )

    def _find_listener(self, target: Target) -> tuple[Target, frozenset[int]]:
        assert target.protocol is not None
        sockets = [sock for sock in self._listening(target.protocol) if sock.local_port == target.port]
        try:
            chosen = choose(sockets)
        except ListenerRefused as error:
            raise RuleError(f"DEMUX to port {target.port}: {error}") from None
        if target.listen_address is not None:
            chosen = [pair for pair in chosen if pair[1].address == target.listen_address]
            if not chosen:
                where = address_text(target.listen_address)
                raise RuleError(f"DEMUX to port {target.port}: nothing listens on {where}")
        cookies = frozenset(sock.cookie for sock, _ in chosen)
        return replace(target, listen_address=chosen[0][1].address), cookies

    def remove(self, prefix: Prefix) -> RuleSpec:
        """Remove what the controller or a hand set for a prefix, and return it with its counters; raises RuleError when
        there is nothing.
        """
        entry = self._table.get(prefix)
        for spec in [] if entry is None else _specs(entry):
            if spec.origin in _OUTSIDE:
                removed = self._labelled(spec)
                self._table.remove_rule(prefix, spec.origin)
                self.ended(prefix)
                return removed
        raise RuleError(f"there is no rule for {self._naming.describe(prefix)}")

    def ended(self, prefix: Prefix) -> None:
        """What the controller or a hand had set for a prefix is no longer in the table: by its time-out, for one."""
        self._forget(prefix)
        self._fill_in()

    def set_loads(self, prefix: Prefix, loads: Mapping[str, float]) -> None:
        """New load figures of a rule's targets by address; figures for addresses that are no targets are left
        out.
        """
        for text, load in loads.items():
            self._table.set_load(prefix, address(text), load)

    @property
    def follows_sockets(self) -> bool:
        """Whether there is a DEMUX target from outside at all."""
        return bool(self._demux)

    def holds(self, cookie: int) -> bool:
        """Whether a DEMUX target from outside stands on this socket."""
        return any(cookie in cookies for cookies in self._demux.values())

    def reconcile(self, alive: Iterable[int]) -> bool:
        """End the DEMUX targets whose sockets (by cookie) are all gone; whether there were any."""
        living = frozenset(alive)
        ended = [key for key, cookies in self._demux.items() if not cookies & living]
        for prefix, identity in ended:
            del self._demux[prefix, identity]
            self._end(prefix, identity)
        if ended:
            self._fill_in()
        return bool(ended)

    def _end(self, prefix: Prefix, identity: tuple[object, ...]) -> None:
        entry = self._table.get(prefix)
        for slot in [] if entry is None else list(entry.slots):
            if slot.target.identity == identity and slot.origin in _OUTSIDE:
                self._table.remove_target(prefix, slot.target, slot.origin)

    def _forget(self, prefix: Prefix) -> None:
        self._kept.pop(prefix, None)
        for key in [key for key in self._demux if key[0] == prefix]:
            del self._demux[key]

    def from_outside(self) -> tuple[RuleSpec, ...]:
        """The rules of the controller and of hands, for the node's state."""
        return tuple(spec for spec in self.all() if spec.origin in _OUTSIDE)

    def all(self) -> tuple[RuleSpec, ...]:
        """The whole table, one rule per prefix and origin, counters filled in."""
        return tuple(self._labelled(spec) for entry in self._table.entries() for spec in _specs(entry))

    def matching(self, service_id: ServiceID) -> tuple[RuleSpec, ...]:
        """The rules whose prefixes cover a serviceID, longest first."""
        return tuple(self._labelled(spec) for entry in self._table.matches(service_id) for spec in _specs(entry))

    def _labelled(self, spec: RuleSpec) -> RuleSpec:
        named = replace(spec, name=self._naming.name_text(spec.prefix))
        kept = self._kept.get(spec.prefix)
        if kept is None or spec.origin != kept.origin:
            return named
        return replace(named, policy=kept.policy, policy_weights=kept.policy_weights, decider=kept.decider)


def hand_rule(naming: Naming, body: Mapping[str, Any]) -> RuleSpec:
    """A rule as a person writes it: {"prefix": any text form, "targets": [...], "selector": ..., "idle_timeout": ...,
    "hard_timeout": ...}; raises ValueError.
    """
    return RuleSpec(
        naming.parse(get_text(body, "prefix")),
        tuple(TargetSpec.from_json(item) for item in get_list(body, "targets")),
        get_text(body, "selector", DEFAULT_SELECTOR),
        "hand",
        idle_timeout=get_float(body, "idle_timeout", 0.0),
        hard_timeout=get_float(body, "hard_timeout", 0.0),
    )


def _rule_of(entry: Entry | None, origin: str) -> Rule | None:
    slots = [] if entry is None else [slot for slot in entry.slots if slot.origin == origin]
    if entry is None or not slots:
        return None
    return Rule(entry.prefix, tuple(slot.target for slot in slots), entry.selector, slots[0].idle, slots[0].hard)


def _specs(entry: Entry) -> list[RuleSpec]:
    by_origin: dict[str, list[Slot]] = {}
    for slot in entry.slots:
        by_origin.setdefault(slot.origin, []).append(slot)
    return [
        RuleSpec(
            entry.prefix,
            tuple(map(target_spec, slots)),
            entry.selector.value,
            origin,
            idle_timeout=slots[0].idle,
            hard_timeout=slots[0].hard,
        )
        for origin, slots in by_origin.items()
    ]


def target_spec(slot: Slot) -> TargetSpec:
    """A target of the table as others see it."""
    target, counters = slot.target, slot.counters
    return TargetSpec(
        action=target.action.name.lower(),
        address=None if target.address is None else address_text(target.address),
        port=target.port,
        protocol=PROTOCOL_NAMES[target.protocol or PROTOCOL_TCP],
        listen_address=None if target.listen_address is None else address_text(target.listen_address),
        priority=target.priority,
        weight=target.weight,
        load=target.load,
        packets=counters.packets,
        bytes=counters.bytes,
        dropped_packets=counters.dropped_packets,
        dropped_bytes=counters.dropped_bytes,
    )
