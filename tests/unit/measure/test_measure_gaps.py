"""The gap that an event makes in a stream, and what the stream's own ends check."""

from __future__ import annotations

import contextlib
import json
import socket
import threading
import time
from typing import Any

import pytest

from experiments.benchmarks import handover, stream
from experiments.benchmarks.gaps import Gap, gaps, largest, limit_ms, window
from testbed.measure import analysis
from testbed.traffic.orders import serve_orders
from testbed.traffic.pattern import leading

EVENT = 1000.25


def every_millisecond(begin: int, end: int, *, without: range = range(0)) -> list[float]:
    """Receives in the middle of each bin from `begin` to `end` after the event, in ms."""
    return [EVENT + number * 1e-3 + 5e-4 for number in range(begin, end) if number not in without]


def test_a_steady_stream_has_a_gap_of_one_bin() -> None:
    assert largest(every_millisecond(-100, 200), EVENT, 0.090).bins == 1


def test_what_is_missing_is_counted_in_bins() -> None:
    times = every_millisecond(-100, 200, without=range(3, 24))
    assert largest(times, EVENT, 0.090) == Gap(22, 2)


def test_a_gap_that_the_event_lies_in_counts() -> None:
    times = every_millisecond(-100, 200, without=range(-2, 30))
    assert largest(times, EVENT, 0.090) == Gap(33, -3)


def test_gaps_before_the_event_and_after_the_window_do_not_count() -> None:
    times = every_millisecond(-100, 300, without=range(-50, -5))
    assert largest(times, EVENT, 0.090).bins == 1
    for first, expected in ((91, 101), (92, 1)):
        late = every_millisecond(-100, 300, without=range(first, first + 100))
        assert largest(late, EVENT, 0.090).bins == expected, first


def test_two_receives_in_one_bin_are_no_gap() -> None:
    times = sorted([*every_millisecond(-10, 100), *every_millisecond(-10, 100)])
    assert {gap.bins for gap in gaps(times, EVENT, 0.050)} == {0, 1}


@pytest.mark.parametrize(("begin", "end"), [(-100, 40), (1, 200), (0, 0)])
def test_a_stream_that_ends_too_early_or_begins_too_late_says_nothing(begin: int, end: int) -> None:
    with pytest.raises(ValueError, match="does not cover"):
        largest(every_millisecond(begin, end), EVENT, 0.090)


def test_the_window_and_the_aims() -> None:
    assert (window(0.0), window(0.1)) == (0.05, 0.25)
    assert limit_ms("down", "down", 20) == (30.0, "1 RTT + 10 ms")
    assert limit_ms("carrier", "up", 100) == (125.0, "1 RTT + 25 ms")
    assert limit_ms("hole", "up", 20) == limit_ms("hole", "down", 20) == (90.0, "2.5 RTT + 40 ms")
    assert limit_ms("told", "down", 20) is None


def test_every_event_of_serval_has_an_aim_and_a_control() -> None:
    for benchmark in handover.BENCHMARKS:
        aims = {figure.label: figure.aim for figure in benchmark.figures if figure.aim is not None}
        assert len(aims) == len(handover.EVENTS) and aims["Serval, told handover adds (1 bin)"] == 1.0
        for contestant in handover.contestants():
            control = f"{contestant}:none"
            assert (control, control) in {(one.subject, one.reference) for one in benchmark.comparisons}


def test_without_mptcp_it_is_said_by_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(handover, "mptcp_missing", lambda: "kernel without MPTCP")
    benchmark = handover._benchmark(20, stream.DOWN)
    assert benchmark.title.endswith("no MPTCP: kernel without MPTCP")
    assert {one.subject.partition(":")[0] for one in benchmark.comparisons} == {"serval"}
    benchmark.check()


