"""The flow table (slide 20): flows by the flowID that this host chose, the only key for packets from the network.

FlowIDs are local to a host and random; none is given out again while its flow, its TIME_WAIT or its reservation
lives (S11).
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass

from serval_node.sal.connection import ControlState
from serval_node.sal.datagram_record import DatagramRecord
from serval_node.sal.moves import MigrationRecord
from serval_node.sal.places import Place
from serval_node.sal.service_table import Target
from serval_node.sal.states import State
from serval_node.wire.ipv4 import LARGEST_PACKET, PROTOCOL_TCP, Address, UdpPorts
from serval_node.wire.serviceid import ServiceID

Endpoint = tuple[Address, int]

# Transport protocol, own and other end as the kernel sees them: ports of TCP and of UDP are different ones.
KernelKey = tuple[int, Endpoint, Endpoint]

# (client address, client flowID, client nonce): what makes two SYNs the same request.
RequestKey = tuple[Address, int, bytes]


@dataclass(frozen=True, slots=True)
class ForwardingState:
    """Everything that moving the packets of an established flow needs; a migration replaces it as a whole.

    local_flow, peer_flow        flowIDs, chosen by this host and by the peer
    protocol                     of the transport, 6 for TCP
    local_address, peer_address  of the outer IP header
    kernel_local, kernel_peer    (address, port) of both ends as the kernel sees them on sal0
    ports                        of the UDP header between IP and SAL; None: raw packets
    segment_limit                bytes of the longest TCP segment, header included, that the path takes; None: the
                                 kernel's are right
    """

    local_flow: int
    peer_flow: int
    protocol: int
    local_address: Address
    peer_address: Address
    kernel_local: Endpoint
    kernel_peer: Endpoint
    ports: UdpPorts | None = None
    segment_limit: int | None = None


class Flow:
    """One flow of this host: half-open, established or in TIME_WAIT."""

    __slots__ = (
        "asked", "attempts", "control", "created", "datagrams", "deadline", "fast", "fin_acked", "fin_end",
        "initial_ack", "initial_seq", "keepalive_due", "kernel_local", "kernel_peer", "local_address", "local_flow",
        "marked", "migration", "peer_address", "peer_flow", "peer_mtu", "placed", "ports", "protocol", "request_key",
        "reset_sent", "resetting", "server", "service_id", "sources", "state", "syn_ack", "syn_sent", "syn_window",
        "syns", "target", "third_ack", "third_ack_due", "unconfirmed",
    )  # fmt: skip

    def __init__(
        self, local_flow: int, protocol: int, server: bool, service_id: ServiceID, control: ControlState, now: float
    ) -> None:
        self.local_flow = local_flow
        self.peer_flow = 0
        self.protocol = protocol
        self.server = server
        self.service_id = service_id
        self.control = control
        self.created = now
        self.state = State.INIT
        self.local_address: Address = b""
        self.peer_address: Address | None = None
        # When it came to the path between these addresses.
        self.placed = now
        # Of UDP encapsulation; None: raw packets.
        self.ports: UdpPorts | None = None
        # The forms in which a client's SYN came, in this order: its SYN-ACK goes out in each.
        self.asked: tuple[UdpPorts | None, ...] = ()
        # When it next says where it is; None: it need not.
        self.keepalive_due: float | None = None
        self.kernel_local: Endpoint = (b"", 0)
        self.kernel_peer: Endpoint = (b"", 0)
        self.request_key: RequestKey | None = None
        # The target of the first SYN: a retransmitted one goes there again while it is in the rule (S43).
        self.target: Target | None = None
        self.sources: tuple[Address, ...] = ()
        # TCP numbers: our kernel's and the peer's initial sequence number, the end of our kernel's FIN.
        self.initial_seq = 0
        self.initial_ack = 0
        self.syn_window = 0
        # The client's only SYN, or when its server had it, for a round-trip sample; None after a second one (Karn).
        self.syn_sent: float | None = None
        # How often it was sent.
        self.syns = 0
        # When an unanswered connect(), or a flow whose kernel socket has gone, is given up.
        self.deadline = 0.0
        # The TCP part of the SYN-ACK, kept until the kernel answers it.
        self.syn_ack: bytes | None = None
        # How often the current step was tried: SYNs, third ACKs, probes of a reset.
        self.attempts = 0
        self.fin_end: int | None = None
        self.fin_acked = False
        # The TCP part of the third ACK, kept until the peer is heard; due while the kernel has not sent it yet.
        self.third_ack: bytes | None = None
        self.third_ack_due = False
        self.unconfirmed = False
        self.resetting = False
        self.reset_sent = 0.0
        self.fast = False
        # Whether the peer is a node of this project, and what is known of moves (None: never moved).
        self.marked = False
        self.migration: MigrationRecord | None = None
        # Of a flow of datagrams what takes the place of TCP; None for TCP.
        self.datagrams = None if protocol == PROTOCOL_TCP else DatagramRecord()
        # The largest IP packet that the peer's link takes, as it said when it moved.
        self.peer_mtu = LARGEST_PACKET

    @property
    def kernel_key(self) -> tuple[Endpoint, Endpoint]:
        return self.kernel_local, self.kernel_peer

    @property
    def peer(self) -> Place:
        """Where the flow's packets go; only for a flow that has a peer."""
        assert self.peer_address is not None
        return Place(self.peer_address, self.ports)

    def forwarding_state(self, segment_limit: int | None = None) -> ForwardingState:
        """The flow's value for the data path; only for a flow that has a peer."""
        assert self.peer_address is not None
        return ForwardingState(
            self.local_flow,
            self.peer_flow,
            self.protocol,
            self.local_address,
            self.peer_address,
            self.kernel_local,
            self.kernel_peer,
            self.ports,
            segment_limit,
        )


