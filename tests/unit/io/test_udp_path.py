"""Flows inside UDP on the data path: what goes out and comes in, many segments at once, and paths that lose these."""

from __future__ import annotations

import errno
import random

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from serval_node.io.fast_flow import FlowPaths
from serval_node.io.trial import STRIKES, Trial
from serval_node.wire.encapsulation import open_packet
from serval_node.wire.ipv4 import address, build_ipv4
from serval_node.wire.sal_header import decode
from serval_node.wire.transport import ACK, FIN, PSH, TcpHeader, build_tcp, split, to_wire
from tests.unit.io.datapath_bench import TCP, TransmitBench, partial_checksum, state
from tests.unit.io.udp_bench import LIMIT, PORTS, FakeUdpSender, UdpReceiveBench, datagram, joined, udp_state

FLOW = udp_state()
OURS, PEER = FLOW.kernel_local, FLOW.kernel_peer
BOTH = pytest.mark.parametrize("vector", [True, False], ids=["vector", "plain"])
RELAXED = settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


def sending(monkeypatch, *, vector: bool = True) -> tuple[TransmitBench, FakeUdpSender]:
    bench = TransmitBench(monkeypatch, vector=vector)
    sender = FakeUdpSender()
    monkeypatch.setattr("serval_node.io.datapath_tx_vector.sendmmsg", sender.sendmmsg)
    bench.flow(FLOW, sender)
    return bench, sender


def segment(data: bytes, seq: int = 1000, flags: int = ACK) -> bytes:
    return build_tcp(OURS[1], PEER[1], seq, 77, flags, window=500, data=data)


def give(bench: TransmitBench, tcp: bytes, gso_size: int = 0) -> None:
    bench.give(build_ipv4(OURS[0], PEER[0], TCP, partial_checksum(tcp, FLOW)), gso_size=gso_size, partial=True)
    bench.engine.transmit()


def sent(sender: FakeUdpSender) -> list[bytes]:
    found = []
    for data in sender.sent:
        sal = decode(data)
        assert (sal.src_flow, sal.dst_flow, sal.extensions) == (FLOW.local_flow, FLOW.peer_flow, ())
        found.append(sal.payload)
    return found


def expected(tcp: bytes, size: int) -> list[bytes]:
    return [to_wire(piece, TCP, FLOW.local_address, FLOW.peer_address) for piece in split(tcp, size)]


