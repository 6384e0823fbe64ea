"""The Service Access Layer of one host, without any I/O: packets and time in, outputs and events out.

    kernel  --kernel_packet-->  +-------+  --Send-->     network
            <--Deliver--------  | Stack |  <--network_packet--
                                +-------+  --InstallPath, RemovePath-->  data path

Nothing here opens a socket, reads a clock or draws randomness that was not passed in. What the peer sends may be
anything: it is counted and dropped, and raises nothing.
"""

from __future__ import annotations

import random

from serval_node.sal.adhoc import AdHoc
from serval_node.sal.context import Context, Environment, StackConfig
from serval_node.sal.correspondents import Correspondent
from serval_node.sal.datagram_flows import DatagramFlows
from serval_node.sal.datagrams import Datagrams
from serval_node.sal.delay_queue import Delayed, DelayLimits, DelayVerdict
from serval_node.sal.encapsulation import Choices
from serval_node.sal.events import Event, Refusal
from serval_node.sal.expiry import Expiry
from serval_node.sal.explanation import Arrival, Outlook, explain
from serval_node.sal.flow_table import Endpoint, Flow, FlowTable
from serval_node.sal.kernel_side import KernelSide
from serval_node.sal.migration import Migration
from serval_node.sal.moves import Cause, MigrationRefused
from serval_node.sal.network_side import NetworkSide
from serval_node.sal.opening import Client, Server
from serval_node.sal.outputs import Output
from serval_node.sal.probing import Probing
from serval_node.sal.service_table import ResolutionMode, ServiceTable
from serval_node.sal.transfer import Transfer
from serval_node.sal.waiting import Waiting
from serval_node.wire.checksum import Buffer
from serval_node.wire.ipv4 import PROTOCOL_TCP, Address
from serval_node.wire.serviceid import Prefix, ServiceID

__all__ = ["Environment", "Stack", "StackConfig"]


class Stack:
    """The tables and state machines of one host. ``service_table`` is changed from outside; it tells the stack."""

    def __init__(self, *, config: StackConfig, environment: Environment, rng: random.Random) -> None:
        self._context = context = Context(config, environment, rng)
        self._config = config
        self._client = Client(context)
        server = Server(context)
        self.probing = Probing(context)
        self._transfer = transfer = Transfer(context, Migration(context), self.probing)
        self._waiting = Waiting(context, self._take_up)
        self._expiry = Expiry(context)
        self._datagram_flows = DatagramFlows(context, self._client, server, transfer, self._waiting)
        self._datagrams = Datagrams(context, server, self._waiting)
        sides = context, self._client, server, transfer, self._waiting, self._datagram_flows, self._datagrams
        self._kernel = KernelSide(*sides)
        self._network = NetworkSide(*sides, self.probing)

    # -- what others see

    @property
    def service_table(self) -> ServiceTable:
        return self._context.service_table

    @property
    def flows(self) -> FlowTable:
        return self._context.flows

    @property
    def counters(self) -> dict[str, int]:
        """Packets that were not served, by DropReason or Refusal."""
        return dict(self._context.counters)

    @property
    def encapsulation(self) -> Choices:
        """What goes inside UDP; may be changed at any time, for the first packets that follow."""
        return self._config.encapsulation

    @property
    def activity(self) -> dict[str, int]:
        """Packets by what was done with them, of the kinds that no table counts."""
        return dict(self._context.activity)

    @property
    def adhoc(self) -> AdHoc:
        """This host's part in an ad hoc network; replaced as a whole when its links change."""
        return self._context.adhoc

    @adhoc.setter
    def adhoc(self, part: AdHoc) -> None:
        self._context.adhoc = part

    @property
    def mode(self) -> ResolutionMode:
        """Which targets of a rule a packet gets; may be set at any time."""
        return self._context.mode

    @mode.setter
    def mode(self, mode: ResolutionMode) -> None:
        self._context.mode = mode

    @property
    def forwarding(self) -> bool:
        """Whether this host is a service router; may be set at any time."""
        return self._context.forwarding

    @forwarding.setter
    def forwarding(self, forwarding: bool) -> None:
        self._context.forwarding = forwarding

    def delayed(self) -> dict[ServiceID, int]:
        """How many packets wait under DELAY for each service."""
        return self._context.delay_queue.services()

    @property
    def limits(self) -> DelayLimits:
        """The bounds of what waits under DELAY."""
        return self._context.delay_queue.limits

    def waiting(self) -> list[Delayed]:
        """Every packet that waits under DELAY, oldest first."""
        return self._context.delay_queue.waiting()

    def take_outputs(self) -> list[Output]:
        """What is to be done since the last call, in order."""
        outputs = self._context.outputs
        if outputs:
            self._context.outputs = []
        return outputs

    def take_events(self) -> list[Event]:
        """What happened since the last call."""
        events = self._context.events
        if events:
            self._context.events = []
        return events

    def explain(self, service_id: ServiceID, arrival: Arrival | None = None, protocol: int = PROTOCOL_TCP) -> Outlook:
        """What would become of a SYN of a program here, or of one that arrives; nothing is counted or changed."""
        return explain(self._context, service_id, arrival, protocol)

    # -- time

    def next_timer(self) -> float | None:
        """When ``handle_timer`` wants to be called; 0 for at once."""
        parts = (self._context, self._waiting, self._expiry, self.probing)
        timers = [part.next_timer() for part in parts]
        return min((timer for timer in timers if timer is not None), default=None)

    def handle_timer(self, now: float) -> None:
        """Do what is due."""
        self._expiry.run(now)
        self._waiting.run(now)
        self._context.run_timers(now)
        self.probing.run(now)

    # -- sockets of serval_node.socket

    def reserve_flow(self) -> int:
        """A flowID for a socket that is not connected yet (slide 32)."""
        return self.flows.reserve()

    def release_flow(self, flow_id: int) -> None:
        """Give a reserved flowID back; one that a flow has taken over stays with the flow."""
        if self.flows.release(flow_id):
            prepared = self._client.prepared
            for port in [port for port, (reserved, _) in prepared.items() if reserved == flow_id]:
                del prepared[port]

    def prepare_connect(self, flow_id: int, local_port: int, service_id: ServiceID) -> None:
        """The next SYN from ``local_port`` is for this service, and its flow gets this reserved flowID."""
        self._client.prepared[local_port] = flow_id, service_id

    def flow_for_kernel(
        self, peer_address: Address, peer_port: int, local_port: int, protocol: int = PROTOCOL_TCP
    ) -> Flow | None:
        """The flow behind a kernel socket with this (virtual) peer; its local address may be any of the host's."""
        peer = peer_address, peer_port
        found = self.flows.by_kernel((self._config.sal0_address, local_port), peer, protocol)
        if found is not None:
            return found
        ends = protocol, peer, local_port
        return next(
            (flow for flow in self.flows if (flow.protocol, flow.kernel_peer, flow.kernel_local[1]) == ends), None
        )

    # -- sockets for datagrams

    def open_datagram_socket(self, port: int, service_id: ServiceID) -> int:
        """What leaves this local port is unconnected from now on, with this source; the socket's flowID."""
        return self._datagrams.open_socket(port, service_id)

    def datagram_socket_gone(self, port: int) -> None:
        """The kernel has no UDP socket with this local port any more."""
        self._datagrams.close_socket(port)

    def connect_datagrams(
        self, local: Endpoint, peer: Endpoint, service_id: ServiceID, packet: bytes, now: float
    ) -> Refusal | None:
        """Open a flow for a UDP socket before its first datagram; why not, if it cannot be. ICMP quotes ``packet``."""
        return self._datagram_flows.open(local, peer, service_id, None, packet, now)

    def correspondent(self, peer: Endpoint, local_port: int) -> Correspondent | None:
        """Who stands behind a virtual peer that wrote to a local port without a flow."""
        found = self._context.correspondents.by_kernel((self._config.sal0_address, local_port), peer)
        if found is not None:
            return found
        ends = peer, local_port
        known = self._context.correspondents
        return next((item for item in known if (item.kernel_peer, item.kernel_local[1]) == ends), None)

    def client_of(self, virtual_address: Address) -> Address | None:
        """The client address behind a virtual peer of 198.19.0.0/16."""
        return self._context.peers.client(virtual_address)

    # -- packets

    def kernel_packet(self, packet: Buffer, gso_size: int, now: float) -> None:
        """An IPv4 packet that the kernel sent into sal0; ``gso_size`` is the segment size of a super-segment or 0."""
        self._kernel.receive(packet, gso_size, now)

    def network_packet(self, packet: Buffer, now: float) -> None:
        """A whole IPv4 packet of protocol 144, or of protocol 17 with SAL inside (serval_node.wire.encapsulation)."""
        self._network.receive(packet, now)

    def _take_up(self, delayed: Delayed, now: float) -> None:
        if delayed.from_kernel:
            self.kernel_packet(delayed.packet, delayed.gso_size, now)
        else:
            self.network_packet(delayed.packet, now)

    # -- what the host tells

    def delay_verdict(self, prefix: Prefix, verdict: DelayVerdict, now: float) -> int:
        """Release, drop or refuse everything that waits for a service of ``prefix``; how many packets that were."""
        return self._waiting.verdict(prefix, verdict, now)

    def migrate(self, local_flow: int, address: Address, now: float, cause: Cause) -> None:
        """Move a flow to another of this host's addresses (slide 40). Raises MigrationRefused with the reason."""
        flow = self.flows.get(local_flow)
        if flow is None:
            raise MigrationRefused(f"this host has no flow {local_flow}")
        self._transfer.move(flow, address, now, cause)

    def kernel_socket_gone(self, local: Endpoint, peer: Endpoint, now: float, protocol: int = PROTOCOL_TCP) -> None:
        """The kernel has no socket for a flow's ends any more, whatever it said before. Unknown ends are ignored."""
        self._kernel.socket_gone(local, peer, now, protocol)

    def note_peer_activity(self, local_flow: int, now: float) -> None:
        """The first packet of a flow came by the fast path since its addresses changed: the peer has our third ACK."""
        flow = self.flows.get(local_flow)
        if flow is not None:
            flow.unconfirmed = False
            self._transfer.heard_there(flow, now)
