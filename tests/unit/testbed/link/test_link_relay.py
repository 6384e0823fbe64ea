"""The relay's logic between socket pairs instead of interfaces, its loop turned by hand."""

from __future__ import annotations

import itertools
import json
import socket
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest

from testbed.link import relay
from testbed.link.relay import MAX_QUEUED, Direction, Relay, _listen, wall_to_monotonic


class Wire:
    """A relay between two ends; `near` and `far` are what stands at the outer sides of the two interfaces."""

    def __init__(self, seed: int | None = 1) -> None:
        self.near, first = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.far, second = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.control = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._sockets = [self.near, first, self.far, second, self.control]
        for item in self._sockets:
            item.setblocking(False)
        self.relay = Relay(first, second, self.control, seed)
        self.there, self.back = self.relay._directions.values()

    def carry(self, count: int) -> int:
        """Push numbered frames through, taking what the relay queues; returns how many it took."""
        for number in range(count):
            self.near.send(number.to_bytes(4, "big"))
            self.relay._receive(self.there)
        return len(self.there.queue)

    def arrived(self) -> list[int]:
        frames = []
        while True:
            try:
                frames.append(int.from_bytes(self.far.recv(100), "big"))
            except BlockingIOError:
                return frames

    def close(self) -> None:
        for item in self._sockets:
            item.close()


@pytest.fixture
def wire() -> Iterator[Wire]:
    made = Wire()
    yield made
    made.close()


def test_frames_leave_when_they_are_due_and_in_order(wire: Wire) -> None:
    wire.relay.set(delay=0.5)
    before = time.monotonic()
    assert wire.carry(5) == 5
    wire.there.send_due(before + 0.499)
    assert wire.arrived() == []
    wire.there.send_due(time.monotonic() + 0.5)
    assert wire.arrived() == [0, 1, 2, 3, 4]
    assert wire.there.counters.forwarded == 5
    assert wire.there.queued == 0


def test_who_is_held_up_between_two_clocks_is_not_too_early(monkeypatch: pytest.MonkeyPatch) -> None:
    """Both clocks show the same, and a second passes between any two looks at them."""
    seconds = itertools.count(1000)
    clock = SimpleNamespace(time=lambda: next(seconds), monotonic=lambda: next(seconds))
    monkeypatch.setattr(relay, "time", clock)
    assert wall_to_monotonic() >= 0


def test_a_shorter_delay_does_not_overtake(wire: Wire) -> None:
    wire.relay.set(delay=0.5)
    wire.carry(1)
    wire.relay.set(delay=0)
    wire.carry(1)
    assert wire.there.queue[0][0] <= wire.there.queue[1][0]


def test_loss_is_the_asked_share_and_the_same_for_a_seed() -> None:
    taken = []
    for _ in range(2):
        wire = Wire(seed=7)
        wire.relay.set(loss=20)
        taken.append(wire.carry(1000))
        assert wire.there.counters.lost == 1000 - taken[-1]
        wire.close()
    assert taken[0] == taken[1]
    assert 740 < taken[0] < 860


def test_a_black_hole_swallows_and_lets_go(wire: Wire) -> None:
    wire.relay.set(hole=True)
    assert wire.carry(3) == 0
    assert wire.there.counters.swallowed == 3
    wire.relay.set(hole=False)
    assert wire.carry(3) == 3


def test_what_is_under_way_is_bounded(wire: Wire) -> None:
    wire.there.queued = MAX_QUEUED - 3
    assert wire.carry(1) == 0
    assert wire.there.counters.overflowed == 1


def test_a_frame_that_the_kernel_refuses_is_counted(wire: Wire) -> None:
    refusing = Direction(wire.there.source, wire.far)
    refusing.queue.append((0.0, b"frame"))
    wire.there.target.close()  # its peer: sending to it fails from now on
    refusing.send_due(time.monotonic())
    assert (refusing.counters.unsent, refusing.counters.forwarded) == (1, 0)


@pytest.mark.parametrize(
    "request_text",
    [
        '{"op": "set", "delay": -1}',
        '{"op": "set", "loss": 101}',
        '{"op": "set", "speed": 3}',
        '{"op": "stop"}',
        "x",
        "[]",
    ],
)
def test_a_wrong_request_is_answered_and_changes_nothing(wire: Wire, request_text: str) -> None:
    wire.relay.set(delay=0.1, loss=1)
    answer = wire.relay._handle(request_text.encode())
    assert answer["ok"] is False
    assert answer["error"]
    state = wire.relay._handle(b'{"op": "state"}')
    assert (state["delay"], state["loss"], state["hole"]) == (0.1, pytest.approx(1), False)


def test_a_request_is_answered_with_the_new_state(wire: Wire) -> None:
    answer = wire.relay._handle(json.dumps({"op": "set", "delay": 0.02, "loss": 2, "hole": True}).encode())
    assert (answer["ok"], answer["delay"], answer["hole"]) == (True, 0.02, True)
    assert answer["loss"] == pytest.approx(2)


def test_a_killed_relays_socket_is_replaced_and_a_running_ones_is_not(tmp_path: Path) -> None:
    path = str(tmp_path / "1.sock")
    _listen(path).close()  # its file stays, as after kill -9
    with _listen(path) as running:
        with pytest.raises(OSError, match="in use"):
            _listen(path)
        running.getsockname()
