"""An established flow: data on the slow path, close and reset (protocol notes 2.5 and 2.6)."""

from __future__ import annotations

import contextlib

from serval_node.sal.connection import ControlState
from serval_node.sal.context import Context
from serval_node.sal.events import Refusal
from serval_node.sal.flow_table import Flow
from serval_node.sal.keepalive import Keepalive
from serval_node.sal.migration import Migration
from serval_node.sal.moves import Cause, MigrationRefused
from serval_node.sal.places import Place
from serval_node.sal.probing import Probing
from serval_node.sal.states import ESTABLISHED, Happening, State, advance
from serval_node.wire.ipv4 import PROTOCOL_TCP, Address
from serval_node.wire.sal_header import Control, ControlFlag
from serval_node.wire.serial import serial_add, serial_leq
from serval_node.wire.transport import ACK, FIN, RST, TcpHeader, build_tcp, split

_ACK, _RST, _FIN, _RSYN = ControlFlag.ACK, ControlFlag.RST, ControlFlag.FIN, ControlFlag.RSYN

RAW_UNANSWERED = "no answer to raw packets"

# Linux answers segments outside of its window at most every 0.5 s.
_PROBE_SECONDS = 0.6
_PROBES = 5
# Much of what was on its way when a flow was reset arrives at once; one RST answers it.
_RESET_PAUSE = 0.1
# The kernel's news of a destroyed socket may overtake its last packets, which still lie in sal0.
_LAST_PACKETS = 1.0


