"""Fuzz targets: everything that reads bytes of others. Only the documented error may come out."""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from serval_node.capture.pcap import read_ipv4
from serval_node.control import experimenter, messages, openflow
from serval_node.control.channel import NodeChannel
from serval_node.control.local import LineDecoder, ProtocolError
from serval_node.control.rules import MessageError, RuleSpec, TargetSpec, forward
from serval_node.daemon.control_server import Connection, ControlServer
from serval_node.daemon.dns import NameServer
from serval_node.daemon.event_log import EventLog
from serval_node.daemon.names import HostNames
from serval_node.daemon.operations import _OPERATIONS, Operations
from serval_node.daemon.rules import RuleBook
from serval_node.daemon.standby import Standbys
from serval_node.daemon.virtual_addresses import VirtualAddresses
from serval_node.sal.service_table import Action, Target
from serval_node.wire import sal_header
from serval_node.wire.encapsulation import TO_SERVER, encapsulate, open_packet
from serval_node.wire.errors import WireError
from serval_node.wire.ipv4 import PROTOCOL_TCP, icmp_unreachable
from serval_node.wire.naming import Naming
from serval_node.wire.serviceid import Prefix
from serval_node.wire.transport import TcpHeader, UdpHeader, iterate_options, split, strip_timestamps, verify
from tests.unit.sal.conftest import A, E, make_pair
from tests.unit.sal.world import WEB_BIND

GOLDEN = Path(__file__).parents[1] / "golden"
PROVIDERS = {"example": 0x9C1185}
WEB = Prefix.from_text("0x9c1185/24")


@cache
def golden_packets() -> list[bytes]:
    """The IPv4 packets of the original's captures, of each length and flags a few, also inside UDP."""
    found: dict[tuple[int, bytes], bytes] = {}
    for path in sorted(GOLDEN.glob("*.pcap")):
        for frame in read_ipv4(path):
            found.setdefault((min(len(frame.data), 200), frame.data[32:36]), frame.data[:400])
    raw = list(found.values())
    inside = [encapsulate(packet[12:16], packet[16:20], TO_SERVER, packet[20:]) for packet in raw]
    return raw + inside


# -- packets


def read_packet(packet: bytes) -> None:
    """Every decoder of serval_node.wire; what decodes also encodes, to a packet that reads the same."""
    try:
        icmp_unreachable(packet, 1)
        header, data = open_packet(packet)
        sal = sal_header.decode(data)
    except WireError:
        return
    try:
        assert sal_header.decode(sal_header.encode(sal)) == sal
    except ValueError:
        assert len(sal.extensions) > 0, "a bare header is always written"
    for decode in (TcpHeader.decode, UdpHeader.decode):
        try:
            decode(sal.payload)
        except WireError:
            pass
    try:
        verify(sal.payload, sal.protocol, header.source, header.destination)
        if sal.protocol == PROTOCOL_TCP:
            tcp = TcpHeader.decode(sal.payload)
            list(iterate_options(sal.payload[20 : tcp.header_length]))
            strip_timestamps(sal.payload)
            split(sal.payload, 100)
    except WireError:
        pass


# What stands where another type, or a value that exists, is expected. Python's JSON also has Infinity and NaN.
_ODD: tuple[Any, ...] = (
    None, True, -1, 0, 2**31, 2**63, 10**400, 0.5, float("inf"), float("nan"), "", "\0", "\ud800", "x" * 300, "0x",
    "a.b/3", "1.2.3.4.5", "999.1.1.1", "*.example", [], [[]], [None], {}, {"action": 1}, [{"action": "forward"}],
)  # fmt: skip


# -- the controller's channel

_RULE = RuleSpec(WEB, (forward("10.0.0.1"), TargetSpec("demux", port=80)), "maglev", "hand", "*.example")
_STATE = messages.NodeState("dan", "host", "b1", ("10.2.1.1",))


@cache
def channel_messages() -> list[bytes]:
    """What a controller says, each an OpenFlow message."""
    said: list[messages.Message] = [
        messages.StateGet(),
        messages.RuleSet(_RULE),
        messages.RuleRemove(WEB, "*.example"),
        messages.RulesGet(),
        messages.Loads(WEB, {"10.0.0.1": 1.5}),
        messages.DelayVerdict(WEB, "release", "web.example"),
        messages.StatsGet(),
        messages.Migrate("flow", "7", "eth1"),
    ]
    found = [openflow.hello(1), openflow.build(openflow.Type.FEATURES_REQUEST, 2)]
    found += [openflow.build(kind, 3, bytes(8)) for kind in openflow.Type]
    for message in said:
        for kind, data in experimenter.encode(message, piece_bytes=40):
            found.append(openflow.experimenter(9, experimenter.EXPERIMENTER, kind, data))
    return found


def read_channel(*pieces: bytes) -> None:
    """The node's side of its channel answers or fails; it raises nothing."""
    channel = NodeChannel(datapath_id=1, state=lambda: _STATE)
    channel.connected(0.0)
    channel.receive(openflow.hello(1) + openflow.build(openflow.Type.FEATURES_REQUEST, 2), 0.0)
    for number, piece in enumerate(pieces):
        channel.receive(piece, float(number))
        channel.take_events()
        openflow.Framer().feed(channel.take_output())


