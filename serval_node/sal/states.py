"""The states of a flow and the table of their transitions (protocol notes 2.1, 2.3 and 2.5; slides 32 to 37).

Opening is three packets, each of which carries one of the kernel's:

    client                              server
    INIT --CONNECT--> REQUEST
             SYN{TCP SYN} ------------>          INIT --SYN--> RESPOND
    CONNECTED <--SYN_ACK--  <---------  SYN-ACK{TCP SYN-ACK}
             ACK{TCP ACK} ------------>          RESPOND --THIRD_ACK--> CONNECTED

Closing follows the transport: a side sends its SAL FIN when its TCP FIN has been acknowledged, so SAL's close trails
TCP's by one round trip and loses nothing. The states are those of TCP: who closes first passes FINWAIT1, FINWAIT2
(or CLOSING) and TIMEWAIT, the other CLOSEWAIT and LASTACK. Reset leads to CLOSED from everywhere.
"""

from __future__ import annotations

from enum import Enum, IntEnum


class State(IntEnum):
    """Numbers shared with the original."""

    INIT = 0
    CONNECTED = 1
    REQUEST = 2
    RESPOND = 3
    FINWAIT1 = 4
    FINWAIT2 = 5
    TIMEWAIT = 6
    CLOSED = 7
    CLOSEWAIT = 8
    LASTACK = 9
    LISTEN = 10
    CLOSING = 11


class Happening(Enum):
    """What moves a flow from state to state."""

    CONNECT = "connect"
    SYN = "syn"
    SYN_ACK = "syn-ack"
    THIRD_ACK = "third-ack"
    FIN_SENT = "fin-sent"
    FIN_ACKED = "fin-acked"
    FIN_RECEIVED = "fin-received"
    EXPIRED = "expired"
    RESET = "reset"


_S, _H = State, Happening

TRANSITIONS: dict[tuple[State, Happening], State] = {
    (_S.INIT, _H.CONNECT): _S.REQUEST,
    (_S.INIT, _H.SYN): _S.RESPOND,
    (_S.REQUEST, _H.SYN_ACK): _S.CONNECTED,
    (_S.RESPOND, _H.THIRD_ACK): _S.CONNECTED,
    (_S.CONNECTED, _H.FIN_SENT): _S.FINWAIT1,
    (_S.CONNECTED, _H.FIN_RECEIVED): _S.CLOSEWAIT,
    (_S.FINWAIT1, _H.FIN_ACKED): _S.FINWAIT2,
    (_S.FINWAIT1, _H.FIN_RECEIVED): _S.CLOSING,
    (_S.FINWAIT2, _H.FIN_RECEIVED): _S.TIMEWAIT,
    (_S.CLOSING, _H.FIN_ACKED): _S.TIMEWAIT,
    (_S.CLOSEWAIT, _H.FIN_SENT): _S.LASTACK,
    (_S.LASTACK, _H.FIN_ACKED): _S.CLOSED,
    (_S.TIMEWAIT, _H.EXPIRED): _S.CLOSED,
    **{(state, _H.RESET): _S.CLOSED for state in _S},
    **{(state, _H.EXPIRED): _S.CLOSED for state in (_S.REQUEST, _S.RESPOND)},
}

ESTABLISHED = frozenset((_S.CONNECTED, _S.FINWAIT1, _S.FINWAIT2, _S.TIMEWAIT, _S.CLOSEWAIT, _S.LASTACK, _S.CLOSING))


def advance(state: State, happening: Happening) -> State | None:
    """The next state; None when this cannot happen there, and the packet behind it is to be ignored."""
    return TRANSITIONS.get((state, happening))