class Transfer:
    """Packets of flows that both ends know."""

    def __init__(self, context: Context, migration: Migration, probing: Probing) -> None:
        self._context = context
        self._migration = migration
        self.keepalive = Keepalive(context, self.announce)
        self._probing = probing
        probing.follow_answers(self.keepalive.hurry)
        probing.follow_inside(self._go_inside)

    # -- from the kernel

    def from_kernel(self, flow: Flow, segment: bytes, tcp: TcpHeader, gso_size: int, now: float) -> None:
        """A segment (or super-segment) without SYN from the local TCP."""
        context = self._context
        if flow.resetting:
            self._finish_reset(flow, tcp, now)
            return
        if tcp.flags & RST:
            self._abort(flow, segment, now)
            return
        if tcp.flags & FIN:
            end = serial_add(tcp.seq, tcp.sequence_length(len(segment)))
            if flow.fin_end != end:
                flow.fin_end, flow.fin_acked = end, False
            # The stack must see the acknowledgement of the FIN.
            context.uninstall(flow)
            self._probing.owes(flow, now)
        for piece in self._pieces(flow, segment, tcp, gso_size):
            context.send(flow, (), piece)

    def _pieces(self, flow: Flow, segment: bytes, tcp: TcpHeader, gso_size: int) -> list[bytes]:
        """The kernel's segment as the flow's path takes it: inside UDP there is less room than the kernel knows of."""
        limit = self._context.segment_limit(flow)
        if limit is not None and len(segment) > limit:
            fits = limit - tcp.header_length
            gso_size = min(gso_size or fits, fits)
        return split(segment, gso_size) if gso_size else [segment]

    def _abort(self, flow: Flow, segment: bytes, now: float) -> None:
        context = self._context
        # The TCP RST has the exact sequence number that the peer's kernel wants; SAL's RST ends the flow.
        context.send(flow, (), segment)
        self.abandon(flow, "reset by this host", now)

    def abandon(self, flow: Flow, reason: str, now: float) -> None:
        """Tell the peer that the flow is over. This RST may get lost: what still comes is answered by another."""
        self._send_reset(flow, now)
        self._context.bury(flow, reason, now)

    def answer_dead(self, flow: Flow, now: float) -> None:
        """A packet for a flow that was reset here (protocol notes 2.6, case c)."""
        self._context.refuse(Refusal.FLOW_CLOSED, now)
        if now >= flow.reset_sent + _RESET_PAUSE:
            self._send_reset(flow, now)

    def _send_reset(self, flow: Flow, now: float) -> None:
        flow.reset_sent = now
        self._context.send(flow, (flow.control.make(_RST | _ACK),), b"")

    # -- from the network

    def from_network(self, flow: Flow, segment: bytes, tcp: TcpHeader, now: float) -> None:
        """A data packet; its flowIDs and its checksum are right."""
        context = self._context
        if flow.resetting:
            return
        context.deliver(flow, segment)
        self.heard(flow)
        end = flow.fin_end
        if end is not None and not flow.fin_acked and tcp.flags & ACK and serial_leq(end, tcp.ack):
            flow.fin_acked = True
            self._send_fin(flow, now)
            context.install(flow)

    def heard_there(self, flow: Flow, now: float) -> None:
        """A data packet came over the flow's own addresses, by whichever path."""
        self._migration.heard(flow, now)

    def heard(self, flow: Flow) -> None:
        """Something came from the peer: it has our third ACK, and the data path can take over."""
        flow.unconfirmed = False
        self._context.install(flow)

    # -- control

    def control(self, flow: Flow, source: Place, control: Control, segment: bytes, now: float) -> None:
        """CONTROL of an established flow from ``source``, its nonce checked; RST is not among it."""
        state = flow.control
        if control.flags & _RSYN:
            self._moving(flow, source, control, segment, now)
        else:
            if control.flags & _ACK or control.flags & _FIN:
                self._acknowledged(flow, state.acknowledge(control.ackno), now)
            if flow.state is State.CLOSED:
                return
            if not state.is_stale(control):
                self._migration.receive_later(flow, control, now)
            self._plain_control(flow, control, segment, now)
        self.heard_control(flow)

    def _acknowledged(self, flow: Flow, flags: int | None, now: float) -> None:
        if flags is not None and flags & _FIN:
            self._move(flow, Happening.FIN_ACKED, now)

    def _moving(self, flow: Flow, source: Place, control: Control, segment: bytes, now: float) -> None:
        """RSYN or RSYN-ACK; a FIN in flight rides along with either."""
        state, migration = flow.control, self._migration
        if control.flags & _ACK:
            self._acknowledged(flow, migration.receive_rsyn_ack(flow, source, control, segment, now), now)
            self.keepalive.follow(flow, now)
            fresh = not state.is_stale(control)
        elif migration.is_repeated(flow, control):
            migration.answer_again(flow, source, segment, now)
            fresh = False
        elif state.is_stale(control):
            # An older RSYN that was overtaken: the peer has moved on (S46).
            self._context.refuse(Refusal.STALE_CONTROL, now)
            fresh = False
        else:
            state.rcv_nxt = serial_add(control.verno, 1)
            if control.flags & _FIN:
                self._acknowledged(flow, state.acknowledge(control.ackno), now)
            migration.receive_rsyn(flow, source, control, segment, now)
            # The peer may have taken a raw flow inside UDP.
            self.keepalive.follow(flow, now)
            fresh = True
        if control.flags & _FIN and fresh and flow.state is not State.CLOSED:
            state.rcv_nxt = serial_add(control.verno, 1)
            if control.flags & _ACK:
                self._context.send(flow, (state.make(_ACK),), b"")
            self._fin_received(flow, now)

    def _plain_control(self, flow: Flow, control: Control, segment: bytes, now: float) -> None:
        context, state = self._context, flow.control
        if control.flags & _FIN:
            self._receive_fin(flow, state, control, now)
        elif state.is_stale(control):
            context.refuse(Refusal.STALE_CONTROL, now)
            context.send(flow, (state.make(_ACK),), b"")
        elif not control.flags & _ACK:
            context.refuse(Refusal.UNEXPECTED_CONTROL, now)
        elif segment:
            # A repeated third ACK. TCP may have missed it (a full accept queue) and does not answer it when it has
            # not: without our answer an idle client would go on repeating.
            if flow.protocol == PROTOCOL_TCP:
                context.deliver(flow, segment)
            context.send(flow, (state.make(_ACK),), b"")

    def heard_control(self, flow: Flow) -> None:
        if flow.state is not State.CLOSED:
            self.heard(flow)

    def _receive_fin(self, flow: Flow, state: ControlState, control: Control, now: float) -> None:
        if state.is_stale(control):
            self._context.send(flow, (state.make(_ACK),), b"")
            return
        state.rcv_nxt = serial_add(control.verno, 1)
        self._context.send(flow, (state.make(_ACK),), b"")
        self._fin_received(flow, now)

    def _fin_received(self, flow: Flow, now: float) -> None:
        # A FIN that came alone may come again with an RSYN.
        if advance(flow.state, Happening.FIN_RECEIVED) is not None:
            self._move(flow, Happening.FIN_RECEIVED, now)

    def finish(self, flow: Flow, now: float) -> None:
        """Close a flow whose transport has no end of its own."""
        self._send_fin(flow, now)

    def _send_fin(self, flow: Flow, now: float) -> None:
        self._send_reliably(flow, flow.control.begin(_FIN, now), now)
        self._move(flow, Happening.FIN_SENT, now)

    def _send_reliably(self, flow: Flow, control: Control, now: float) -> None:
        if control.flags & _RSYN:
            self._migration.send_rsyn(flow, control, now)
        else:
            self._context.send(flow, (control,), b"")
        self._probing.owes(flow, now)
        self._arm(flow)

    def move(self, flow: Flow, address: Address, now: float, why: Cause) -> None:
        """Move a flow to another local address. Raises MigrationRefused."""
        self._send_reliably(flow, self._migration.begin(flow, address, now, why), now)

    def _go_inside(self, flow: Flow, since: float, now: float) -> None:
        """Raw packets get no answer since then, and what is inside UDP does: the flow goes on there, where it is. The
        verdict may be rash, so the RSYN itself decides, in the forms of any move: it is raw before it goes in both.
        """
        pending = flow.control.pending
        if pending is not None and pending.flags & _RSYN:
            return  # on its way elsewhere, or it asks in both forms already
        # An address that has just gone is refused, and is left for another reason.
        with contextlib.suppress(MigrationRefused):
            self.move(flow, flow.local_address, now, Cause(RAW_UNANSWERED, True, since, now))

    def announce(self, flow: Flow, now: float, *, lost: bool) -> None:
        """A keep-alive."""
        self._send_reliably(flow, self._migration.announce(flow, now, lost=lost), now)

    def _arm(self, flow: Flow) -> None:
        if flow.control.pending is not None:
            self._context.at(flow.control.pending.due, self._retransmit, flow)

    def _retransmit(self, flow: Flow, now: float) -> None:
        pending = flow.control.pending
        if pending is None or pending.due > now:
            return
        moving = bool(pending.flags & _RSYN)
        if moving and self._migration.is_over(flow, now):
            self._context.forget(flow, "peer is gone", now)
            return
        # A host may be without any network for a while: what ends a move is time and not tries.
        control = flow.control.again(now, pending.tries + 1) if moving else flow.control.again(now)
        if control is None:
            self._context.forget(flow, "peer is gone", now)
            return
        self._send_reliably(flow, control, now)

    def _move(self, flow: Flow, happening: Happening, now: float) -> None:
        following = advance(flow.state, happening)
        if following is None:
            self._context.counters[Refusal.UNEXPECTED_CONTROL.value] += 1
            return
        if following is State.CLOSED:
            self._context.forget(flow, "closed", now)
            return
        flow.state = following
        if following is State.TIMEWAIT:
            self._context.uninstall(flow)
            self._context.at(now + self._context.config.time_wait, self._time_out, flow)

    def _time_out(self, flow: Flow, now: float) -> None:
        if flow.state is State.TIMEWAIT:
            self._context.forget(flow, "closed", now)

    # -- the kernel's socket has gone

    def socket_gone(self, flow: Flow, now: float) -> None:
        """Nobody here wants more of this flow; the kernel's last packets may still have to pass, and SAL's close."""
        flow.deadline = now + (_LAST_PACKETS if flow.fin_end is None else self._context.config.time_wait)
        self._context.at(flow.deadline, self._end_without_socket, flow)

    def _end_without_socket(self, flow: Flow, now: float) -> None:
        if flow.state not in ESTABLISHED or flow.state is State.TIMEWAIT or now < flow.deadline:
            return
        if flow.resetting:
            self._context.forget(flow, "reset by the peer", now)
        elif flow.fin_end is None:
            self.abandon(flow, "socket gone", now)
        else:
            self._context.forget(flow, "peer is gone", now)

    # -- reset by the peer

    def reset(self, flow: Flow, now: float) -> None:
        """The peer's RST. TCP only believes a RST with exactly the next sequence number, which only the kernel knows:
        an old segment makes it tell (RFC 9293, section 3.10.7.4).
        """
        if flow.resetting:
            return
        flow.resetting = True
        flow.unconfirmed = False
        flow.attempts = 0
        self._context.uninstall(flow)
        self._probe(flow, now)

    def _probe(self, flow: Flow, now: float) -> None:
        context = self._context
        if not flow.resetting:
            return
        if flow.attempts >= _PROBES:
            context.forget(flow, "reset by the peer", now)
            return
        flow.attempts += 1
        self._deliver_probe(flow)
        context.at(now + _PROBE_SECONDS, self._probe, flow)

    def _finish_reset(self, flow: Flow, tcp: TcpHeader, now: float) -> None:
        # A RST in answer means that the socket is gone. Before that the number may be that of a segment which left the
        # kernel before our last data came in: the answer to the next probe, now or by the timer, tells.
        if tcp.flags & RST:
            self._context.forget(flow, "reset by the peer", now)
        elif tcp.flags & ACK:
            self._context.deliver(flow, build_tcp(0, 0, tcp.ack, 0, RST))
            self._deliver_probe(flow)

    def _deliver_probe(self, flow: Flow) -> None:
        self._context.deliver(flow, build_tcp(0, 0, flow.initial_ack, serial_add(flow.initial_seq, 1), ACK))
