"""What the parts of the stack share: tables, counters, timers, and the way in which they send and deliver."""

from __future__ import annotations

import heapq
import itertools
import random
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Protocol

from serval_node.sal.adhoc import AdHoc
from serval_node.sal.correspondents import Correspondents
from serval_node.sal.delay_queue import DelayLimits, DelayQueue
from serval_node.sal.encapsulation import Choices
from serval_node.sal.events import Event, FlowClosed, Refusal, Refused
from serval_node.sal.flow_table import Endpoint, Flow, FlowTable
from serval_node.sal.half_open import HalfOpen
from serval_node.sal.limits import RateLimit
from serval_node.sal.outputs import Deliver, InstallPath, Output, RemovePath, Send
from serval_node.sal.places import Place
from serval_node.sal.service_table import Entry, ResolutionMode, ServiceTable
from serval_node.sal.states import ESTABLISHED, State
from serval_node.sal.virtual_peers import VirtualPeers
from serval_node.wire.checksum import Buffer
from serval_node.wire.ipv4 import (
    DEFAULT_TTL,
    HEADER_LENGTH,
    PROTOCOL_TCP,
    Address,
    UdpPorts,
    build_ipv4,
    icmp_unreachable,
)
from serval_node.wire.sal_header import BARE_LENGTH, Control, Extension, SalPacket, bare_header, encode
from serval_node.wire.serviceid import Prefix, ServiceID
from serval_node.wire.transport import TCP_HEADER_LENGTH, UDP_HEADER_LENGTH, clamp_mss, to_kernel, to_wire

LOOPBACK = bytes((127, 0, 0, 1))

# RSTs in answer to what belongs to no flow, and RSYNs that a service router sends on to all instances of a service. A
# forged packet asks for either; who means it asks again.
_RESETS_PER_SECOND, _SEARCHES_PER_SECOND = 1000.0, 50.0
# Timers of flows that have gone are cleared away when there may be as many of them as of the others, and not below.
_FEW_TIMERS = 1024


@dataclass(frozen=True, slots=True)
class StackConfig:
    """Knobs; times in seconds.

    forwarding         be a service router: send on what FORWARD rules say
    sal0_address       this host's own address on sal0
    half_open_limit    SYNs without third ACK that are kept; beyond it one of them gives way (half_open.py)
    half_open_timeout  how long one of them is kept
    time_wait          how long a flowID stays taken after an orderly close
    request_timeout    how long after its last SYN an unanswered connect() is kept
    migration_timeout  how long a flow that moves asks a peer that does not answer
    original_rules     take every peer for an original: follow its moves only when it has confirmed them
    delay              how many packets wait under DELAY, and for how long
    mode               which targets of a rule a packet gets; can be changed at run time, as forwarding can
    encapsulation      what goes inside UDP
    keepalive          how long after its last packet of control an encapsulated flow of a client says where it is
    sal0_mtu           what the kernel's packets are no longer than
    datagram_idle      how long a flow of datagrams is kept on which nothing passes
    datagram_flows     flows of datagrams that are kept at once; more are refused
    """

    forwarding: bool = False
    sal0_address: Address = bytes((198, 18, 0, 1))
    half_open_limit: int = 1024
    half_open_timeout: float = 30.0
    time_wait: float = 60.0
    request_timeout: float = 70.0
    migration_timeout: float = 300.0
    original_rules: bool = False
    delay: DelayLimits = DelayLimits()
    mode: ResolutionMode = ResolutionMode.ANYCAST
    encapsulation: Choices = field(default_factory=Choices)
    keepalive: float = 15.0
    sal0_mtu: int = 1488
    datagram_idle: float = 300.0
    datagram_flows: int = 16384

    @property
    def encapsulated_limit(self) -> int:
        """Bytes of the longest TCP segment, header included, that fits the links inside UDP."""
        return self.sal0_mtu - HEADER_LENGTH - UDP_HEADER_LENGTH


@dataclass(frozen=True, slots=True)
class Progress:
    """TCP numbers of a flow, None until a packet showed them.

    sent_next        one past the highest that our kernel sent
    peer_ack         the highest that the peer acknowledged
    own_ack          what our kernel acknowledged last, with its window and its options (SACK blocks)
    """

    sent_next: int | None
    peer_ack: int | None
    own_ack: int | None
    own_window: int = 0
    own_options: bytes = b""


