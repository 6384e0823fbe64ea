"""Whatever comes in, from either side: counted by reason and dropped, never an exception, and nothing is left over."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from serval_node.sal.events import Refusal
from serval_node.sal.outputs import Send
from serval_node.sal.service_table import Action, Rule, Target
from serval_node.sal.states import State
from serval_node.wire.ipv4 import (
    ICMP_HOST_UNREACHABLE,
    PROTOCOL_ICMP,
    PROTOCOL_SERVAL,
    PROTOCOL_TCP,
    PROTOCOL_UDP,
    address,
    build_ipv4,
)
from serval_node.wire.sal_header import (
    AddressList,
    Control,
    ControlFlag,
    Pad,
    SalPacket,
    Service,
    Source,
    bare_header,
    encode,
)
from serval_node.wire.serviceid import Prefix
from serval_node.wire.transport import ACK, SYN, build_tcp, build_udp, to_wire
from tests.unit.sal.conftest import A, E, Figure, Pair, make_figure, make_pair
from tests.unit.sal.world import NAMES, NAMING, SAL0, WEB, WEB_BIND, WEB_ID, forward

LEAN = settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
_CLIENT, _SERVER = address(A), address(E)


def arrive(pair: Pair, data: bytes, *, source: bytes = _SERVER, destination: bytes = _CLIENT) -> None:
    """A packet from the server's side to the client, or the other way."""
    pair.world.inject(Send(source, destination, 60, data))
    pair.world.run(0.01)


def flow_ids(pair: Pair) -> tuple[int, int]:
    """Client's and server's."""
    (flow,) = pair.a.stack.flows
    return flow.local_flow, flow.peer_flow


def data_packet(local: int, peer: int, payload: bytes, source: bytes, destination: bytes) -> bytes:
    return bare_header(local, peer, PROTOCOL_TCP) + to_wire(payload, PROTOCOL_TCP, source, destination)


@pytest.fixture
def connected(pair: Pair) -> Pair:
    pair.connect()
    pair.world.run(1)
    return pair


def test_flow_ids_alone_demultiplex(connected: Pair) -> None:
    """S10: with another source address the packet reaches the same socket."""
    (server,) = connected.listener.queue
    (client,) = connected.a.kernel.sockets.values()
    own, peer = flow_ids(connected)
    elsewhere = address("10.7.7.7")
    segment = build_tcp(0, 0, client.snd_nxt, client.rcv_nxt, ACK, window=500, data=b"from another place")
    arrive(connected, data_packet(own, peer, segment, elsewhere, _SERVER), source=elsewhere, destination=_SERVER)
    assert bytes(server.received) == b"from another place"


@pytest.mark.parametrize(
    ("own_step", "peer_step", "reason"),
    [(1, 0, Refusal.WRONG_PEER_FLOW), (0, 1, Refusal.UNKNOWN_FLOW), (1, 1, Refusal.UNKNOWN_FLOW)],
)
def test_wrong_flow_id_is_dropped(connected: Pair, own_step: int, peer_step: int, reason: Refusal) -> None:
    (server,) = connected.listener.queue
    (client,) = connected.a.kernel.sockets.values()
    own, peer = flow_ids(connected)
    segment = build_tcp(0, 0, client.snd_nxt, client.rcv_nxt, ACK, window=500, data=b"x")
    data = data_packet(own + own_step, peer + peer_step, segment, _CLIENT, _SERVER)
    arrive(connected, data, source=_CLIENT, destination=_SERVER)
    assert not server.received and connected.e.count(reason) == 1


def test_damaged_packets_are_counted_by_reason(connected: Pair) -> None:
    own, peer = flow_ids(connected)
    good = data_packet(peer, own, build_tcp(0, 0, 1, 1, ACK), _SERVER, _CLIENT)
    for data, reason in (
        (good[:11], "truncated"),
        (good[:8] + b"\x02" + good[9:], "bad_header_length"),
        (good[:10] + b"\0\0" + good[12:], "bad_checksum"),
        (good[:-1] + b"\1", "bad_transport_checksum"),
        (good[:20], "truncated"),
        (bare_header(peer, own, 99) + b"payload of something", "unknown_protocol"),
        (bare_header(peer, own, PROTOCOL_UDP) + build_udp(0, 0), "unknown_protocol"),
    ):
        before = connected.a.count(reason)
        arrive(connected, data)
        assert connected.a.count(reason) == before + 1, reason
    assert [flow.state for flow in connected.a.stack.flows] == [State.CONNECTED]


def test_bare_header_without_segment_is_dropped(connected: Pair) -> None:
    own, peer = flow_ids(connected)
    arrive(connected, bare_header(peer, own, PROTOCOL_TCP))
    assert connected.a.count(Refusal.NO_CONTROL) == 1


