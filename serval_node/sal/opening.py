"""Opening a connection: the kernel's TCP handshake inside the SAL handshake (slides 32 to 37; protocol notes 2.3)."""

from __future__ import annotations

from serval_node.sal.connection import ControlState
from serval_node.sal.context import LOOPBACK, Context
from serval_node.sal.events import (
    ConnectFailed,
    FlowOpened,
    InstanceReset,
    RawUnanswered,
    Refusal,
    SynAckReceived,
    SynReceived,
    SynResolved,
    SynSent,
)
from serval_node.sal.flow_table import Endpoint, Flow, RequestKey
from serval_node.sal.places import Place
from serval_node.sal.resolution import Verdict
from serval_node.sal.service_table import Action, Target
from serval_node.sal.states import Happening, State, advance
from serval_node.wire.ipv4 import PROTOCOL_TCP, PROTOCOL_UDP, Address, Ipv4Header, UdpPorts
from serval_node.wire.sal_header import MARK, MAX_SOURCES, Control, ControlFlag, SalPacket, Service, Source
from serval_node.wire.serial import serial_add
from serval_node.wire.serviceid import ServiceID
from serval_node.wire.transport import ACK, RST, SYN, TcpHeader, build_tcp, build_udp, set_flags, strip_timestamps

_SYN, _ACK, _RST, _RSYN = ControlFlag.SYN, ControlFlag.ACK, ControlFlag.RST, ControlFlag.RSYN
THIRD_ACK_SECONDS = 0.1
THIRD_ACK_TRIES = 9

# What the packets that open a flow of datagrams carry: ports and checksum zero (protocol notes 1.6).
EMPTY_DATAGRAM = build_udp(0, 0)


