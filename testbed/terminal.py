"""The terminal of a run: who is in its foreground, and how it was before.

Ctrl-C reaches the terminal's foreground process group and nobody else. A run takes the foreground with a group of its
own, so that the prompt's Ctrl-C is not seen by the make or sudo above it, and gives it back in the end.
"""

from __future__ import annotations

import os
import signal
import termios
from collections.abc import Callable


class Terminal:
    """The controlling terminal on standard input. What was given away is taken back at the end."""

    def __init__(self) -> None:
        self._settings = termios.tcgetattr(0)
        self._own = os.getpgrp()
        self._given = False

    @staticmethod
    def find() -> Terminal | None:
        """Returns the terminal, or None if standard input is not this session's."""
        try:
            os.tcgetpgrp(0)
            return Terminal()
        except (OSError, termios.error):
            return None

    @property
    def ours(self) -> bool:
        """True when the group that this process was started in has the foreground."""
        try:
            return os.tcgetpgrp(0) == self._own
        except OSError:
            return False  # hung up

    def give(self, group: int) -> None:
        """Puts a process group of this session in the foreground."""
        self._given = True
        self._set_foreground(group)

    def given(self) -> None:
        """Notes that the foreground was handed on by somebody we asked to."""
        self._given = True

    def take_back(self) -> None:
        """Puts the group that this process was started in back in the foreground, with the settings that it had.

        Does nothing unless the foreground was given away: in the background it is the shell's, not ours.
        """
        if not self._given:
            return
        self._given = False
        self._set_foreground(self._own)
        # Drained, not flushed: what was typed ahead belongs to the shell.
        self._quietly(lambda: termios.tcsetattr(0, termios.TCSADRAIN, self._settings))

    def leave(self) -> None:
        """`take_back` at the end of a run, when the shell above may have written it off already.

        A shell that has seen its job's leader die (kill -9 of make) prompts again. In the background its next read
        would fail, which ends an interactive shell: the foreground goes to it then, not to the rest of the job.
        """
        if self._given and not _lives(self._own):
            self._own = os.getpgid(os.getsid(0))
        self.take_back()

    def _set_foreground(self, group: int) -> None:
        self._quietly(lambda: os.tcsetpgrp(0, group))

    @staticmethod
    def _quietly(change: Callable[[], object]) -> None:
        # From the background either call would stop us (SIGTTOU) unless the signal is blocked.
        before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTTOU})
        try:
            change()
        except (OSError, termios.error):
            pass  # hung up, or the group has ended: there is nothing to give, or nobody to give it to
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _lives(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True  # sudo's, for whoever is not root any more
    return True
