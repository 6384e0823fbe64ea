"""Packets of protocol 144 from the network, raw or inside UDP."""

from __future__ import annotations

from serval_node.sal.broadcasts import BROADCAST_ACTIONS, Broadcasts
from serval_node.sal.context import Context
from serval_node.sal.datagram_flows import DatagramFlows
from serval_node.sal.datagrams import Datagrams, whole_datagram
from serval_node.sal.delay_queue import Delayed
from serval_node.sal.events import Refusal
from serval_node.sal.flow_table import Flow
from serval_node.sal.forwarding import forward, send_on
from serval_node.sal.migration import SEARCH_LIMIT
from serval_node.sal.opening import Client, Server
from serval_node.sal.places import Place
from serval_node.sal.probing import Probing
from serval_node.sal.resets import refuse_unknown, reset_unknown
from serval_node.sal.resolution import StickyChoices, Verdict, network_actions, network_mode, resolve
from serval_node.sal.service_table import Action
from serval_node.sal.states import ESTABLISHED, State
from serval_node.sal.transfer import Transfer
from serval_node.sal.waiting import Waiting
from serval_node.wire.checksum import Buffer
from serval_node.wire.encapsulation import open_packet
from serval_node.wire.errors import DropReason, WireError
from serval_node.wire.ipv4 import PROTOCOL_TCP, Ipv4Header
from serval_node.wire.sal_header import Control, ControlFlag, SalPacket, decode
from serval_node.wire.transport import ACK, FIN, RST, SYN, TcpHeader, verify

_SYN, _ACK, _RST, _RSYN = ControlFlag.SYN, ControlFlag.ACK, ControlFlag.RST, ControlFlag.RSYN
_NACK = ControlFlag.NACK