class Client:
    """The side that connects."""

    def __init__(self, context: Context) -> None:
        self._context = context
        # Sockets of serval_node.socket that told their flowID and service before their SYN, by local port.
        self.prepared: dict[int, tuple[int, ServiceID]] = {}

    def service(self, local_port: int, named: ServiceID | None) -> ServiceID | None:
        """The service that a SYN from this local port is for; `named` is that of its virtual destination, if any."""
        prepared = self.prepared.get(local_port)
        if prepared is None:
            return named
        if named is not None and named != prepared[1]:
            # Left behind by a socket that never sent its SYN; the port is another's now.
            del self.prepared[local_port]
            self._context.flows.release(prepared[0])
            return named
        return prepared[1]

    def flow_id(self, flow: Flow | None, local_port: int) -> int:
        """The flowID of a kernel socket's SYN as far as it has one by now: of its flow, of its preparation, or 0."""
        if flow is not None:
            return flow.local_flow
        return self.prepared[local_port][0] if local_port in self.prepared else 0

    def begin(
        self, local: Endpoint, peer: Endpoint, service_id: ServiceID, now: float, protocol: int = PROTOCOL_TCP
    ) -> Flow:
        """A flow for a kernel socket's first SYN, or first datagram."""
        context = self._context
        prepared = self.prepared.pop(local[1], None) if protocol == PROTOCOL_TCP else None
        if prepared is not None and context.flows.release(prepared[0]):
            flow_id = prepared[0]
        else:
            flow_id = context.flows.new_flow_id()
        flow = Flow(flow_id, protocol, False, service_id, ControlState(context.rng), now)
        flow.kernel_local, flow.kernel_peer = local, peer
        flow.control.open()
        flow.state = State.REQUEST
        context.flows.add(flow)
        return flow

    def send_syn(self, flow: Flow, segment: bytes, tcp: TcpHeader | None, verdict: Verdict, now: float) -> bool:
        """The kernel's SYN (without ``tcp`` an empty UDP header), first or again, towards a FORWARD or DEMUX target, or
        a copy to each of several. False when there is no route to any.
        """
        context = self._context
        if tcp is not None:
            flow.initial_seq = tcp.seq
            segment = strip_timestamps(segment)
        reached = [slot.target for slot in verdict.slots if self._send_copy(flow, segment, verdict, slot.target, now)]
        if not reached:
            return False
        flow.syn_sent = now if flow.target is None else None
        flow.target = reached[0]
        flow.syns += 1
        flow.deadline = now + context.config.request_timeout
        context.at(flow.deadline, self._give_up, flow)
        return True

    def _send_copy(self, flow: Flow, segment: bytes, verdict: Verdict, target: Target, now: float) -> bool:
        """The SYN to one target; the answer says which of them the flow is with, and from which own address."""
        context, entry = self._context, verdict.entry
        # A service of this very host is reached through its loopback interface, as in the original.
        destination = LOOPBACK if target.action is Action.DEMUX else target.address
        assert destination is not None
        local = context.adhoc.links.get(destination) or context.environment.source_address(destination)
        if local is None:
            return False
        flow.local_address, flow.peer_address = local, destination
        context.events.append(
            SynResolved(
                now,
                flow.local_flow,
                flow.service_id,
                entry.prefix,
                target.action,
                verdict.selector,
                len(entry.selectable),
                destination,
            )
        )
        self._transmit(flow, segment, local, destination, now)
        return True

    def _transmit(self, flow: Flow, segment: bytes, source: Address, destination: Address, now: float) -> None:
        context = self._context
        extensions = flow.control.make(_SYN, mark=MARK), Service(flow.service_id)
        broadcast = destination in context.adhoc.links
        forms: tuple[UdpPorts | None, ...] = (None,)
        if broadcast:
            # Raw only: there is no NAT within a link, and what is chosen for a peer is not chosen for everyone.
            context.activity["adhoc_syns_sent"] += 1
        else:
            forms = context.config.encapsulation.forms(destination, flow.syns, now)
        for ports in forms:
            opening = context.opening_segment(segment, ports) if flow.protocol == PROTOCOL_TCP else segment
            to = Place(destination, ports)
            context.send(flow, extensions, opening, to, source=source, ttl=context.adhoc.ttl(destination))
            context.events.append(SynSent(now, flow.local_flow, flow.service_id, source, destination, ports))

    def _give_up(self, flow: Flow, now: float) -> None:
        # Each SYN sets a timer of its own; the last one counts.
        if flow.state is State.REQUEST and now >= flow.deadline:
            self._context.forget(flow, "no answer", now)

    def receive_syn_ack(
        self, flow: Flow, header: Ipv4Header, packet: SalPacket, control: Control, tcp: TcpHeader | None, now: float
    ) -> None:
        """The answer to our SYN, a repeat of it, or another instance's."""
        context = self._context
        if flow.server:
            context.refuse(Refusal.UNEXPECTED_CONTROL, now)
            return
        if not context.environment.is_local(header.destination):
            # Only SYNs go by broadcast; the flow would take that address for its own.
            context.refuse(Refusal.BROADCAST, now)
            return
        if control.ackno != serial_add(flow.control.initial, 1):
            context.refuse(Refusal.WRONG_NUMBER, now)
        elif flow.state is State.REQUEST:
            self._accept(flow, header, packet, control, tcp, now)
        elif control.nonce == flow.control.peer_nonce and packet.src_flow == flow.peer_flow:
            if flow.third_ack is None:
                self.repeat_syn_ack(flow)
            else:
                self.send_third_ack(flow)
        else:
            context.refuse(Refusal.OTHER_INSTANCE, now)
            # Our nonce shows the loser that it is we who do not want it (S44).
            reset = flow.control.make(_RST | _ACK)
            reset = Control(reset.flags, reset.verno, serial_add(control.verno, 1), reset.nonce)
            flows = flow.local_flow, packet.src_flow
            context.answer(header.destination, Place(header.source, header.ports), flows, flow.protocol, reset)
            context.events.append(InstanceReset(now, flow.local_flow, flow.service_id, header.source, packet.src_flow))

    def _accept(
        self, flow: Flow, header: Ipv4Header, packet: SalPacket, control: Control, tcp: TcpHeader | None, now: float
    ) -> None:
        context = self._context
        if flow.protocol == PROTOCOL_TCP and not _answers(tcp, flow):
            context.refuse(Refusal.WRONG_NUMBER, now)
            return
        flow.control.learn_peer(control)
        flow.marked = control.mark == MARK and not context.config.original_rules
        flow.control.acknowledge(control.ackno)
        if flow.syn_sent is not None:
            flow.control.rtt = now - flow.syn_sent
        flow.peer_flow = packet.src_flow
        flow.peer_address = packet.source[-1] if packet.source else header.source
        flow.local_address = header.destination
        flow.ports = header.ports
        self._learn_form(flow, now)
        flow.state = advance(flow.state, Happening.SYN_ACK) or flow.state
        flow.unconfirmed = True
        context.events.append(SynAckReceived(now, flow.local_flow, flow.peer_flow, flow.peer_address, packet.source))
        if tcp is None:
            self.confirm(flow, EMPTY_DATAGRAM, now)
            return
        flow.initial_ack = tcp.seq
        flow.third_ack_due = True
        flow.syn_ack = context.opening_segment(packet.payload, flow.ports)
        context.deliver(flow, flow.syn_ack)

    def _learn_form(self, flow: Flow, now: float) -> None:
        """The answer came raw or inside UDP: for next time, for whom the SYN was sent to and for who has answered."""
        assert flow.peer_address is not None
        choices = self._context.config.encapsulation
        asked = None if flow.target is None else flow.target.address
        for peer in {asked or flow.peer_address, flow.peer_address}:
            if choices.answered(peer, flow.ports, flow.syns, now):
                self._context.events.append(RawUnanswered(now, flow.local_flow, flow.service_id, peer))

    def repeat_syn_ack(self, flow: Flow) -> None:
        """sal0 may have lost the SYN-ACK that we had; the kernel has not answered it yet."""
        if flow.syn_ack is not None:
            self._context.deliver(flow, flow.syn_ack)

    def complete(self, flow: Flow, segment: bytes, tcp: TcpHeader, now: float) -> None:
        """The kernel's first segment after the SYN-ACK: its ACK becomes the third ACK, without data."""
        flow.third_ack_due = False
        flow.syn_ack = None
        self.confirm(flow, set_flags(segment[: tcp.header_length], ACK), now)

    def confirm(self, flow: Flow, segment: bytes, now: float) -> None:
        """Send the third ACK with this segment, again and again until the peer is heard."""
        flow.third_ack = segment
        self.send_third_ack(flow)
        context = self._context
        flow.attempts = 0
        context.at(now + self._pause(flow), self._repeat, flow)
        assert flow.peer_address is not None
        context.events.append(
            FlowOpened(
                now,
                flow.local_flow,
                flow.peer_flow,
                flow.service_id,
                False,
                flow.local_address,
                flow.peer_address,
                flow.ports,
            )
        )

    def send_third_ack(self, flow: Flow) -> None:
        """ACK with the serviceID, which is how an original server finds the request (protocol notes 2.3)."""
        if flow.third_ack is None:
            return
        number = serial_add(flow.control.initial, 1)
        control = Control(_ACK, number, flow.control.rcv_nxt, flow.control.local_nonce)
        checksum = flow.protocol == PROTOCOL_TCP
        self._context.send(flow, (control, Service(flow.service_id)), flow.third_ack, checksum=checksum)

    def _repeat(self, flow: Flow, now: float) -> None:
        if not flow.unconfirmed or flow.attempts >= THIRD_ACK_TRIES:
            return
        flow.attempts += 1
        self.send_third_ack(flow)
        self._context.at(now + self._pause(flow), self._repeat, flow)

    def _pause(self, flow: Flow) -> float:
        # On a long path the answer needs more than 100 ms.
        first = max(THIRD_ACK_SECONDS, 1.5 * (flow.control.rtt or 0.0))
        return first * (1 << flow.attempts)

    def refused(self, flow: Flow, now: float, reason: str) -> None:
        """The request was answered by RST: so is the kernel's SYN, and connect() fails with ECONNREFUSED."""
        context = self._context
        reset = build_tcp(0, 0, 0, serial_add(flow.initial_seq, 1), RST | ACK)
        context.deliver(flow, reset)
        context.events.append(ConnectFailed(now, flow.local_flow, flow.service_id, reason))
        context.forget(flow, reason, now)


