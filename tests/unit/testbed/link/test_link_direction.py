"""One direction of a relay, frame by frame: delay, jitter, loss, order, bounds."""

from __future__ import annotations

import statistics

import pytest

from testbed.link.direction import LATE, MAX_QUEUED, Direction, RelayError, settings_of
from testbed.link.shape import Shape


def direction(seed: int | None = 1, name: str = "there", **settings: float | bool) -> tuple[Direction, list[int]]:
    sent: list[int] = []
    made = Direction(name, seed, lambda frame: sent.append(int.from_bytes(frame, "big")))
    made.set(**settings)  # type: ignore[arg-type]
    return made, sent


def give(to: Direction, count: int, spacing: float = 0.001) -> None:
    for number in range(count):
        to.take(number.to_bytes(4, "big"), number * spacing)


def delays(of: Direction, spacing: float = 0.001) -> list[float]:
    return [due - int.from_bytes(frame, "big") * spacing for due, frame in of.queue]


def test_frames_leave_when_they_are_due_and_in_order() -> None:
    there, sent = direction(delay=0.5)
    give(there, 5, spacing=0)
    there.send_due(0.499, 100)
    assert sent == []
    there.send_due(0.5, 3)
    assert sent == [0, 1, 2], "no more at once than the other direction can wait for"
    there.send_due(0.502, 100)
    assert sent == [0, 1, 2, 3, 4]
    assert (there.forwarded, there.queued, there.late) == (5, 0, 2)
    assert there.late_max == pytest.approx(0.002)
    assert there.late_max > LATE


def test_a_shorter_delay_does_not_overtake() -> None:
    there, _ = direction(delay=0.5)
    there.take(b"1", 0.0)
    there.set(delay=0)
    there.take(b"2", 0.1)
    assert [due for due, _ in there.queue] == [0.5, 0.5]


def test_loss_is_the_asked_share_and_the_same_for_a_seed() -> None:
    taken = []
    for _ in range(2):
        there, _ = direction(seed=7, loss=20)
        give(there, 1000)
        assert there.lost == 1000 - len(there.queue)
        taken.append([frame for _, frame in there.queue])
    assert taken[0] == taken[1]
    assert 740 < len(taken[0]) < 860
    other, _ = direction(seed=7, name="back", loss=20)
    give(other, 1000)
    assert [frame for _, frame in other.queue] != taken[0], "both directions lose the same frames"


def test_jitter_spreads_evenly_around_the_delay_and_is_the_same_for_a_seed() -> None:
    spread = []
    for loss in (0, 20):
        there, _ = direction(seed=3, delay=0.01, jitter=0.004, loss=loss)
        give(there, 2000, spacing=0.01)  # further apart than they are spread: nobody has to wait
        spread.append(delays(there, spacing=0.01))
    assert min(spread[0]) >= 0.006 and max(spread[0]) <= 0.014
    assert statistics.mean(spread[0]) == pytest.approx(0.01, abs=0.0003)
    assert statistics.pstdev(spread[0]) == pytest.approx(0.004 / 3**0.5, rel=0.05)
    assert [round(delay, 9) for delay in spread[1][:100]] == [round(delay, 9) for delay in spread[0][:100]], (
        "loss changed the jitter of what is left"
    )


def test_jitter_keeps_the_order_unless_reordering_is_asked() -> None:
    for reorder in (False, True):
        there, sent = direction(delay=0.01, jitter=0.009, reorder=reorder)
        give(there, 300)
        due = [entry[0] for entry in there.queue]
        assert due == sorted(due)
        there.send_due(10.0, 1000)
        assert (sent == sorted(sent)) is not reorder
        assert sorted(sent) == list(range(300))


def test_a_black_hole_swallows_and_lets_go() -> None:
    there, _ = direction(hole=True)
    give(there, 3)
    assert (there.swallowed, len(there.queue)) == (3, 0)
    there.set(hole=False)
    give(there, 3)
    assert len(there.queue) == 3


def test_what_is_under_way_is_bounded() -> None:
    there, _ = direction()
    there.queued = MAX_QUEUED - 3
    there.take(b"four", 0.0)
    assert (there.overflowed, len(there.queue)) == (1, 0)


def test_a_frame_that_the_kernel_refuses_is_counted() -> None:
    def refuse(_frame: bytes) -> None:
        raise OSError

    there = Direction("there", 1, refuse)
    there.take(b"frame", 0.0)
    there.send_due(1.0, 10)
    assert (there.unsent, there.forwarded, there.queued) == (1, 0, 0)


@pytest.mark.parametrize(
    "wrong", [{"delay": -1}, {"delay": 11}, {"jitter": 0.2}, {"delay": 0.001}, {"loss": 101}, {"loss": -1}]
)
def test_a_wrong_setting_changes_nothing(wrong: dict[str, float]) -> None:
    there, _ = direction(delay=0.1, jitter=0.01, loss=1)
    before = there.state()
    with pytest.raises(RelayError):
        there.set(**wrong)  # type: ignore[arg-type]
    assert there.state() == before


def test_a_shapes_settings_are_taken_and_shown() -> None:
    there, _ = direction()
    wanted = settings_of(Shape(rate=10, delay=0.02, jitter=0.005, loss=1.5, reorder=True, hole=True))
    there.set(**wanted)
    assert {name: there.state()[name] for name in wanted} == pytest.approx(wanted)
    there.reset()
    assert not any(there.state()[name] for name in there.COUNTS)
