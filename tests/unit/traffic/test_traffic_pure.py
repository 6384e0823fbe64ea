"""Traffic without a network: what is sent, how it is compared, and what is counted."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from testbed.errors import TestbedError
from testbed.experiment.traffic import Requests, Stream
from testbed.traffic.bins import binned, silences, spread, still
from testbed.traffic.carry import check_services
from testbed.traffic.pattern import BLOCK, Source, Verifier, WrongData, leading
from testbed.traffic.samples import Progress, Samples
from testbed.traffic.streams import broken

SIZE = 2 * BLOCK + 5000


def stream(size: int, begin: int = 0, piece: int = 65537) -> bytes:
    source, data = Source(begin), bytearray()
    while len(data) < size:
        part = source.piece(min(piece, size - len(data)))
        data += part
        source.sent(len(part))
    return bytes(data)


def receive(verifier: Verifier, data: bytes, piece: int = 70001) -> None:
    view = memoryview(data)
    while view:
        space = verifier.space()
        count = min(len(space), len(view), piece)
        space[:count] = view[:count]
        verifier.came(count)
        view = view[count:]


# -- what is sent


def test_a_stream_is_the_same_however_it_is_cut() -> None:
    whole = stream(SIZE)
    assert whole == stream(SIZE, piece=999) == leading(SIZE)
    assert stream(SIZE - 300_000, begin=300_000) == whole[300_000:]
    assert whole[:BLOCK] != whole[BLOCK : 2 * BLOCK]
    verifier = Verifier()
    receive(verifier, whole)
    verifier.check()
    assert verifier.position == SIZE


@pytest.mark.parametrize("at", [0, 7, 8, BLOCK - 1, BLOCK, BLOCK + 3, 2 * BLOCK, SIZE - 1])
def test_a_wrong_byte_is_found_and_named(at: int) -> None:
    data = bytearray(leading(SIZE))
    data[at] ^= 1
    verifier = Verifier()
    with pytest.raises(WrongData, match=f"from byte {at} on"):
        receive(verifier, bytes(data))
        verifier.check()


@pytest.mark.parametrize("count", [1, 1448, BLOCK])
def test_bytes_that_are_lost_or_doubled_are_found(count: int) -> None:
    whole = leading(SIZE)
    for data in (whole[:1000] + whole[1000 + count :], whole[: 1000 + count] + whole[1000:]):
        verifier = Verifier()
        with pytest.raises(WrongData):
            receive(verifier, data)
            verifier.check()


def test_a_new_connection_goes_on_at_the_received_offset() -> None:
    verifier = Verifier()
    receive(verifier, stream(BLOCK + 777))
    receive(verifier, stream(SIZE - verifier.position, begin=verifier.position))
    verifier.check()
    receive(verifier, stream(1000, begin=SIZE + 1))
    with pytest.raises(WrongData, match=f"from byte {SIZE} on"):
        verifier.check()


# -- what is counted


def test_bins_begin_at_zero_and_leave_out_what_is_outside() -> None:
    times, sizes = [9.995, 10.0, 10.009, 10.01, 10.0299, 10.03, 11.0], [1, 2, 4, 8, 16, 32, 64]
    assert binned(times, sizes, zero=10.0, seconds=0.03, size=0.01) == [6, 8, 16]
    assert len(binned([], [], zero=0.0, seconds=0.3, size=0.01)) == 30


def test_the_largest_silences_come_first_and_reach_over_both_ends() -> None:
    times = [9.9, 10.3, 10.4, 11.0, 11.1]
    found = silences(times, zero=10.0, begin=10.0, end=13.0)
    expected = [(1.1, 1.9), (0.4, 0.6), (-0.1, 0.4), (0.3, 0.1), (1.0, 0.1)]
    assert [(gap["at"], gap["seconds"]) for gap in found[:3]] == [pytest.approx(one) for one in expected[:3]]
    assert len(found) == len(expected)


def test_each_tenth_of_a_second_keeps_its_largest_silence() -> None:
    times = [number / 1000 for number in range(0, 3000, 5)]
    del times[500:502]
    found = silences(times, zero=0.0, begin=0.0, end=3.0, count=2)
    assert len(found) == 30
    assert found[0] == {"at": pytest.approx(2.495), "seconds": pytest.approx(0.015)}
    assert {round(gap["seconds"], 6) for gap in found[1:]} == {0.005}


def test_a_stream_that_gets_nothing_is_one_silence() -> None:
    assert silences([], zero=1.0, begin=1.5, end=4.0) == [{"at": 0.5, "seconds": 2.5}]


def test_intervals_are_spread_over_the_bins_that_they_cover() -> None:
    intervals = [(0.0, 0.1, 100), (0.1, 0.2, 300), (0.2, 0.25, 50)]
    assert spread(intervals, begun=5.0, zero=5.0, seconds=0.3, size=0.1) == [100, 300, 50]
    assert spread(intervals, begun=4.95, zero=5.0, seconds=0.2, size=0.1) == [50 + 150, 150 + 50]


def test_runs_of_empty_bins_are_silences_also_at_the_end() -> None:
    bins = [1, 0, 0, 1, 0, 1, 0, 0, 0]
    assert still(bins, 0.1, 0.9) == [
        {"at": pytest.approx(0.6), "seconds": pytest.approx(0.3)},
        {"at": pytest.approx(0.1), "seconds": pytest.approx(0.2)},
        {"at": pytest.approx(0.4), "seconds": pytest.approx(0.1)},
    ]
    assert still([1, 1], 0.1, 0.2) == []


def test_another_process_sees_the_total(tmp_path: Path) -> None:
    path = tmp_path / "new" / "flow.progress"
    progress = Progress(path)
    assert progress.total() == 0
    samples = Samples(str(path))
    samples.add(1.0, 5)
    samples.add(1.1, 1 << 40)
    assert progress.total() == samples.total == 5 + (1 << 40)


# -- what is broken


def end(last: float | None = None, error: dict[str, Any] | None = None) -> dict[str, Any]:
    return {"last": last, "error": error}


def test_a_stream_is_broken_by_an_error_or_by_a_silence_that_lasts_to_the_end() -> None:
    reset = {"at": 2.0, "why": "ConnectionResetError"}
    assert broken(end(9.9), end(), 10.0, 1.0) is None
    silent = {"at": 8.9, "why": "nothing came for the last 1.1 s (time-out 1 s)", "noticed": 9.9}
    assert broken(end(8.9), end(), 10.0, 1.0) == silent
    assert broken(end(8.9), end(), 10.0, 2.0) is None
    assert broken(end(None), end(), 10.0, 2.0) is not None
    told = {**reset, "noticed": 2.0}
    assert broken(end(2.0), end(error=reset), 10.0, 60.0) == told
    assert broken(end(3.0, {"at": 3.0, "why": "later"}), end(error=reset), 10.0, 1.0) == told


def test_two_servers_of_one_service_are_refused_and_two_clients_of_a_declared_one_are_not() -> None:
    ends = {"source": "ann", "target": "dan", "service": "web.example"}
    clients = [Requests(name=name, **ends) for name in ("one", "two")]
    check_services(clients, ["web.example"])
    for items in (clients, [Stream(name="one", **ends), Requests(name="two", **ends)]):
        with pytest.raises(TestbedError, match=r"one and two have the same service web\.example"):
            check_services(items, ["other.example"])
