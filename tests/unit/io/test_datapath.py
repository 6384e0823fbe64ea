"""The data path's flow tables and figures; packets are the other tests' subject."""

from __future__ import annotations

import select
import socket
import sys
import time
from collections import Counter
from collections.abc import Iterator

import pytest

from serval_node.io.datapath import DataPath, vector_available
from serval_node.io.fast_flow import FastFlow, FlowPaths
from serval_node.io.shaper import Bucket, Pace
from serval_node.sal.outputs import DoubtSent, SendAgain
from serval_node.wire.ipv4 import address
from serval_node.wire.sal_header import decode
from serval_node.wire.serviceid import ServiceID
from serval_node.wire.transport import TcpHeader, verify
from tests.unit.io.datapath_bench import FakeSender, state
from tests.unit.io.test_unacknowledged import copy


class FakeTun:
    offload = False

    def __init__(self, end: socket.socket) -> None:
        self.fileno = end.fileno

    def kernel_drops(self) -> int:
        return 3


class FakeRaw:
    def __init__(self, end: socket.socket, shaper_events: socket.socket) -> None:
        self.receiver = end
        self.shaper_events = shaper_events
        self.made: dict[bytes, FakeSender] = {}
        self.drops: Counter[str] = Counter(send_backlog_full=2)

    def sender(self, local: bytes) -> FakeSender:
        return self.made.setdefault(local, FakeSender())

    def senders(self) -> list[FakeSender]:
        return []

    def kernel_drops(self) -> int:
        return 0


@pytest.fixture
def path() -> Iterator[DataPath]:
    tun, raw = socket.socketpair()
    events, other = socket.socketpair()
    with tun, raw, events, other:
        for end in (tun, raw, events):
            end.setblocking(False)
        made = DataPath(
            FakeTun(tun),  # type: ignore[arg-type]
            FakeRaw(raw, events),  # type: ignore[arg-type]
            stack_kernel=lambda packet, gso_size: None,
            stack_network=lambda packet: None,
            on_first_packet=lambda flow: None,
            vector=False,
        )
        yield made
        made.close()


def test_a_replaced_state_keeps_the_counters_and_forgets_the_old_keys(path: DataPath) -> None:
    old, new = state(), state(peer_address=address("10.0.7.7"))
    path.install(old)
    flow = path._paths.by_flow[old.local_flow]
    flow.note_sent(2, 2000, 100, 7)
    old_keys = flow.wire_keys
    path.install(new)
    assert path._paths.by_flow[new.local_flow] is flow
    assert all(key not in path._paths.by_wire for key in old_keys)
    assert all(path._paths.by_wire[key] is flow for key in flow.wire_keys)
    counters = path.counters(new.local_flow)
    assert counters is not None and (counters.sent_packets, counters.sent_next) == (2, 2100)


def test_totals_include_removed_flows_and_the_kernels_drops(path: DataPath) -> None:
    path.install(state(1))
    path.install(state(2))
    path._paths.by_flow[state(1).local_flow].note_sent(2, 2000, 100, 7)
    path._paths.by_flow[state(2).local_flow].note_received(1, 10, 100, 7)
    last = path.remove(state(1).local_flow)
    assert last is not None and last.sent_bytes == 2000
    assert path.counters(state(1).local_flow) is None and path.remove(state(1).local_flow) is None
    totals = path.totals()
    assert (totals.sent_packets, totals.sent_bytes, totals.received_bytes) == (2, 2000, 10)
    assert totals.drops == {"send_backlog_full": 2, "sal0_queue_full": 3}


def test_a_key_that_a_newer_flow_took_over_stays_when_the_older_one_goes() -> None:
    paths = FlowPaths()
    older = FastFlow(state(1), FakeSender())
    newer = FastFlow(state(2, kernel_local=state(1).kernel_local), FakeSender())
    paths.add(older)
    paths.add(newer)
    paths.discard(older)
    assert paths.by_kernel == {newer.kernel_key: newer}
    assert set(paths.by_wire) == set(newer.wire_keys) and set(paths.by_flow) == {newer.state.local_flow}


def test_only_tcp_has_a_fast_path(path: DataPath) -> None:
    path.install(state(protocol=17))
    assert path.counters(state().local_flow) is None and not path._paths.by_wire


def test_without_numpy_the_plain_path_is_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    assert vector_available()
    monkeypatch.setitem(sys.modules, "numpy", None)
    assert not vector_available()


def test_acknowledgements_and_sequence_numbers_wrap_around() -> None:
    flow = FastFlow(state(), FakeSender())
    for sequence, ack in ((0xFFFFFFF0, 0xFFFFFFFF), (0x10, 0x5), (0xFFFFFF00, 0xFFFFFFF0)):
        flow.note_received(1, 16, sequence, ack)
    counters = flow.counters()
    assert (counters.received_next, counters.peer_ack) == (0x20, 0x5)


