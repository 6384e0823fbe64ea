"""The service table: longest-prefix match from a serviceID to an action (slides 20 to 25 and 31; protocol notes 4).

An entry belongs to one prefix and holds targets. Targets come from three origins: a local listener, the controller,
a hand; an origin changes only its own. Of the targets only those with the highest priority are ever chosen from, by
the entry's selector.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field, replace
from enum import Enum, IntEnum

from serval_node.sal.consistent_hashing import HashRing, MaglevTable
from serval_node.wire.ipv4 import Address
from serval_node.wire.serviceid import BITS, Prefix, ServiceID


class RuleError(ValueError):
    """A rule that the table refuses; one line with the reason."""


class Action(IntEnum):
    """What happens to a packet whose serviceID meets a rule; the numbers are the original's."""

    FORWARD = 1
    DEMUX = 2
    DELAY = 3
    DROP = 4


class Selector(str, Enum):
    """How one of several targets is chosen for a SYN (slide 34); ``ALL`` is multicast: each of them gets a copy."""

    WEIGHTED_RANDOM = "weighted-random"
    ROUND_ROBIN = "round-robin"
    TWO_CHOICES = "two-choices"
    MAGLEV = "maglev"
    RING = "ring"
    ALL = "all"


class ResolutionMode(str, Enum):
    """Which targets of a rule a node uses: the original's switch (protocol notes 4), in the order of its numbers.

    ANYCAST    one target, by the rule's selector
    ALL        every FORWARD target gets a copy, and one local listener
    DEMUX_ONLY, FORWARD_ONLY   as ALL, but of the targets of this kind only

    DELAY and DROP hold in all of them.
    """

    ALL = "all"
    DEMUX_ONLY = "demux-only"
    FORWARD_ONLY = "forward-only"
    ANYCAST = "anycast"


# Of weights and priorities: 32 bits, as in the original's messages.
_LARGEST = 0xFFFFFFFF
_ALONE = (Action.DELAY, Action.DROP)
LONGEST_TIMEOUT = float(_LARGEST)


@dataclass(frozen=True, slots=True)
class Target:
    """Where a rule sends a packet.

    address         FORWARD: the next hop
    port, protocol  DEMUX: the local listening socket's
    listen_address  DEMUX: what the packet is addressed to inside the host; None stands for sal0's own address
    priority        higher wins; weight: share among equals; load: what two-choices compares, lower is better
    """

    action: Action
    address: Address | None = None
    port: int | None = None
    protocol: int | None = None
    listen_address: Address | None = None
    priority: int = 1
    weight: int = 1
    load: float = field(default=0.0, compare=False)

    @property
    def identity(self) -> tuple[object, ...]:
        """What makes two targets the same one, whatever their priority, weight and load."""
        return self.action, self.address, self.port, self.protocol, self.listen_address

    def __post_init__(self) -> None:
        if (self.address is None) == (self.action is Action.FORWARD):
            raise RuleError(f"{self.action.name} with{'out' if self.address is None else ''} an address")
        if (self.port is None) == (self.action is Action.DEMUX):
            raise RuleError(f"{self.action.name} with{'out' if self.port is None else ''} a port")
        for address in (self.address, self.listen_address):
            if address is not None and len(address) != 4:
                raise RuleError(f"{self.action.name} with an address of {len(address)} bytes")
        if self.port is not None and not 0 < self.port <= 0xFFFF:
            raise RuleError(f"{self.action.name} with port {self.port}")
        if not 1 <= self.weight <= _LARGEST or not 0 <= self.priority <= _LARGEST:
            raise RuleError(
                f"weight {self.weight} and priority {self.priority}: from 1 and from 0 to {_LARGEST} is possible"
            )


@dataclass(frozen=True, slots=True)
class Rule:
    """Everything that one origin wants for one prefix.

    idle   seconds without a packet after which it ends, 0: never; hard: seconds after which it ends anyway
    """

    prefix: Prefix
    targets: tuple[Target, ...]
    selector: Selector = Selector.WEIGHTED_RANDOM
    idle: float = 0.0
    hard: float = 0.0

    def __post_init__(self) -> None:
        for seconds in (self.idle, self.hard):
            if not 0.0 <= seconds <= LONGEST_TIMEOUT:
                raise RuleError(f"a time-out of {seconds:g} s: from 0 (none) to {LONGEST_TIMEOUT:g} s is possible")


