"""Packets that the kernel sent into sal0, and what it tells of its sockets."""

from __future__ import annotations

from serval_node.sal.context import Context
from serval_node.sal.datagram_flows import DatagramFlows
from serval_node.sal.datagrams import Datagrams, whole_datagram
from serval_node.sal.delay_queue import Delayed
from serval_node.sal.events import ConnectFailed, Refusal
from serval_node.sal.flow_table import Endpoint, Flow
from serval_node.sal.opening import Client, Server
from serval_node.sal.resolution import UNREACHABLE_CODES, program_actions, resolve
from serval_node.sal.service_table import Action
from serval_node.sal.states import ESTABLISHED, State
from serval_node.sal.transfer import Transfer
from serval_node.sal.waiting import Waiting
from serval_node.wire.checksum import Buffer
from serval_node.wire.errors import DropReason, WireError
from serval_node.wire.ipv4 import (
    ICMP_FRAGMENTATION_NEEDED,
    ICMP_HOST_UNREACHABLE,
    ICMP_PORT_UNREACHABLE,
    PROTOCOL_ICMP,
    PROTOCOL_TCP,
    PROTOCOL_UDP,
    Ipv4Header,
)
from serval_node.wire.serviceid import Prefix, ServiceID
from serval_node.wire.transport import ACK, RST, SYN, TcpHeader, UdpHeader, build_tcp

_ICMP_ECHO_REQUEST = 8
_ICMP_UNREACHABLE = 3


class KernelSide:
    """Sorts the kernel's packets: SYNs are resolved, the rest belongs to flows."""

    def __init__(
        self,
        context: Context,
        client: Client,
        server: Server,
        transfer: Transfer,
        waiting: Waiting,
        datagram_flows: DatagramFlows,
        datagrams: Datagrams,
    ) -> None:
        self._context = context
        self._client = client
        self._server = server
        self._transfer = transfer
        self._waiting = waiting
        self._datagram_flows = datagram_flows
        self._datagrams = datagrams

    def receive(self, packet: Buffer, gso_size: int, now: float) -> None:
        """An IPv4 packet that the kernel sent into sal0; ``gso_size`` is the segment size of a super-segment or 0."""
        try:
            header = Ipv4Header.decode(packet)
            if header.protocol != PROTOCOL_TCP:
                self._other_transport(header, bytes(packet[: header.total_length]), now)
                return
            segment = header.payload(packet)
            tcp = TcpHeader.decode(segment)
        except WireError as error:
            self._context.counters[error.reason.value] += 1
            if error.reason is DropReason.IP_FRAGMENT:
                self._fragment(packet)
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
            key=context.own_address,
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

    def _other_transport(self, header: Ipv4Header, packet: bytes, now: float) -> None:
        """Datagrams; ping to a virtual address gets an ICMP error instead of silence."""
        context = self._context
        if header.destination[0] >= 224:
            context.refuse(Refusal.UNSUPPORTED_TRANSPORT, now)
        elif header.protocol == PROTOCOL_UDP:
            self._datagram(header, packet, now)
        elif header.protocol == PROTOCOL_ICMP and (quoted := refused_datagram(header.payload(packet))) is not None:
            self._datagram_flows.port_unreachable(*quoted, now)
        else:
            context.refuse(Refusal.UNSUPPORTED_TRANSPORT, now)
            if header.protocol == PROTOCOL_ICMP and header.payload(packet)[:1] == bytes([_ICMP_ECHO_REQUEST]):
                context.unreachable(packet, ICMP_HOST_UNREACHABLE)

    def _datagram(self, header: Ipv4Header, packet: bytes, now: float) -> None:
        """To the flow between these ends, back to who wrote before, or to a service."""
        context = self._context
        segment = whole_datagram(header.payload(packet))
        udp = UdpHeader.decode(segment)
        local, peer = (header.source, udp.source_port), (header.destination, udp.destination_port)
        flow = context.flows.by_kernel(local, peer, PROTOCOL_UDP)
        if flow is not None and self._datagram_flows.from_kernel(flow, segment, packet, now):
            return
        correspondent = context.correspondents.by_kernel(local, peer)
        if correspondent is not None:
            self._datagrams.answer(correspondent, segment, packet, now)
            return
        service_id = context.environment.service_for(*peer)
        if service_id is None:
            context.refuse(Refusal.UNKNOWN_VIRTUAL_ADDRESS, now)
            context.unreachable(packet, ICMP_HOST_UNREACHABLE)
        elif self._datagrams.is_socket(local[1]):
            self._datagrams.send(local, peer, service_id, segment, packet, now)
        else:
            self._datagram_flows.open(local, peer, service_id, segment, packet, now)

    def _fragment(self, packet: Buffer) -> None:
        """A datagram beyond sal0's MTU, which the kernel cut: nothing that we send may be in fragments."""
        first = bytearray(packet)
        if first[9] == PROTOCOL_UDP and not int.from_bytes(first[6:8], "big") & 0x1FFF:
            first[6:8] = bytes(2)  # the error quotes a packet that looks whole
            self._context.unreachable(bytes(first), ICMP_FRAGMENTATION_NEEDED, mtu=len(first))

    def socket_gone(self, local: Endpoint, peer: Endpoint, now: float, protocol: int = PROTOCOL_TCP) -> None:
        """The kernel destroyed the socket of a flow, or keeps only its TIME_WAIT. What it had to say came before, as
        packets; one that timed out, was reset or never connected says nothing. Unknown ends are ignored.
        """
        if protocol == PROTOCOL_UDP:
            self._datagram_flows.socket_gone(local, peer, now)
            return
        flow = self._context.flows.by_kernel(local, peer)
        if flow is None:
            return
        if flow.state is State.REQUEST:
            self._context.forget(flow, "given up", now)
        elif flow.state in ESTABLISHED and flow.state is not State.TIMEWAIT:
            self._transfer.socket_gone(flow, now)


def refused_datagram(message: bytes) -> tuple[Endpoint, Endpoint] | None:
    """Whose datagram an ICMP error of the kernel is about, which has no socket for it: local end, peer."""
    if message[:2] != bytes((_ICMP_UNREACHABLE, ICMP_PORT_UNREACHABLE)):
        return None
    try:
        header = Ipv4Header.decode(message[8:] + bytes(0xFFFF))  # the quote may be shorter than what it says
        if header.protocol != PROTOCOL_UDP:
            return None
        start = 8 + header.header_length
        ports = message[start : start + 4]
    except WireError:
        return None
    source, destination = int.from_bytes(ports[:2], "big"), int.from_bytes(ports[2:], "big")
    return (header.destination, destination), (header.source, source)