def test_syn_without_service_is_dropped(pair: Pair) -> None:
    segment = to_wire(build_tcp(0, 0, 1, 0, SYN), PROTOCOL_TCP, _CLIENT, _SERVER)
    control = Control(ControlFlag.SYN, 1, 0, b"nonce678")
    arrive(pair, encode(SalPacket(5, 0, PROTOCOL_TCP, (control,), segment)), source=_CLIENT, destination=_SERVER)
    assert pair.e.count(Refusal.NO_SERVICE) == 1


@pytest.mark.parametrize("flags", [ACK, SYN | ACK, 0, 4])
def test_sal_syn_must_carry_a_tcp_syn(pair: Pair, flags: int) -> None:
    segment = to_wire(build_tcp(0, 0, 1, 0, flags), PROTOCOL_TCP, _CLIENT, _SERVER)
    extensions = (Control(ControlFlag.SYN, 1, 0, b"nonce678"), Service(WEB_ID))
    arrive(pair, encode(SalPacket(5, 0, PROTOCOL_TCP, extensions, segment)), source=_CLIENT, destination=_SERVER)
    assert pair.e.count("bad_transport_header") == 1 and not list(pair.e.stack.flows)
    assert not pair.world.delivered


@pytest.mark.parametrize("segment", [b"", build_udp(0, 0)])
def test_a_tcp_listener_is_no_target_for_datagrams(pair: Pair, segment: bytes) -> None:
    """A host stays silent: the repeated SYN may find another instance."""
    extensions = (Control(ControlFlag.SYN, 1, 0, b"nonce678"), Service(WEB_ID))
    arrive(pair, encode(SalPacket(5, 0, PROTOCOL_UDP, extensions, segment)), source=_CLIENT, destination=_SERVER)
    assert pair.e.count(Refusal.NO_RULE) == 1 and not list(pair.e.stack.flows)
    assert not pair.world.seen


def test_control_of_later_versions_is_ignored(connected: Pair) -> None:
    """NACK, an RSYN-ACK that nobody asked for and an address list change nothing."""
    (flow,) = connected.a.stack.flows
    nonce = flow.control.peer_nonce
    assert nonce is not None
    for flags in (ControlFlag.RSYN | ControlFlag.ACK, ControlFlag.NACK):
        control = Control(flags, flow.control.rcv_nxt, flow.control.snd_nxt, nonce)
        extensions = (control, AddressList(1, 0, (address("10.5.5.5"),)), Pad(), Pad(), Pad(), Pad())
        arrive(connected, encode(SalPacket(flow.peer_flow, flow.local_flow, PROTOCOL_TCP, extensions, b"")))
    assert flow.state is State.CONNECTED and flow.peer_address == _SERVER


def test_ping_and_datagrams_to_nobody_get_an_error(pair: Pair) -> None:
    """Nobody waits for an answer that cannot come; errors are not answered by errors."""
    ping = bytes((8, 0, 0, 0, 0, 1, 0, 1)) + b"payload"
    target = bytes((198, 18, 250, 250))
    for protocol, payload, codes in (
        (PROTOCOL_ICMP, ping, [ICMP_HOST_UNREACHABLE]),
        (PROTOCOL_UDP, build_udp(4000, 53, b"query"), [ICMP_HOST_UNREACHABLE]),
        (PROTOCOL_ICMP, bytes((3, 1)) + bytes(30), []),
        (47, b"gre", []),
    ):
        pair.a.kernel.icmp.clear()
        pair.a.from_kernel(build_ipv4(SAL0, target, protocol, payload), 0)
        pair.a.settle()
        assert [code for _, code in pair.a.kernel.icmp] == codes
    assert pair.a.count(Refusal.UNSUPPORTED_TRANSPORT) == 3
    assert pair.a.count(Refusal.UNKNOWN_VIRTUAL_ADDRESS) == 1
    pair.a.from_kernel(build_ipv4(SAL0, bytes((224, 0, 0, 22)), PROTOCOL_UDP, build_udp(1, 2)), 0)
    pair.a.from_kernel(b"\x60" + bytes(60), 0)
    pair.a.settle()
    assert len(pair.a.kernel.icmp) == 0 and pair.a.count("bad_ip_header") == 1


