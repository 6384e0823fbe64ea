"""Unconnected datagrams: each is resolved by itself and names both services (S8; protocol notes 1.6).

    SAL header, destination flowID 0 | SERVICE destination | SERVICE source | UDP datagram

`serval_node.socket` sends these from sockets that it has told of. Any socket with a DEMUX rule for datagrams receives
them; the sender is a virtual address to the kernel, and what a program sends there goes straight back to it.
"""

from __future__ import annotations

from dataclasses import dataclass

from serval_node.sal.broadcasts import BROADCAST_ACTIONS
from serval_node.sal.context import LOOPBACK, Context
from serval_node.sal.correspondents import Correspondent
from serval_node.sal.delay_queue import Delayed
from serval_node.sal.events import Refusal
from serval_node.sal.flow_table import Endpoint
from serval_node.sal.forwarding import send_on
from serval_node.sal.opening import Server
from serval_node.sal.outputs import Send
from serval_node.sal.places import Place
from serval_node.sal.resolution import (
    UNREACHABLE_CODES,
    Verdict,
    network_actions,
    network_mode,
    program_actions,
    resolve,
)
from serval_node.sal.service_table import Action
from serval_node.sal.waiting import Waiting
from serval_node.wire.checksum import Buffer
from serval_node.wire.errors import DropReason, WireError
from serval_node.wire.ipv4 import (
    HEADER_LENGTH,
    ICMP_FRAGMENTATION_NEEDED,
    ICMP_HOST_UNREACHABLE,
    PROTOCOL_UDP,
    Address,
    Ipv4Header,
)
from serval_node.wire.sal_header import SalPacket, Service, encode
from serval_node.wire.serviceid import ServiceID
from serval_node.wire.transport import UDP_HEADER_LENGTH, UdpHeader, to_wire


@dataclass(frozen=True, slots=True)
class DatagramSocket:
    """A socket for unconnected datagrams: its flowID, and the serviceID that it sends under."""

    flow_id: int
    service_id: ServiceID


