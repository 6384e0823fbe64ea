"""The terminal of a command that fills the screen: single keys, size, signals, and everything put back at the end."""

from __future__ import annotations

import os
import re
import select
import signal
import socket
import sys
import termios
from collections.abc import Iterator
from types import FrameType
from typing import Any

_FALLBACK = (80, 24)
_ENDING = (signal.SIGTERM, signal.SIGHUP)
# A key is one character or one escape sequence of the usual terminals.
_KEY = re.compile(r"\x1b[\[O][0-9;]*[A-Za-z~]|\x1b|[^\x1b]", re.DOTALL)
_NAMES = {
    "A": "up",
    "B": "down",
    "H": "home",
    "F": "end",
    "5~": "page up",
    "6~": "page down",
    "1~": "home",
    "4~": "end",
}


def keys_in(text: str) -> list[str]:
    """The keys in what a terminal sent: characters, or names like "up"; Ctrl-C is not among them, being a signal."""
    found = []
    for match in _KEY.finditer(text):
        key = match.group()
        found.append(_NAMES.get(key[2:], "?") if len(key) > 1 else key)
    return found


class Terminal:
    """Standard input without line editing and echo, while in the `with` block. Ctrl-C stays KeyboardInterrupt."""

    def __init__(self) -> None:
        self._settings: list[Any] | None = None
        self._wake: tuple[socket.socket, socket.socket] | None = None
        self._handlers: dict[int, Any] = {}
        self._old_wakeup = -1

    def __enter__(self) -> Terminal:
        self._wake = socket.socketpair()
        for end in self._wake:
            end.setblocking(False)
        self._old_wakeup = signal.set_wakeup_fd(self._wake[1].fileno(), warn_on_full_buffer=False)
        self._handlers = {number: signal.signal(number, _end) for number in _ENDING}
        self._handlers[signal.SIGWINCH] = signal.signal(signal.SIGWINCH, _nothing)
        if sys.stdin.isatty():
            self._settings = termios.tcgetattr(0)
            changed = termios.tcgetattr(0)
            changed[3] &= ~(termios.ICANON | termios.ECHO)
            # Suspended by Ctrl-Z, the screen and the settings would be left to the shell as they are.
            changed[6][termios.VSUSP] = b"\0"
            termios.tcsetattr(0, termios.TCSAFLUSH, changed)
        return self

    def __exit__(self, *_: object) -> None:
        if self._settings is not None:
            termios.tcsetattr(0, termios.TCSAFLUSH, self._settings)
        for number, handler in self._handlers.items():
            signal.signal(number, handler)
        signal.set_wakeup_fd(self._old_wakeup)
        for end in self._wake or ():
            end.close()

    def wait(self, seconds: float) -> list[str]:
        """The keys that come within `seconds`, as soon as there is one; none also when the window changed its size."""
        assert self._wake is not None
        readers: list[Any] = [self._wake[0]]
        if self._settings is not None:
            readers.append(0)
        ready, _, _ = select.select(readers, [], [], max(0.0, seconds))
        if self._wake[0] in ready:
            self._wake[0].recv(4096)
        if 0 not in ready:
            return []
        data = os.read(0, 4096)
        if not data:
            raise EOFError  # the terminal has gone
        return keys_in(data.decode(errors="replace"))


def _end(number: int, _frame: FrameType | None) -> None:
    raise SystemExit(128 + number)


def _nothing(_number: int, _frame: FrameType | None) -> None:
    """What counts is that `wait` wakes up."""


def screen_size() -> tuple[int, int]:
    """Columns and lines of the terminal.

    Mininet gives its hosts pseudo-terminals without a size; there it is that of the terminal of the process at whose
    prompt the command was typed, which is one of our ancestors.
    """
    for descriptor in (1, 0, 2):
        if (size := _size_of(descriptor)) is not None:
            return size
    for pid in _ancestors():
        try:
            descriptor = os.open(f"/proc/{pid}/fd/0", os.O_RDONLY | os.O_NOCTTY | os.O_NONBLOCK)
        except OSError:
            continue  # another user's, or closed
        try:
            if (size := _size_of(descriptor)) is not None:
                return size
        finally:
            os.close(descriptor)
    return _FALLBACK


def _size_of(descriptor: int) -> tuple[int, int] | None:
    try:
        size = os.get_terminal_size(descriptor)
    except OSError:
        return None
    return (size.columns, size.lines) if size.columns > 0 and size.lines > 0 else None


def _ancestors() -> Iterator[int]:
    pid = os.getppid()
    while pid > 1:
        yield pid
        try:
            with open(f"/proc/{pid}/stat") as file:
                pid = int(file.read().rpartition(")")[2].split()[1])
        except (OSError, IndexError, ValueError):
            return