@dataclass(slots=True)
class Counters:
    """Packets and bytes (of whole IP packets) that were resolved here, and that were dropped here."""

    packets: int = 0
    bytes: int = 0
    dropped_packets: int = 0
    dropped_bytes: int = 0

    def resolved(self, size: int) -> None:
        self.packets += 1
        self.bytes += size

    def dropped(self, size: int) -> None:
        self.dropped_packets += 1
        self.dropped_bytes += size


@dataclass(slots=True, eq=False)
class Slot:
    """A target in its entry, with what changes: its counters, the selectors' memory, and the times of its rule.

    ``since`` is when its rule's time-outs began, None until `expiry` has seen it; ``used``: when it last got a packet.
    """

    target: Target
    origin: str
    counters: Counters = field(default_factory=Counters)
    sent_since_load: int = 0
    current_weight: int = 0
    idle: float = 0.0
    hard: float = 0.0
    since: float | None = None
    used: float = 0.0

    @property
    def timed(self) -> bool:
        return self.idle > 0 or self.hard > 0


class Entry:
    """One prefix of the table. ``selectable`` are the slots of the highest priority."""

    __slots__ = ("counters", "hashed", "prefix", "selectable", "selector", "slots")

    def __init__(self, prefix: Prefix) -> None:
        self.prefix = prefix
        self.slots: list[Slot] = []
        self.selectable: list[Slot] = []
        self.selector = Selector.WEIGHTED_RANDOM
        self.counters = Counters()
        # What `selectors` looks clients up in, made when it is first needed.
        self.hashed: MaglevTable | HashRing | None = None

    @property
    def action(self) -> Action:
        """DELAY and DROP stand alone; otherwise the action of the first target that can be chosen."""
        return self.selectable[0].target.action

    def has(self, actions: Iterable[Action]) -> bool:
        """Whether a target of one of these actions can be chosen."""
        return any(slot.target.action in actions for slot in self.selectable)

    def slot_of(self, target: Target) -> Slot | None:
        """The slot that holds the same target, if it is still in the entry."""
        identity = target.identity
        for slot in self.slots:
            if slot.target.identity == identity:
                return slot
        return None

    def targets(self) -> tuple[Target, ...]:
        return tuple(slot.target for slot in self.slots)

    def arrange(self) -> None:
        """Recompute what depends on the slots."""
        top = max((slot.target.priority for slot in self.slots), default=0)
        self.selectable = [slot for slot in self.slots if slot.target.priority == top]
        self.hashed = None


