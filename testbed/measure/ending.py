"""A measurement that is told to end: in order, once, with what it has."""

from __future__ import annotations

import signal
from types import FrameType

_ALL = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class Ended(BaseException):
    """SIGTERM or SIGHUP: end in order, and keep what was measured."""


def end_in_order() -> None:
    """From now on SIGINT raises KeyboardInterrupt, SIGTERM and SIGHUP raise Ended.

    What the caller ignores stays ignored; whoever is impatient afterwards is not heard: the end must not be torn.
    """

    def end(number: int, frame: FrameType | None) -> None:
        for later in _ALL:
            signal.signal(later, signal.SIG_IGN)
        if number == signal.SIGINT:
            raise KeyboardInterrupt
        raise Ended

    for number in _ALL:
        if signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, end)
