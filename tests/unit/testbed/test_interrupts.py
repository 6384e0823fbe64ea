"""A Ctrl-C that comes where Python cannot raise it is heard a moment later."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
import weakref
from collections.abc import Iterator

import pytest

from testbed import interrupts


class Thing:
    """Something that can be referred to weakly."""


@pytest.fixture(autouse=True)
def signals() -> Iterator[None]:
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGALRM)}
    signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.setitimer(signal.ITIMER_REAL, 0)
    for number, handler in before.items():
        signal.signal(number, handler)


def test_ctrl_c_is_a_keyboard_interrupt() -> None:
    interrupts.hear()
    with pytest.raises(KeyboardInterrupt):
        signal.raise_signal(signal.SIGINT)


def test_one_inside_a_weak_references_callback_is_not_lost() -> None:
    interrupts.hear()

    def cb(_reference: object) -> None:
        signal.raise_signal(signal.SIGINT)
        for _ in range(10):
            pass  # where Python would run the handler at the latest

    thing = Thing()
    reference = weakref.ref(thing, cb)
    with pytest.raises(KeyboardInterrupt):
        del thing
        deadline = time.monotonic() + 5
        while time.monotonic() < deadline:
            time.sleep(0.001)
    assert reference() is None


def test_where_it_is_ignored_it_stays_so() -> None:
    code = (
        "import signal; from testbed import interrupts; signal.signal(signal.SIGINT, signal.SIG_IGN);"
        "interrupts.hear(); signal.raise_signal(signal.SIGINT); print('goes on')"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=20, check=False)
    assert done.stdout == "goes on\n", done.stderr