class Environment(Protocol):
    """What the stack asks about its host."""

    def source_address(self, destination: Address) -> Address | None:
        """The own address towards a destination; None without a route."""

    def is_local(self, address: Address) -> bool:
        """Whether a unicast address is this host's."""

    def service_for(self, address: Address, port: int) -> ServiceID | None:
        """The service behind a virtual address and kernel port."""

    def link_mtu(self, address: Address) -> int:
        """The largest IP packet that goes out by the link with an own address."""

    def progress(self, local_flow: int) -> Progress | None:
        """How far a flow has come on the data path; None when that does not have it."""


class Context:
    """The state of one stack."""

    def __init__(self, config: StackConfig, environment: Environment, rng: random.Random) -> None:
        self.config = config
        self.forwarding = config.forwarding
        self.mode = config.mode
        self.environment = environment
        self.rng = rng
        self.service_table = ServiceTable()
        self.flows = FlowTable(rng)
        self.half_open = HalfOpen(config.half_open_limit, rng)
        self.delay_queue = DelayQueue(config.delay)
        self.resets = RateLimit(_RESETS_PER_SECOND, _RESETS_PER_SECOND)
        self.searches = RateLimit(_SEARCHES_PER_SECOND, _SEARCHES_PER_SECOND)
        self.peers = VirtualPeers()
        self.adhoc = AdHoc()
        self.correspondents = Correspondents()
        self.counters: Counter[str] = Counter()
        self.activity: Counter[str] = Counter()
        self.outputs: list[Output] = []
        self.events: list[Event] = []
        self._timers: list[tuple[float, int, Callable[[Flow, float], None], Flow]] = []
        self._timers_limit = _FEW_TIMERS
        self._order = itertools.count()

    def own_address(self, entry: Entry) -> Address:
        """This host's address towards the targets of an entry: what they would see as the client."""
        target = entry.selectable[0].target.address
        return (self.environment.source_address(target) if target else None) or self.config.sal0_address

    # -- counting

    def refuse(self, reason: Refusal, now: float) -> None:
        """Count a packet that is not served."""
        self.counters[reason.value] += 1

    def refuse_syn(
        self,
        reason: Refusal,
        now: float,
        service_id: ServiceID,
        client: Address,
        client_flow: int,
        prefix: Prefix | None = None,
    ) -> None:
        """Count a SYN that is not served, and tell of it; ``prefix`` is that of the rule which it met."""
        self.counters[reason.value] += 1
        self.events.append(Refused(now, reason, service_id, client, client_flow, prefix))

    # -- timers

    def at(self, when: float, action: Callable[[Flow, float], None], flow: Flow) -> None:
        """Call ``action(flow, now)`` at ``when`` unless the flow has gone; the action checks whether it is due."""
        heapq.heappush(self._timers, (when, next(self._order), action, flow))
        if len(self._timers) > self._timers_limit:
            self._clear_timers()

    def _clear_timers(self) -> None:
        """A flood of requests that give way to each other must not leave its timers, and with them its flows."""
        self._timers = [timer for timer in self._timers if self.flows.get(timer[3].local_flow) is timer[3]]
        heapq.heapify(self._timers)
        self._timers_limit = max(_FEW_TIMERS, 2 * len(self._timers))

    def next_timer(self) -> float | None:
        timers = self._timers
        while timers and self.flows.get(timers[0][3].local_flow) is not timers[0][3]:
            heapq.heappop(timers)
        return timers[0][0] if timers else None

    def run_timers(self, now: float) -> None:
        while (when := self.next_timer()) is not None and when <= now:
            _, _, action, flow = heapq.heappop(self._timers)
            action(flow, now)

    # -- sending to the network

    def send(
        self,
        flow: Flow,
        extensions: tuple[Extension, ...],
        segment: bytes,
        destination: Place | None = None,
        *,
        source: Address | None = None,
        ttl: int = DEFAULT_TTL,
        checksum: bool = True,
    ) -> None:
        """A packet of a flow, the segment's ports and checksum made right (unless it stands as it is to go, with
        ``checksum`` off); it goes from and to the flow's own places unless others are given.
        """
        address, ports = destination or flow.peer
        source = source or flow.local_address
        if segment and checksum:
            segment = to_wire(segment, flow.protocol, source, address)
        if extensions:
            data = encode(SalPacket(flow.local_flow, flow.peer_flow, flow.protocol, extensions, segment))
        else:
            data = bare_header(flow.local_flow, flow.peer_flow, flow.protocol) + segment
        self.outputs.append(Send(source, address, ttl, data, ports=ports))

    def answer(
        self, source: Address, destination: Place, flows: tuple[int, int], protocol: int, control: Control
    ) -> None:
        """A control packet that belongs to no flow of ours, such as a router's RST."""
        data = encode(SalPacket(flows[0], flows[1], protocol, (control,), b""))
        self.outputs.append(Send(source, destination.address, DEFAULT_TTL, data, ports=destination.ports))

    def opening_segment(self, segment: bytes, ports: UdpPorts | None) -> bytes:
        """The TCP part of a SYN or SYN-ACK, either way, as the flow's form wants it: inside UDP with room for that."""
        if ports is None:
            return segment
        return clamp_mss(segment, self.config.encapsulated_limit - TCP_HEADER_LENGTH)

    # -- delivering to the kernel

    def deliver(self, flow: Flow, segment: bytes) -> None:
        """A segment from the flow's peer, as the kernel's virtual peer would have sent it."""
        self.deliver_segment(flow.kernel_local, flow.kernel_peer, flow.protocol, segment)

    def deliver_segment(self, local: Endpoint, peer: Endpoint, protocol: int, segment: bytes) -> None:
        segment = to_kernel(segment, protocol, peer[0], local[0], peer[1], local[1])
        self.outputs.append(Deliver(build_ipv4(peer[0], local[0], protocol, segment)))

    def unreachable(self, packet: Buffer, code: int, *, mtu: int = 0) -> None:
        """An ICMP error about a packet of the kernel: the program behind it fails at once."""
        self.outputs.append(Deliver(icmp_unreachable(packet, code, mtu=mtu)))

    # -- flows

    def install(self, flow: Flow) -> None:
        """Hand an established flow's packets to the data path, unless the stack still has to see them."""
        if flow.protocol != PROTOCOL_TCP:
            return  # there is no fast path for others
        closing = flow.fin_end is not None and not flow.fin_acked
        if flow.fast or closing or flow.resetting or flow.unconfirmed or flow.state is State.TIMEWAIT:
            return
        flow.fast = True
        self.outputs.append(InstallPath(flow.forwarding_state(self.segment_limit(flow))))

    def segment_limit(self, flow: Flow) -> int:
        """Bytes of the longest TCP segment, header included, that both ends' links take, as far as is known here."""
        mtu = min(self.environment.link_mtu(flow.local_address), flow.peer_mtu)
        limit = mtu - HEADER_LENGTH - BARE_LENGTH
        return limit if flow.ports is None else min(limit - UDP_HEADER_LENGTH, self.config.encapsulated_limit)

    def reinstall(self, flow: Flow) -> None:
        """The flow's addresses have changed: tell the data path, if it has the flow."""
        if flow.fast:
            self.outputs.append(InstallPath(flow.forwarding_state(self.segment_limit(flow))))

    def uninstall(self, flow: Flow) -> None:
        """Take the flow's packets back to the stack."""
        if flow.fast:
            flow.fast = False
            self.outputs.append(RemovePath(flow.local_flow))

    def forget(self, flow: Flow, reason: str, now: float) -> None:
        """Remove a flow from everything."""
        if self.flows.get(flow.local_flow) is not flow:
            return
        self._close(flow, reason, now)
        self.flows.remove(flow)

    def bury(self, flow: Flow, reason: str, now: float) -> None:
        """End a flow whose peer may not know: its flowID stays taken for a while, to answer what still comes by RST."""
        self._close(flow, reason, now)
        self.flows.detach(flow)
        self.at(now + self.config.time_wait, self._unbury, flow)

    def _unbury(self, flow: Flow, now: float) -> None:
        if flow.state is State.CLOSED:
            self.flows.remove(flow)

    def _close(self, flow: Flow, reason: str, now: float) -> None:
        self.uninstall(flow)
        opened = flow.state in ESTABLISHED
        flow.state = State.CLOSED
        # Nothing is repeated for it any more.
        flow.unconfirmed = flow.resetting = False
        flow.control.pending = None
        self.half_open.discard(flow)
        self.events.append(FlowClosed(now, flow.local_flow, flow.service_id, flow.server, opened, reason))
