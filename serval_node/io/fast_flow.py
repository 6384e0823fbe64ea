"""What the data path keeps per flow: the constants of its two header rewrites, and its counters.

A packet of an established flow looks like this; positions are the same in every buffer of this room:

    sal0          |vnet 10|  IPv4 20  | TCP 20-60 | data
    wire  |    IPv4 20    |   SAL 12  | TCP 20-60 | data
          0       2       12          32

so that either header is written over the other, in place, and TCP stays where it is. Inside UDP the kernel deals with
the outer headers; what is given to it, and got from it, begins with SAL at position 20. IP options appear on neither
side of the fast path (such packets go to the stack).
"""

from __future__ import annotations

import struct
from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from serval_node.io.raw_ip import SAL_PROTOCOL
from serval_node.io.sender import Sender, SocketAddress
from serval_node.io.trial import Trial
from serval_node.sal.flow_table import ForwardingState
from serval_node.wire.checksum import ones_sum
from serval_node.wire.ipv4 import DEFAULT_TTL, PROTOCOL_TCP, address_text
from serval_node.wire.sal_header import bare_header

if TYPE_CHECKING:
    from serval_node.io.unacknowledged import Unacknowledged

VNET_AT = 2
KERNEL_IP_AT = 12  # the kernel's IPv4 header; on the wire, the addresses of the outer one
SAL_AT = 20
TCP_AT = 32
SEQUENCE_AT = 36
ACK_AT = 40
OFFSET_AT = 44
FLAGS_AT = 45
CHECKSUM_AT = 48
SMALLEST = TCP_AT + 20

FIN_SYN_RST = 0x07
PSH = 0x08
URG = 0x20
SEQUENCE_MASK = 0xFFFFFFFF

_OUTER_IP = struct.Struct("!BBHHHBBH4s4s")
_INNER_IP_BASE = struct.Struct("!BBHHHBBH")
_DONT_FRAGMENT = 0x4000
_NO_LIMIT = 1 << 16
_PORTS = struct.Struct("!HH")


@dataclass(frozen=True, slots=True)
class FlowCounters:
    """A snapshot. Packets as on the wire, bytes of TCP payload, fast path only. Sequence numbers are None until a
    packet showed them: `sent_next` is one past the highest sent, `received_next` one past the highest received,
    `peer_ack` the highest acknowledgement from the peer, `own_ack` the last one given to it, `own_window` and
    `own_options` (SACK blocks) what went along with that."""

    sent_packets: int = 0
    sent_bytes: int = 0
    received_packets: int = 0
    received_bytes: int = 0
    sent_next: int | None = None
    received_next: int | None = None
    peer_ack: int | None = None
    own_ack: int | None = None
    own_window: int = 0
    own_options: bytes = b""


@dataclass(frozen=True, slots=True)
class Traffic:
    """What a flow did since it was last asked. `heard`: when its peer's last packet came, None when none did; `gap`:
    the longest time between two packets before that; `payload`: whether data came; `owing`: whether the peer has not
    acknowledged all that was sent."""

    local_flow: int
    heard: float | None
    gap: float
    payload: bool
    owing: bool


