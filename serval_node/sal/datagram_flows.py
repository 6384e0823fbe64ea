"""Connected datagrams: a flow with SAL's handshake, whose data are UDP datagrams (S8; protocol notes 1.6 and 2.5).

UDP has no handshake of its own for SAL's to carry, so SAL does it alone: the first datagram of a program sends the SYN
with an empty UDP header, and waits with those that follow until the SYN-ACK is there. Nothing repeats a datagram. Of
UDP's life the kernel tells only the end of a socket: then the flow is closed by FIN, and whoever receives a FIN
answers by its own at once. What a program sends after that opens another flow, which is resolved anew.
"""

from __future__ import annotations

from serval_node.sal.context import Context
from serval_node.sal.datagram_record import DatagramRecord
from serval_node.sal.delay_queue import Delayed
from serval_node.sal.events import ConnectFailed, Refusal
from serval_node.sal.flow_table import Endpoint, Flow
from serval_node.sal.opening import EMPTY_DATAGRAM, Client, Server
from serval_node.sal.resolution import UNREACHABLE_CODES, Verdict, program_actions, resolve
from serval_node.sal.service_table import Action
from serval_node.sal.states import State
from serval_node.sal.transfer import Transfer
from serval_node.sal.waiting import Waiting
from serval_node.wire.ipv4 import (
    HEADER_LENGTH,
    ICMP_FRAGMENTATION_NEEDED,
    ICMP_HOST_UNREACHABLE,
    ICMP_PORT_UNREACHABLE,
    PROTOCOL_UDP,
    build_ipv4,
)
from serval_node.wire.sal_header import BARE_LENGTH
from serval_node.wire.serviceid import Prefix, ServiceID
from serval_node.wire.transport import UDP_HEADER_LENGTH, build_udp

# An unanswered SYN is repeated after 0.2 s, 0.4 s and so on, and given up after 11 s.
SYN_TRIES = 6
# Every IPv4 link carries this much (RFC 791 asks hosts to take 576): shorter packets need no look at the link.
_ALWAYS_FITS = 576


