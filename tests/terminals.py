"""What tests do to a terminal that they made (pty)."""

from __future__ import annotations

import os
import termios
from collections.abc import Callable

_LOCAL_FLAGS = 3


def press_ctrl_c(master: int) -> None:
    """Ctrl-C at the terminal behind this descriptor.

    A terminal also throws away what waits in both its directions (termios(3), NOFLSH), a moment after the signal: an
    answer that was quicker than that would never be read. People press the key again; a test would wait for ever.
    """
    settings = termios.tcgetattr(master)
    settings[_LOCAL_FLAGS] |= termios.NOFLSH
    termios.tcsetattr(master, termios.TCSANOW, settings)
    os.write(master, b"\x03")


def press_until_shown(press: Callable[[], object], expect: Callable[[str, float], object], text: str) -> None:
    """Press until the program shows `text`, as people do; `expect(text, seconds)` raises AssertionError.

    An interrupt that comes between Python's showing of a prompt and its waiting for input is noticed only with the
    next key.
    """
    for _ in range(4):
        press()
        try:
            expect(text, 3.0)
        except AssertionError:
            continue
        return
    press()
    expect(text, 10.0)
