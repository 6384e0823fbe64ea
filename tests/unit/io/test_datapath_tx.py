"""Kernel to network: what goes out is byte for byte what the wire room's split and checksum say."""

from __future__ import annotations

import errno

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from serval_node.wire.ipv4 import address, build_ipv4
from serval_node.wire.sal_header import decode
from serval_node.wire.transport import ACK, FIN, PSH, build_tcp, split, to_kernel, to_wire
from tests.unit.io.datapath_bench import TCP, TransmitBench, partial_checksum, state

FLOW = state()
OURS, PEER = FLOW.kernel_local, FLOW.kernel_peer
BOTH = pytest.mark.parametrize("vector", [True, False], ids=["vector", "plain"])
RELAXED = settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


def segment(data: bytes, *, flags: int = ACK, options: bytes = b"", seq: int = 1000, ack: int = 77) -> bytes:
    return build_tcp(OURS[1], PEER[1], seq, ack, flags, window=500, options=options, data=data)


def ip_packet(tcp: bytes, tos: int = 0) -> bytes:
    return build_ipv4(OURS[0], PEER[0], TCP, tcp, tos=tos)


def expected(tcp: bytes, gso_size: int) -> list[bytes]:
    pieces = split(tcp, gso_size) if gso_size else [tcp]
    return [to_wire(piece, TCP, FLOW.local_address, FLOW.peer_address) for piece in pieces]


def payloads(packets: list[bytes], tos: int = 0) -> list[bytes]:
    """The segments behind the SAL headers, after a look at the headers."""
    found = []
    for packet in packets:
        assert packet[0] == 0x45 and packet[1] == tos and packet[6:10] == bytes([0x40, 0, 64, 144])
        assert packet[12:20] == FLOW.local_address + FLOW.peer_address
        sal = decode(packet[20:])
        assert (sal.src_flow, sal.dst_flow, sal.extensions) == (FLOW.local_flow, FLOW.peer_flow, ())
        found.append(sal.payload)
    return found


@RELAXED
@given(
    data=st.binary(min_size=1, max_size=200).flatmap(
        lambda seed: st.integers(1, 65000).map(lambda size: (seed * (size // len(seed) + 1))[:size])
    ),
    gso_size=st.sampled_from([1, 2, 3, 7, 48, 535, 536, 1001, 1434, 1436, 1447, 1448, 8948, 32001, 65000]),
    options=st.integers(0, 10).flatmap(lambda words: st.binary(min_size=4 * words, max_size=4 * words)),
    pushed=st.booleans(),
    seq=st.one_of(st.integers(0, 0xFFFFFFFF), st.integers(0xFFFFFFFF - 70000, 0xFFFFFFFF)),
    tos=st.integers(0, 255),
)
def test_a_super_segment_is_cut_into_valid_segments(monkeypatch, data, gso_size, options, pushed, seq, tos) -> None:
    data = data[: min(len(data), 3000 * gso_size, 65535 - 40 - len(options))]
    bench = TransmitBench(monkeypatch, vector=True)
    flow = bench.flow(FLOW)
    tcp = segment(data, flags=ACK | PSH if pushed else ACK, options=options, seq=seq)
    bench.give(ip_packet(partial_checksum(tcp, FLOW), tos), gso_size=gso_size, partial=True)
    bench.engine.transmit()
    assert payloads(bench.sender.sent, tos) == expected(tcp, gso_size)
    counters = flow.counters()
    assert (counters.sent_packets, counters.sent_bytes) == (-(-len(data) // gso_size), len(data))
    assert (counters.sent_next, counters.own_ack) == ((seq + len(data)) % 2**32, 77)


@BOTH
@given(data=st.binary(max_size=1448), words=st.integers(0, 10), partial=st.booleans())
@RELAXED
def test_single_packets(monkeypatch, vector, data, words, partial) -> None:
    bench = TransmitBench(monkeypatch, vector=vector)
    bench.flow(FLOW)
    tcp = segment(data, options=bytes([1]) * 4 * words)
    kernel = partial_checksum(tcp, FLOW) if partial else to_kernel(tcp, TCP, OURS[0], PEER[0], OURS[1], PEER[1])
    bench.give(ip_packet(kernel), partial=partial)
    bench.engine.transmit()
    assert payloads(bench.sender.sent) == expected(tcp, 0)


@pytest.mark.parametrize("room", [0, 1, 20, 43, 44])
def test_a_full_send_buffer_delays_packets_and_loses_none(monkeypatch, room) -> None:
    bench = TransmitBench(monkeypatch, vector=True)
    bench.flow(FLOW)
    first, second = segment(bytes(range(256)) * 248), segment(b"later", seq=99999)
    bench.give(ip_packet(first), gso_size=1448, partial=True)
    bench.give(ip_packet(to_kernel(second, TCP, OURS[0], PEER[0], OURS[1], PEER[1])))
    bench.sender.room = room
    bench.engine.transmit()
    assert len(bench.sender.sent) == room
    if room < 44:
        assert not bench.sender.flush(), "nothing may be sent while the buffer is full"
    bench.sender.room = 1 << 30
    assert bench.sender.flush()
    bench.engine.transmit()
    assert payloads(bench.sender.sent) == expected(first, 1448) + expected(second, 0)


def test_what_the_kernel_refuses_is_counted(monkeypatch) -> None:
    bench = TransmitBench(monkeypatch, vector=True)
    bench.flow(FLOW)
    tcp = segment(b"x" * 4000)
    bench.give(ip_packet(tcp), gso_size=1000, partial=True)
    bench.sender.refuse = {1: errno.ENETUNREACH, 2: errno.EINTR}
    bench.engine.transmit()
    assert payloads(bench.sender.sent) == expected(tcp, 1000)[1:]
    assert bench.sender._drops == {"send_enetunreach": 1}


@BOTH
def test_the_stack_gets_what_is_not_data_of_a_known_flow(monkeypatch, vector) -> None:
    bench = TransmitBench(monkeypatch, vector=vector)
    bench.flow(FLOW)
    last = ip_packet(segment(b"x" * 3000, flags=ACK | FIN | PSH))
    unknown = build_ipv4(OURS[0], address("198.18.9.9"), TCP, segment(b""))
    datagram = build_ipv4(OURS[0], PEER[0], 17, segment(b""))
    fragment = bytearray(ip_packet(segment(b"")))
    fragment[6:8] = b"\x00\x10"
    bench.give(last, gso_size=1448, partial=True)
    for packet in (unknown, datagram, bytes(fragment), b"\x60" + bytes(50)):
        bench.give(packet)
    bench.engine.transmit()
    assert bench.slow == [(last, 1448), (unknown, 0), (datagram, 0), (bytes(fragment), 0)]
    assert bench.sender.sent == [] and bench.paths.drops == {"kernel_not_ipv4": 1}
    assert bench.paths.slow_kernel == 4


def test_sequence_numbers_of_retransmissions_do_not_lower_the_highest(monkeypatch) -> None:
    bench = TransmitBench(monkeypatch, vector=True)
    flow = bench.flow(FLOW)
    for seq in (0xFFFFFFF0, 0xFFFFFF00):
        bench.give(ip_packet(segment(bytes(32), seq=seq)))
        bench.engine.transmit()
    assert flow.counters().sent_next == 0x10