class DatagramFlows:
    """The flows of protocol UDP of one stack."""

    def __init__(self, context: Context, client: Client, server: Server, transfer: Transfer, waiting: Waiting) -> None:
        self._context = context
        self._client = client
        self._server = server
        self._transfer = transfer
        self._waiting = waiting

    # -- from the kernel

    def from_kernel(self, flow: Flow, segment: bytes, packet: bytes, now: float) -> bool:
        """A program's datagram for a flow that is there. False: that one is over, and the datagram needs another."""
        if flow.state in (State.REQUEST, State.RESPOND):
            self._hold(flow, segment, now)
        elif flow.state is State.CONNECTED:
            self._send(flow, segment, packet, now)
        else:
            self._context.flows.detach(flow)
            return False
        return True

    def open(
        self, local: Endpoint, peer: Endpoint, service_id: ServiceID, segment: bytes | None, packet: bytes, now: float
    ) -> Refusal | None:
        """A flow for a socket that sends its first datagram to a service, or (without ``segment``) connects. Returns
        why there is none; the program has then an ICMP error about ``packet``. Under DELAY the packet waits.
        """
        context = self._context
        if context.flows.datagram_flows >= context.config.datagram_flows:
            self._fail(local, 0, service_id, packet, Refusal.DATAGRAM_FLOWS_FULL, None, now)
            return Refusal.DATAGRAM_FLOWS_FULL
        verdict = self._resolve(service_id, len(packet), None, now)
        refusal = None
        if verdict is None:
            refusal = Refusal.NO_RULE
        elif verdict.action is Action.DROP:
            refusal = Refusal.DROP_RULE
        elif verdict.action is Action.DELAY:
            self._delay(local, peer, service_id, packet, verdict.entry.prefix, now)
        else:
            flow = self._client.begin(local, peer, service_id, now, PROTOCOL_UDP)
            if segment is not None:
                record(flow).hold(segment)
            self._start_clock(flow, now)
            self._request(flow, verdict, now)
            return None if flow.state is State.REQUEST else Refusal.NO_ROUTE
        if refusal is not None:
            self._fail(local, 0, service_id, packet, refusal, None if verdict is None else verdict.entry.prefix, now)
        return refusal

    def _delay(
        self, local: Endpoint, peer: Endpoint, service_id: ServiceID, packet: bytes, prefix: Prefix, now: float
    ) -> None:
        """The first datagram of a socket for a service waits; what follows meanwhile is lost, as UDP may lose it."""
        delayed = Delayed(
            key=(PROTOCOL_UDP, local, peer),
            service_id=service_id,
            packet=packet,
            gso_size=0,
            source=None,
            client=local[0],
            client_flow=0,
            since=now,
            prefix=prefix,
        )
        self._waiting.put(delayed, now, later=Refusal.DATAGRAMS_HELD)

    def _resolve(self, service_id: ServiceID, size: int, flow: Flow | None, now: float) -> Verdict | None:
        context = self._context
        return resolve(
            context.service_table,
            service_id,
            size=size,
            key=context.own_address,
            rng=context.rng,
            now=now,
            sticky=None if flow is None else flow.target,
            actions=program_actions(context.mode),
            mode=context.mode,
            protocol=PROTOCOL_UDP,
        )

    def _request(self, flow: Flow, verdict: Verdict, now: float) -> None:
        if not self._client.send_syn(flow, build_udp(0, 0), None, verdict, now):
            self._give_up(flow, Refusal.NO_ROUTE, verdict.entry.prefix, now)
            return
        pause = flow.control.timeout(flow.attempts)
        flow.attempts += 1
        self._context.at(now + pause, self._request_again, flow)

    def _request_again(self, flow: Flow, now: float) -> None:
        if flow.state is not State.REQUEST:
            return
        if flow.attempts >= SYN_TRIES:
            self._give_up(flow, Refusal.NO_ANSWER, None, now)
            return
        verdict = self._resolve(flow.service_id, HEADER_LENGTH + BARE_LENGTH, flow, now)
        if verdict is None:
            self._give_up(flow, Refusal.NO_RULE, None, now)
        elif verdict.action is Action.DROP:
            self._give_up(flow, Refusal.DROP_RULE, verdict.entry.prefix, now)
        elif verdict.action is Action.DELAY:
            # A rule of the time in between: the copy that is on its way may still be answered.
            flow.attempts += 1
            self._context.at(now + flow.control.timeout(flow.attempts), self._request_again, flow)
        else:
            self._request(flow, verdict, now)

    def _give_up(self, flow: Flow, reason: Refusal, prefix: Prefix | None, now: float) -> None:
        self._fail(flow.kernel_local, flow.local_flow, flow.service_id, quoted(flow), reason, prefix, now)
        self._context.forget(flow, reason.value, now)

    def _fail(
        self,
        local: Endpoint,
        flow_id: int,
        service_id: ServiceID,
        packet: bytes,
        reason: Refusal,
        prefix: Prefix | None,
        now: float,
    ) -> None:
        """Here on the sender's own host a program learns at once that its datagrams go nowhere (S28, S29)."""
        context = self._context
        context.refuse_syn(reason, now, service_id, local[0], flow_id, prefix)
        context.unreachable(packet, UNREACHABLE_CODES.get(reason, ICMP_HOST_UNREACHABLE))
        context.events.append(ConnectFailed(now, flow_id, service_id, reason.value, prefix))

    def _hold(self, flow: Flow, segment: bytes, now: float) -> None:
        if not record(flow).hold(segment):
            self._context.refuse(Refusal.DATAGRAMS_HELD, now)

    def _send(self, flow: Flow, segment: bytes, packet: bytes, now: float) -> None:
        context = self._context
        overhead = BARE_LENGTH + (UDP_HEADER_LENGTH if flow.ports is not None else 0)
        size = HEADER_LENGTH + overhead + len(segment)
        if size > _ALWAYS_FITS:
            mtu = context.environment.link_mtu(flow.local_address)
            if size > mtu:
                context.refuse(Refusal.TOO_LARGE, now)
                context.unreachable(packet, ICMP_FRAGMENTATION_NEEDED, mtu=mtu - overhead)
                return
        context.send(flow, (), segment)
        kept = record(flow)
        kept.sent(len(segment))
        kept.idle_at = now + context.config.datagram_idle

    # -- from the network

    def receive_syn(self, known: Flow) -> None:
        """A copy of the SYN of a request that we have."""
        if known.state is State.RESPOND:
            self._server.send_syn_ack(known, EMPTY_DATAGRAM)

    def hold_early(self, flow: Flow, segment: bytes, now: float) -> bool:
        """A datagram that overtook the third ACK, or that one was lost; whether there is one to wait for."""
        if flow.state is not State.RESPOND:
            return False
        self._hold(flow, segment, now)
        return True

    def from_network(self, flow: Flow, segment: bytes, now: float) -> None:
        """A datagram of an open flow's peer; flowIDs, checksum and length are right."""
        if flow.state is State.TIMEWAIT:
            self._context.refuse(Refusal.FLOW_CLOSED, now)
            return
        self._deliver(flow, segment, now)
        self._transfer.heard(flow)

    def _deliver(self, flow: Flow, segment: bytes, now: float) -> None:
        self._context.deliver(flow, segment)
        kept = record(flow)
        kept.received(len(segment))
        kept.idle_at = now + self._context.config.datagram_idle

    def after_control(self, flow: Flow, now: float) -> None:
        """What a packet with CONTROL has changed: the datagrams that waited for it go on; a FIN is answered by ours."""
        if flow.state is State.CONNECTED:
            kept = record(flow)
            if kept.idle_at == 0.0:
                self._start_clock(flow, now)
            if not flow.server:
                self._transfer.keepalive.follow(flow, now)
            for segment in kept.release():
                if flow.server:
                    self._deliver(flow, segment, now)
                else:
                    self._send(flow, segment, quoted(flow, segment), now)
            if kept.closing:
                kept.closing = False
                self._close(flow, now)
        elif flow.state is State.CLOSEWAIT:
            self._transfer.finish(flow, now)

    def reset(self, flow: Flow, now: float) -> None:
        """The peer's RST, believed: a program that sends here hears of it as of a closed port (ECONNREFUSED)."""
        context = self._context
        if flow.state is State.TIMEWAIT or flow.state is State.CLOSED:
            return
        if not flow.server:
            context.unreachable(quoted(flow), ICMP_PORT_UNREACHABLE)
        if flow.state is State.REQUEST:
            context.events.append(ConnectFailed(now, flow.local_flow, flow.service_id, "refused"))
        context.forget(flow, "refused" if flow.state is State.REQUEST else "reset by the peer", now)

    # -- the end

    def port_unreachable(self, local: Endpoint, peer: Endpoint, now: float) -> None:
        """The kernel has no socket for what we delivered: the peer's program shall hear of it."""
        flow = self._context.flows.by_kernel(local, peer, PROTOCOL_UDP)
        if flow is not None and flow.state is State.CONNECTED:
            self._transfer.abandon(flow, "no socket", now)

    def socket_gone(self, local: Endpoint, peer: Endpoint, now: float) -> None:
        """No socket of the kernel is left that this flow could belong to. Unknown ends are ignored."""
        flow = self._context.flows.by_kernel(local, peer, PROTOCOL_UDP)
        if flow is None:
            return
        if flow.state is State.RESPOND:
            self._server.abandon(flow, "socket gone", now)
        else:
            self._close(flow, now)

    def _close(self, flow: Flow, now: float) -> None:
        if flow.state is State.REQUEST and record(flow).held:
            record(flow).closing = True  # sendto() and close() is a way to send
        elif flow.state is State.REQUEST:
            self._context.forget(flow, "given up", now)
        elif flow.state is State.CONNECTED:
            record(flow).idle_at = now + self._context.config.time_wait
            self._transfer.finish(flow, now)
            self._context.at(record(flow).idle_at, self._check_idle, flow)

    def _start_clock(self, flow: Flow, now: float) -> None:
        kept = record(flow)
        kept.idle_at = now + self._context.config.datagram_idle
        self._context.at(kept.idle_at, self._check_idle, flow)

    def _check_idle(self, flow: Flow, now: float) -> None:
        kept = record(flow)
        if flow.state is State.TIMEWAIT or flow.state is State.CLOSED:
            return
        if now < kept.idle_at:
            self._context.at(kept.idle_at, self._check_idle, flow)
        elif flow.state is State.CONNECTED:
            self._close(flow, now)
        else:
            self._context.forget(flow, "peer is gone", now)


def record(flow: Flow) -> DatagramRecord:
    """What only a flow of datagrams has."""
    assert flow.datagrams is not None
    return flow.datagrams


def quoted(flow: Flow, segment: bytes = b"") -> bytes:
    """A packet of the flow's program, for ICMP errors that come later than it: only addresses and ports are read."""
    (local, local_port), (peer, peer_port) = flow.kernel_local, flow.kernel_peer
    return build_ipv4(local, peer, PROTOCOL_UDP, build_udp(local_port, peer_port, segment[8:]))
