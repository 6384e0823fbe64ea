"""The Service Access Layer of one host, without any I/O: packets and time in, outputs and events out.

    kernel  --kernel_packet-->  +-------+  --Send-->     network
            <--Deliver--------  | Stack |  <--network_packet--
                                +-------+  --InstallPath, RemovePath-->  data path

Nothing here opens a socket, reads a clock or draws randomness that was not passed in. What the peer sends may be
anything: it is counted and dropped, and raises nothing.
"""

from __future__ import annotations

import random

from serval_node.sal.context import Context, Environment, StackConfig
from serval_node.sal.delay_queue import Delayed
from serval_node.sal.events import ConnectFailed, DelayNotify, Event, Refusal, Refused
from serval_node.sal.flow_table import Endpoint, Flow, FlowTable
from serval_node.sal.forwarding import forward
from serval_node.sal.opening import Client, Server
from serval_node.sal.outputs import Deliver, Output
from serval_node.sal.resets import refuse_unknown, reset_unknown
from serval_node.sal.resolution import HOST_ACTIONS, StickyChoices, resolve
from serval_node.sal.service_table import Action, Entry, ServiceTable
from serval_node.sal.states import ESTABLISHED, State
from serval_node.sal.transfer import Transfer
from serval_node.wire.checksum import Buffer
from serval_node.wire.errors import DropReason, WireError
from serval_node.wire.ipv4 import (
    ICMP_HOST_UNREACHABLE,
    ICMP_NET_UNREACHABLE,
    ICMP_PORT_UNREACHABLE,
    PROTOCOL_ICMP,
    PROTOCOL_SERVAL,
    PROTOCOL_TCP,
    PROTOCOL_UDP,
    Address,
    Ipv4Header,
    icmp_unreachable,
)
from serval_node.wire.sal_header import Control, ControlFlag, SalPacket, decode
from serval_node.wire.serviceid import Prefix, ServiceID
from serval_node.wire.transport import ACK, FIN, RST, SYN, TcpHeader, build_tcp, strip_timestamps, verify

__all__ = ["Environment", "Stack", "StackConfig"]

_SYN, _ACK, _RST = ControlFlag.SYN, ControlFlag.ACK, ControlFlag.RST
_ICMP_ECHO_REQUEST = 8


