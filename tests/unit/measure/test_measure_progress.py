"""What is said while it runs."""

from __future__ import annotations

import io

import pytest

from testbed.measure.plan import Comparison, Turn
from testbed.measure.progress import SLACK, Progress, duration

TURN = Turn(Comparison("serval", "tcp"), 0, False)


@pytest.mark.parametrize(
    ("seconds", "text"), [(0, "0 s"), (59.4, "59 s"), (60, "1 min 00 s"), (200, "3 min 20 s"), (-3, "0 s")]
)
def test_durations(seconds: float, text: str) -> None:
    assert duration(seconds) == text


def test_time_left_is_that_of_this_benchmark_at_its_pace_and_of_the_next_ones(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = [100.0]
    monkeypatch.setattr("time.monotonic", lambda: clock[0])
    progress = Progress({"one": 50.0, "two": 30.0}, io.StringIO())
    progress.begin("one", 10)
    assert progress.left() == 80.0
    clock[0] += 8
    for _ in range(2):
        progress.pair(TURN, None, repeated=False)
    assert progress.left() == 8 * 4 + 30
    progress.pair(TURN, "steal", repeated=True)
    assert progress.left() == 8 * 4 + 30, "a pair that is repeated is not done"


def test_time_left_keeps_within_the_limit_for_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = [100.0]
    monkeypatch.setattr("time.monotonic", lambda: clock[0])
    said = io.StringIO()
    progress = Progress({"one": 97.0, "two": 30.0}, said)
    progress.begin("one", 46)
    for _ in range(11):  # each took six times its share, as on a busy machine
        clock[0] += 12
        progress.pair(TURN, "others", repeated=False)
        assert clock[0] - 100 + progress.left() <= max(SLACK * 97, clock[0] - 100) + 30
    lines = said.getvalue().splitlines()
    assert "one: 2 of 46 pairs (2 void); 2 min 12 s left" in lines  # 126 - 24 s, and 30 s for the next one
    assert lines[-1] == "one: 11 of 46 pairs (11 void); longer than announced"


def test_without_a_terminal_there_are_few_lines_and_a_last_one(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = [0.0]
    monkeypatch.setattr("time.monotonic", lambda: clock[0])
    said = io.StringIO()
    progress = Progress({"one": 50.0}, said)
    progress.begin("one", 10)
    for _ in range(10):
        clock[0] += 1
        progress.pair(TURN, None, repeated=False)
    lines = said.getvalue().splitlines()
    assert lines[0] == "one: 10 pairs, about 50 s"
    assert lines[1] == "one: 5 of 10 pairs; 5 s left"
    assert lines[-1] == "one: 10 of 10 pairs in 10 s; 0 s left"
    assert len(lines) == 3


def test_a_void_pair_is_explained_once() -> None:
    said = io.StringIO()
    progress = Progress({"one": 50.0}, said)
    progress.begin("one", 2)
    for _ in range(3):
        progress.pair(TURN, "after: others used 50 % of the CPU time", repeated=True)
    assert said.getvalue().count("others used 50 %") == 1


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_at_a_terminal_the_line_is_rewritten() -> None:
    said = Terminal()
    progress = Progress({"one": 50.0}, said)
    progress.begin("one", 2)
    progress.pair(TURN, None, repeated=False)
    assert said.getvalue().count("\n") == 1
    assert "\r\033[Kone: 1 of 2 pairs" in said.getvalue()
