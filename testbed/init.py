"""PID 1 of a sandbox: starts the one command, reaps what is orphaned, ends with the command or the outer process.

The kernel kills everything in a PID namespace when its first process ends, so all that is left to do in the end is to
ask politely first. This program is started by `testbed.sandbox` after the namespaces are complete; MARKER in its
command line is how `testbed list` and `testbed attach` know a sandbox.
"""

from __future__ import annotations

import os
import select
import signal
import sys
import time
from dataclasses import dataclass

from testbed.errors import TestbedError, report

MARKER = "testbed-sandbox"

# What the outer process says, one byte each.
INTERRUPT = b"I"  # a Ctrl-C that the terminal could not deliver itself
TERMINATE = b"T"  # end in order, within the limit
FOREGROUND = b"F"  # you have the terminal: go on
CONTINUE = b"C"  # go on in the background
# What PID 1 says.
STOPPED = b"S"  # the command was stopped, by Ctrl-Z or for using the terminal from the background

TERMINATE_SECONDS = 10.0
"""How long the command may take to end after SIGTERM before it is killed."""
GRACE_SECONDS = 1.0
"""How long what the command left running may take to end."""

NO_START_STATUS = 126
INTERRUPTED_STATUS = 128 + signal.SIGINT
_HANDLED = (signal.SIGINT, signal.SIGQUIT, signal.SIGTERM, signal.SIGHUP, signal.SIGCHLD)


@dataclass(frozen=True)
class Options:
    """What PID 1 is told on its command line."""

    control: int  # descriptor of the socket to the outer process
    foreground: bool  # the terminal on standard input is ours to give to the command
    ignored: frozenset[int]  # signals that the caller has chosen to ignore (nohup), which the command inherits