def test_sal0_pauses_while_every_sender_in_use_is_shut(path: DataPath) -> None:
    """And only then: a full path does not stop another one."""
    path.install(state(1))
    path.install(state(2, local_address=address("10.0.1.1")))
    one, other = (flow.sender for flow in path._paths.by_flow.values())
    bucket = Bucket(1e6, 1e5)
    one.pace, other.pace = Pace(bucket, time.monotonic() + 60), Pace(bucket, time.monotonic() + 60)
    assert path._shut(one) and not path._shut(other)
    path.remove(state(2).local_flow)
    assert path._paused, "the sender that is left is shut"
    path.install(state(2, local_address=address("10.0.2.1")))
    assert not path._paused, "the new flow's sender is open"
    path.remove(state(2).local_flow)
    one.pace = None
    path._rested()
    assert not path._paused


def test_a_sender_that_rests_is_resumed_by_the_timer(path: DataPath) -> None:
    path.install(state(1))
    (flow,) = path._paths.by_flow.values()
    flow.sender.pace = Pace(Bucket(1e6, 2e4), time.monotonic())  # half full in 10 ms
    assert not path._shut(flow.sender)
    poll = select.poll()
    poll.register(path.fileno(), select.POLLIN)
    while path._paused:
        assert poll.poll(10_000), "the timer did not fire"
        path.ready()
    assert not flow.sender.shut()


# -- sent again


def doubtful(path: DataPath, number: int = 1, *sizes: int) -> FastFlow:
    """A flow that has sent segments of these sizes, whose path was lost then."""
    path.install(state(number))
    flow = path._paths.by_flow[state(number).local_flow]
    at = 1000
    for size in sizes:
        assert flow.unacknowledged is not None
        flow.unacknowledged.keep(at + size, copy(at, bytes([size % 256]) * size, gso=0))
        flow.note_sent(1, size, at, 7)
        at += size
    path.doubt(DoubtSent(state(number).local_flow))
    return flow


def again(number: int = 1, acknowledged: int | None = None, *had: tuple[int, int]) -> SendAgain:
    return SendAgain(state(number).local_flow, ServiceID(bytes(32)), acknowledged, had)


def sent(sender: FakeSender) -> list[tuple[int, int]]:
    """Sequence number and payload length of each packet that went to the wire, which must be valid."""
    found = []
    for packet in sender.sent:
        payload = decode(packet[20:]).payload
        tcp = TcpHeader.decode(payload)
        assert verify(payload, 6, packet[12:16], packet[16:20])
        found.append((tcp.seq, len(payload) - tcp.header_length))
    return found


def test_what_was_in_doubt_goes_again_once(path: DataPath) -> None:
    flow = doubtful(path, 1, 500, 600, 700)
    flow.note_sent(1, 100, 2800, 7)  # after the loss, by the new path
    assert path.send_again(again(1, 1500, (2100, 2300))) == (2, 1100)
    assert sent(flow.sender) == [(1500, 600), (2300, 500)]
    assert path.send_again(again(1, 1500)) == (0, 0), "nothing is in doubt any more"
    totals = path.totals()
    assert (totals.sent_again_packets, totals.sent_again_bytes) == (2, 1100) and totals.kept_bytes > 0
    path.remove(state(1).local_flow)
    assert path.totals().kept_bytes == 0
    assert path.send_again(again(1)) == (0, 0) and path.send_again(again(9)) == (0, 0)


def test_without_doubt_nothing_goes_again(path: DataPath) -> None:
    flow = doubtful(path, 1, 500)
    flow.doubted = -1
    assert path.send_again(again()) == (0, 0) and not flow.sender.sent


def test_it_waits_for_the_shaper_like_everything_else(path: DataPath) -> None:
    flow = doubtful(path, 1, 500, 600)
    sender = flow.sender
    sender.hold(b"waits already")
    sender.pace = Pace(Bucket(1e6, 1e5), time.monotonic() + 60)
    assert path.send_again(again()) == (2, 1100)
    assert not sender.sent and len(sender.held) == 3 and sender.held[2] == b"waits already"
    assert sender in path._resting
    sender.held.pop()
    sender.pace = None
    path._transmitter.resume(sender)
    assert sent(sender) == [(1000, 500), (1500, 600)]


def test_keeping_can_be_switched_off_and_on(path: DataPath) -> None:
    flow = doubtful(path, 1, 500)
    path.keeping = False
    assert not path.keeping and flow.unacknowledged is None and path.totals().kept_bytes == 0
    assert path.send_again(again()) == (0, 0)
    path.keeping = True
    assert path.keeping and flow.unacknowledged is not None and not flow.unacknowledged
