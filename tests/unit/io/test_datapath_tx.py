"""Kernel to network: what goes out is byte for byte what the wire room's split and checksum say."""

from __future__ import annotations

import errno
import time

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from serval_node.io.datapath_tx_vector import OVERDRAWN
from serval_node.io.sender import HELD_LIMIT
from serval_node.io.shaper import Bucket, Pace
from serval_node.io.unacknowledged import Memory, Unacknowledged
from serval_node.wire.checksum import sums_to_zero
from serval_node.wire.ipv4 import Ipv4Header, address, build_ipv4
from serval_node.wire.sal_header import decode
from serval_node.wire.transport import ACK, FIN, PSH, build_tcp, split, to_kernel, to_wire
from tests.unit.io.datapath_bench import TCP, FakeSender, TransmitBench, partial_checksum, state

FLOW = state()
OTHER = state(2, local_address=address("10.0.1.1"))
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


def paths_apart(monkeypatch, *, vector: bool) -> tuple[TransmitBench, FakeSender]:
    """Two flows on two senders, of which the first rests and the second is open."""
    bench = TransmitBench(monkeypatch, vector=vector)
    bench.read_on = True
    bench.flow(FLOW)
    other = FakeSender()
    bench.flow(OTHER, other)
    bench.sender.pace = Pace(Bucket(1e6, 1e5), time.monotonic() + 60)
    return bench, other


@BOTH
def test_a_shut_sender_holds_its_own_packets_only_and_keeps_their_order(monkeypatch, vector) -> None:
    bench, other = paths_apart(monkeypatch, vector=vector)
    pieces = [segment(bytes([i]) * 99, seq=1000 + 99 * i) for i in range(5)]
    last = segment(b"", flags=ACK | FIN)
    across = build_tcp(OTHER.kernel_local[1], PEER[1], 5, 6, ACK, window=9, data=b"y")
    for tcp in [*pieces, last]:
        bench.give(ip_packet(to_kernel(tcp, TCP, OURS[0], PEER[0], OURS[1], PEER[1])))
        ports = OTHER.kernel_local[1], PEER[1]
        bench.give(build_ipv4(OURS[0], PEER[0], TCP, to_kernel(across, TCP, OURS[0], PEER[0], *ports)))
    bench.engine.transmit()
    assert len(other.sent) == 6 and bench.sender.sent == [] and set(bench.shut) == {bench.sender}
    bench.engine.resume(bench.sender)
    assert bench.sender.sent == [] and bench.slow == [], "it is still shut"
    bench.sender.pace = None
    bench.engine.resume(bench.sender)
    assert payloads(bench.sender.sent) == [expected(tcp, 0)[0] for tcp in pieces]
    assert len(bench.slow) == 1, "the FIN goes to the stack, after the data"


def test_what_a_shut_sender_holds_is_bounded(monkeypatch) -> None:
    bench, _ = paths_apart(monkeypatch, vector=True)
    big = ip_packet(partial_checksum(segment(bytes(64000)), FLOW))
    for _ in range(20):
        bench.give(big, gso_size=1448, partial=True)
        bench.engine.transmit()
    kept = len(bench.sender.held)
    assert kept == HELD_LIMIT // (len(big) + 10)
    assert bench.sender._drops == {"path_queue_full": 20 - kept}
    bench.sender.pace = None
    bench.engine.resume(bench.sender)
    assert len(bench.sender.sent) == kept * 45 and not bench.sender.held and bench.sender._held_bytes == 0