class Init:
    """The loop of PID 1. `run` returns the exit status of the sandbox."""

    def __init__(self, options: Options) -> None:
        self._options = options
        self._command = 0
        self._status: int | None = None
        self._deadline: float | None = None
        self._early: list[signal.Signals] = []
        self._wakeup, write_end = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        signal.set_wakeup_fd(write_end, warn_on_full_buffer=False)
        for number in _HANDLED:
            signal.signal(number, self._on_signal)
        # It moves the terminal between groups while it is in the background itself.
        signal.pthread_sigmask(signal.SIG_SETMASK, {signal.SIGTTOU})

    def run(self, argv: list[str]) -> int:
        """Runs the command until it ends or must end, then ends all the rest of the namespace."""
        self._take_signals()
        if self._early:
            return 128 + self._early[0]
        self._start(argv)
        poll = select.poll()
        poll.register(self._options.control, select.POLLIN)
        poll.register(self._wakeup, select.POLLIN)
        while self._status is None:
            timeout = None
            if self._deadline is not None:
                timeout = max(0.0, self._deadline - time.monotonic()) * 1000
            ready = {fd for fd, _ in poll.poll(timeout)}
            if self._options.control in ready and not self._obey():
                return 128 + signal.SIGKILL  # the outer process is gone: end at once, and everything with us
            self._take_signals()
            self._reap()
            if self._deadline is not None and time.monotonic() >= self._deadline:
                self._status = 128 + signal.SIGKILL
        self._end_the_rest()
        return self._status

    def _on_signal(self, number: int, frame: object) -> None:
        if number != signal.SIGCHLD:
            self._early.append(signal.Signals(number))

    def _take_signals(self) -> None:
        try:
            os.read(self._wakeup, 4096)
        except BlockingIOError:
            pass  # nothing came
        if not self._command:
            return
        # The command was not there yet, or not yet in the foreground, when these came: they are meant for it.
        while self._early:
            self._signal_command(self._early.pop(0))

    def _start(self, argv: list[str]) -> None:
        everything = signal.valid_signals()
        before = signal.pthread_sigmask(signal.SIG_BLOCK, everything)
        try:
            self._command = os.fork()
        except OSError as error:
            # PID 1 loads little: what the limit may be, the outer half of the run explains where it meets it.
            hint = "the limit of processes is reached: end other programs, or raise it (ulimit -u 4096)"
            report(TestbedError(f"cannot start a process in the sandbox: {error.strerror}", hint))
            self._status = NO_START_STATUS
            return
        if not self._command:
            self._become(argv)
        self._set_group()
        signal.pthread_sigmask(signal.SIG_SETMASK, before)

    def _set_group(self) -> None:
        # Both the child and we do it: whoever comes second must not find the other's next step done before.
        group = self._command or os.getpid()
        try:
            os.setpgid(group, group)
        except (PermissionError, ProcessLookupError):
            return  # it has done both and become the command, or has ended already
        if self._options.foreground:
            try:
                os.tcsetpgrp(0, group)
            except OSError:
                return  # the terminal was closed: the hang-up ends the run

    def _become(self, argv: list[str]) -> None:
        """The child's part: never returns."""
        try:
            self._set_group()
            signal.set_wakeup_fd(-1)
            for number in signal.valid_signals() - {signal.SIGKILL, signal.SIGSTOP}:
                if number < signal.SIGRTMIN:
                    signal.signal(number, signal.SIG_IGN if number in self._options.ignored else signal.SIG_DFL)
            signal.pthread_sigmask(signal.SIG_SETMASK, ())
            os.execvp(argv[0], argv)
        except OSError as error:
            os._exit(report_no_start(argv[0], error))
        finally:
            os._exit(125)

    def _obey(self) -> bool:
        """Carries out what the outer process says; False when it has gone."""
        try:
            orders = os.read(self._options.control, 64)
        except OSError:  # reset: it died with something of ours unread
            return False
        for order in orders:
            if order == INTERRUPT[0]:
                self._signal_command(signal.SIGINT)
            elif order == TERMINATE[0]:
                self._signal_command(signal.SIGTERM, group=False)
                self._signal_command(signal.SIGCONT)
                self._deadline = self._deadline or time.monotonic() + TERMINATE_SECONDS
            elif order == FOREGROUND[0]:
                try:
                    os.tcsetpgrp(0, self._command)
                except OSError:
                    pass  # the command or the terminal ended meanwhile, and either is noticed elsewhere
                self._signal_command(signal.SIGCONT)
            elif order == CONTINUE[0]:
                self._signal_command(signal.SIGCONT)
        return bool(orders)

    def _signal_command(self, number: signal.Signals, *, group: bool = True) -> None:
        try:
            if group:
                os.killpg(self._command, number)
            else:
                os.kill(self._command, number)
        except ProcessLookupError:
            pass  # it has just ended

    def _reap(self) -> bool:
        """Collects the children that changed; False when there are none left at all."""
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG | os.WUNTRACED)
            except ChildProcessError:
                return False
            if not pid:
                return True
            if pid != self._command:
                continue
            if os.WIFSTOPPED(status):
                self._tell(STOPPED)
            elif self._status is None:
                self._status = exit_status(status)

    def _tell(self, word: bytes) -> None:
        try:
            os.write(self._options.control, word)
        except OSError:
            pass  # the outer process is gone, which the next poll tells

    def _end_the_rest(self) -> None:
        """Asks what is left to end; the kernel kills what does not, as soon as we return."""
        deadline = time.monotonic() + GRACE_SECONDS
        # A forgotten interactive shell ignores SIGTERM but not SIGHUP.
        for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGCONT):
            try:
                os.kill(-1, number)
            except ProcessLookupError:
                return
        while self._reap() and time.monotonic() < deadline:
            select.select([self._wakeup], [], [], 0.05)
            self._take_signals()


def report_no_start(program: str, error: OSError) -> int:
    """Says why a program could not be started, and returns the status that a shell would give."""
    # Looking for a bare name, a directory on PATH that may not be read counts like one that does not have it.
    if isinstance(error, FileNotFoundError) or (isinstance(error, PermissionError) and "/" not in program):
        report(TestbedError(f"{program}: no such program"))
        return 127
    report(TestbedError(f"{program}: {error.strerror}"))
    return 126


def exit_status(status: int) -> int:
    """Turns a status of waitpid() into a shell's exit status: 128 + number for a signal."""
    return 128 + os.WTERMSIG(status) if os.WIFSIGNALED(status) else os.WEXITSTATUS(status)


def main(arguments: list[str]) -> int:
    """Arguments: MARKER, the sandbox's name, descriptor, foreground (0 or 1), ignored signals (1,2 or -), command..."""
    _, _, control, foreground, ignored, *argv = arguments
    os.set_inheritable(int(control), False)
    numbers = frozenset(int(number) for number in ignored.split(",") if number != "-")
    return Init(Options(int(control), foreground == "1", numbers)).run(argv)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
