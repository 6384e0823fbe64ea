"""What happened, for `serval trace`, the event log and the controller: plain values (as decoded headers are, see
serval_node.wire.ipv4) with the host's time.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

from serval_node.sal.service_table import Action, Selector
from serval_node.wire.ipv4 import Address, UdpPorts
from serval_node.wire.serviceid import Prefix, ServiceID


class Refusal(str, Enum):
    """Why the stack did not act on a well-formed packet; the values are the counters' names."""

    NO_RULE = "no_rule"
    DROP_RULE = "drop_rule"
    NO_CONTROL = "no_control"
    NO_SERVICE = "no_service"
    UNKNOWN_FLOW = "unknown_flow"
    WRONG_PEER_FLOW = "wrong_peer_flow"
    WRONG_NONCE = "wrong_nonce"
    WRONG_NUMBER = "wrong_number"
    STALE_CONTROL = "stale_control"
    UNEXPECTED_CONTROL = "unexpected_control"
    DUPLICATE_SYN = "duplicate_syn"
    OTHER_INSTANCE = "other_instance"
    NOT_CONFIRMED = "not_confirmed"
    HALF_OPEN_FULL = "half_open_full"
    DELAY_FULL = "delay_full"
    DELAY_SHARE = "delay_share"
    DELAY_SERVICE_FULL = "delay_service_full"
    DELAY_EXPIRED = "delay_expired"
    DELAY_DROPPED = "delay_dropped"
    DELAY_REFUSED = "delay_refused"
    ROUTING_LOOP = "routing_loop"
    SOURCE_FULL = "source_full"
    TTL_EXCEEDED = "ttl_exceeded"
    BROADCAST = "broadcast"
    FLOOD_COPY = "flood_copy"
    FLOOD_HOPS = "flood_hops"
    FLOOD_FULL = "flood_full"
    NO_ROUTE = "no_route"
    UNKNOWN_VIRTUAL_ADDRESS = "unknown_virtual_address"
    NO_SUCH_CONNECTION = "no_such_connection"
    UNSUPPORTED_TRANSPORT = "unsupported_transport"
    LISTENER_GONE = "listener_gone"
    FLOW_CLOSED = "flow_closed"
    SENSELESS_REPORT = "senseless_report"
    RESET_LIMITED = "reset_limited"
    SEARCH_LIMITED = "search_limited"
    NO_ANSWER = "no_answer"
    TOO_LARGE = "too_large"
    DATAGRAMS_HELD = "datagrams_held"
    DATAGRAM_FLOWS_FULL = "datagram_flows_full"

    def __str__(self) -> str:
        return self.value


@dataclass(slots=True)
class SynResolved:
    """A local program's SYN met a rule here; ``target`` is the address that it goes to next."""

    time: float
    flow_id: int
    service_id: ServiceID
    prefix: Prefix
    action: Action
    selector: Selector
    candidates: int
    target: Address


@dataclass(slots=True)
class SynSent:
    """SYN {source, flow; destination, flow -; service} (S38). ``retransmission`` counts from 0."""

    time: float
    flow_id: int
    service_id: ServiceID
    source: Address
    destination: Address
    ports: UdpPorts | None = None


@dataclass(slots=True)
class SynForwarded:
    """This service router sent a SYN on: destination rewritten, source kept (S39)."""

    time: float
    client: Address
    client_flow: int
    service_id: ServiceID
    prefix: Prefix
    selector: Selector
    candidates: int
    received_at: Address
    target: Address


@dataclass(slots=True)
class SynFlooded:
    """This relay sent a SYN that came by broadcast on to the broadcast addresses of its other links (slide 38).
    ``hops``: how many links it has crossed by then.
    """

    time: float
    client: Address
    client_flow: int
    service_id: ServiceID
    received_at: Address
    targets: tuple[Address, ...]
    hops: int


@dataclass(slots=True)
class SynReceived:
    """A SYN was given to a local listener (S40)."""

    time: float
    flow_id: int
    client: Address
    client_flow: int
    service_id: ServiceID
    prefix: Prefix
    port: int


@dataclass(slots=True)
class SynAckReceived:
    """The client has its answer; ``path`` is the SOURCE list: client, routers, server. Empty: no router between."""

    time: float
    flow_id: int
    peer_flow: int
    peer: Address
    path: tuple[Address, ...]


@dataclass(slots=True)
class InstanceReset:
    """Another instance answered the SYN of a flow that has one, and was told that it is not wanted (S44)."""

    time: float
    flow_id: int
    service_id: ServiceID
    peer: Address
    peer_flow: int


@dataclass(slots=True)
class FlowOpened:
    """Both ends know each other; ``server`` says which side this host is."""

    time: float
    flow_id: int
    peer_flow: int
    service_id: ServiceID
    server: bool
    local_address: Address
    peer_address: Address
    ports: UdpPorts | None = None


@dataclass(slots=True)
class RawUnanswered:
    """A peer answered inside UDP, and raw packets in vain were sent to it before: from now on it gets the former."""

    time: float
    flow_id: int
    service_id: ServiceID
    peer: Address


@dataclass(slots=True)
class SegmentedSingly:
    """Many segments at once do not get through to a peer (of flows inside UDP); they go one by one from now on."""

    time: float
    local_address: Address
    peer: Address
    reason: str


@dataclass(slots=True)
class FlowClosed:
    """A flow left the table: closed in order, reset, or given up; ``opened`` when it had been established."""

    time: float
    flow_id: int
    service_id: ServiceID
    server: bool
    opened: bool
    reason: str