class Datagrams:
    """The unconnected datagrams of one stack."""

    def __init__(self, context: Context, server: Server, waiting: Waiting) -> None:
        self._context = context
        self._server = server
        self._waiting = waiting
        self._sockets: dict[int, DatagramSocket] = {}
        # FlowIDs of sockets that only answer, by local port.
        self._answering: dict[int, int] = {}

    # -- sockets

    def open_socket(self, port: int, service_id: ServiceID) -> int:
        """What leaves this local port is unconnected from now on, with this source; returns the socket's flowID."""
        known = self._sockets.get(port)
        flow_id = self._context.flows.reserve() if known is None else known.flow_id
        self._sockets[port] = DatagramSocket(flow_id, service_id)
        return flow_id

    def close_socket(self, port: int) -> None:
        """The kernel has no socket with this port any more."""
        flows = self._context.flows
        known = self._sockets.pop(port, None)
        if known is not None:
            flows.release(known.flow_id)
        answering = self._answering.pop(port, None)
        if answering is not None:
            flows.release(answering)
        self._context.correspondents.forget(port)

    def is_socket(self, port: int) -> bool:
        return port in self._sockets

    # -- from the kernel

    def answer(self, to: Correspondent, segment: bytes, packet: bytes, now: float) -> None:
        """A datagram for somebody who wrote before: to where that one is, past the service table."""
        port = to.kernel_local[1]
        known = self._sockets.get(port)
        if known is not None:
            flow_id = known.flow_id
        else:
            flow_id = self._answering.get(port) or self._answering.setdefault(port, self._context.flows.reserve())
        self._send(flow_id, to.own_service, to.service_id, Place(to.address, to.ports), segment, packet, now)

    def send(
        self, local: Endpoint, peer: Endpoint, service_id: ServiceID, segment: bytes, packet: bytes, now: float
    ) -> None:
        """A datagram of a socket that `open_socket` told of: resolved by itself, like a SYN."""
        context = self._context
        own = self._sockets[local[1]]
        verdict = resolve(
            context.service_table,
            service_id,
            size=len(packet),
            key=context.own_address,
            rng=context.rng,
            now=now,
            actions=program_actions(context.mode),
            mode=context.mode,
            protocol=PROTOCOL_UDP,
        )
        if verdict is None:
            self._refuse(Refusal.NO_RULE, packet, now)
        elif verdict.action is Action.DROP:
            self._refuse(Refusal.DROP_RULE, packet, now)
        elif verdict.action is Action.DELAY:
            delayed = Delayed(
                key=(PROTOCOL_UDP, local, peer),
                service_id=service_id,
                packet=packet,
                gso_size=0,
                source=None,
                client=local[0],
                client_flow=own.flow_id,
                since=now,
                prefix=verdict.entry.prefix,
            )
            self._waiting.put(delayed, now, later=Refusal.DATAGRAMS_HELD)
        else:
            for to in self._places(verdict, now):
                self._send(own.flow_id, own.service_id, service_id, to, segment, packet, now)

    def _places(self, verdict: Verdict, now: float) -> list[Place]:
        """Where a datagram goes, and in which form: the targets that were chosen, by broadcast those of all links."""
        context = self._context
        found = []
        for slot in verdict.slots:
            target = slot.target
            destination = LOOPBACK if target.action is Action.DEMUX else target.address
            assert destination is not None
            if destination in context.adhoc.links:
                found.append(Place(destination))
            else:
                found.append(Place(destination, context.config.encapsulation.forms(destination, 0, now)[0]))
        return found

    def _send(
        self,
        flow_id: int,
        source_service: ServiceID,
        service_id: ServiceID,
        to: Place,
        segment: bytes,
        packet: bytes,
        now: float,
    ) -> None:
        context = self._context
        destination, ports = to
        source = context.adhoc.links.get(destination) or context.environment.source_address(destination)
        if source is None:
            self._refuse(Refusal.NO_ROUTE, packet, now)
            return
        extensions = (Service(service_id), Service(source_service))
        data = encode(
            SalPacket(flow_id, 0, PROTOCOL_UDP, extensions, to_wire(segment, PROTOCOL_UDP, source, destination))
        )
        mtu = context.environment.link_mtu(source)
        overhead = len(data) - len(segment) + (UDP_HEADER_LENGTH if ports is not None else 0)
        if HEADER_LENGTH + overhead + len(segment) > mtu:
            context.refuse(Refusal.TOO_LARGE, now)
            context.unreachable(packet, ICMP_FRAGMENTATION_NEEDED, mtu=mtu - overhead)
            return
        context.outputs.append(Send(source, destination, context.adhoc.ttl(destination), data, ports=ports))

    def _refuse(self, reason: Refusal, packet: bytes, now: float) -> None:
        self._context.refuse(reason, now)
        self._context.unreachable(packet, UNREACHABLE_CODES.get(reason, ICMP_HOST_UNREACHABLE))

    # -- from the network

    def receive(self, header: Ipv4Header, packet: SalPacket, raw: Buffer, now: float) -> None:
        """A packet without CONTROL for no flow of ours, its checksums verified."""
        context = self._context
        if len(packet.services) < 2:
            context.refuse(Refusal.NO_SERVICE if packet.services else Refusal.UNKNOWN_FLOW, now)
            return
        if packet.protocol != PROTOCOL_UDP:
            raise WireError(DropReason.UNKNOWN_PROTOCOL)
        segment = whole_datagram(packet.payload)
        broadcast = not context.environment.is_local(header.destination)
        if broadcast and header.destination not in context.adhoc.links:
            context.refuse(Refusal.BROADCAST, now)
            return
        service_id = packet.services[0]
        client = packet.source[0] if packet.source else header.source
        verdict = resolve(
            context.service_table,
            service_id,
            size=header.total_length,
            key=lambda _: client,
            rng=context.rng,
            now=now,
            actions=BROADCAST_ACTIONS if broadcast else network_actions(context.mode, forwarding=context.forwarding),
            mode=network_mode(context.mode, forwarding=context.forwarding),
            protocol=PROTOCOL_UDP,
        )
        if verdict is None:
            context.refuse(Refusal.NO_RULE, now)
        elif verdict.action is Action.DROP:
            context.refuse(Refusal.DROP_RULE, now)
        elif verdict.action is Action.DELAY:
            delayed = Delayed(
                key=(PROTOCOL_UDP, client, packet.src_flow, service_id),
                service_id=service_id,
                packet=bytes(raw[: header.total_length]),
                gso_size=0,
                source=header.source,
                client=client,
                client_flow=packet.src_flow,
                since=now,
                prefix=verdict.entry.prefix,
            )
            self._waiting.put(delayed, now, later=Refusal.DATAGRAMS_HELD)
        else:
            for copy in verdict.each():
                if copy.action is Action.DEMUX:
                    self._deliver(copy, header, packet, client, segment, now)
                else:
                    send_on(context, header, packet, copy.slot.target, copy.entry.prefix, now)

    def _deliver(
        self, verdict: Verdict, header: Ipv4Header, packet: SalPacket, client: Address, segment: bytes, now: float
    ) -> None:
        context = self._context
        target = verdict.slot.target
        assert target.port is not None
        local = target.listen_address or context.config.sal0_address, target.port
        service_id, sender = packet.services[:2]
        known = context.correspondents.find(local, sender, client, packet.src_flow, service_id)
        if known is None:
            peer = self._server.virtual_peer(client, local, PROTOCOL_UDP)
            if peer is None:
                context.refuse(Refusal.HALF_OPEN_FULL, now)
                return
            known = Correspondent(sender, client, packet.src_flow, service_id, local, peer)
            context.correspondents.add(known)
        known.ports = header.ports
        context.deliver_segment(local, known.kernel_peer, PROTOCOL_UDP, segment)


def whole_datagram(segment: bytes) -> bytes:
    """The datagram without what may follow it. Raises :class:`WireError` when it is cut."""
    return segment[: UdpHeader.decode(segment).length]
