"""Ctrl-C that is not lost: Python cannot raise KeyboardInterrupt everywhere.

An exception inside a weak reference's callback or a finalizer is printed and thrown away. The import system has such a
callback for every module that is loaded, so a Ctrl-C in the middle of imports would now and then vanish: there it is
put off by a moment.
"""

from __future__ import annotations

import signal
from types import FrameType

AGAIN_SECONDS = 0.02
_SWALLOWING = frozenset({"cb", "__del__"})
"""Names of functions from which nothing can be raised: importlib._bootstrap's callback, finalizers."""


def hear() -> None:
    """From now on Ctrl-C raises KeyboardInterrupt in the main thread, unless it is ignored, as behind `&`."""
    if signal.getsignal(signal.SIGINT) is not signal.SIG_IGN:
        signal.signal(signal.SIGINT, _interrupt)


def _interrupt(number: int, frame: FrameType | None) -> None:
    if _would_be_swallowed(frame):
        signal.signal(signal.SIGALRM, _interrupt)
        signal.setitimer(signal.ITIMER_REAL, AGAIN_SECONDS)
        return
    raise KeyboardInterrupt


def _would_be_swallowed(frame: FrameType | None) -> bool:
    while frame is not None:
        if frame.f_code.co_name in _SWALLOWING:
            return True
        frame = frame.f_back
    return False
