"""The exchange by which flows move: RSYN, RSYN-ACK, ACK (slide 40, S45 to S48; `moves` has the states).

The mover repeats its RSYN and the peer its RSYN-ACK; a copy of an answered RSYN is answered again, to where it came
from. A bare ACK completes nothing, and a mover whose peer moves as well goes on asking at the peer's new place. These
three differ from the original, which gets stuck there (protocol notes 3.4 and 11).

A peer of this project sends to the mover's new place as soon as it has the RSYN, whose nonce proves who sent it: that
is what makes a handover cost one round trip. Towards others it waits for the ACK, as the original does.

`recovery` has what goes along with RSYN and RSYN-ACK, and what is sent again when the old path was lost.

When an end has asked in vain for a while, the other may have moved too and missed it. A client then asks all
instances of its service (SERVICE beside CONTROL in the RSYN, through service routers as well): the one that knows the
flowID and the nonce answers, the others are silent.
"""

from __future__ import annotations

from serval_node.sal.context import LOOPBACK, Context
from serval_node.sal.events import FlowMigrated, FlowMigrating, MigrationFailed, PathHeard, PeerMoved, Refusal
from serval_node.sal.flow_table import Flow
from serval_node.sal.moves import Cause, MigrationRecord, MigrationRefused, MigrationState, Move, PeerMove, Step
from serval_node.sal.places import Place
from serval_node.sal.recovery import Recovery, Report
from serval_node.sal.service_table import Action
from serval_node.sal.states import ESTABLISHED, State
from serval_node.wire.ipv4 import Address, UdpPorts, address_text
from serval_node.wire.sal_header import Control, ControlFlag, Service
from serval_node.wire.serial import serial_lt

_RSYN, _ACK = ControlFlag.RSYN, ControlFlag.ACK

# How often an RSYN-ACK is sent without an ACK for it. The mover's own repetition makes more of them pointless.
ANSWERS = 8
# After this many RSYNs without an answer a client asks the other instances' routers too.
SEARCH_AFTER = 3
# And a service router sends such an RSYN on to no more than these: one packet shall not become any number.
SEARCH_LIMIT = 64