NUMBERS = st.integers(0, 0xFFFFFFFF)
NONCES = st.sampled_from([bytes(8), b"12345678"]) | st.binary(min_size=8, max_size=8)
EXTENSIONS = st.lists(
    st.one_of(
        st.builds(Control, st.integers(0, 63).map(lambda bits: bits << 2), NUMBERS, NUMBERS, NONCES),
        st.just(Service(WEB_ID)),
        st.lists(st.binary(min_size=4, max_size=4), min_size=2, max_size=20).map(lambda found: Source(tuple(found))),
        st.builds(AddressList, NUMBERS, NUMBERS, st.just((bytes(4),))),
    ),
    max_size=4,
    unique_by=type,
).map(tuple)
SEGMENTS = st.one_of(
    st.just(b""),
    st.builds(
        lambda seq, ack, flags, data: build_tcp(0, 0, seq, ack, flags, window=9, data=data),
        NUMBERS,
        NUMBERS,
        st.integers(0, 255),
        st.binary(max_size=20),
    ),
    st.binary(min_size=20, max_size=40),
)


def check_still_working(figure: Figure) -> None:
    """After all that, a new connection works, and what the garbage began is gone in the end."""
    figure.world.run(400)
    for host in figure.world.hosts.values():
        assert all(flow.state not in (State.REQUEST, State.RESPOND) for flow in host.stack.flows)
    client = figure.a.connect()
    figure.world.run(2)
    assert client.state == "ESTABLISHED"


@LEAN
@given(
    extensions=EXTENSIONS,
    segment=SEGMENTS,
    flows=st.tuples(
        st.sampled_from(["own", "peer", "zero", "other"]), st.sampled_from(["own", "peer", "zero", "other"])
    ),
    true_nonce=st.sampled_from(["local", "peer", None]),
    protocol=st.sampled_from([PROTOCOL_TCP, PROTOCOL_TCP, PROTOCOL_UDP, 1]),
    receiver=st.sampled_from(["a", "c", "e"]),
)
def test_any_packet_is_survived(
    extensions: tuple[object, ...],
    segment: bytes,
    flows: tuple[str, str],
    true_nonce: str | None,
    protocol: int,
    receiver: str,
) -> None:
    """Also with the right flowIDs and nonces, in every combination of extensions and flags."""
    figure = make_figure()
    figure.point(E)
    listener = figure.e.serve()
    figure.a.connect()
    figure.world.run(0.5)
    (flow,) = figure.a.stack.flows
    ids = {"own": flow.local_flow, "peer": flow.peer_flow, "zero": 0, "other": 4711}
    nonces = {"local": flow.control.local_nonce, "peer": flow.control.peer_nonce}
    if true_nonce is not None:
        extensions = tuple(
            replace(extension, nonce=nonces[true_nonce]) if isinstance(extension, Control) else extension
            for extension in extensions
        )
    host = getattr(figure, receiver)
    if protocol in (PROTOCOL_TCP, PROTOCOL_UDP) and segment:
        segment = to_wire(segment, protocol, _SERVER, host.address)
    try:
        data = encode(SalPacket(ids[flows[0]], ids[flows[1]], protocol, extensions, segment))  # type: ignore[arg-type]
    except ValueError:
        return
    figure.world.inject(Send(_SERVER, host.address, 60, data))
    figure.world.run(1)
    assert listener is not None
    check_still_working(figure)


@LEAN
@given(data=st.binary(max_size=100), header=st.booleans())
def test_any_bytes_are_survived(data: bytes, header: bool) -> None:
    pair = make_pair()
    stack = pair.a.stack
    packet = build_ipv4(_SERVER, _CLIENT, PROTOCOL_SERVAL, data) if header else data
    stack.network_packet(packet, 1.0)
    stack.kernel_packet(packet, 0, 1.0)
    stack.kernel_packet(build_ipv4(SAL0, NAMES[WEB], PROTOCOL_TCP, data), 0, 1.0)


def test_dropped_counts_are_in_one_place(connected: Pair) -> None:
    """S30: `serval stat` shows what the stack refused."""
    arrive(connected, b"short")
    assert connected.a.stack.counters == {"truncated": 1}


def test_rules_of_the_wider_and_narrower_kind(pair: Pair) -> None:
    """S15: default FORWARD, /24 DROP, /80 FORWARD, /256 DROP: the most specific wins, removed it exposes the next."""
    table = pair.a.stack.service_table
    table.remove_rule(NAMING.block("example"), "controller")
    table.set_rule(Rule(Prefix.default(), forward(E)), "hand")
    assert pair.a.connect().error is None
    table.set_rule(Rule(NAMING.block("example"), (Target(Action.DROP),)), "hand")
    assert pair.a.connect().error == "EHOSTUNREACH"
    table.set_rule(Rule(WEB_BIND, forward(E)), "hand")
    assert pair.a.connect().error is None
    table.set_rule(Rule(Prefix.of(WEB_ID), (Target(Action.DROP),)), "hand")
    assert pair.a.connect().error == "EHOSTUNREACH"
    table.remove_rule(Prefix.of(WEB_ID), "hand")
    assert pair.a.connect().error is None
