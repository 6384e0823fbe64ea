"""The difference of two pictures of a table, and how long it is shown: the time is passed in."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from serval_node.cli.watch_changes import History, Mark, Row, difference


def row(key: str, *values: object) -> Row:
    return Row(key, tuple(map(str, values)), values)


def rows(**cells: object) -> list[Row]:
    return [row(key, value) for key, value in cells.items()]


def marks(history: History, now: float) -> list[tuple[str, str]]:
    return [(shown.row.key, shown.mark.value) for shown in history.shown(now)]


def test_new_changed_and_gone_rows() -> None:
    before = [row("a", 1, "x"), row("b", 2, "y"), row("c", 3, "z")]
    after = [row("b", 2, "Y"), row("d", 4, "w"), row("a", 1, "x")]
    found = [(change.mark, change.row.key, set(change.columns)) for change in difference(before, after)]
    assert found == [(Mark.CHANGED, "b", {1}), (Mark.NEW, "d", set()), (Mark.GONE, "c", set())]


def test_a_change_has_what_was_and_what_is() -> None:
    (change,) = difference(rows(a=1), rows(a=2))
    assert change.before is not None
    assert (change.before.cells, change.row.cells) == (("1",), ("2",))


def test_a_rounded_text_hides_no_change() -> None:
    before, after = Row("f", ("1.2k",), (1200,)), Row("f", ("1.2k",), (1201,))
    assert [change.mark for change in difference([before], [after])] == [Mark.CHANGED]


numbers = st.dictionaries(st.sampled_from("abcdef"), st.integers(0, 2))


@given(numbers, numbers)
def test_the_changes_lead_from_one_picture_to_the_other(before: dict[str, int], after: dict[str, int]) -> None:
    state = dict(before)
    for change in difference(rows(**before), rows(**after)):
        if change.mark is Mark.GONE:
            del state[change.row.key]
        else:
            assert (change.row.key in state) == (change.mark is Mark.CHANGED)
            state[change.row.key] = after[change.row.key]
    assert state == after


def test_nothing_of_the_first_picture_is_a_change() -> None:
    history = History(1.0, 3.0)
    assert history.update(rows(a=1), 0.0) == []
    assert marks(history, 0.0) == [("a", " ")]


def test_marks_stay_for_a_second_whatever_the_interval() -> None:
    history = History(1.0, 3.0)
    history.update(rows(a=1, b=1), 0.0)
    history.update(rows(a=2, b=1, c=1), 0.2)
    for now in (0.2, 0.7, 1.1):
        history.update(rows(a=2, b=1, c=1), now)
        assert marks(history, now) == [("a", "*"), ("b", " "), ("c", "+")]
    assert marks(history, 1.3) == [("a", " "), ("b", " "), ("c", " ")]


def test_only_the_cells_that_changed_are_marked_each_for_its_own_time() -> None:
    history = History(1.0, 3.0)
    history.update([row("a", 1, 1, 1)], 0.0)
    history.update([row("a", 2, 1, 1)], 0.5)
    history.update([row("a", 2, 1, 2)], 1.0)
    assert history.shown(1.2)[0].columns == {0, 2}
    assert history.shown(1.7)[0].columns == {2}


def test_a_row_that_has_gone_stays_for_a_moment_where_it_was() -> None:
    history = History(1.0, 3.0)
    history.update(rows(a=1, b=1, c=1), 0.0)
    history.update(rows(a=1, c=1), 1.0)
    assert marks(history, 1.0) == [("a", " "), ("b", "-"), ("c", " ")]
    history.update(rows(c=1), 2.0)
    assert marks(history, 2.0) == [("a", "-"), ("b", "-"), ("c", " ")]
    history.update(rows(c=1), 4.5)
    assert marks(history, 4.5) == [("a", "-"), ("c", " ")]
    history.update(rows(c=1), 9.0)
    assert marks(history, 9.0) == [("c", " ")]


def test_a_row_that_comes_back_is_new() -> None:
    history = History(1.0, 3.0)
    history.update(rows(a=1), 0.0)
    history.update([], 1.0)
    assert [change.mark for change in history.update(rows(a=1), 2.0)] == [Mark.NEW]
    assert marks(history, 2.0) == [("a", "+")]


@given(st.lists(numbers, min_size=1, max_size=6), st.floats(0.1, 5.0))
def test_every_row_of_the_picture_is_shown_in_its_order(pictures: list[dict[str, int]], step: float) -> None:
    history = History(1.0, 3.0)
    for number, picture in enumerate(pictures):
        history.update(rows(**picture), number * step)
        shown = history.shown(number * step)
        assert [item.row.key for item in shown if item.mark is not Mark.GONE] == list(picture)
        assert len({item.row.key for item in shown}) == len(shown)