class Migration:
    """Moves flows of one stack, and follows those that their peers move."""

    def __init__(self, context: Context) -> None:
        self._context = context
        self._recovery = Recovery(context)

    # -- our own move

    def begin(self, flow: Flow, address: Address, now: float, cause: Cause) -> Control:
        """Start to move a flow to another local address, or to another than before; the RSYN to be sent reliably, with
        the flags of a FIN in flight. Raises MigrationRefused.
        """
        self._check(flow, address, cause.lost)
        context = self._context
        record = flow.migration = flow.migration or MigrationRecord()
        record.step(Step.MOVE)
        left = record.move.left if record.move is not None else flow.local_address
        record.move = Move(left, address, cause, now)
        record.moved = now
        context.events.append(
            FlowMigrating(now, flow.local_flow, flow.service_id, cause.text, flow.local_address, address)
        )
        if cause.lost and (flow.marked or flow.unconfirmed):
            # A peer of ours takes data by the flowID alone (S10); nothing more is lost on the dead path. Where a server
            # still waits for the third ACK, it understands nothing else, and takes our address from there.
            self._recovery.doubt(flow)
            self._relocate(flow, address, flow.peer, now)
        return flow.control.begin(_RSYN, now)

    def announce(self, flow: Flow, now: float, *, lost: bool) -> Control:
        """Say where the flow is although it did not move; the RSYN to be sent reliably. ``lost``: what the peer has
        sent may have gone where the flow is no more.
        """
        record = flow.migration = flow.migration or MigrationRecord()
        record.step(Step.MOVE)
        here = flow.local_address
        record.move = Move(here, here, Cause("keep-alive", lost, now, now), now, keepalive=True)
        return flow.control.begin(_RSYN, now)

    def _check(self, flow: Flow, address: Address, lost: bool) -> None:
        record = flow.migration
        moving_to = record.move.address if record is not None and record.move is not None else None
        if flow.state not in ESTABLISHED or flow.state is State.TIMEWAIT:
            raise MigrationRefused(f"flow {flow.local_flow} is {flow.state.name}: only an open flow can move")
        if flow.resetting:
            raise MigrationRefused(f"flow {flow.local_flow} was reset by its peer")
        if flow.peer_address == LOOPBACK:
            raise MigrationRefused(f"flow {flow.local_flow} stays within this host")
        if not self._context.environment.is_local(address) or address == LOOPBACK:
            raise MigrationRefused(f"{address_text(address)} is no address of this host's links")
        if address == flow.local_address and moving_to is None and not lost:
            raise MigrationRefused(f"flow {flow.local_flow} is at {address_text(address)} already")

    def send_rsyn(self, flow: Flow, control: Control, now: float) -> None:
        """The pending RSYN, first or again, from the new place to where the peer is believed to be."""
        record = flow.migration
        assert record is not None
        assert record.move is not None
        move = record.move
        report = self._report(flow, move.address, lost=move.cause.lost)
        forms = self._forms(flow, flow.peer.address, move.rsyns, now)
        for ports in forms:
            self._context.send(flow, (control,), report, flow.peer._replace(ports=ports), source=move.address)
        move.rsyns += 1
        if move.rsyns > SEARCH_AFTER and not flow.server:
            self._search(flow, move, control, report, now)

    def _report(self, flow: Flow, source: Address, *, lost: bool) -> bytes:
        return self._recovery.report(flow, lost=lost, mtu=self._context.environment.link_mtu(source))

    def _forms(self, flow: Flow, peer: Address, tries: int, now: float) -> tuple[UdpPorts | None, ...]:
        """In which forms to ask; one that goes inside UDP stays there."""
        if flow.ports is not None:
            return (flow.ports,)
        return self._context.config.encapsulation.forms(peer, tries, now)

    def _search(self, flow: Flow, move: Move, control: Control, report: bytes, now: float) -> None:
        """Ask every instance of the service: the peer may have moved without our knowing."""
        entry = self._context.service_table.lookup(flow.service_id)
        for slot in entry.selectable if entry is not None else ():
            target = slot.target
            if target.action is Action.FORWARD and target.address not in (None, flow.peer_address):
                extensions = (control, Service(flow.service_id))
                for ports in self._forms(flow, target.address, move.rsyns - 1, now):
                    self._context.send(flow, extensions, report, Place(target.address, ports), source=move.address)

    def receive_rsyn_ack(self, flow: Flow, source: Place, control: Control, segment: bytes, now: float) -> int | None:
        """The peer has heard of our move; the flags that it acknowledges. Its nonce has been checked. ``segment`` is
        its report.
        """
        context = self._context
        record = flow.migration
        move = None if record is None else record.move
        acknowledged = None if move is None else flow.control.acknowledge_rsyn(control.ackno)
        if record is None or move is None or acknowledged is None:
            if flow.control.is_acknowledged(control.ackno):
                # A late copy: the peer may still wait for the ACK.
                self._send_ack(flow, source)
            else:
                context.refuse(Refusal.WRONG_NUMBER, now)
            return None
        record.step(Step.RSYN_ACK)
        record.move = None
        if move.rsyns == 1:
            flow.control.rtt = now - move.started
        report = self._read(flow, segment, now)
        # A peer that was found by its name elsewhere answers from where it is now.
        place = move.address, source if record.peer_move is None else flow.peer
        if move.cause.lost and place != (flow.local_address, flow.peer):
            # What was sent in the meantime went to the old path, or to where the peer is not.
            self._recovery.doubt(flow)
        self._relocate(flow, *place, now)
        self._send_ack(flow, source)
        if move.cause.lost:
            self._recovery.send_again(flow, report)
        if move.keepalive:
            return acknowledged
        context.events.append(
            FlowMigrated(
                now,
                flow.local_flow,
                flow.service_id,
                move.cause.text,
                move.left,
                move.address,
                move.cause.happened,
                move.cause.detected,
                move.started,
                move.rsyns,
            )
        )
        return acknowledged

    def _send_ack(self, flow: Flow, destination: Place) -> None:
        self._context.send(flow, (flow.control.make(_ACK),), b"", destination)

    def is_over(self, flow: Flow, now: float) -> bool:
        """Whether nobody has answered our RSYNs for too long."""
        record = flow.migration
        if record is None or record.move is None or now < record.move.started + self._context.config.migration_timeout:
            return False
        reason = "no answer from the peer"
        event = MigrationFailed(now, flow.local_flow, flow.service_id, record.move.cause.text, reason)
        self._context.events.append(event)
        return True

    # -- the peer's move

    def is_repeated(self, flow: Flow, control: Control) -> bool:
        """Whether an RSYN is a copy of the last one that was taken."""
        record = flow.migration
        return record is not None and record.peer_move is not None and record.peer_move.verno == control.verno

    def receive_rsyn(self, flow: Flow, source: Place, control: Control, segment: bytes, now: float) -> None:
        """A new RSYN, its nonce and number checked; ``source`` is where it came from, ``segment`` the peer's report."""
        context = self._context
        record = flow.migration = flow.migration or MigrationRecord()
        record.step(Step.RSYN)
        report = self._read(flow, segment, now)
        lost = report.acknowledged is not None
        record.peer_move = PeerMove(source, control.verno, now, lost=lost)
        if lost:
            self._recovery.doubt(flow)
        if flow.marked:
            self._follow(flow, record.peer_move, now)
        self._answer(flow, now)
        if lost:
            self._send_again(flow, record.peer_move, report, now)
        context.at(record.peer_move.due, self._repeat_answer, flow)

    def answer_again(self, flow: Flow, source: Place, segment: bytes, now: float) -> None:
        """A copy of an RSYN that was answered: the RSYN-ACK was lost, or is on its way."""
        self._send_answer(flow, source)
        peer_move = None if flow.migration is None else flow.migration.peer_move
        if peer_move is None or not peer_move.lost:
            return
        report = self._read(flow, segment, now)
        # What was sent again went the way of the RSYN-ACK. It is lost, too, if well over a round trip later (the mover
        # asks again after two) neither data nor the report of the peer acknowledge more than before.
        if report.acknowledged is None or now < peer_move.sent_again + 0.75 * flow.control.timeout(0):
            return
        if self._recovery.acknowledged(flow, report) == peer_move.acknowledged:
            self._recovery.doubt(flow)
            self._send_again(flow, peer_move, report, now)

    def _send_again(self, flow: Flow, peer_move: PeerMove, report: Report, now: float) -> None:
        peer_move.sent_again = now
        peer_move.acknowledged = self._recovery.acknowledged(flow, report)
        self._recovery.send_again(flow, report)

    def _read(self, flow: Flow, segment: bytes, now: float) -> Report:
        report = self._recovery.read(flow, segment, now)
        before = self._context.segment_limit(flow)
        if report.mtu is not None:
            flow.peer_mtu = report.mtu
        if self._context.segment_limit(flow) != before:
            self._context.reinstall(flow)
        return report

    def _answer(self, flow: Flow, now: float) -> None:
        record = flow.migration
        assert record is not None
        peer_move = record.peer_move
        assert peer_move is not None
        peer_move.due = now + flow.control.timeout(peer_move.answers)
        peer_move.answers += 1
        self._send_answer(flow, peer_move.place)

    def _send_answer(self, flow: Flow, destination: Place) -> None:
        # From our own new place when we are moving too: the old one may be gone.
        record = flow.migration
        move = None if record is None else record.move
        source = flow.local_address if move is None else move.address
        peer_lost = record is not None and record.peer_move is not None and record.peer_move.lost
        report = self._report(flow, source, lost=peer_lost or (move is not None and move.cause.lost))
        self._context.send(flow, (flow.control.make(_RSYN | _ACK),), report, destination, source=source)

    def _repeat_answer(self, flow: Flow, now: float) -> None:
        record = flow.migration
        if record is None or record.peer_move is None or flow.state not in ESTABLISHED:
            return
        peer_move = record.peer_move
        waiting = record.state in (MigrationState.RSYN_RECV, MigrationState.RSYN_SENT_RECV)
        if not waiting or peer_move.due > now or peer_move.answers >= ANSWERS:
            return
        self._answer(flow, now)
        self._context.at(peer_move.due, self._repeat_answer, flow)

    def receive_later(self, flow: Flow, control: Control, now: float) -> None:
        """CONTROL without RSYN and with a right nonce: one that the mover numbered after its RSYN says that it has our
        answer.
        """
        record = flow.migration
        if record is None or record.peer_move is None or not serial_lt(record.peer_move.verno, control.verno):
            return
        if record.step(Step.ACK) and not flow.marked:
            self._follow(flow, record.peer_move, now)

    def _follow(self, flow: Flow, peer_move: PeerMove, now: float) -> None:
        old, new = flow.peer, peer_move.place
        if self._relocate(flow, flow.local_address, new, now):
            addresses = old.address, new.address
            event = PeerMoved(now, flow.local_flow, flow.service_id, *addresses, peer_move.asked, old.ports, new.ports)
            self._context.events.append(event)

    # -- the new path

    def heard(self, flow: Flow, now: float) -> None:
        """A segment of the flow's transport came over the addresses that it has now: the end of a blackout."""
        record = flow.migration
        if record is None or record.heard or flow.peer_address is None:
            return
        record.heard = True
        event = PathHeard(now, flow.local_flow, flow.service_id, flow.local_address, flow.peer_address)
        self._context.events.append(event)

    def _relocate(self, flow: Flow, local: Address, peer: Place, now: float) -> bool:
        """Where the flow is from now on; whether that changes anything."""
        if (local, peer) == (flow.local_address, flow.peer):
            return False
        flow.local_address, (flow.peer_address, flow.ports) = local, peer
        flow.placed = now
        if flow.migration is not None:
            flow.migration.heard = False
        self._context.reinstall(flow)
        return True