@pytest.mark.parametrize("room", [1514, 20_000, 60_000])
@pytest.mark.parametrize("size", [30_000, 30_001, 64_000])
def test_a_super_segment_that_is_too_much_for_the_shaper_goes_in_parts(monkeypatch, room, size) -> None:
    bench = TransmitBench(monkeypatch, vector=True)
    flow = bench.flow(FLOW)
    tcp = segment(bytes(range(250)) * (size // 250) + bytes(size % 250), flags=ACK | PSH, seq=0xFFFFFFFF - 20_000)
    last = segment(b"", flags=ACK | FIN, seq=5)
    now = 1000.0
    monkeypatch.setattr("time.monotonic", lambda: now)
    bench.sender.pace = Pace(Bucket(1e6, 2 * room), now)
    now += room / 1e6
    for packet in (ip_packet(partial_checksum(tcp, FLOW)), ip_packet(last)):
        bench.give(packet, gso_size=1448 if len(packet) > 1500 else 0, partial=True)
    bench.engine.transmit()
    rounds = [len(bench.sender.sent)]
    while bench.sender.held:
        assert bench.shut and not bench.slow
        held = bench.sender.held[0]
        assert sums_to_zero(held[10:30]) and Ipv4Header.decode(held[10:]).total_length == len(held) - 10
        part = Ipv4Header.decode(held[10:]).payload(held[10:])
        assert held[46:48] == partial_checksum(part, FLOW)[16:18]
        now = bench.sender.pace.opens_at
        bench.engine.resume(bench.sender)
        rounds.append(len(bench.sender.sent))
    now = bench.sender.pace.opens_at
    bench.engine.transmit()
    assert payloads(bench.sender.sent) == expected(tcp, 1448) and len(bench.slow) == 1
    most = max(later - earlier for earlier, later in zip([0, *rounds], rounds, strict=False))
    assert most <= room // 1514 + OVERDRAWN
    assert flow.counters().sent_bytes == size and bench.sender._held_bytes == 0


def test_what_is_held_for_a_flow_that_moved_goes_over_its_new_path(monkeypatch) -> None:
    bench, other = paths_apart(monkeypatch, vector=True)
    tcp = segment(b"x" * 300)
    bench.give(ip_packet(partial_checksum(tcp, FLOW)), partial=True)
    bench.engine.transmit()
    bench.paths.by_flow[FLOW.local_flow].apply(FLOW, other)
    bench.sender.pace = None
    bench.engine.resume(bench.sender)
    assert payloads(other.sent) == expected(tcp, 0) and bench.sender.sent == []


def test_what_is_sent_is_spent_as_frames(monkeypatch) -> None:
    bench = TransmitBench(monkeypatch, vector=True)
    bench.flow(FLOW)
    spent: list[int] = []
    bench.sender.pace = Pace(Bucket(1e9, 1e9), 0.0)
    monkeypatch.setattr(Pace, "spend", lambda self, size, now: spent.append(size))
    bench.give(ip_packet(partial_checksum(segment(bytes(10000)), FLOW)), gso_size=1448, partial=True)
    single = to_kernel(segment(b"abc"), TCP, OURS[0], PEER[0], OURS[1], PEER[1])
    bench.give(ip_packet(single))
    bench.engine.transmit()
    assert len(bench.sender.sent) == 8
    assert sum(spent) == sum(len(packet) + 14 for packet in bench.sender.sent)


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


# -- a smaller MTU than the kernel's


@given(
    size=st.integers(1, 30_000),
    gso_size=st.sampled_from([0, 536, 1228, 1229, 1448, 8948]),
    words=st.integers(0, 3),
    mtu=st.sampled_from([576, 1280, 1500]),
)
@RELAXED
def test_what_is_too_large_for_the_link_is_split_again(monkeypatch, size, gso_size, words, mtu) -> None:
    size = size if gso_size else min(size, 8948)
    bench = TransmitBench(monkeypatch, vector=True)
    flow = bench.flow(state(segment_limit=mtu - 32))
    tcp = segment(bytes(number % 251 for number in range(size)), flags=ACK | PSH, options=bytes([1]) * 4 * words)
    kernel = ip_packet(partial_checksum(tcp, FLOW))
    bench.give(kernel, gso_size=gso_size, partial=True)
    bench.engine.transmit()
    fit = mtu - 52 - 4 * words
    assert payloads(bench.sender.sent) == expected(tcp, min(gso_size, fit) if gso_size else fit)
    assert max(len(packet) for packet in bench.sender.sent) <= mtu
    assert flow.counters().sent_bytes == size


def test_a_complete_packet_that_is_too_large_is_split_as_well(monkeypatch) -> None:
    """Its checksum is whole, as without offload."""
    bench = TransmitBench(monkeypatch, vector=True)
    bench.flow(state(segment_limit=1248))
    tcp = segment(bytes(range(200)) * 7)
    bench.give(ip_packet(to_kernel(tcp, TCP, OURS[0], PEER[0], OURS[1], PEER[1])))
    bench.engine.transmit()
    assert payloads(bench.sender.sent) == expected(tcp, 1228)


def test_without_numpy_the_stack_splits(monkeypatch) -> None:
    bench = TransmitBench(monkeypatch, vector=False)
    flow = bench.flow(state(segment_limit=1248))
    packet = ip_packet(to_kernel(segment(bytes(1400)), TCP, OURS[0], PEER[0], OURS[1], PEER[1]))
    bench.give(packet)
    bench.engine.transmit()
    assert bench.slow == [(packet, 0)] and bench.sender.sent == []
    assert flow.counters().sent_next == 2400


# -- copies


@BOTH
def test_copies_are_kept_of_data_until_it_is_acknowledged(monkeypatch, vector) -> None:
    bench = TransmitBench(monkeypatch, vector=vector)
    memory = Memory()
    flow = bench.flow(FLOW)
    flow.unacknowledged = Unacknowledged(memory)
    for tcp in (segment(b""), segment(b"x" * 1000), segment(b"y" * 500, seq=2000, ack=99), segment(b"", ack=300)):
        bench.give(ip_packet(partial_checksum(tcp, FLOW)), partial=True)
    bench.engine.transmit()
    packets = list(flow.unacknowledged.lacking(2500, (), flow.own_ack, flow.own_window))
    assert [packet[-500:-499] for packet in packets] == [b"x", b"y"]
    assert (flow.own_ack, flow.own_window) == (300, 500)
    flow.note_received(1, 0, 77, 2000)
    assert len(list(flow.unacknowledged.lacking(2500, (), 0, 0))) == 1 and memory.used > 0
    flow.note_received(1, 0, 77, 2500)
    assert not flow.unacknowledged and memory.used == 0


def test_the_part_that_waits_for_the_shaper_is_kept_when_it_goes(monkeypatch) -> None:
    bench = TransmitBench(monkeypatch, vector=True)
    flow = bench.flow(FLOW)
    flow.unacknowledged = Unacknowledged(Memory())
    now = 1000.0
    monkeypatch.setattr("time.monotonic", lambda: now)
    bench.sender.pace = Pace(Bucket(1e6, 4e4), now)
    now += 0.02
    data = bytes(number % 249 for number in range(60_000))
    bench.give(ip_packet(partial_checksum(segment(data), FLOW)), gso_size=1448, partial=True)
    bench.engine.transmit()
    sent = flow.counters().sent_bytes
    assert 0 < sent < len(data)

    def kept() -> bytes:
        assert flow.unacknowledged is not None
        return b"".join(packet[50:] for packet in flow.unacknowledged.lacking(1000 + len(data), (), 0, 0))

    assert kept() == data[:sent]
    bench.sender.pace = None
    bench.engine.resume(bench.sender)
    assert kept() == data


@BOTH
def test_sack_blocks_of_the_last_acknowledgement(monkeypatch, vector) -> None:
    bench = TransmitBench(monkeypatch, vector=vector)
    flow = bench.flow(FLOW)
    sack = bytes((1, 1, 5, 10)) + bytes(8)
    for options in (sack, b""):
        bench.give(ip_packet(partial_checksum(segment(b"", options=options), FLOW)), partial=True)
        bench.engine.transmit()
        assert flow.counters().own_options == options