class NetworkSide:
    """Sorts packets: SYNs go through the service table, the rest belongs to flows by their flowID."""

    def __init__(
        self,
        context: Context,
        client: Client,
        server: Server,
        transfer: Transfer,
        waiting: Waiting,
        datagram_flows: DatagramFlows,
        datagrams: Datagrams,
        probing: Probing,
    ) -> None:
        self._context = context
        self._client = client
        self._server = server
        self._transfer = transfer
        self._waiting = waiting
        self._datagram_flows = datagram_flows
        self._datagrams = datagrams
        self._probing = probing
        self._sticky = StickyChoices()
        self._broadcasts = Broadcasts(context)

    def receive(self, packet: Buffer, now: float) -> None:
        """A whole IPv4 packet of protocol 144, or an encapsulated one."""
        try:
            header, data = open_packet(packet)
            self._sort(header, decode(data), packet, now)
        except WireError as error:
            self._context.counters[error.reason.value] += 1

    def _sort(self, header: Ipv4Header, packet: SalPacket, raw: Buffer, now: float) -> None:
        payload = packet.payload
        # Inside UDP the outer checksum holds for all; the inner one is for addresses that a NAT may have changed.
        raw_form = header.ports is None
        if payload and raw_form and not verify(payload, packet.protocol, header.source, header.destination):
            raise WireError(DropReason.BAD_TRANSPORT_CHECKSUM)
        control = packet.control if packet.extensions else None
        if control is not None and control.flags & _SYN and not control.flags & _ACK:
            self._receive_syn(header, packet, control, raw, now)
            return
        flow = self._context.flows.get(packet.dst_flow)
        if flow is None:
            if control is not None and packet.services and control.flags & _RSYN and self._pass_on(header, packet, now):
                return
            if control is None:
                self._datagrams.receive(header, packet, raw, now)
            else:
                self._context.refuse(Refusal.UNKNOWN_FLOW, now)
                reset_unknown(self._context, header, packet, control, now)
            return
        if packet.protocol != flow.protocol:
            raise WireError(DropReason.UNKNOWN_PROTOCOL)
        tcp = TcpHeader.decode(payload) if payload and flow.protocol == PROTOCOL_TCP else None
        if control is not None:
            self._receive_control(flow, header, packet, control, tcp, now)
            if flow.datagrams is not None:
                self._datagram_flows.after_control(flow, now)
        elif packet.src_flow != flow.peer_flow:
            self._context.refuse(Refusal.WRONG_PEER_FLOW, now)
        elif not payload:
            self._context.refuse(Refusal.NO_CONTROL, now)
        elif flow.state is State.CLOSED:
            self._transfer.answer_dead(flow, now)
        elif flow.state not in ESTABLISHED:
            if flow.datagrams is None or not self._datagram_flows.hold_early(flow, whole_datagram(payload), now):
                self._context.refuse(Refusal.NOT_CONFIRMED, now)
        else:
            if header.destination == flow.local_address and Place(header.source, header.ports) == flow.peer:
                self._transfer.heard_there(flow, now)
            if tcp is None:
                self._datagram_flows.from_network(flow, whole_datagram(payload), now)
            else:
                self._transfer.from_network(flow, payload, tcp, now)
            self._probing.heard(flow, header, now)

    def _pass_on(self, header: Ipv4Header, packet: SalPacket, now: float) -> bool:
        """A client looks for the instance that holds its flow: to all of them, if this is a service router."""
        context = self._context
        if not context.forwarding or not context.environment.is_local(header.destination):
            return False
        entry = context.service_table.lookup(packet.services[0])
        if entry is None or not entry.has(frozenset((Action.FORWARD,))):
            return False
        if not context.searches.allows(now):
            context.refuse(Refusal.SEARCH_LIMITED, now)
            return True
        for slot in entry.selectable[:SEARCH_LIMIT]:
            if slot.target.action is Action.FORWARD:
                slot.counters.resolved(header.total_length)
                send_on(context, header, packet, slot.target, entry.prefix, now)
        entry.counters.resolved(header.total_length)
        return True

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
            if self._server.receive_third_ack(flow, header, packet, control, now) and control.flags & _RSYN:
                self._transfer.control(flow, _sender(header, packet), control, packet.payload, now)
        elif flow.state is State.REQUEST:
            self._context.refuse(Refusal.UNEXPECTED_CONTROL, now)
        elif control.nonce != flow.control.peer_nonce or packet.src_flow != flow.peer_flow:
            self._context.refuse(Refusal.WRONG_NONCE, now)
        elif flow.state is State.CLOSED:
            self._transfer.answer_dead(flow, now)
        elif control.flags & _NACK:
            self._probing.receive(flow, header, control, now)
        elif not flow.resetting:
            self._transfer.control(flow, _sender(header, packet), control, packet.payload, now)
            self._probing.heard(flow, header, now)

    def _receive_reset(self, flow: Flow, control: Control, now: float) -> None:
        refusal = flow.control.doubts_reset(control)
        if refusal is not None:
            self._context.refuse(refusal, now)
        elif flow.datagrams is not None:
            self._datagram_flows.reset(flow, now)
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
        key = client, packet.src_flow, control.nonce
        broadcast = not context.environment.is_local(header.destination)
        # Before the table, whose counters and DELAY rules are not for what everyone on the link gets.
        if broadcast and not self._broadcasts.admits(header, packet, key, now):
            return
        known = self._context.flows.by_request(key)
        if known is not None:
            # The kernel repeats its SYN-ACK; a child that is already accepted has no use for a late copy.
            context.refuse(Refusal.DUPLICATE_SYN, now)
            if known.state is State.RESPOND:
                self._server.note_form(known, header.ports)
            if known.datagrams is not None:
                self._datagram_flows.receive_syn(known)
            elif known.state is State.RESPOND and packet.payload:
                _opening_segment(packet)
                self._server.deliver_syn(known, packet.payload)
            return
        verdict = resolve(
            self._context.service_table,
            service_id,
            size=header.total_length,
            key=lambda _: client,
            rng=context.rng,
            now=now,
            sticky=self._sticky.get(key, now),
            actions=BROADCAST_ACTIONS if broadcast else network_actions(context.mode, forwarding=context.forwarding),
            mode=network_mode(context.mode, forwarding=context.forwarding),
            protocol=packet.protocol,
        )
        if verdict is None and broadcast:
            self._broadcasts.pass_on(header, packet, key, now)
        elif verdict is None:
            context.refuse_syn(Refusal.NO_RULE, now, service_id, client, packet.src_flow)
            if context.forwarding:
                refuse_unknown(context, header, packet, control, now)
        elif verdict.action is Action.DROP:
            context.refuse_syn(Refusal.DROP_RULE, now, service_id, client, packet.src_flow, verdict.entry.prefix)
        elif verdict.action is Action.DELAY:
            delayed = Delayed(
                key=key,
                service_id=service_id,
                packet=bytes(raw[: header.total_length]),
                gso_size=0,
                source=header.source,
                client=client,
                client_flow=packet.src_flow,
                since=now,
                prefix=verdict.entry.prefix,
            )
            self._waiting.put(delayed, now)
        else:
            sent_on = False
            for copy in verdict.each():
                if copy.action is Action.DEMUX:
                    if broadcast:
                        context.activity["adhoc_syns_answered"] += 1
                    self._give_to_listener(header, packet, control, copy, now)
                else:
                    sent_on = forward(context, header, packet, service_id, copy, now)
            if sent_on and len(verdict.slots) == 1:
                self._sticky.put(key, verdict.slot.target, now)

    def _give_to_listener(
        self, header: Ipv4Header, packet: SalPacket, control: Control, verdict: Verdict, now: float
    ) -> None:
        service_id = packet.services[0]
        reason = self._obstacle(packet)
        if reason is not None:
            client = packet.source[0] if packet.source else header.source
            self._context.refuse_syn(reason, now, service_id, client, packet.src_flow, verdict.entry.prefix)
            return
        tcp = _opening_segment(packet) if packet.protocol == PROTOCOL_TCP else None
        self._server.receive_syn(header, packet, control, service_id, verdict, tcp, now)

    def _obstacle(self, packet: SalPacket) -> Refusal | None:
        """Why a SYN does not get to the socket that it is for."""
        if packet.protocol == PROTOCOL_TCP:
            return None if packet.payload else Refusal.UNSUPPORTED_TRANSPORT
        full = self._context.flows.datagram_flows >= self._context.config.datagram_flows
        return Refusal.DATAGRAM_FLOWS_FULL if full else None


def _sender(header: Ipv4Header, packet: SalPacket) -> Place:
    """Where a packet was sent; behind service routers the ports are the sender's still (forwarding.py)."""
    return Place(packet.source[0] if packet.source else header.source, header.ports)


def _opening_segment(packet: SalPacket) -> TcpHeader:
    """What a SAL SYN carries must open a TCP connection: nothing else goes to a listener."""
    if packet.protocol != PROTOCOL_TCP:
        raise WireError(DropReason.UNKNOWN_PROTOCOL)
    tcp = TcpHeader.decode(packet.payload)
    if tcp.flags & (SYN | ACK | RST | FIN) != SYN:
        raise WireError(DropReason.BAD_TRANSPORT_HEADER, f"a SYN with TCP flags {tcp.flags:#04x}")
    return tcp
