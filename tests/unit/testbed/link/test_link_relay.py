"""The relay between socket pairs instead of interfaces: its clocks, its requests, its control socket."""

from __future__ import annotations

import itertools
import json
import socket
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest

from testbed.link import relay
from testbed.link.relay import Relay, _listen, wall_to_monotonic
from testbed.link.relay_process import carries_udp_segments


@pytest.fixture
def made() -> Iterator[Relay]:
    near, first = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
    far, second = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
    with near, first, far, second, socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as control:
        first.setblocking(False)
        made = Relay(first, second, control, seed=1)
        made.near, made.far, made.first = near, far, first  # type: ignore[attr-defined]
        yield made


def test_frames_cross_from_one_side_to_the_other(made: Relay) -> None:
    for frame in (b"one", b"two"):
        made.near.send(frame)  # type: ignore[attr-defined]
    made._receive(made.first)  # type: ignore[attr-defined]
    assert len(made.there.queue) == 2
    made.there.send_due(made.there.queue[-1][0], 10)
    assert made.far.recv(100) == b"one"  # type: ignore[attr-defined]
    assert made.state()["directions"][0]["forwarded"] == 2
    assert made.state()["directions"][1]["forwarded"] == 0


def test_who_is_held_up_between_two_clocks_is_not_too_early(monkeypatch: pytest.MonkeyPatch) -> None:
    """Both clocks show the same, and a second passes between any two looks at them."""
    seconds = itertools.count(1000)
    clock = SimpleNamespace(time=lambda: next(seconds), monotonic=lambda: next(seconds))
    monkeypatch.setattr(relay, "time", clock)
    assert wall_to_monotonic() >= 0


@pytest.mark.parametrize(
    "request_text",
    [
        '{"op": "set", "delay": -1}',
        '{"op": "set", "loss": 101}',
        '{"op": "set", "speed": 3}',
        '{"op": "set", "direction": 2, "loss": 1}',
        '{"op": "stop"}',
        "x",
        "[]",
    ],
)
def test_a_wrong_request_is_answered_and_changes_nothing(made: Relay, request_text: str) -> None:
    made._handle(b'{"op": "set", "delay": 0.1, "loss": 1}')
    before = made.state()
    answer = made._handle(request_text.encode())
    assert answer["ok"] is False
    assert answer["error"]
    assert made.state() == before


def test_a_request_is_answered_with_the_new_state(made: Relay) -> None:
    answer = made._handle(json.dumps({"op": "set", "direction": 1, "delay": 0.02, "loss": 2, "hole": True}).encode())
    there, back = answer["directions"]
    assert (answer["ok"], back["delay"], back["hole"]) == (True, 0.02, True)
    assert back["loss"] == pytest.approx(2)
    assert (there["delay"], there["hole"]) == (0.0, False)


def test_counters_begin_again_when_asked(made: Relay) -> None:
    made.there.swallowed = 4
    assert made._handle(b'{"op": "reset"}')["directions"][0]["swallowed"] == 4
    assert made._handle(b'{"op": "state"}')["directions"][0]["swallowed"] == 0


def test_a_killed_relays_socket_is_replaced_and_a_running_ones_is_not(tmp_path: Path) -> None:
    path = str(tmp_path / "1.sock")
    _listen(path).close()  # its file stays, as after kill -9
    with _listen(path) as running:
        with pytest.raises(OSError, match="in use"):
            _listen(path)
        running.getsockname()


@pytest.mark.parametrize(
    ("release", "carries"), [("6.1.0-18-amd64", False), ("5.15.0", False), ("6.2.0", True), ("6.18.44-x", True)]
)
def test_which_kernels_give_udp_segments_to_a_relay(release: str, carries: bool) -> None:
    assert carries_udp_segments(release) is carries