@cache
def message_bodies() -> list[bytes]:
    """Type and JSON of an experimenter message."""
    found = [kind.to_bytes(4, "big") + b"[" * 100_000 for kind in range(40)]
    said = (messages.RuleSet(_RULE), messages.Rules((_RULE,)), _STATE, messages.Loads(WEB, {"10.0.0.1": 2.0}))
    for message in (*said, messages.DelayVerdict(WEB, "drop", "x"), messages.Migrate("flow", "7", "eth1")):
        body = message.to_json()
        bodies = [body, {}, *({**body, key: odd} for key in body for odd in _ODD)]
        found += [int(message.TYPE).to_bytes(4, "big") + json.dumps(each).encode() for each in bodies]
    return found


def read_message(data: bytes) -> None:
    try:
        experimenter.decode(int.from_bytes(data[:4], "big"), data[4:])
    except MessageError:
        pass


# -- the local control socket

_VALUES: dict[str, Any] = {
    "service": "web.example",
    "name": "web.example",
    "prefix": "0x9c1185/24",
    "port": 80,
    "local_port": 40001,
    "flow_id": 7,
    "peer": "198.19.1.1",
    "address": "198.18.10.1",
    "peer_port": 80,
    "since": 1.5,
    "last": 9,
    "parts": ["table", "flows", "events"],
    "client": "10.0.0.1",
    "received_at": "10.0.0.2",
    "sources": ["10.0.0.3"],
    "targets": [{"action": "forward", "address": "10.0.0.9", "weight": 2}, {"action": "demux", "port": 80}],
    "selector": "maglev",
    "verdict": "release",
    "to": "eth1",
    "from": "eth0",
    "on": True,
    "inodes": [5],
}


@cache
def control_requests() -> list[bytes]:
    """Lines for each operation: with all fields that any operation has, with one field odd, with one missing."""
    requests: list[dict[str, Any]] = []
    for op in sorted(_OPERATIONS):
        whole = {"op": op, **_VALUES}
        if op == "migrate":
            del whole["from"], whole["service"]
        requests.append(whole)
        requests += [{name: value for name, value in whole.items() if name != key} for key in whole]
        requests += [{**whole, key: odd} for key in whole for odd in _ODD]
    return [json.dumps(request).encode() for request in requests] + [b"[" * 100_000, b"[]", b"1" * 5000, b"\xff"]


class _Absent:
    """A part of a node that is not here: whatever is done with it is refused."""

    def __getattr__(self, name: str) -> _Absent:
        return self

    def _refuse(self, *_words: object, **_more: object) -> Any:
        raise ValueError("not here")

    __call__ = __bool__ = __iter__ = __getitem__ = __contains__ = __or__ = __ror__ = _refuse


class _Node(SimpleNamespace):
    """A node with some of its parts."""

    def __getattr__(self, name: str) -> _Absent:
        return _Absent()


def _control_server() -> ControlServer:
    """The operations of a node whose sockets and links are stand-ins: reading requests needs none."""
    pair = make_pair()
    pair.connect()
    stack = pair.a.stack
    stack.service_table.add_target(WEB_BIND, Target(Action.DEMUX, port=80, protocol=PROTOCOL_TCP), "local")
    naming = Naming(PROVIDERS)
    names = HostNames(naming, VirtualAddresses())
    network = SimpleNamespace(own_addresses=lambda: [pair.a.address])
    node = _Node(
        stack=stack,
        names=names,
        network=network,
        rules=RuleBook(stack.service_table, lambda _protocol: [], naming, lambda found: found == pair.a.address),
        state_changed=lambda: None,
        standbys=Standbys(naming, lambda: None),
        advertiser=_Node(registrations=tuple),
        role="host",
        set_capabilities=lambda **_fields: None,
        delay_verdict=lambda _prefix, _verdict: 0,
        events=EventLog(names.describe),
        automatic=_Node(lost=lambda _flow: ""),
        config=SimpleNamespace(name="ann", role="host", hosts={"ann": A, "dan": E}),
        status=lambda: {"name": "ann"},
        boot="b1",
        flow_counters=lambda _flow: (0, 0, 0, 0),
    )
    server = ControlServer.__new__(ControlServer)
    server._handle = Operations(node).handle  # type: ignore[arg-type]
    return server


def answer_requests(*lines: bytes) -> None:
    """Each line gets an answer that says what is wrong; what a request did must not harm the next."""
    server = _control_server()
    connection: Any = Connection.__new__(Connection)
    connection.reserved, connection.prepared, connection.push = set(), {}, lambda _message: None
    for line in lines:
        answer = server.answer(line, connection)
        json.dumps(answer)
        assert answer["ok"] or ("internal error" not in answer["error"] and "\n" not in answer["error"]), answer
    # Whatever was asked before, what only reads still answers.
    last = server.answer(b'{"op": "names"}', connection)
    assert last["ok"], last


def read_lines(*pieces: bytes) -> None:
    decoder = LineDecoder()
    for piece in pieces:
        try:
            decoder.feed(piece + b"\n")
        except ProtocolError:
            decoder = LineDecoder()


# -- DNS


@cache
def dns_queries() -> list[bytes]:
    def query(name: str, kind: int) -> bytes:
        labels = b"".join(bytes([len(label)]) + label.encode() for label in name.split("."))
        return b"\x12\x34\x01\0\0\x01\0\0\0\0\0\0" + labels + b"\0" + kind.to_bytes(2, "big") + b"\0\x01"

    names = "web.example", "ann", "1.1.18.198.in-addr.arpa"
    return [query(name, kind) for name in names for kind in (1, 12, 28, 255)]


def answer_query(query: bytes) -> None:
    """An answer or none; never an exception, which would end the node."""
    names = HostNames(Naming(PROVIDERS), VirtualAddresses())
    answer = NameServer(names.name_address, {"ann": A}).answer(query)
    assert answer is None or len(answer) >= 12
