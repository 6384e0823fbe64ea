"""Every interleaving, up to stated bounds, of moves, losses, copies, reorderings and time-outs in the RSYN exchange.

A state is both ends' migration states, numbers and addresses, the control packets under way, and what is left of the
bounds. From each state that can be reached the network then becomes good: what is under way arrives and the timers
run. The exchange is right if every such continuation ends with both ends at rest and agreed on both addresses; a
state from which it does not is stuck, and the shortest way there is told.

Any packet under way may arrive next, so that all reorderings are there; one to an address that its owner has lost is
lost with it. Times are left out of a state: only the order of what happens counts.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, replace
from typing import Any

from serval_node.sal.context import StackConfig
from serval_node.sal.moves import MigrationState
from serval_node.wire.ipv4 import address_text
from serval_node.wire.sal_header import Control, decode
from tests.model_check.ends import End, Packet, established

NAMES = ("a", "b")
_GOOD_ROUNDS = 60


@dataclass(frozen=True)
class Bounds:
    """How much may happen on one way: moves of each end, packets lost and copied, and time-outs in all."""

    moves: int = 1
    losses: int = 1
    copies: int = 1
    timeouts: int = 2
    old_places_lost: bool = False

    def text(self) -> str:
        lost = ", old addresses lost" if self.old_places_lost else ""
        network = f"{self.losses} losses, {self.copies} copies, {self.timeouts} time-outs"
        return f"{self.moves} moves of each end, {network}{lost}"


@dataclass(frozen=True)
class Stuck:
    """A way into a state that a good network does not end well, and how it ends."""

    steps: tuple[str, ...]
    end: str


@dataclass(frozen=True)
class Verdict:
    """What was explored: distinct states, steps between them, the longest shortest way, and the first stuck state."""

    states: int
    steps: int
    depth: int
    complete: bool
    stuck: Stuck | None
    seen: frozenset[MigrationState]


@dataclass(frozen=True)
class _Node:
    ends: tuple[Any, Any]
    packets: tuple[Packet, ...]
    moves: tuple[int, int]
    bounds: Bounds
    now: float
    way: tuple[str, ...]


class Checker:
    """Explores breadth first, so that the first stuck state found is one with the fewest steps."""

    def __init__(self, bounds: Bounds, *, original: bool = False, old_rule: Any = None) -> None:
        """``original`` takes both peers for originals; ``old_rule`` changes the stacks before anything happens."""
        self._ends = established(StackConfig(original_rules=original))
        if old_rule is not None:
            for end in self._ends.values():
                old_rule(end)
        self._bounds = bounds
        self._steps = 0
        self._seen_states: set[MigrationState] = set()

    def run(self, most_states: int = 1_000_000) -> Verdict:
        first = _Node(self._keep(), (), (0, 0), self._bounds, 2000.0, ())
        known = {self._key(first)}
        queue = deque([first])
        depth = 0
        while queue:
            node = queue.popleft()
            depth = max(depth, len(node.way))
            stuck = self._good_end(node)
            if stuck is not None:
                return Verdict(len(known), self._steps, depth, False, Stuck(node.way, stuck), self._frozen())
            for following in self._following(node):
                key = self._key(following)
                if key not in known:
                    known.add(key)
                    queue.append(following)
            if len(known) > most_states:
                return Verdict(len(known), self._steps, depth, False, None, self._frozen())
        return Verdict(len(known), self._steps, depth, True, None, self._frozen())

    def _frozen(self) -> frozenset[MigrationState]:
        return frozenset(self._seen_states)

    # -- steps

    def _following(self, node: _Node) -> list[_Node]:
        found = []
        bounds = node.bounds
        for index, name in enumerate(NAMES):
            if node.moves[index] < bounds.moves:
                place = 1 - node.moves[index] % 2
                moves = tuple(count + (number == index) for number, count in enumerate(node.moves))
                self._put_back(node)
                if self._ends[name].move(place, node.now, lost=bounds.old_places_lost):
                    found.append(self._after(node, f"{name} moves", node.packets, moves=moves))  # type: ignore[arg-type]
            if bounds.timeouts:
                self._put_back(node)
                later = self._fire(name, node.now)
                if later is not None:
                    less = replace(bounds, timeouts=bounds.timeouts - 1)
                    found.append(self._after(node, f"{name}'s timer", node.packets, bounds=less, now=later))
        for index, packet in enumerate(node.packets):
            if packet in node.packets[:index]:
                continue
            others = node.packets[:index] + node.packets[index + 1 :]
            text = _describe(packet)
            self._put_back(node)
            self._deliver(packet, node)
            found.append(self._after(node, f"{text} arrives", others))
            if bounds.losses:
                self._put_back(node)
                less = replace(bounds, losses=bounds.losses - 1)
                found.append(self._after(node, f"{text} is lost", others, bounds=less))
            if bounds.copies:
                self._put_back(node)
                less = replace(bounds, copies=bounds.copies - 1)
                found.append(self._after(node, f"{text} is doubled", (*node.packets, packet), bounds=less))
        return found

    def _after(self, node: _Node, step: str, packets: tuple[Packet, ...], **changes: Any) -> _Node:
        self._steps += 1
        sent = tuple(packet for end in self._ends.values() for packet in end.sent())
        for end in self._ends.values():
            if end.flow is not None and end.flow.migration is not None:
                self._seen_states.add(end.flow.migration.state)
        values = {"moves": node.moves, "bounds": node.bounds, "now": node.now, **changes}
        return _Node(self._keep(), (*packets, *sent), way=(*node.way, step), **values)

    def _fire(self, name: str, now: float) -> float | None:
        stack = self._ends[name].stack
        due = stack.next_timer()
        if due is None:
            return None
        now = max(now, due)
        stack.handle_timer(now)
        return now

    def _deliver(self, packet: Packet, node: _Node) -> None:
        receiver = self._ends["b" if packet.sender == "a" else "a"]
        if self._is_reachable(receiver, packet, node):
            receiver.receive(packet, node.now)

    def _is_reachable(self, receiver: End, packet: Packet, node: _Node) -> bool:
        if not node.bounds.old_places_lost:
            return True
        # Each address but the one of the last move has gone, from either side.
        index = NAMES.index(receiver.name)
        here = receiver.places[node.moves[index] % 2]
        there = self._ends[packet.sender].places[node.moves[1 - index] % 2]
        return packet.destination == here and packet.source == there

    # -- the good end

    def _good_end(self, node: _Node) -> str | None:
        """None when a good network ends this well, else what is wrong at the end."""
        self._put_back(node)
        packets, now = list(node.packets), node.now
        for _ in range(_GOOD_ROUNDS):
            while packets:
                self._deliver(packets.pop(0), replace(node, now=now))
                packets += [packet for end in self._ends.values() for packet in end.sent()]
            later = [self._fire(name, now) for name in NAMES]
            packets += [packet for end in self._ends.values() for packet in end.sent()]
            if not packets and later == [None, None]:
                break
            now = max([now, *(time for time in later if time is not None)])
        return self._wrong(node)

    def _wrong(self, node: _Node) -> str | None:
        a, b = self._ends["a"].flow, self._ends["b"].flow
        assert a is not None and b is not None
        for end, flow, moved in ((self._ends["a"], a, node.moves[0]), (self._ends["b"], b, node.moves[1])):
            state = MigrationState.INITIAL if flow.migration is None else flow.migration.state
            if state is not MigrationState.INITIAL or flow.control.pending is not None:
                return f"{end.name} stays in {state.name}"
            if flow.local_address != end.places[moved % 2]:
                return f"{end.name} sends from {address_text(flow.local_address)}, where it no longer is"
        if (a.peer_address, b.peer_address) != (b.local_address, a.local_address):
            return "an end sends to where the other no longer is"
        return None

    # -- states

    def _keep(self) -> tuple[Any, Any]:
        return self._ends["a"].keep(), self._ends["b"].keep()

    def _put_back(self, node: _Node) -> None:
        for name, kept in zip(NAMES, node.ends, strict=True):
            self._ends[name].put_back(kept)

    def _key(self, node: _Node) -> tuple[Any, ...]:
        packets = tuple(
            sorted((packet.sender, packet.source, packet.destination, packet.data) for packet in node.packets)
        )
        return tuple(_end_key(kept) for kept in node.ends), packets, node.moves, node.bounds


def _end_key(kept: Any) -> tuple[Any, ...]:
    values, timers = kept
    control, record = values["control"], values["migration"]
    pending = control.pending
    key = (
        values["local_address"], values["peer_address"], control.snd_una, control.snd_nxt, control.rcv_nxt,
        None if pending is None else (pending.flags, pending.verno), len(timers),
    )  # fmt: skip
    if record is None:
        return key
    move = None if record.move is None else record.move.address
    peer_move = None if record.peer_move is None else (record.peer_move.place, record.peer_move.verno)
    return (*key, record.state, move, peer_move)


def _describe(packet: Packet) -> str:
    control: Control | None = decode(packet.data).control
    flags = "data" if control is None else _flags(int(control.flags))
    return f"{packet.sender}'s {flags} to {address_text(packet.destination)}"


def _flags(flags: int) -> str:
    names = {0x80: "SYN", 0x40: "RSYN", 0x20: "ACK", 0x10: "NACK", 0x08: "RST", 0x04: "FIN"}
    return "|".join(name for bit, name in names.items() if flags & bit)
