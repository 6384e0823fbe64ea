"""The control side of one flow: version numbers, nonces, and the one reliable control packet in flight.

SYN, RSYN and FIN take a version number each; acknowledgements none. Control is stop-and-wait with exponential
back-off (protocol notes 2.1 to 2.4). Transport data has its own numbers and is none of this module's business.
"""

from __future__ import annotations

import random
from dataclasses import dataclass

from serval_node.sal.events import Refusal
from serval_node.wire.sal_header import NONCE_LENGTH, Control, ControlFlag
from serval_node.wire.serial import MASK, serial_add, serial_leq, serial_lt

INITIAL_TIMEOUT = 0.2
MAX_TIMEOUT = 5.0
MAX_RETRANSMITS = 15

# What takes no number of its own, and so may carry an old one (protocol notes 2.2).
_UNNUMBERED = (ControlFlag.ACK, ControlFlag.RSYN | ControlFlag.ACK)


@dataclass(slots=True)
class Pending:
    """A control packet that is sent again until it is acknowledged."""

    flags: int
    verno: int
    tries: int
    due: float


class ControlState:
    """Numbers and nonces of a flow."""

    __slots__ = ("initial", "local_nonce", "peer_nonce", "pending", "rcv_nxt", "rtt", "snd_nxt", "snd_una")

    def __init__(self, rng: random.Random) -> None:
        drawn = rng.getrandbits(32 + 8 * NONCE_LENGTH)  # at once: each draw is a system call
        self.initial = drawn & MASK
        self.local_nonce = (drawn >> 32).to_bytes(NONCE_LENGTH, "big")
        self.peer_nonce: bytes | None = None
        self.snd_una = self.initial
        self.snd_nxt = self.initial
        self.rcv_nxt = 0
        self.rtt: float | None = None
        self.pending: Pending | None = None

    def open(self) -> None:
        """The SYN or SYN-ACK takes the first number."""
        self.snd_nxt = serial_add(self.initial, 1)

    def learn_peer(self, control: Control) -> None:
        """From a SYN or SYN-ACK: the peer's number and nonce, which hold for the whole flow."""
        self.rcv_nxt = serial_add(control.verno, 1)
        self.peer_nonce = control.nonce

    def make(self, flags: int, verno: int | None = None, mark: int = 0) -> Control:
        """A CONTROL extension of this flow; a SYN carries the first number, others the next."""
        if verno is None:
            verno = self.initial if flags & ControlFlag.SYN else self.snd_nxt
        ackno = 0 if flags == ControlFlag.SYN else self.rcv_nxt
        return Control(flags, verno, ackno, self.local_nonce, mark)

    def begin(self, flags: int, now: float) -> Control:
        """Start a reliable control packet that takes a number (a FIN). One at a time: an unacknowledged earlier one
        gives its flags to this one.
        """
        if self.pending is not None:
            flags |= self.pending.flags
        self.pending = Pending(flags, self.snd_nxt, 0, now + self.timeout(0))
        self.snd_nxt = serial_add(self.snd_nxt, 1)
        return self.make(flags, self.pending.verno)

    def again(self, now: float, retransmits: int = MAX_RETRANSMITS) -> Control | None:
        """The pending packet once more; None when it was tried often enough."""
        pending = self.pending
        if pending is None or pending.tries >= retransmits:
            return None
        pending.tries += 1
        pending.due = now + self.timeout(pending.tries)
        return self.make(pending.flags, pending.verno)

    def timeout(self, tries: int) -> float:
        """Seconds to wait for an acknowledgement."""
        base = INITIAL_TIMEOUT if self.rtt is None else max(2 * self.rtt, 0.02)
        return min(base * (1 << min(tries, 16)), MAX_TIMEOUT)

    def acknowledge(self, ackno: int) -> int | None:
        """Take an acknowledgement; the flags of the pending packet if it was that one's, else None.

        A number outside of what was sent acknowledges nothing.
        """
        if not (serial_leq(self.snd_una, ackno) and serial_leq(ackno, self.snd_nxt)):
            return None
        pending = self.pending
        covered = pending is not None and serial_lt(pending.verno, ackno)
        if covered and pending is not None and pending.flags & ControlFlag.RSYN:
            # An original answers a repeated RSYN by an ACK to the old place; only an RSYN-ACK ends a move.
            return None
        self.snd_una = ackno
        if pending is None or not covered:
            return None
        self.pending = None
        return pending.flags

    def acknowledge_rsyn(self, ackno: int) -> int | None:
        """Take an RSYN-ACK; the flags of the pending RSYN if it answers exactly that one, else None."""
        pending = self.pending
        if pending is None or not pending.flags & ControlFlag.RSYN or ackno != serial_add(pending.verno, 1):
            return None
        self.snd_una = ackno
        self.pending = None
        return pending.flags

    def is_acknowledged(self, ackno: int) -> bool:
        """Whether the peer acknowledged this much before."""
        return serial_leq(ackno, self.snd_una)

    def doubts_reset(self, control: Control) -> Refusal | None:
        """Why a RST is not to be believed; None when it is.

        It carries the peer's nonce and a number that is not an old one, or it answers a packet of ours and carries our
        nonce (protocol notes 2.6): then it must name the last acknowledgement that we sent, or what we have sent and
        nobody has acknowledged. A router's answer to a late copy of our SYN does neither once we are connected.
        """
        if self.peer_nonce is not None and control.nonce == self.peer_nonce:
            return Refusal.STALE_CONTROL if serial_lt(control.verno, self.rcv_nxt) else None
        if control.nonce != self.local_nonce:
            return Refusal.WRONG_NONCE
        if control.flags & ControlFlag.ACK:
            believed = serial_lt(self.snd_una, control.ackno)
        else:
            believed = self.peer_nonce is not None and control.verno == self.rcv_nxt
        return None if believed else Refusal.WRONG_NUMBER

    def is_stale(self, control: Control) -> bool:
        """An older number than expected, in a packet that is not a mere acknowledgement."""
        return control.flags not in _UNNUMBERED and serial_lt(control.verno, self.rcv_nxt)
