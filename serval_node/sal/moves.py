"""What a flow keeps about moves, and the table of their states (slide 40; protocol notes 2.1 and 3; S47).

    mover                                peer
    INITIAL --MOVE--> RSYN_SENT
             RSYN -------------------->  INITIAL --RSYN--> RSYN_RECV
    INITIAL <--RSYN_ACK-- <-- RSYN-ACK
             ACK --------------------->  RSYN_RECV --ACK--> INITIAL

Either end may move, also both at once: then each passes RSYN_SENT_RECV, which is RSYN_SENT and RSYN_RECV side by side.
Sockets, flowIDs, numbers and nonces stay; only the addresses of the outer IP header change.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum, IntEnum

from serval_node.sal.places import Place
from serval_node.wire.ipv4 import Address


class MigrationState(IntEnum):
    """Names of the original (protocol notes 2.1)."""

    INITIAL = 0
    RSYN_SENT = 1
    RSYN_RECV = 2
    RSYN_SENT_RECV = 3


class Step(Enum):
    """What moves a flow from one of these states to the next."""

    MOVE = "move"
    RSYN = "rsyn"
    RSYN_ACK = "rsyn-ack"
    ACK = "ack"


_S = MigrationState

STEPS: dict[tuple[MigrationState, Step], MigrationState] = {
    (_S.INITIAL, Step.MOVE): _S.RSYN_SENT,
    (_S.RSYN_SENT, Step.MOVE): _S.RSYN_SENT,
    (_S.RSYN_RECV, Step.MOVE): _S.RSYN_SENT_RECV,
    (_S.RSYN_SENT_RECV, Step.MOVE): _S.RSYN_SENT_RECV,
    (_S.INITIAL, Step.RSYN): _S.RSYN_RECV,
    (_S.RSYN_SENT, Step.RSYN): _S.RSYN_SENT_RECV,
    (_S.RSYN_RECV, Step.RSYN): _S.RSYN_RECV,
    (_S.RSYN_SENT_RECV, Step.RSYN): _S.RSYN_SENT_RECV,
    (_S.RSYN_SENT, Step.RSYN_ACK): _S.INITIAL,
    (_S.RSYN_SENT_RECV, Step.RSYN_ACK): _S.RSYN_RECV,
    (_S.RSYN_RECV, Step.ACK): _S.INITIAL,
    (_S.RSYN_SENT_RECV, Step.ACK): _S.RSYN_SENT,
}


class MigrationRefused(ValueError):
    """A flow cannot move; the text says why."""


@dataclass(frozen=True, slots=True)
class Cause:
    """Why a flow moves. ``text`` is for people ("by hand", "link down"). ``lost``: the old path is gone, so that
    nothing is gained by sending there until the peer has answered. ``happened`` and ``detected``: when it came about
    and when this host knew, on the clock that is passed in with packets.
    """

    text: str
    lost: bool
    happened: float
    detected: float


@dataclass(slots=True)
class Move:
    """Our own move under way: the old and the new local address, why, when its first RSYN was sent, and how many there
    were. A keep-alive is one that goes nowhere (keepalive.py): of it nobody is told.
    """

    left: Address
    address: Address
    cause: Cause
    started: float
    rsyns: int = 0
    keepalive: bool = False


@dataclass(slots=True)
class PeerMove:
    """The peer's latest move. ``place`` is where its RSYN came from, ``asked`` when; ``answers`` counts RSYN-ACKs for
    that one. ``lost``: the RSYN said that the peer's old path has gone. ``sent_again`` is when what that had swallowed
    was last sent again, and ``acknowledged`` what the peer was known to have then.
    """

    place: Place
    verno: int
    asked: float
    due: float = 0.0
    answers: int = 0
    lost: bool = False
    sent_again: float = 0.0
    acknowledged: int | None = None


class MigrationRecord:
    """What a flow keeps about moves. None on a flow that never moved. ``heard``: whether a segment of its transport has
    come since its addresses changed last. ``moved`` is when our own latest move began, keep-alives aside.
    """

    __slots__ = ("heard", "move", "moved", "peer_move", "state")

    def __init__(self) -> None:
        self.state = MigrationState.INITIAL
        self.heard = True
        self.move: Move | None = None
        self.moved: float | None = None
        self.peer_move: PeerMove | None = None

    def step(self, step: Step) -> bool:
        following = STEPS.get((self.state, step))
        if following is None:
            return False
        self.state = following
        return True