@dataclass(slots=True)
class ConnectFailed:
    """A local program's connect() was refused at once, here (by the rule of ``prefix``) or by a router or instance."""

    time: float
    flow_id: int
    service_id: ServiceID
    reason: str
    prefix: Prefix | None = None


@dataclass(slots=True)
class FlowMigrating:
    """This host began to move a flow of its own (slide 40)."""

    time: float
    flow_id: int
    service_id: ServiceID
    cause: str
    source: Address
    target: Address


@dataclass(slots=True)
class FlowMigrated:
    """The peer has answered: the flow is at ``target``. ``happened`` (the cause), ``detected`` (known here) and
    ``started`` (first of ``rsyns`` RSYNs) are on the clock of ``time``; their differences are the parts of a blackout.
    """

    time: float
    flow_id: int
    service_id: ServiceID
    cause: str
    source: Address
    target: Address
    happened: float
    detected: float
    started: float
    rsyns: int


@dataclass(slots=True)
class MigrationFailed:
    """A move was given up, or never begun, and why."""

    time: float
    flow_id: int
    service_id: ServiceID
    cause: str
    reason: str


@dataclass(slots=True)
class PathLost:
    """A flow's link or address went, and it stays: nowhere to go to, or moves are by hand."""

    time: float
    flow_id: int
    service_id: ServiceID
    cause: str
    address: Address


@dataclass(slots=True)
class PathBack:
    """What a flow had lost is there again; it goes on where it was."""

    time: float
    flow_id: int
    service_id: ServiceID
    address: Address


@dataclass(slots=True)
class PathSilent:
    """No answer on the path between these addresses; nothing has come from the peer since ``since``, counted from when
    the first of the flows that are there came.
    """

    time: float
    address: Address
    peer: Address
    ports: UdpPorts | None
    since: float


@dataclass(slots=True)
class PathAnswers:
    """A path that was silent was heard of."""

    time: float
    address: Address
    peer: Address
    ports: UdpPorts | None


@dataclass(slots=True)
class PeerMoved:
    """The other end of a flow moved, and this host sends to its new address, or to new ports when it is inside UDP;
    ``asked`` is when its RSYN came.
    """

    time: float
    flow_id: int
    service_id: ServiceID
    source: Address
    target: Address
    asked: float
    source_ports: UdpPorts | None = None
    target_ports: UdpPorts | None = None


@dataclass(slots=True)
class PathHeard:
    """The first TCP segment of a flow came over the addresses that it has since a move of either end."""

    time: float
    flow_id: int
    service_id: ServiceID
    local: Address
    peer: Address


@dataclass(slots=True)
class Blackout:
    """The whole account of a move of this host's own that its peer has answered. Its parts in seconds, one after the
    other from ``happened`` on:

    detect   from the cause to this host's knowing
    decide   to the first of ``rsyns`` RSYNs
    signal   to the RSYN-ACK
    recover  to the first TCP segment from the peer over the new path, be it data or an acknowledgement; None: none had
             come by ``time``, when the flow ended, moved again, or had been quiet for long
    """

    time: float
    flow_id: int
    service_id: ServiceID
    cause: str
    source: Address
    target: Address
    happened: float
    detect: float
    decide: float
    signal: float
    recover: float | None
    rsyns: int


@dataclass(slots=True)
class PeerBlackout:
    """The account of a move of the flow's peer: ``happened`` is when its RSYN came, ``recover`` the seconds from there
    to the first TCP segment from its new address; None as in Blackout.
    """

    time: float
    flow_id: int
    service_id: ServiceID
    source: Address
    target: Address
    happened: float
    recover: float | None


@dataclass(slots=True)
class SentAgain:
    """What a lost path had swallowed of a flow was sent again over the new one: TCP segments and bytes of payload."""

    time: float
    flow_id: int
    service_id: ServiceID
    segments: int
    bytes: int


@dataclass(slots=True)
class DelayNotify:
    """The first SYN for a service met a DELAY rule (S26): someone has to decide."""

    time: float
    service_id: ServiceID
    prefix: Prefix


@dataclass(slots=True)
class SynDelayed:
    """A SYN waits here under the DELAY rule of ``prefix``; a repeated one has the place of the first."""

    time: float
    client: Address
    client_flow: int
    service_id: ServiceID
    prefix: Prefix


@dataclass(slots=True)
class RuleExpired:
    """A rule ended by its "idle" or "hard" time-out after ``seconds``; the counters are those of its targets."""

    time: float
    prefix: Prefix
    origin: str
    cause: str
    seconds: float
    packets: int
    bytes: int
    dropped_packets: int
    dropped_bytes: int


@dataclass(slots=True)
class Refused:
    """A SYN was not served. ``prefix``: by which rule, None without one; ``client_flow``: the client's flowID, 0 where
    it has none.
    """

    time: float
    reason: Refusal
    service_id: ServiceID
    client: Address
    client_flow: int = 0
    prefix: Prefix | None = None


Event = (
    SynResolved
    | SynSent
    | SynForwarded
    | SynFlooded
    | SynReceived
    | SynAckReceived
    | InstanceReset
    | FlowOpened
    | RawUnanswered
    | SegmentedSingly
    | FlowClosed
    | ConnectFailed
    | FlowMigrating
    | FlowMigrated
    | MigrationFailed
    | PathLost
    | PathBack
    | PathSilent
    | PathAnswers
    | PeerMoved
    | PathHeard
    | Blackout
    | PeerBlackout
    | SentAgain
    | DelayNotify
    | SynDelayed
    | RuleExpired
    | Refused
)
