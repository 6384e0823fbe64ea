"""An end that is asked for comes where nothing is torn by it, and once."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator

import pytest

from testbed.measure import ending
from testbed.measure.ending import Ended

ALL = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


@pytest.fixture(autouse=True)
def _listening() -> Iterator[None]:
    before = {number: signal.getsignal(number) for number in ALL}
    for number in ALL:
        signal.signal(number, signal.default_int_handler)
    ending.end_in_order()
    yield
    for number, handler in before.items():
        signal.signal(number, handler)
    ending._Heard.held, ending._Heard.waiting = False, None


def ask(number: int) -> None:
    os.kill(os.getpid(), number)


@pytest.mark.parametrize(
    ("number", "kind"), [(signal.SIGINT, KeyboardInterrupt), (signal.SIGTERM, Ended), (signal.SIGHUP, Ended)]
)
def test_it_comes_at_once_and_the_impatient_are_not_heard(number: int, kind: type[BaseException]) -> None:
    with pytest.raises(kind):
        ask(number)
    for later in ALL:
        ask(later)


def test_what_is_undisturbed_is_done_first() -> None:
    done = []
    with pytest.raises(KeyboardInterrupt), ending.undisturbed():
        with ending.undisturbed():
            ask(signal.SIGINT)
            done.append("inner")
        done.append("outer")
    assert done == ["inner", "outer"]


def test_within_it_is_heard_where_it_is_asked_for() -> None:
    with ending.undisturbed():
        ending.heed()  # nothing has come
        ask(signal.SIGTERM)
        with pytest.raises(Ended):
            ending.heed()
        ending.heed()  # once


def test_what_may_be_ended_at_any_moment_is() -> None:
    with ending.undisturbed():
        with pytest.raises(KeyboardInterrupt), ending.disturbable():
            ask(signal.SIGINT)
            raise AssertionError("it was not heard")
        assert ending._Heard.held


def test_what_came_before_is_heard_where_it_is_disturbable() -> None:
    with ending.undisturbed():
        ask(signal.SIGINT)
        with pytest.raises(KeyboardInterrupt), ending.disturbable():
            raise AssertionError("it was not heard")


def test_an_ignored_signal_stays_ignored() -> None:
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    ending.end_in_order()
    ask(signal.SIGHUP)


def test_a_forked_child_ends_as_children_do() -> None:
    pid = os.fork()
    if not pid:
        ask(signal.SIGTERM)
        os._exit(5)
    _, status = os.waitpid(pid, 0)
    assert os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGTERM
