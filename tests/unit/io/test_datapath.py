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
from serval_node.wire.ipv4 import address
from tests.unit.io.datapath_bench import FakeSender, state


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