def test_absolute_noise_is_a_difference() -> None:
    """A control gap of 1 or 2 bins: half of it says nothing of a limit of 100."""
    pairs = [
        {"comparison": 0, "used": True, "subject": {"metrics": {"gap": a}}, "reference": {"metrics": {"gap": b}}}
        for a, b in [(0.001, 0.002), (0.002, 0.001)] * 5
    ]
    entry = {"comparisons": [{"subject": "c", "reference": "c"}], "pairs": pairs}
    figure = {"metric": "gap", "subject": "x", "reference": None, "how": "value", "scale": 1e3, "aim": 100.0}
    figure |= {"noise": "c", "calibration": None}
    assert analysis._noise(entry, {**figure, "noise_absolute": True}) == pytest.approx(1.0)
    assert analysis._noise(entry, figure) == pytest.approx(75.0)


# -- the stream's ends


def exchanged(near: Any, far: Any) -> tuple[socket.socket, socket.socket]:
    listener = socket.create_server(("127.0.0.1", 0))
    with listener:
        one = socket.create_connection(listener.getsockname())
        other, _ = listener.accept()
    threading.Thread(target=far, args=(other,), daemon=True).start()
    near(one)
    return one, other


def test_all_pieces_come_and_are_checked() -> None:
    results: list[dict[str, Any]] = []
    one, other = exchanged(lambda sock: stream.send(sock, 1e6, 0.03), lambda sock: results.append(stream.receive(sock)))
    one.close()
    deadline = time.monotonic() + 10
    while not results:
        assert time.monotonic() < deadline
        time.sleep(0.001)
    other.close()
    assert results[0]["bytes"] == 30 * 125 and len(results[0]["times"]) > 3
    assert results[0]["times"] == sorted(results[0]["times"])


@pytest.mark.parametrize("change", [0, 3000, 70_000])
def test_a_wrong_byte_is_found(change: int) -> None:
    data = bytearray(leading(80_000))
    data[change] ^= 1
    one, other = socket.socketpair()

    def send() -> None:
        with contextlib.suppress(OSError):  # the receiver has seen enough
            one.sendall(data)
            one.shutdown(socket.SHUT_WR)

    sender = threading.Thread(target=send)
    with one:
        sender.start()
        with other, pytest.raises(stream.WrongData, match="other bytes than were sent"):
            stream.receive(other)
        sender.join(10)


def test_the_near_end_refuses_what_is_short(monkeypatch: pytest.MonkeyPatch) -> None:
    sent = stream.send
    monkeypatch.setattr(stream, "send", lambda connection, rate, seconds: sent(connection, rate, seconds / 2))
    listener = socket.create_server(("127.0.0.1", 0))
    threading.Thread(target=lambda: stream.serve_one(listener.accept()[0]), daemon=True).start()
    order = {"target": listener.getsockname(), "mptcp": False, "direction": "down", "rate": 1e6, "seconds": 0.02}
    told: list[dict[str, Any]] = []
    with listener, pytest.raises(stream.WrongData, match="1250 bytes came of 2500"):
        stream.stream(order, told.append)
    assert [set(one) for one in told] == [{"ok", "started"}]


def test_orders_are_answered_also_when_they_fail(tmp_path: Any) -> None:
    def fails(_order: dict[str, Any], _tell: Any) -> dict[str, Any]:
        raise OSError("no such thing")

    path = str(tmp_path / "orders.sock")
    operations = {"add": lambda order, tell: {"sum": order["a"] + order["b"]}, "fails": fails}
    threading.Thread(target=serve_orders, args=(path, operations), daemon=True).start()
    with socket.socket(socket.AF_UNIX) as channel:
        deadline = time.monotonic() + 10
        while channel.connect_ex(path):
            assert time.monotonic() < deadline
            time.sleep(0.001)
        stream_of = channel.makefile("rwb")
        stream_of.write(b'{"op": "add", "a": 1, "b": 2}\n{"op": "fails"}\n')
        stream_of.flush()
        assert json.loads(stream_of.readline()) == {"ok": True, "sum": 3}
        assert json.loads(stream_of.readline()) == {"ok": False, "error": "OSError: no such thing"}
