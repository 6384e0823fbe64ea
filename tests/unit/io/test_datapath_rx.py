"""Network to kernel: frames carry exactly the peers' bytes, in order, with checksums that the kernel can verify."""

from __future__ import annotations

import random

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from serval_node.wire.sal_header import bare_header
from serval_node.wire.transport import ACK, ECE, FIN, PSH, TcpHeader, build_tcp, split, verify
from tests.unit.io.datapath_bench import TCP, Frame, ReceiveBench, state, wire_packet

FLOW = state()
BOTH = pytest.mark.parametrize("vector", [True, False], ids=["vector", "plain"])
RELAXED = settings(max_examples=80, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


def segment(data: bytes, *, seq: int = 1, flags: int = ACK, options: bytes = b"", ack: int = 5) -> bytes:
    return build_tcp(0, 0, seq, ack, flags, window=300, options=options, data=data)


def stream(data: bytes, size: int, **fields: int | bytes) -> list[bytes]:
    return split(segment(data, **fields), size)  # type: ignore[arg-type]


def kernel_verifies(frame: Frame) -> bool:
    return verify(frame.segment, TCP, frame.header.source, frame.header.destination)


def pieces(frame: Frame) -> list[tuple[int, int, int, bytes, bytes]]:
    """A frame as the segments that it stands for: flow's local port, sequence number, flags, options, data."""
    parts = split(frame.segment, frame.gso_size) if frame.gso_size else [frame.segment]
    found = []
    for part in parts:
        tcp = TcpHeader.decode(part)
        found.append((tcp.destination_port, tcp.seq, tcp.flags, tcp.options, part[tcp.header_length :]))
    return found


def as_sent(port: int, part: bytes) -> tuple[int, int, int, bytes, bytes]:
    tcp = TcpHeader.decode(part)
    return port, tcp.seq, tcp.flags, tcp.options, part[tcp.header_length :]


@BOTH
@given(seed=st.integers(0, 2**32), loss=st.sampled_from([0, 0, 0.02, 0.3]), swap=st.sampled_from([0, 0, 0.05, 0.5]))
@RELAXED
def test_what_arrives_is_what_was_sent(monkeypatch, vector, seed, loss, swap) -> None:
    rng = random.Random(seed)
    bench = ReceiveBench(monkeypatch, vector=vector)
    flows = [state(number) for number in range(1, rng.choice([2, 2, 4]))]
    for flow in flows:
        bench.flow(flow)
    sent: list[tuple[int, bytes, bytes]] = []
    for flow in flows:
        next_seq = rng.choice([1, 2**32 - 2000])
        for _ in range(rng.randint(1, 6)):
            data = rng.randbytes(rng.choice([0, 1, 100, 1448, 5000, 65000]))
            options = rng.choice([b"", b"", bytes([1] * 12), rng.randbytes(40)])
            flags = rng.choice([ACK, ACK | PSH, ACK | ECE])
            size = rng.choice([1, 2, 535, 536, 1001, 1408, 1434, 1448]) if len(data) <= 5000 else 1408
            ports = rng.choice([(0, 0), (9, 65535)])
            parts = stream(data, size, seq=next_seq, flags=flags, options=options)[:200]
            sent += [(flow.kernel_local[1], part, wire_packet(flow, part, ports=ports)) for part in parts]
            last = TcpHeader.decode(parts[-1])
            next_seq = (last.seq + last.sequence_length(len(parts[-1]))) % 2**32
    sent = [entry for entry in sent if rng.random() >= loss]
    for index in range(1, len(sent)):
        if rng.random() < swap:
            sent[index - 1], sent[index] = sent[index], sent[index - 1]
    frames = bench.give([packet for _, _, packet in sent])
    assert bench.slow == [] and not bench.paths.drops
    for frame in frames:
        assert kernel_verifies(frame)
    for flow in flows:
        port = flow.kernel_local[1]
        got = [piece for frame in frames for piece in pieces(frame) if piece[0] == port]
        assert got == [as_sent(port, part) for number, part, _ in sent if number == port]
        counters = bench.paths.by_flow[flow.local_flow].counters()
        assert (counters.received_packets, counters.received_bytes) == (len(got), sum(len(piece[4]) for piece in got))


@pytest.mark.parametrize(("mtu", "size"), [(1500, 1448), (9000, 8948)])
def test_consecutive_segments_become_few_frames(monkeypatch, mtu, size) -> None:
    bench = ReceiveBench(monkeypatch, vector=True, mtu=mtu)
    bench.flow(FLOW)
    parts = stream(random.Random(1).randbytes(60000), size, flags=ACK | PSH)
    (frame,) = bench.give([wire_packet(FLOW, part) for part in parts])
    assert frame.gso_size == size and kernel_verifies(frame)
    assert frame.header.source == FLOW.kernel_peer[0] and frame.header.destination == FLOW.kernel_local[0]
    assert TcpHeader.decode(frame.segment).source_port == FLOW.kernel_peer[1]


@pytest.mark.parametrize("length", [4, 12, 40])
def test_segments_with_different_options_stay_apart(monkeypatch, length) -> None:
    bench = ReceiveBench(monkeypatch, vector=True)
    bench.flow(FLOW)
    parts = [
        segment(bytes(100), seq=1 + 100 * number, options=bytes([1] * (length - 1) + [number // 2]))
        for number in range(6)
    ]
    frames = bench.give([wire_packet(FLOW, part) for part in parts])
    assert [len(pieces(frame)) for frame in frames] == [2, 2, 2]
    assert all(kernel_verifies(frame) for frame in frames)


def test_a_frame_never_exceeds_an_ip_packet(monkeypatch) -> None:
    bench = ReceiveBench(monkeypatch, vector=True)
    bench.flow(FLOW)
    parts = stream(bytes(64 * 1024), 1024, options=bytes([1] * 40))
    assert len(parts) == 64
    frames = bench.give([wire_packet(FLOW, part) for part in parts])
    assert sum(len(pieces(frame)) for frame in frames) == 64 and len(frames) == 2


@BOTH
@pytest.mark.parametrize("where", [0, 1, 17, 40])
def test_damaged_payload_is_never_made_to_look_valid(monkeypatch, vector, where) -> None:
    bench = ReceiveBench(monkeypatch, vector=vector)
    bench.flow(FLOW)
    packets = [wire_packet(FLOW, part) for part in stream(bytes(41 * 1400), 1400)]
    packets[where] = packets[where][:-700] + b"!" + packets[where][-699:]
    frames = bench.give(packets)
    assert [kernel_verifies(frame) for frame in frames].count(False) == 1


@BOTH
def test_tos_is_kept_and_separates_frames(monkeypatch, vector) -> None:
    bench = ReceiveBench(monkeypatch, vector=vector)
    bench.flow(FLOW)
    parts = stream(bytes(8000), 1000)
    frames = bench.give([wire_packet(FLOW, part, tos=3 if index == 4 else 2) for index, part in enumerate(parts)])
    assert {frame.packet[1] for frame in frames} == {2, 3}
    assert [frame.packet[1] for frame in frames for _ in pieces(frame)] == [2, 2, 2, 2, 3, 2, 2, 2]


@BOTH
def test_the_stack_gets_what_is_not_data_of_a_known_flow(monkeypatch, vector) -> None:
    bench = ReceiveBench(monkeypatch, vector=vector)
    bench.flow(FLOW)
    last = wire_packet(FLOW, segment(b"bye", flags=ACK | FIN))
    unknown = wire_packet(state(7), segment(b"who"))
    moved = wire_packet(state(1, peer_address=b"\x0a\x00\x00\x09"), segment(b"from elsewhere"))
    bad_sum = bytearray(wire_packet(FLOW, segment(b"bad SAL checksum")))
    bad_sum[31] ^= 1
    optional = b"\x46" + last[1:20] + b"\x01\x01\x01\x00" + last[20:]
    short = last[:40]
    packets = [last, unknown, moved, bytes(bad_sum), optional, short]
    assert bench.give(packets) == []
    assert bench.slow == packets and bench.paths.slow_network == 6


@BOTH
@pytest.mark.parametrize("offset", [0, 4, 15])
def test_a_senseless_tcp_header_length_is_counted(monkeypatch, vector, offset) -> None:
    bench = ReceiveBench(monkeypatch, vector=vector)
    bench.flow(FLOW)
    packets = []
    for number in range(4):
        packet = bytearray(wire_packet(FLOW, segment(b"1234", seq=1 + 4 * number)))
        packet[44] = offset << 4
        packets.append(bytes(packet))
    assert bench.give(packets) == []
    assert bench.paths.drops == {"bad_transport_header": 4}


@BOTH
def test_both_spellings_of_a_zero_checksum_are_known(monkeypatch, vector) -> None:
    bench = ReceiveBench(monkeypatch, vector=vector)
    base = bare_header(0, 0x1001, TCP)
    flow = state(1, peer_flow=int.from_bytes(base[10:12], "big"))
    bench.flow(flow)
    packet = wire_packet(flow, segment(b"data"))
    assert packet[30:32] == b"\0\0", "this flowID was to give the checksum zero"
    frames = bench.give([packet, packet[:30] + b"\xff\xff" + packet[32:]])
    assert len(frames) == 2 and bench.slow == []


def test_a_packet_beyond_the_mtu_is_counted_once_and_then_fits(monkeypatch) -> None:
    bench = ReceiveBench(monkeypatch, vector=True, mtu=1500)
    bench.flow(FLOW)
    packets = [wire_packet(FLOW, part) for part in stream(bytes(18000), 6000)]
    assert len(bench.give(packets[:1])) == 0
    assert bench.paths.drops == {"receive_oversize": 1}
    frames = bench.give(packets)
    assert sum(len(pieces(frame)) for frame in frames) == 3
    assert bench.paths.drops == {"receive_oversize": 1}


@BOTH
def test_the_first_packet_of_a_flow_is_told_once(monkeypatch, vector) -> None:
    bench = ReceiveBench(monkeypatch, vector=vector)
    flow = bench.flow(FLOW)
    packets = [wire_packet(FLOW, part) for part in stream(bytes(5000), 1000, ack=42)]
    bench.give(packets)
    bench.give(packets)
    assert bench.first == [FLOW.local_flow]
    assert flow.counters().peer_ack == 42 and flow.counters().received_next == 5001
    flow.apply(FLOW, flow.sender)
    bench.give(packets[:1])
    assert bench.first == [FLOW.local_flow] * 2