class ServiceTable:
    """Entries by prefix. A lookup costs one dictionary access for each prefix length in use, longest first."""

    def __init__(self) -> None:
        self._by_bits: dict[int, dict[int, Entry]] = {}
        self._lengths: tuple[int, ...] = ()
        self._watchers: list[Callable[[], None]] = []
        self._timed: dict[Prefix, Entry] = {}
        # What was resolved and dropped here in all, by rules that have gone too.
        self.totals = Counters()

    def on_change(self, watcher: Callable[[], None]) -> None:
        """Call ``watcher`` after each change of rules (not of counters or loads)."""
        self._watchers.append(watcher)

    # -- reading

    def get(self, prefix: Prefix) -> Entry | None:
        """The entry of exactly this prefix."""
        return self._by_bits.get(prefix.bits, {}).get(_key(prefix.raw, prefix.bits))

    def lookup(self, service_id: ServiceID, *, accept: Callable[[Entry], bool] | None = None) -> Entry | None:
        """The longest-prefix match among the entries that ``accept`` admits; None without one."""
        for entry in self.matches(service_id):
            if accept is None or accept(entry):
                return entry
        return None

    def matches(self, service_id: ServiceID) -> Iterator[Entry]:
        """Every entry whose prefix covers a serviceID, longest first."""
        number = int.from_bytes(service_id.raw, "big")
        for bits in self._lengths:
            entry = self._by_bits[bits].get(number >> (BITS - bits))
            if entry is not None:
                yield entry

    def entries(self) -> Iterator[Entry]:
        """All entries, longest prefix first, then by number."""
        for bits in self._lengths:
            for _, entry in sorted(self._by_bits[bits].items()):
                yield entry

    def timed(self) -> list[Entry]:
        """Entries with a rule that will end by itself."""
        return list(self._timed.values())

    def __len__(self) -> int:
        return sum(len(entries) for entries in self._by_bits.values())

    # -- changing

    def add_target(self, prefix: Prefix, target: Target, origin: str) -> None:
        """Add one target beside what is there; raises RuleError for one that is there or that must stand alone."""
        entry = self.get(prefix)
        if entry is not None:
            if entry.slot_of(target) is not None:
                raise RuleError(f"{prefix} has this {target.action.name} target already")
            _check_together([*entry.targets(), target], prefix)
        entry = self._entry(prefix)
        entry.slots.append(Slot(target, origin))
        self._changed(entry)

    def remove_target(self, prefix: Prefix, target: Target, origin: str) -> None:
        """Raises RuleError when that origin has no such target there."""
        entry = self.get(prefix)
        slot = None if entry is None else entry.slot_of(target)
        if entry is None or slot is None or slot.origin != origin:
            raise RuleError(f"{prefix} has no such {target.action.name} target")
        entry.slots.remove(slot)
        self._changed(entry)

    def set_rule(self, rule: Rule, origin: str) -> None:
        """Replace all targets of ``origin`` for a prefix; a target that stays keeps its counters.

        Raises RuleError when the new targets cannot stand beside those of other origins, or are none.
        """
        if not rule.targets:
            raise RuleError(f"a rule for {rule.prefix} without targets")
        if len({target.identity for target in rule.targets}) != len(rule.targets):
            raise RuleError(f"a target stands twice in the rule for {rule.prefix}")
        entry = self.get(rule.prefix)
        others = [] if entry is None else [slot for slot in entry.slots if slot.origin != origin]
        known = {slot.target.identity for slot in others}
        for target in rule.targets:
            if target.identity in known:
                raise RuleError(f"{rule.prefix} has this {target.action.name} target already, from another origin")
        _check_together([*(slot.target for slot in others), *rule.targets], rule.prefix)
        entry = self._entry(rule.prefix)
        kept = {slot.target.identity: slot for slot in entry.slots if slot.origin == origin}
        entry.slots = others + [_renewed(kept.get(target.identity), target, rule, origin) for target in rule.targets]
        entry.selector = rule.selector
        self._changed(entry)

    def remove_rule(self, prefix: Prefix, origin: str) -> None:
        """Remove all targets of ``origin``; raises RuleError when it has none there."""
        entry = self.get(prefix)
        if entry is None or all(slot.origin != origin for slot in entry.slots):
            raise RuleError(f"there is no rule of origin {origin} for {prefix}")
        entry.slots = [slot for slot in entry.slots if slot.origin != origin]
        self._changed(entry)

    def set_load(self, prefix: Prefix, address: Address, load: float) -> bool:
        """Update the load figure of a FORWARD target; False when there is none. Not a change of rules."""
        entry = self.get(prefix)
        for slot in [] if entry is None else entry.slots:
            if slot.target.address == address:
                slot.target = replace(slot.target, load=load)
                slot.sent_since_load = 0
                return True
        return False

    def _entry(self, prefix: Prefix) -> Entry:
        entries = self._by_bits.setdefault(prefix.bits, {})
        key = _key(prefix.raw, prefix.bits)
        if key not in entries:
            entries[key] = Entry(prefix)
            self._lengths = tuple(sorted(self._by_bits, reverse=True))
        return entries[key]

    def _changed(self, entry: Entry) -> None:
        entry.arrange()
        if any(slot.timed for slot in entry.slots):
            self._timed[entry.prefix] = entry
        else:
            self._timed.pop(entry.prefix, None)
        if not entry.slots:
            bits = entry.prefix.bits
            del self._by_bits[bits][_key(entry.prefix.raw, bits)]
            if not self._by_bits[bits]:
                del self._by_bits[bits]
                self._lengths = tuple(sorted(self._by_bits, reverse=True))
        for watcher in self._watchers:
            watcher()


def _key(raw: bytes, bits: int) -> int:
    return int.from_bytes(raw, "big") >> (BITS - bits)


def _check_together(targets: list[Target], prefix: Prefix) -> None:
    alone = [target.action.name for target in targets if target.action in _ALONE]
    if alone and len(targets) > 1:
        raise RuleError(f"{alone[0]} must be the only target of {prefix}; use a longer or shorter prefix for it")


def _renewed(slot: Slot | None, target: Target, rule: Rule, origin: str) -> Slot:
    """The target's slot with its counters; the rule's time-outs begin anew."""
    if slot is None:
        return Slot(target, origin, idle=rule.idle, hard=rule.hard)
    if slot.target.load != target.load:
        slot.sent_since_load = 0
    slot.target = target
    slot.idle, slot.hard, slot.since = rule.idle, rule.hard, None
    return slot