class FlowTable:
    """Flows by local flowID, by their kernel endpoints, and half-open ones of a server by their request."""

    def __init__(self, rng: random.Random) -> None:
        self._rng = rng
        self._flows: dict[int, Flow] = {}
        self._by_kernel: dict[KernelKey, Flow] = {}
        self._by_request: dict[RequestKey, Flow] = {}
        self._reserved: set[int] = set()
        self.datagram_flows = 0  # how many of them are of datagrams

    def new_flow_id(self) -> int:
        """A random non-zero flowID that nothing of this host uses."""
        while True:
            flow_id = self._rng.getrandbits(32)
            if flow_id and flow_id not in self._flows and flow_id not in self._reserved:
                return flow_id

    def reserve(self) -> int:
        """A flowID for a socket that has no connection yet (S37)."""
        flow_id = self.new_flow_id()
        self._reserved.add(flow_id)
        return flow_id

    def release(self, flow_id: int) -> bool:
        """Give a reserved flowID back; False when it is not (or no longer) reserved."""
        if flow_id not in self._reserved:
            return False
        self._reserved.remove(flow_id)
        return True

    def reserved(self) -> tuple[int, ...]:
        return tuple(self._reserved)

    def add(self, flow: Flow) -> None:
        self.datagram_flows += flow.datagrams is not None
        self._flows[flow.local_flow] = flow
        key = (flow.protocol, *flow.kernel_key)
        self._by_kernel[key] = flow
        if flow.request_key is not None:
            self._by_request[flow.request_key] = flow

    def remove(self, flow: Flow) -> None:
        if self._flows.pop(flow.local_flow, None) is not None:
            self.datagram_flows -= flow.datagrams is not None
        self.detach(flow)

    def detach(self, flow: Flow) -> None:
        """Find the flow by its flowID only from now on: kernel and clients are done with it."""
        key = (flow.protocol, *flow.kernel_key)
        if self._by_kernel.get(key) is flow:
            del self._by_kernel[key]
        if flow.request_key is not None and self._by_request.get(flow.request_key) is flow:
            del self._by_request[flow.request_key]

    def get(self, local_flow: int) -> Flow | None:
        return self._flows.get(local_flow)

    def by_kernel(self, kernel_local: Endpoint, kernel_peer: Endpoint, protocol: int = PROTOCOL_TCP) -> Flow | None:
        return self._by_kernel.get((protocol, kernel_local, kernel_peer))

    def by_request(self, key: RequestKey) -> Flow | None:
        return self._by_request.get(key)

    def __iter__(self) -> Iterator[Flow]:
        return iter(self._flows.values())

    def __len__(self) -> int:
        return len(self._flows)