@RELAXED
@given(
    length=st.integers(1, 65000),
    gso_size=st.sampled_from([48, 535, 1001, 1439, 1440, 1448]),
    pushed=st.booleans(),
    seed=st.integers(0, 2**32 - 1),
)
def test_a_super_segment_goes_out_in_few_calls_and_fits(monkeypatch, length, gso_size, pushed, seed) -> None:
    bench, sender = sending(monkeypatch)
    tcp = segment(random.Random(seed).randbytes(length), seed, ACK | PSH if pushed else ACK)
    give(bench, tcp, gso_size)
    size = min(gso_size, LIMIT - 20)
    assert sent(sender) == expected(tcp, size)
    assert sum(sender.datagrams) == (len(sender.sent) if length > size else 0)
    assert sender.calls <= -(-length // size) // 128 + 1


def test_a_packet_that_is_too_large_inside_udp_is_split(monkeypatch) -> None:
    bench, sender = sending(monkeypatch)
    tcp = segment(bytes(1448))
    give(bench, tcp)
    assert sent(sender) == expected(tcp, LIMIT - 20)
    plain, single = sending(monkeypatch, vector=False)
    give(plain, tcp)
    assert single.sent == [] and len(plain.slow) == 1, "without numpy the stack splits it"


def test_segments_go_one_by_one_where_the_kernel_refuses_many(monkeypatch) -> None:
    bench, sender = sending(monkeypatch)
    sender.refuse[1] = errno.EIO
    first, second = segment(bytes(20000)), segment(bytes(20000), 21000)
    give(bench, first, 1440)
    give(bench, second, 1440)
    assert sent(sender) == expected(first, 1440) + expected(second, 1440)
    assert set(sender.datagrams) == {1}
    assert sender.told == ["the kernel does not take them (EIO)"]


def test_a_full_buffer_in_the_middle_loses_nothing(monkeypatch) -> None:
    bench, sender = sending(monkeypatch)
    tcp = segment(random.Random(1).randbytes(60000))
    sender.refuse[1] = sender.refuse[2] = errno.EAGAIN
    give(bench, tcp, 1440)
    assert sender.sent == [] and sender.backlog and not sender.told
    assert sender.flush()
    assert sent(sender) == expected(tcp, 1440)


def test_a_path_that_loses_super_segments_is_noticed(monkeypatch) -> None:
    """As over a switch that drops what is longer than its MTU: only single segments are ever acknowledged."""
    bench, sender = sending(monkeypatch)
    flow = bench.paths.by_flow[FLOW.local_flow]
    give(bench, segment(bytes(14400)), 1440)  # vanishes
    give(bench, segment(bytes(1440), 1000 + 9 * 1440))  # the kernel's tail loss probe arrives, and is not the first
    flow.note_received(1, 0, 5, 1000)
    give(bench, segment(bytes(12960)), 1440)  # vanishes
    assert not sender.told
    give(bench, segment(bytes(1440)))
    assert sender.told == ["they are not acknowledged"]
    flow.note_received(1, 0, 5, 2440)
    sender.datagrams.clear()
    give(bench, segment(bytes(12960), 2440), 1440)
    assert set(sender.datagrams) == {1}
    assert sender.trial(FLOW.peer_address) is None, "and known for the next flow"


def test_a_path_that_carries_them_is_believed_for_good(monkeypatch) -> None:
    bench, sender = sending(monkeypatch)
    flow = bench.paths.by_flow[FLOW.local_flow]
    give(bench, segment(bytes(14400)), 1440)
    give(bench, segment(bytes(1440)))  # the first segment once more: that alone proves nothing
    flow.note_received(1, 0, 5, 2440)
    assert flow.trial is not None
    flow.note_received(1, 0, 5, 2441)
    assert flow.trial is None and sender.trial(FLOW.peer_address) is None
    for _ in range(STRIKES + 1):
        give(bench, segment(bytes(14400)), 1440)
    assert not sender.told
    sender.forget()
    assert sender.trial(FLOW.peer_address) is not None, "other links, another trial"


def test_a_proof_on_one_flow_outweighs_a_doubt_on_another() -> None:
    sender = FakeUdpSender()
    sender.judge(address("10.0.0.2"), True)
    sender.judge(address("10.0.0.2"), False)
    assert sender.joins(address("10.0.0.2")) and not sender.told


def test_sequence_numbers_of_a_trial_wrap_around() -> None:
    trial = Trial()
    begin = 2**32 - 1000
    assert not trial.sent(begin, 14400, joined=True, again=False)
    assert not trial.sent(begin, 1440, joined=False, again=True)
    assert not trial.acknowledged(440)
    assert trial.acknowledged(441)


@BOTH
@RELAXED
@given(seed=st.integers(0, 2**32 - 1))
def test_what_arrives_is_what_was_sent(monkeypatch, vector, seed) -> None:
    """Joined datagrams of one or more flows, whole or with holes; checksums are a NAT's victims."""
    rng = random.Random(seed)
    bench = UdpReceiveBench(monkeypatch, vector=vector)
    flows = [udp_state(number) for number in (1, 2)][: rng.choice([1, 1, 2])]
    for forwarding in flows:
        bench.flow(forwarding)
    batches, wanted = [], []
    numbers = {forwarding.local_flow: rng.choice([1, 2**32 - 30000]) for forwarding in flows}
    for _ in range(rng.randint(1, 4)):
        pieces = []
        for _ in range(rng.randint(1, 44)):
            forwarding = rng.choice(flows)
            data = rng.randbytes(rng.choice([1440] * 30 + [700]))
            flags = rng.choice([ACK] * 20 + [ACK | PSH])
            tcp = build_tcp(0, 0, numbers[forwarding.local_flow], 5, flags, window=300, data=data)
            numbers[forwarding.local_flow] = (numbers[forwarding.local_flow] + len(data)) % 2**32
            if rng.random() < 0.02:
                continue
            pieces.append(datagram(forwarding, tcp))
            wanted.append((forwarding.kernel_local[1], TcpHeader.decode(tcp).seq, flags, data))
            if len(data) < 1440:
                break
        if pieces:
            batches.append(joined(pieces))
    frames = bench.give(batches)
    found = []
    for frame in frames:
        for part in split(frame.segment, frame.gso_size) if frame.gso_size else [frame.segment]:
            tcp = TcpHeader.decode(part)
            found.append((tcp.destination_port, tcp.seq, tcp.flags, part[tcp.header_length :]))
    assert found == wanted and not bench.slow
    assert len(frames) < len(wanted) or len(wanted) < 9 or len(flows) == 2 or not vector


def test_a_whole_datagram_becomes_one_frame(monkeypatch) -> None:
    bench = UdpReceiveBench(monkeypatch, vector=True)
    flow = bench.flow(FLOW)
    pieces = split(build_tcp(0, 0, 1, 5, ACK | PSH, window=3, data=bytes(44 * 1440 - 7)), 1440)
    (frame,) = bench.give([joined([datagram(FLOW, piece) for piece in pieces])])
    assert frame.gso_size == 1440 and TcpHeader.decode(frame.segment).flags == ACK | PSH
    assert (flow.received_packets, flow.received_bytes) == (44, 44 * 1440 - 7)
    assert bench.first == [FLOW.local_flow]


@BOTH
def test_what_is_not_for_the_fast_path_reaches_the_stack_whole(monkeypatch, vector) -> None:
    bench = UdpReceiveBench(monkeypatch, vector=vector)
    bench.flow(FLOW)
    pieces = [datagram(FLOW, build_tcp(0, 0, 1 + at, 5, ACK, data=bytes(9))) for at in (0, 9, 18)]
    last = datagram(FLOW, build_tcp(0, 0, 28, 5, ACK | FIN))
    unknown = datagram(udp_state(7), build_tcp(0, 0, 1, 5, ACK, data=bytes(50)))
    assert not bench.give([joined(pieces, "10.0.0.77"), joined([last]), joined([unknown] * 3), joined([b"x"])])
    assert len(bench.slow) == 3 + 1 + 3 + 1
    for packet, data in zip(bench.slow, [*pieces, last, *[unknown] * 3, b"x"], strict=True):
        header, inner = open_packet(packet)
        assert header.destination == address("10.0.0.1") and header.ttl == 61
        assert header.ports == PORTS and inner == data
    assert [open_packet(packet)[0].source for packet in bench.slow[:4]] == [address("10.0.0.77")] * 3 + [
        address("10.0.0.2")
    ]


@BOTH
def test_a_nats_new_port_is_no_matter_for_data(monkeypatch, vector) -> None:
    bench = UdpReceiveBench(monkeypatch, vector=vector)
    bench.flow(FLOW)
    pieces = [datagram(FLOW, build_tcp(0, 0, 1 + at, 5, ACK, data=bytes(9))) for at in (0, 9, 18)]
    frames = bench.give([joined(pieces, port=777)])
    assert sum(len(frame.segment) - 20 for frame in frames) == 27 and not bench.slow
    assert state().ports is None and FlowPaths().by_wire == {}


@BOTH
def test_nonsense_is_counted_or_goes_to_the_stack(monkeypatch, vector) -> None:
    bench = UdpReceiveBench(monkeypatch, vector=vector)
    bench.flow(FLOW)
    good = datagram(FLOW, build_tcp(0, 0, 1, 5, ACK, data=bytes(9)))
    short_header = bytearray(good)
    short_header[12 + 12] = 0x10
    rng = random.Random(3)
    assert not bench.give([joined([bytes(short_header)] * 3)])
    assert bench.paths.drops["bad_transport_header"] == 3
    for _ in range(50):
        data = rng.randbytes(rng.randint(1, 400))
        bench.give([(data, rng.randint(1, len(data)), "10.0.0.2", 9)])
    assert bench.slow