class Server:
    """The side that listens."""

    def __init__(self, context: Context) -> None:
        self._context = context

    def receive_syn(
        self,
        header: Ipv4Header,
        packet: SalPacket,
        control: Control,
        service_id: ServiceID,
        verdict: Verdict,
        tcp: TcpHeader | None,
        now: float,
    ) -> None:
        """A SYN that a DEMUX rule gives to a local listener; without ``tcp`` to a socket for datagrams."""
        context = self._context
        client = packet.source[0] if packet.source else header.source
        if len(packet.source) >= MAX_SOURCES:
            # The answer has our address at the end of the list.
            context.refuse_syn(Refusal.SOURCE_FULL, now, service_id, client, packet.src_flow, verdict.entry.prefix)
            return
        own: Address | None = header.destination
        if header.destination in context.adhoc.links:
            # It came by broadcast: answered from the address that leads back to the client.
            own = context.environment.source_address(client)
            if own is None:
                context.refuse_syn(Refusal.NO_ROUTE, now, service_id, client, packet.src_flow, verdict.entry.prefix)
                return
        assert own is not None
        flow = self._new_flow((client, packet.src_flow, control.nonce), service_id, verdict, packet.protocol, now)
        if flow is None:
            context.refuse_syn(Refusal.HALF_OPEN_FULL, now, service_id, client, packet.src_flow, verdict.entry.prefix)
            return
        flow.peer_flow = packet.src_flow
        flow.peer_address = client
        flow.local_address = own
        self.note_form(flow, header.ports)
        flow.sources = packet.source
        flow.control.learn_peer(control)
        flow.marked = control.mark == MARK and not context.config.original_rules
        flow.syn_sent = now
        context.events.append(
            SynReceived(
                now,
                flow.local_flow,
                client,
                packet.src_flow,
                service_id,
                verdict.entry.prefix,
                flow.kernel_local[1],
            )
        )
        if tcp is None:
            self.send_syn_ack(flow, EMPTY_DATAGRAM)  # no kernel has to agree
            return
        flow.initial_ack = tcp.seq
        flow.syn_window = tcp.window
        self.deliver_syn(flow, packet.payload)

    def note_form(self, flow: Flow, ports: UdpPorts | None) -> None:
        """A copy of the SYN came in this form. It is answered in every form in which it came, in that order, and the
        client takes the answer that comes first.
        """
        if ports not in flow.asked:
            flow.asked = (*flow.asked[:1], ports)
        flow.ports = flow.asked[0]

    def deliver_syn(self, flow: Flow, segment: bytes) -> None:
        """A SYN, first or again, to the listener."""
        context = self._context
        context.deliver(flow, context.opening_segment(strip_timestamps(segment), flow.ports))

    def _new_flow(
        self, key: RequestKey, service_id: ServiceID, verdict: Verdict, protocol: int, now: float
    ) -> Flow | None:
        context = self._context
        target = verdict.slot.target
        assert target.port is not None
        local = target.listen_address or context.config.sal0_address, target.port
        peer = self.virtual_peer(key[0], local, protocol)
        if peer is None:
            return None
        if context.half_open.full:
            context.refuse(Refusal.HALF_OPEN_FULL, now)
            self.abandon(context.half_open.victim(), "evicted", now)
        flow = Flow(context.flows.new_flow_id(), protocol, True, service_id, ControlState(context.rng), now)
        flow.state = State.RESPOND
        flow.control.open()
        flow.request_key = key
        flow.target = target
        flow.kernel_local, flow.kernel_peer = local, peer
        context.flows.add(flow)
        context.half_open.add(flow)
        context.at(now + context.config.half_open_timeout, self._expire, flow)
        return flow

    def virtual_peer(self, client: Address, local: Endpoint, protocol: int) -> Endpoint | None:
        """What the listener sees as the client; None when the client has used up its ports there."""
        context = self._context

        def in_use(end: Endpoint) -> bool:
            if context.flows.by_kernel(local, end, protocol) is not None:
                return True
            return protocol == PROTOCOL_UDP and context.correspondents.by_kernel(local, end) is not None

        for _ in range(2):
            try:
                return context.peers.endpoint(client, in_use)
            except OverflowError:
                used = {flow.kernel_peer[0] for flow in context.flows}
                context.peers.retain(used | {item.kernel_peer[0] for item in context.correspondents})
        return None

    def _expire(self, flow: Flow, now: float) -> None:
        if flow.state is State.RESPOND:
            self.abandon(flow, "no third ACK", now)

    def abandon(self, flow: Flow, reason: str, now: float) -> None:
        """End a half-open flow, in the kernel too."""
        if flow.protocol == PROTOCOL_TCP:
            self._context.deliver(flow, build_tcp(0, 0, serial_add(flow.initial_ack, 1), 0, RST))
        self._context.forget(flow, reason, now)

    def send_syn_ack(self, flow: Flow, segment: bytes, tcp: TcpHeader | None = None) -> None:
        """The kernel's SYN-ACK, first or again; it tells the client the path that its SYN took."""
        if tcp is not None:
            flow.initial_seq = tcp.seq
        flow.attempts += 1
        if flow.attempts > 1:
            flow.syn_sent = None
        control = flow.control.make(_SYN | _ACK, mark=MARK)
        path = (Source((*flow.sources, flow.local_address)),) if flow.sources else ()
        for ports in flow.asked:
            opening = segment if tcp is None else self._context.opening_segment(segment, ports)
            # Inside UDP it seems to come from the router that the client has asked: a NAT lets nobody else in.
            source = flow.sources[1] if flow.sources and ports is not None else None
            peer = flow.peer._replace(ports=ports)
            self._context.send(flow, (control, *path), opening, peer, source=source, checksum=tcp is not None)

    def receive_third_ack(
        self, flow: Flow, header: Ipv4Header, packet: SalPacket, control: Control, now: float
    ) -> bool:
        """The client's confirmation; numbers and nonce must be those of its SYN and our SYN-ACK. Its RSYN confirms as
        much: the third ACK was lost with the client's old place. False: not believed.
        """
        context = self._context
        if control.nonce != flow.control.peer_nonce or packet.src_flow != flow.peer_flow:
            context.refuse(Refusal.WRONG_NONCE, now)
            return False
        right = control.verno == flow.control.rcv_nxt and control.ackno == serial_add(flow.control.initial, 1)
        if not right or not control.flags & (_ACK | _RSYN):
            context.refuse(Refusal.WRONG_NUMBER, now)
            return False
        segment = b"" if control.flags & _RSYN else packet.payload
        if not segment and flow.protocol == PROTOCOL_TCP:
            # An original client that is already connected says no more than this (protocol notes 2.3). What an RSYN
            # carries is a report, and not for the kernel.
            segment = build_tcp(
                0, 0, serial_add(flow.initial_ack, 1), serial_add(flow.initial_seq, 1), ACK, window=flow.syn_window
            )
        flow.control.acknowledge(control.ackno)
        if flow.syn_sent is not None:
            flow.control.rtt = now - flow.syn_sent
        flow.state = advance(flow.state, Happening.THIRD_ACK) or flow.state
        flow.peer_address, flow.local_address = header.source, header.destination
        flow.ports = header.ports
        context.half_open.discard(flow)
        context.events.append(
            FlowOpened(
                now,
                flow.local_flow,
                flow.peer_flow,
                flow.service_id,
                True,
                flow.local_address,
                flow.peer_address,
                flow.ports,
            )
        )
        if flow.protocol == PROTOCOL_TCP:
            context.deliver(flow, segment)
            context.install(flow)
        return True


def _answers(tcp: TcpHeader | None, flow: Flow) -> bool:
    """Whether a SYN-ACK carries the TCP SYN-ACK to our kernel's SYN."""
    return tcp is not None and tcp.flags & (SYN | ACK) == SYN | ACK and tcp.ack == serial_add(flow.initial_seq, 1)