class FastFlow:
    """One established TCP flow. `apply` sets everything that depends on its forwarding state; counters survive it.

    `room` is the largest TCP segment, its header included, that the path takes; `trial` watches whether it takes
    super-segments. `unacknowledged` holds copies of what was sent, None where nothing is kept; `doubted` is the number
    before which what was sent may be lost with its path, below 0 when nothing is in doubt.
    """

    __slots__ = (
        "_told",
        "active",
        "feed",
        "gap",
        "doubted",
        "heard",
        "heard_at",
        "inner_addresses",
        "inner_ip_sum",
        "inner_ports",
        "kernel_key",
        "kernel_sum",
        "outer_header",
        "outer_sum",
        "own_ack",
        "own_options",
        "own_window",
        "peer_ack",
        "peer_socket",
        "received_bytes",
        "received_next",
        "received_packets",
        "room",
        "sender",
        "sent_bytes",
        "sent_next",
        "sent_packets",
        "state",
        "trial",
        "unacknowledged",
        "wire_keys",
    )

    state: ForwardingState
    sender: Sender
    peer_socket: SocketAddress
    trial: Trial | None

    def __init__(self, state: ForwardingState, sender: Sender, unacknowledged: Unacknowledged | None = None) -> None:
        self.unacknowledged = unacknowledged
        self.doubted = -1
        self.own_window = 0
        self.own_options = b""
        self.sent_packets = self.sent_bytes = self.received_packets = self.received_bytes = 0
        self.sent_next = self.received_next = self.peer_ack = self.own_ack = -1
        self.feed: list[FastFlow] = []  # where it says that it had traffic
        self.active = False
        self.apply(state, sender)

    def apply(self, state: ForwardingState, sender: Sender) -> None:
        """Takes over `state`; the next packet from the peer counts as its first."""
        self.state = state
        self.sender = sender
        self.heard = False
        # Of the path that was left nothing is known here.
        self.heard_at = self.gap = 0.0
        self._told = 0.0, self.received_bytes
        self.trial = sender.trial(state.peer_address)
        self.room = _NO_LIMIT if state.segment_limit is None else state.segment_limit
        self.peer_socket = address_text(state.peer_address), 0 if state.ports is None else state.ports.peer
        local, local_port = state.kernel_local
        peer, peer_port = state.kernel_peer
        self.kernel_key = local + peer + _PORTS.pack(local_port, peer_port)
        self.kernel_sum = ones_sum(self.kernel_key)
        outer = state.local_address + state.peer_address
        self.outer_sum = ones_sum(outer)
        ip = _OUTER_IP.pack(
            0x45, 0, 0, 0, _DONT_FRAGMENT, DEFAULT_TTL, SAL_PROTOCOL, 0, state.local_address, state.peer_address
        )
        self.outer_header = ip + bare_header(state.local_flow, state.peer_flow, state.protocol) + bytes(4)
        self.wire_keys = _wire_keys(state)
        self.inner_addresses = peer + local
        self.inner_ports = _PORTS.pack(peer_port, local_port)
        base = _INNER_IP_BASE.pack(0x45, 0, 0, 0, _DONT_FRAGMENT, DEFAULT_TTL, PROTOCOL_TCP, 0)
        self.inner_ip_sum = ones_sum(base + self.inner_addresses)

    def arrived(self, now: float) -> None:
        """Packets from the peer came now."""
        gap = now - self.heard_at
        if gap > self.gap:
            self.gap = gap
        self.heard_at = now

    def traffic(self) -> Traffic:
        """What it did since the last call."""
        (heard_before, bytes_before), self._told = self._told, (self.heard_at, self.received_bytes)
        gap, self.gap, self.active = self.gap, 0.0, False
        heard = self.heard_at if self.heard_at > heard_before else None
        outstanding = self.sent_next - self.peer_ack & SEQUENCE_MASK
        owing = self.sent_bytes > 0 and (self.peer_ack < 0 or 0 < outstanding < 0x80000000)
        return Traffic(self.state.local_flow, heard, gap, self.received_bytes != bytes_before, owing)

    def note_sent(self, packets: int, payload: int, sequence: int, ack: int) -> None:
        """`sequence` is that of the first payload byte, `ack` the acknowledgement that went along."""
        if not self.active:
            self.active = True
            self.feed.append(self)
        self.sent_packets += packets
        self.sent_bytes += payload
        self.own_ack = ack
        end = sequence + payload & SEQUENCE_MASK
        if self.trial is not None and payload:
            self._watch(self.trial, packets, payload, sequence)
        if self.sent_next < 0 or end - self.sent_next & SEQUENCE_MASK < 0x80000000:
            self.sent_next = end

    def _watch(self, trial: Trial, packets: int, payload: int, sequence: int) -> None:
        peer = self.state.peer_address
        joined = packets > 1 and self.sender.joins(peer)
        again = self.sent_next >= 0 and sequence - self.sent_next & SEQUENCE_MASK >= 0x80000000
        if trial.sent(sequence, payload, joined=joined, again=again):
            self.trial = None
            self.sender.judge(peer, False)

    def note_received(self, packets: int, payload: int, sequence: int, ack: int) -> None:
        if not self.active:
            self.active = True
            self.feed.append(self)
        self.received_packets += packets
        self.received_bytes += payload
        if self.trial is not None and self.trial.acknowledged(ack):
            self.trial = None
            self.sender.judge(self.state.peer_address, True)
        if self.peer_ack < 0 or ack - self.peer_ack & SEQUENCE_MASK < 0x80000000:
            self.peer_ack = ack
            if self.unacknowledged:
                self.unacknowledged.trim(ack)
        end = sequence + payload & SEQUENCE_MASK
        if self.received_next < 0 or end - self.received_next & SEQUENCE_MASK < 0x80000000:
            self.received_next = end

    def counters(self) -> FlowCounters:
        return FlowCounters(
            self.sent_packets,
            self.sent_bytes,
            self.received_packets,
            self.received_bytes,
            _known(self.sent_next),
            _known(self.received_next),
            _known(self.peer_ack),
            _known(self.own_ack),
            self.own_window,
            self.own_options,
        )


def _known(number: int) -> int | None:
    return None if number < 0 else number


def _wire_keys(state: ForwardingState) -> tuple[bytes, ...]:
    """Bytes 12..31 of the peer's packets: outer addresses and SAL header. Matching the header's checksum as well
    verifies it; its value zero has two spellings."""
    header = bare_header(state.peer_flow, state.local_flow, state.protocol)
    addresses = state.peer_address + state.local_address
    if header[10:12] in (b"\0\0", b"\xff\xff"):
        return addresses + header[:10] + b"\0\0", addresses + header[:10] + b"\xff\xff"
    return (addresses + header,)


@dataclass(slots=True)
class FlowPaths:
    """The flows of the fast path by each of their keys, and what was dropped or went past it, by reason."""

    by_kernel: dict[bytes, FastFlow] = field(default_factory=dict)
    by_wire: dict[bytes, FastFlow] = field(default_factory=dict)
    by_flow: dict[int, FastFlow] = field(default_factory=dict)
    drops: Counter[str] = field(default_factory=Counter)
    slow_kernel: int = 0
    slow_network: int = 0
    active: list[FastFlow] = field(default_factory=list)  # those that had traffic since `traffic` was last called

    def traffic(self) -> list[Traffic]:
        """What the active flows did since the last call."""
        told = [flow.traffic() for flow in self.active if self.by_flow.get(flow.state.local_flow) is flow]
        self.active.clear()
        return told

    def add(self, flow: FastFlow) -> None:
        flow.feed = self.active
        self.by_flow[flow.state.local_flow] = flow
        self.by_kernel[flow.kernel_key] = flow
        for key in flow.wire_keys:
            self.by_wire[key] = flow

    def discard(self, flow: FastFlow) -> None:
        """Forgets the keys of `flow`; another flow that took one over in the meantime keeps it."""
        for table, keys in ((self.by_kernel, (flow.kernel_key,)), (self.by_wire, flow.wire_keys)):
            for key in keys:
                if table.get(key) is flow:
                    del table[key]
        if self.by_flow.get(flow.state.local_flow) is flow:
            del self.by_flow[flow.state.local_flow]
