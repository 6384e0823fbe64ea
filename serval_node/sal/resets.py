"""RST for what belongs to no flow (protocol notes 2.6): the answer carries the nonce of the packet that it answers.

So the receiver finds its own nonce in it and can believe it: who sends that has seen the packet.
"""

from __future__ import annotations

from serval_node.sal.context import Context
from serval_node.sal.events import Refusal
from serval_node.sal.places import Place
from serval_node.wire.ipv4 import ICMP_PORT_UNREACHABLE, PROTOCOL_TCP, Address, Ipv4Header
from serval_node.wire.sal_header import Control, ControlFlag, SalPacket
from serval_node.wire.serial import serial_add
from serval_node.wire.transport import ACK, RST, TcpHeader, build_tcp

_SYN, _ACK, _RST = ControlFlag.SYN, ControlFlag.ACK, ControlFlag.RST


def refuse_unknown(context: Context, header: Ipv4Header, packet: SalPacket, control: Control, now: float) -> None:
    """To a SYN that no rule of a service router matches, so that a client who asks for nothing that exists learns it at
    once (S29).
    """
    client = packet.source[0] if packet.source else header.source
    reset = Control(_RST | _ACK, 0, serial_add(control.verno, 1), control.nonce)
    _answer(context, header, client, (0, packet.src_flow), packet.protocol, reset, now)


def refuse_program(context: Context, packet: bytes) -> None:
    """To a first packet of one of this host's programs, as if nobody listened: ECONNREFUSED."""
    header = Ipv4Header.decode(packet)
    if header.protocol != PROTOCOL_TCP:
        context.unreachable(packet, ICMP_PORT_UNREACHABLE)
        return
    tcp = TcpHeader.decode(header.payload(packet))
    local, peer = (header.source, tcp.source_port), (header.destination, tcp.destination_port)
    context.deliver_segment(local, peer, PROTOCOL_TCP, build_tcp(0, 0, 0, serial_add(tcp.seq, 1), RST | ACK))


def reset_unknown(context: Context, header: Ipv4Header, packet: SalPacket, control: Control, now: float) -> None:
    """To a SYN-ACK whose client has given up, and to a third ACK whose request is gone: the other end shall not wait
    for a connection that nobody has. Everything else for an unknown flow stays unanswered, as in the original.
    """
    handshake = control.flags == _SYN | _ACK or (control.flags == _ACK and packet.services)
    if handshake and context.environment.is_local(header.destination):
        reset = Control(_RST, control.ackno, 0, control.nonce)
        flows = packet.dst_flow, packet.src_flow
        _answer(context, header, header.source, flows, packet.protocol, reset, now)


def _answer(
    context: Context,
    header: Ipv4Header,
    to: Address,
    flows: tuple[int, int],
    protocol: int,
    reset: Control,
    now: float,
) -> None:
    if context.resets.allows(now):
        context.answer(header.destination, Place(to, header.ports), flows, protocol, reset)
    else:
        context.refuse(Refusal.RESET_LIMITED, now)
