"""A service router's work on a first packet (slide 34; protocol notes 4.1): destination rewritten, source kept.

The router notes itself in the SOURCE extension, so that the server knows the client's address and a loop ends; it
keeps no state but the choice for a retransmission.
"""

from __future__ import annotations

from serval_node.sal.context import Context
from serval_node.sal.events import Refusal, SynForwarded
from serval_node.sal.outputs import Send
from serval_node.sal.resolution import Verdict
from serval_node.sal.service_table import Target
from serval_node.wire.ipv4 import Address, Ipv4Header, UdpPorts
from serval_node.wire.sal_header import MAX_SOURCES, Pad, SalPacket, Source, encode
from serval_node.wire.serviceid import Prefix, ServiceID
from serval_node.wire.transport import recompute_checksum


def noted(sources: tuple[Address, ...], sender: Address, own: Address) -> tuple[Address, ...]:
    """The SOURCE list of a packet that this router sends on: the client, the routers before, this one."""
    return (*sources, own) if sources else (sender, own)


def obstacle(sources: tuple[Address, ...], own: Address) -> Refusal | None:
    """Why a packet with this SOURCE list (empty: straight from its client) is not sent on by the router ``own``."""
    if own in sources:
        return Refusal.ROUTING_LOOP
    return Refusal.SOURCE_FULL if len(sources) >= MAX_SOURCES else None


def forward(
    context: Context, header: Ipv4Header, packet: SalPacket, service_id: ServiceID, verdict: Verdict, now: float
) -> bool:
    """Send a SYN on to the verdict's target, or count why not. The transport checksum has been verified."""
    target = verdict.slot.target
    if not send_on(context, header, packet, target, verdict.entry.prefix, now):
        return False
    entry = verdict.entry
    assert target.address is not None
    context.events.append(
        SynForwarded(
            now,
            packet.source[0] if packet.source else header.source,
            packet.src_flow,
            service_id,
            entry.prefix,
            verdict.selector,
            len(entry.selectable),
            header.destination,
            target.address,
        )
    )
    return True


def send_on(context: Context, header: Ipv4Header, packet: SalPacket, to: Target, prefix: Prefix, now: float) -> bool:
    """A packet with SERVICE to a FORWARD target of ``prefix``'s rule; False, and counted, when it may not go on."""
    target = to.address
    assert target is not None
    client = packet.source[0] if packet.source else header.source
    own = header.destination
    sources = noted(packet.source, header.source, own)
    refusal = obstacle(packet.source, own)
    if refusal is None and header.ttl <= 1:
        refusal = Refusal.TTL_EXCEEDED
    if refusal is not None:
        context.refuse_syn(refusal, now, packet.services[0], client, packet.src_flow, prefix)
        return False
    context.outputs.append(onward(header, packet, target, sources))
    return True


def onward(header: Ipv4Header, packet: SalPacket, target: Address, sources: tuple[Address, ...]) -> Send:
    """The packet as it goes on to ``target``: with this SOURCE list, the client's address kept."""
    # Without padding there is always room for SOURCE among the ten extensions that a receiver takes.
    kept = tuple(extension for extension in packet.extensions if not isinstance(extension, (Source, Pad)))
    payload = packet.payload
    if payload:
        payload = recompute_checksum(payload, packet.protocol, header.source, target)
    rewritten = SalPacket(packet.src_flow, packet.dst_flow, packet.protocol, (*kept, Source(sources)), payload)
    # Ports are kept with the source: the instance answers to where the client, or its NAT, has asked from.
    ports = None if header.ports is None else UdpPorts(header.ports.peer, header.ports.local)
    return Send(header.source, target, header.ttl - 1, encode(rewritten), forwarded=True, ports=ports)
