"""Packets that the kernel sent into sal0, and what it tells of its sockets."""

from __future__ import annotations

from serval_node.sal.context import Context
from serval_node.sal.delay_queue import Delayed
from serval_node.sal.events import ConnectFailed, Refusal
from serval_node.sal.flow_table import Endpoint, Flow
from serval_node.sal.opening import Client, Server
from serval_node.sal.resolution import UNREACHABLE_CODES, program_actions, resolve
from serval_node.sal.service_table import Action, Entry
from serval_node.sal.states import ESTABLISHED, State
from serval_node.sal.transfer import Transfer
from serval_node.sal.waiting import Waiting
from serval_node.wire.checksum import Buffer
from serval_node.wire.errors import WireError
from serval_node.wire.ipv4 import (
    ICMP_HOST_UNREACHABLE,
    ICMP_PORT_UNREACHABLE,
    PROTOCOL_ICMP,
    PROTOCOL_TCP,
    PROTOCOL_UDP,
    Address,
    Ipv4Header,
)
from serval_node.wire.serviceid import Prefix, ServiceID
from serval_node.wire.transport import ACK, RST, SYN, TcpHeader, build_tcp

_ICMP_ECHO_REQUEST = 8


def own_address(context: Context, entry: Entry) -> Address:
    """This host's address towards the targets of an entry: what they would see as the client."""
    target = entry.selectable[0].target.address
    return (context.environment.source_address(target) if target else None) or context.config.sal0_address


class KernelSide:
    """Sorts the kernel's packets: SYNs are resolved, the rest belongs to flows."""

    def __init__(self, context: Context, client: Client, server: Server, transfer: Transfer, waiting: Waiting) -> None:
        self._context = context
        self._client = client
        self._server = server
        self._transfer = transfer
        self._waiting = waiting

    def receive(self, packet: Buffer, gso_size: int, now: float) -> None:
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
        flow = self._context.flows.by_kernel(local, peer)
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
                self._transfer.keepalive.follow(flow, now)
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
            service_id = self._client.service(local[1], self._context.environment.service_for(*peer))
        if service_id is None:
            context.refuse(Refusal.UNKNOWN_VIRTUAL_ADDRESS, now)
            self._context.unreachable(packet, ICMP_HOST_UNREACHABLE)
            return
        verdict = resolve(
            self._context.service_table,
            service_id,
            size=len(packet),
            key=lambda entry: own_address(context, entry),
            rng=context.rng,
            now=now,
            sticky=None if flow is None else flow.target,
            actions=program_actions(context.mode),
            mode=context.mode,
        )
        if verdict is None:
            self._fail(flow, local, packet, service_id, Refusal.NO_RULE, None, now)
        elif verdict.action is Action.DROP:
            self._fail(flow, local, packet, service_id, Refusal.DROP_RULE, verdict.entry.prefix, now)
        elif verdict.action is Action.DELAY:
            delayed = Delayed(
                key=(local, peer, tcp.seq),
                service_id=service_id,
                packet=packet,
                gso_size=0,
                source=None,
                client=local[0],
                client_flow=self._client.flow_id(flow, local[1]),
                since=now,
                prefix=verdict.entry.prefix,
            )
            self._waiting.put(delayed, now)
        else:
            flow = flow or self._client.begin(local, peer, service_id, now)
            if not self._client.send_syn(flow, segment, tcp, verdict, now):
                self._fail(flow, local, packet, service_id, Refusal.NO_ROUTE, verdict.entry.prefix, now)

    def _replace(self, flow: Flow, now: float) -> None:
        """The kernel uses the ports of a flow anew: for the kernel that one is over."""
        if flow.state in ESTABLISHED and flow.state is not State.TIMEWAIT:
            self._transfer.abandon(flow, "ports used again", now)
        else:
            self._context.forget(flow, "ports used again", now)

    def _fail(
        self,
        flow: Flow | None,
        local: Endpoint,
        packet: bytes,
        service_id: ServiceID,
        reason: Refusal,
        prefix: Prefix | None,
        now: float,
    ) -> None:
        """connect() fails at once, here on the sender's own host (S28, S29)."""
        flow_id = self._client.flow_id(flow, local[1])
        self._context.refuse_syn(reason, now, service_id, local[0], flow_id, prefix)
        self._context.unreachable(packet, UNREACHABLE_CODES[reason])
        prepared = self._client.prepared.pop(local[1], None)
        if prepared is not None:
            self._context.flows.release(prepared[0])
        self._context.events.append(ConnectFailed(now, flow_id, service_id, reason.value, prefix))
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
            self._context.unreachable(packet, ICMP_PORT_UNREACHABLE)
        elif header.protocol == PROTOCOL_ICMP and header.payload(packet)[:1] == bytes([_ICMP_ECHO_REQUEST]):
            self._context.unreachable(packet, ICMP_HOST_UNREACHABLE)

    def socket_gone(self, local: Endpoint, peer: Endpoint, now: float) -> None:
        """The kernel destroyed the socket of a flow, or keeps only its TIME_WAIT. What it had to say came before, as
        packets; one that timed out, was reset or never connected says nothing. Unknown ends are ignored.
        """
        flow = self._context.flows.by_kernel(local, peer)
        if flow is None:
            return
        if flow.state is State.REQUEST:
            self._context.forget(flow, "given up", now)
        elif flow.state in ESTABLISHED and flow.state is not State.TIMEWAIT:
            self._transfer.socket_gone(flow, now)
