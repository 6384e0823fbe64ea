"""A measurement that is told to end: in order, once, with what it has."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

_ALL = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class Ended(BaseException):
    """SIGTERM or SIGHUP: end in order, and keep what was measured."""


class _Heard:
    """Whether an end may come right now, and the signal that waits until it may."""

    held = False
    waiting: int | None = None


def end_in_order() -> None:
    """From now on SIGINT raises KeyboardInterrupt, SIGTERM and SIGHUP raise Ended, within `undisturbed` later.

    What the caller ignores stays ignored; whoever is impatient afterwards is not heard: the end must not be torn.
    """
    owner = os.getpid()

    def end(number: int, frame: FrameType | None) -> None:
        if os.getpid() != owner:  # a child that was forked and has not become another program
            signal.signal(number, signal.SIG_DFL)
            os.kill(os.getpid(), number)
            return
        for later in _ALL:
            signal.signal(later, signal.SIG_IGN)
        _Heard.waiting = number
        if not _Heard.held:
            heed()

    for number in _ALL:
        if signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, end)


def heed() -> None:
    """Raise what has come meanwhile."""
    number, _Heard.waiting = _Heard.waiting, None
    if number is not None:
        raise KeyboardInterrupt if number == signal.SIGINT else Ended


@contextmanager
def undisturbed() -> Iterator[None]:
    """What is built or taken down here is so as a whole: an end that comes meanwhile is heard afterwards.

    Within, it is heard at a `heed`, and where it is `disturbable`.
    """
    before, _Heard.held = _Heard.held, True
    try:
        yield
    finally:
        _Heard.held = before
        if not before:
            heed()


@contextmanager
def disturbable() -> Iterator[None]:
    """Within `undisturbed`: what may be ended at any moment."""
    before, _Heard.held = _Heard.held, False
    try:
        heed()
        yield
    finally:
        _Heard.held = before