class Stack:
    """The tables and state machines of one host. ``service_table`` is changed from outside; it tells the stack."""

    def __init__(self, *, config: StackConfig, environment: Environment, rng: random.Random) -> None:
        self._context = Context(config, environment, rng)
        self._config = config
        self._environment = environment
        self._rng = rng
        self._client = Client(self._context)
        self._server = Server(self._context)
        self._transfer = Transfer(self._context)
        self._sticky = StickyChoices()
        self._rules_changed = False
        self.service_table.on_change(self._note_change)

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

    def delayed(self) -> dict[ServiceID, int]:
        """How many packets wait under DELAY for each service."""
        return self._context.delay_queue.services()

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

    # -- time

    def next_timer(self) -> float | None:
        """When ``handle_timer`` wants to be called; 0 for at once."""
        if self._rules_changed and len(self._context.delay_queue):
            return 0.0
        when = self._context.next_timer()
        oldest = self._context.delay_queue.oldest()
        if oldest is not None:
            expiry = oldest + self._config.delay_timeout
            return expiry if when is None else min(when, expiry)
        return when

    def handle_timer(self, now: float) -> None:
        """Do what is due."""
        if self._rules_changed:
            self._rules_changed = False
            self._release_decided(now)
        for delayed in self._context.delay_queue.expired(now - self._config.delay_timeout):
            self._discard(delayed, Refusal.DELAY_EXPIRED, now)
        self._context.run_timers(now)

    def _note_change(self) -> None:
        self._rules_changed = True

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

    def flow_for_kernel(self, peer_address: Address, peer_port: int, local_port: int) -> Flow | None:
        """The flow behind a kernel socket with this (virtual) peer; its local address may be any of the host's."""
        peer = peer_address, peer_port
        found = self.flows.by_kernel((self._config.sal0_address, local_port), peer)
        if found is not None:
            return found
        return next(
            (flow for flow in self.flows if flow.kernel_peer == peer and flow.kernel_local[1] == local_port), None
        )

    def client_of(self, virtual_address: Address) -> Address | None:
        """The client address behind a virtual peer of 198.19.0.0/16."""
        return self._context.peers.client(virtual_address)

    # -- from the kernel

    def kernel_packet(self, packet: Buffer, gso_size: int, now: float) -> None:
        """An IPv4 packet that the kernel sent into sal0; ``gso_size`` is the segment size of a super-segment or 0."""
        try:
            header = Ipv4Header.decode(packet)
            if header.protocol != PROTOCOL_TCP:
                self._other_transport(header, packet, now)
                return
            segment = header.payload(packet)
            tcp = TcpHeader.decode(segment)
        except WireError as error:
            self._context.counters[error.reason.value] += 1
            return
        local, peer = (header.source, tcp.source_port), (header.destination, tcp.destination_port)
        flow = self.flows.by_kernel(local, peer)
        if tcp.flags & SYN and not tcp.flags & ACK:
            self._kernel_syn(flow, local, peer, header, bytes(packet[: header.total_length]), segment, tcp, now)
        elif flow is None:
            self._orphan(local, peer, tcp, now)
        else:
            self._kernel_segment(flow, segment, tcp, gso_size, now)

    def _kernel_segment(self, flow: Flow, segment: bytes, tcp: TcpHeader, gso_size: int, now: float) -> None:
        if tcp.flags & SYN:
            if flow.server:
                self._server.send_syn_ack(flow, segment, tcp)
        elif flow.state is State.RESPOND:
            if tcp.flags & RST:
                # The listener has gone and its rule follows: silence, so that the client's next SYN is resolved anew.
                self._context.refuse(Refusal.LISTENER_GONE, now)
                self._context.forget(flow, "listener gone", now)
        elif flow.state is State.REQUEST:
            self._context.refuse(Refusal.NOT_CONFIRMED, now)
        else:
            if flow.third_ack_due and not tcp.flags & RST:
                self._client.complete(flow, segment, tcp, now)
                if len(segment) == tcp.header_length and tcp.sequence_length(len(segment)) == 0:
                    return
            self._transfer.from_kernel(flow, segment, tcp, gso_size, now)

    def _kernel_syn(
        self,
        flow: Flow | None,
        local: Endpoint,
        peer: Endpoint,
        header: Ipv4Header,
        packet: bytes,
        segment: bytes,
        tcp: TcpHeader,
        now: float,
    ) -> None:
        context = self._context
        if flow is not None and (flow.server or tcp.seq != flow.initial_seq):
            self._replace(flow, now)
            flow = None
        elif flow is not None and flow.state is not State.REQUEST:
            # Its timer was faster than our delivery of the SYN-ACK.
            self._client.repeat_syn_ack(flow)
            return
        if flow is not None:
            service_id: ServiceID | None = flow.service_id
        else:
            service_id = self._client.service(local[1], self._environment.service_for(*peer))
        if service_id is None:
            context.refuse(Refusal.UNKNOWN_VIRTUAL_ADDRESS, now)
            self._unreachable(packet, ICMP_HOST_UNREACHABLE)
            return
        verdict = resolve(
            self.service_table,
            service_id,
            size=len(packet),
            key=self._own_address,
            rng=self._rng,
            sticky=None if flow is None else flow.target,
        )
        if verdict is None:
            self._fail(flow, local, packet, service_id, Refusal.NO_RULE, ICMP_NET_UNREACHABLE, now)
        elif verdict.action is Action.DROP:
            self._fail(flow, local, packet, service_id, Refusal.DROP_RULE, ICMP_HOST_UNREACHABLE, now)
        elif verdict.action is Action.DELAY:
            delayed = Delayed((local, peer, tcp.seq), service_id, packet, 0, True, now)
            self._delay(delayed, verdict.entry, local[0], now)
        else:
            flow = flow or self._client.begin(local, peer, service_id, now)
            if not self._client.send_syn(flow, segment, tcp, verdict, now):
                self._fail(flow, local, packet, service_id, Refusal.NO_ROUTE, ICMP_NET_UNREACHABLE, now)

    def _replace(self, flow: Flow, now: float) -> None:
        """The kernel uses the ports of a flow anew: for the kernel that one is over."""
        if flow.state in ESTABLISHED and flow.state is not State.TIMEWAIT:
            self._transfer.abandon(flow, "ports used again", now)
        else:
            self._context.forget(flow, "ports used again", now)

    def _own_address(self, entry: Entry) -> Address:
        """This host's address towards the targets of an entry: what they would see as the client."""
        target = entry.selectable[0].target.address
        return (self._environment.source_address(target) if target else None) or self._config.sal0_address

    def _fail(
        self,
        flow: Flow | None,
        local: Endpoint,
        packet: bytes,
        service_id: ServiceID,
        reason: Refusal,
        code: int,
        now: float,
    ) -> None:
        """connect() fails at once, here on the sender's own host (S28, S29)."""
        self._context.refuse(reason, now, service_id, local[0])
        self._unreachable(packet, code)
        prepared = self._client.prepared.pop(local[1], None)
        flow_id = flow.local_flow if flow is not None else prepared[0] if prepared is not None else 0
        if prepared is not None:
            self.flows.release(prepared[0])
        self._context.events.append(ConnectFailed(now, flow_id, service_id, reason.value))
        if flow is not None:
            self._context.forget(flow, reason.value, now)

    def _orphan(self, local: Endpoint, peer: Endpoint, tcp: TcpHeader, now: float) -> None:
        """A segment of a connection that this stack does not know (any more): the kernel shall end it."""
        self._context.refuse(Refusal.NO_SUCH_CONNECTION, now)
        if not tcp.flags & RST and tcp.flags & ACK:
            reset = build_tcp(0, 0, tcp.ack, 0, RST)
            self._context.deliver_segment(local, peer, PROTOCOL_TCP, reset)

    def _other_transport(self, header: Ipv4Header, packet: Buffer, now: float) -> None:
        """UDP and ping to a virtual address get an ICMP error instead of silence."""
        self._context.refuse(Refusal.UNSUPPORTED_TRANSPORT, now)
        if header.destination[0] >= 224:
            return
        if header.protocol == PROTOCOL_UDP:
            self._unreachable(packet, ICMP_PORT_UNREACHABLE)
        elif header.protocol == PROTOCOL_ICMP and header.payload(packet)[:1] == bytes([_ICMP_ECHO_REQUEST]):
            self._unreachable(packet, ICMP_HOST_UNREACHABLE)

    def _unreachable(self, packet: Buffer, code: int) -> None:
        self._context.outputs.append(Deliver(icmp_unreachable(packet, code)))

    # -- from the network

    def network_packet(self, packet: Buffer, now: float) -> None:
        """A whole IPv4 packet of protocol 144."""
        try:
            header = Ipv4Header.decode(packet)
            if header.protocol != PROTOCOL_SERVAL:
                raise WireError(DropReason.UNKNOWN_PROTOCOL)
            sal = decode(header.payload(packet))
            self._network(header, sal, packet, now)
        except WireError as error:
            self._context.counters[error.reason.value] += 1

    def _network(self, header: Ipv4Header, packet: SalPacket, raw: Buffer, now: float) -> None:
        payload = packet.payload
        if payload and not verify(payload, packet.protocol, header.source, header.destination):
            raise WireError(DropReason.BAD_TRANSPORT_CHECKSUM)
        control = packet.control if packet.extensions else None
        if control is not None and control.flags & _SYN and not control.flags & _ACK:
            self._receive_syn(header, packet, control, raw, now)
            return
        flow = self.flows.get(packet.dst_flow)
        if flow is None:
            self._context.refuse(Refusal.UNKNOWN_FLOW, now)
            if control is not None:
                reset_unknown(self._context, header, packet, control)
            return
        if packet.protocol != flow.protocol:
            raise WireError(DropReason.UNKNOWN_PROTOCOL)
        tcp = TcpHeader.decode(payload) if payload else None
        if control is not None:
            self._receive_control(flow, header, packet, control, tcp, now)
        elif packet.src_flow != flow.peer_flow:
            self._context.refuse(Refusal.WRONG_PEER_FLOW, now)
        elif tcp is None:
            self._context.refuse(Refusal.NO_CONTROL, now)
        elif flow.state is State.CLOSED:
            self._transfer.answer_dead(flow, now)
        elif flow.state not in ESTABLISHED:
            self._context.refuse(Refusal.NOT_CONFIRMED, now)
        else:
            self._transfer.from_network(flow, payload, tcp, now)

    def _receive_control(
        self,
        flow: Flow,
        header: Ipv4Header,
        packet: SalPacket,
        control: Control,
        tcp: TcpHeader | None,
        now: float,
    ) -> None:
        if control.flags & _SYN and flow.state is not State.CLOSED:
            self._client.receive_syn_ack(flow, header, packet, control, tcp, now)
        elif control.flags & _RST:
            self._receive_reset(flow, control, now)
        elif flow.state is State.RESPOND:
            self._server.receive_third_ack(flow, header, packet, control, now)
        elif flow.state is State.REQUEST:
            self._context.refuse(Refusal.UNEXPECTED_CONTROL, now)
        elif control.nonce != flow.control.peer_nonce or packet.src_flow != flow.peer_flow:
            self._context.refuse(Refusal.WRONG_NONCE, now)
        elif flow.state is State.CLOSED:
            self._transfer.answer_dead(flow, now)
        elif not flow.resetting:
            self._transfer.control(flow, control, packet.payload, now)

    def _receive_reset(self, flow: Flow, control: Control, now: float) -> None:
        refusal = flow.control.doubts_reset(control)
        if refusal is not None:
            self._context.refuse(refusal, now)
        elif flow.state is State.REQUEST:
            self._client.refused(flow, now, "refused")
        elif flow.state is State.RESPOND:
            self._server.abandon(flow, "reset by the peer", now)
        elif flow.state in ESTABLISHED and flow.state is not State.TIMEWAIT:
            self._transfer.reset(flow, now)

    def _receive_syn(self, header: Ipv4Header, packet: SalPacket, control: Control, raw: Buffer, now: float) -> None:
        context = self._context
        services = packet.services
        client = packet.source[0] if packet.source else header.source
        if not services:
            context.refuse(Refusal.NO_SERVICE, now)
            return
        service_id = services[0]
        if not self._environment.is_local(header.destination):
            # Before the table, whose counters and DELAY rules are not for what everyone on the link gets.
            context.refuse(Refusal.BROADCAST, now, service_id, client)
            return
        key = client, packet.src_flow, control.nonce
        known = self.flows.by_request(key)
        if known is not None:
            # The kernel repeats its SYN-ACK; a child that is already accepted has no use for a late copy.
            context.refuse(Refusal.DUPLICATE_SYN, now)
            if known.state is State.RESPOND and packet.payload:
                _opening_segment(packet)
                context.deliver(known, strip_timestamps(packet.payload))
            return
        verdict = resolve(
            self.service_table,
            service_id,
            size=header.total_length,
            key=lambda _: client,
            rng=self._rng,
            sticky=self._sticky.get(key, now),
            actions=None if self._config.forwarding else HOST_ACTIONS,
        )
        if verdict is None:
            context.refuse(Refusal.NO_RULE, now, service_id, client)
            if self._config.forwarding:
                refuse_unknown(context, header, packet, control)
        elif verdict.action is Action.DROP:
            context.refuse(Refusal.DROP_RULE, now, service_id, client)
        elif verdict.action is Action.DELAY:
            delayed = Delayed(key, service_id, bytes(raw[: header.total_length]), 0, False, now)
            self._delay(delayed, verdict.entry, client, now)
        elif verdict.action is Action.DEMUX:
            if packet.protocol != PROTOCOL_TCP or not packet.payload:
                context.refuse(Refusal.UNSUPPORTED_TRANSPORT, now, service_id, client)
                return
            tcp = _opening_segment(packet)
            self._server.receive_syn(header, packet, control, service_id, verdict, tcp, now)
        elif forward(context, header, packet, service_id, verdict, now):
            self._sticky.put(key, verdict.slot.target, now)

    # -- DELAY

    def _delay(self, delayed: Delayed, entry: Entry, client: Address, now: float) -> None:
        context = self._context
        if not context.delay_queue.put(delayed):
            context.refuse(Refusal.DELAY_FULL, now, delayed.service_id, client)
            if delayed.from_kernel:
                self._unreachable(delayed.packet, ICMP_HOST_UNREACHABLE)
            return
        if context.delay_queue.needs_notice(delayed.service_id):
            context.events.append(DelayNotify(now, delayed.service_id, entry.prefix))

    def delay_verdict(self, prefix: Prefix, *, release: bool, now: float) -> int:
        """Resolve again (release) or discard everything that waits for a service of ``prefix``; how many that were."""
        taken = self._context.delay_queue.take(prefix)
        for delayed in taken:
            if release:
                self._take_up(delayed, now)
            else:
                self._discard(delayed, Refusal.DELAY_DROPPED, now)
        return len(taken)

    def _release_decided(self, now: float) -> None:
        """Rules have changed: what no longer meets DELAY goes on."""
        for service_id in self._context.delay_queue.services():
            entry = self.service_table.lookup(service_id)
            if entry is None or entry.action is not Action.DELAY:
                self.delay_verdict(Prefix.of(service_id), release=True, now=now)

    def _take_up(self, delayed: Delayed, now: float) -> None:
        if delayed.from_kernel:
            self.kernel_packet(delayed.packet, delayed.gso_size, now)
        else:
            self.network_packet(delayed.packet, now)

    def _discard(self, delayed: Delayed, reason: Refusal, now: float) -> None:
        header = Ipv4Header.decode(delayed.packet)
        self._context.counters[reason.value] += 1
        self._context.events.append(Refused(now, reason, delayed.service_id, header.source))
        if delayed.from_kernel:
            self._unreachable(delayed.packet, ICMP_HOST_UNREACHABLE)

    # -- from the host

    def kernel_socket_gone(self, local: Endpoint, peer: Endpoint, now: float) -> None:
        """The kernel destroyed the socket of a flow, or keeps only its TIME_WAIT. What it had to say came before, as
        packets; one that timed out, was reset or never connected says nothing. Unknown ends are ignored.
        """
        flow = self.flows.by_kernel(local, peer)
        if flow is None:
            return
        if flow.state is State.REQUEST:
            self._context.forget(flow, "given up", now)
        elif flow.state in ESTABLISHED and flow.state is not State.TIMEWAIT:
            self._transfer.socket_gone(flow, now)

    def note_peer_activity(self, local_flow: int, now: float) -> None:
        """A packet of a flow came by the fast path: the peer has our third ACK."""
        flow = self.flows.get(local_flow)
        if flow is not None:
            flow.unconfirmed = False


def _opening_segment(packet: SalPacket) -> TcpHeader:
    """What a SAL SYN carries must open a TCP connection: nothing else goes to a listener."""
    if packet.protocol != PROTOCOL_TCP:
        raise WireError(DropReason.UNKNOWN_PROTOCOL)
    tcp = TcpHeader.decode(packet.payload)
    if tcp.flags & (SYN | ACK | RST | FIN) != SYN:
        raise WireError(DropReason.BAD_TRANSPORT_HEADER, f"a SYN with TCP flags {tcp.flags:#04x}")
    return tcp
