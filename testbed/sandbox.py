"""A run's own little machine: new network, mount and PID namespaces that end with the process the user started.

    make, sudo, sh          watched: when one of them dies, the run ends
      outer process         stays outside, waits, hands signals and the exit status through      (this module)
        PID 1               reaps, and ends with the outer process                               (testbed.init)
          the command       has the terminal
          its daemons       in sessions of their own

`run` is the outer process. `enter` puts a program that was started outside inside.
"""

from __future__ import annotations

import os
import select
import signal
import socket
import sys
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

from testbed import ancestors, init, isolation, linux, symptoms
from testbed.errors import TestbedError, report
from testbed.terminal import Terminal

ROOT = isolation.PROJECT
"""The directory that holds the package `testbed`."""

FORCE_SECONDS = init.TERMINATE_SECONDS + init.GRACE_SECONDS + 3.0
"""How long after a request to end PID 1 is killed, if it has not managed by itself."""

_ENDING = (signal.SIGTERM, signal.SIGHUP)
_HANDLED = (signal.SIGINT, *_ENDING, signal.SIGCHLD)
# -I and -S: no site packages, nothing from the current directory. PID 1 is small and starts in a few milliseconds.
_INIT_CODE = "import sys; sys.path.insert(0, {root!r}); from testbed.init import main; sys.exit(main(sys.argv[1:]))"


def inside() -> bool:
    """Tells whether this process runs in a sandbox."""
    first = ancestors.read_process(1)
    return first is not None and init.MARKER in first.arguments


def enter(*, name: str | None = None) -> None:
    """Makes sure that the calling program runs inside a sandbox, so that a plain script can build networks.

    Inside it returns at once. Outside it starts the program again, with the same arguments, inside a new sandbox, and
    does not return. Call it before anything else is done or started.
    """
    if inside():
        return
    sys.stdout.flush()
    sys.stderr.flush()
    label = name or Path(sys.argv[0]).stem or "script"
    # A fresh interpreter has one thread, which a user namespace asks for, whatever this one has imported.
    program = [sys.executable, *sys.orig_argv[1:]]
    os.execv(sys.executable, [sys.executable, "-m", "testbed", "exec", "--name", label, "--", *program])


def run(argv: Sequence[str], *, name: str, private_tmp: bool = False) -> int:
    """Runs a command in a new sandbox and returns its exit status (128 + number for a signal).

    Changes the calling process for good when it is not root (it enters a user namespace), and it must have a single
    thread: this is for programs that do nothing else. Raises TestbedError when the sandbox cannot be made.
    """
    isolation.check_kernel()
    isolation.check_tun()
    watched = ancestors.watch()
    ignored = [number for number in (signal.SIGHUP, signal.SIGINT, signal.SIGQUIT) if _is_ignored(number)]
    # From here on no Ctrl-C is lost: PID 1 inherits this mask and takes what came meanwhile once it can.
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, {*_HANDLED, signal.SIGQUIT})
    if os.geteuid() != 0:
        isolation.enter_user_namespace()
    isolation.unshare_processes()
    terminal = Terminal.find()
    ours, theirs = socket.socketpair()
    foreground = terminal is not None and terminal.ours
    sys.stdout.flush()
    sys.stderr.flush()
    try:
        pid = os.fork()
    except OSError as error:
        raise TestbedError(f"cannot start the sandbox: {error.strerror}", symptoms.hint(str(error))) from None
    if not pid:
        ours.close()
        _become_init(list(argv), theirs, name=name, foreground=foreground, ignored=ignored, private_tmp=private_tmp)
    theirs.close()
    outer = _Outer(pid, ours, terminal, watched)
    try:
        if terminal is not None and foreground:
            outer.hand_over(terminal)
        return outer.wait(mask)
    finally:
        outer.close()
        if terminal is not None:
            terminal.leave()


def _is_ignored(number: signal.Signals) -> bool:
    return signal.getsignal(number) == signal.SIG_IGN


def _become_init(
    argv: list[str],
    control: socket.socket,
    *,
    name: str,
    foreground: bool,
    ignored: Sequence[signal.Signals],
    private_tmp: bool,
) -> NoReturn:
    """The child's part: becomes PID 1 of the complete sandbox."""
    try:
        linux.die_with_parent()
        # The outer process may have died before the kernel knew what we asked for: then the socket is closed.
        if _hung_up(control):
            os._exit(128 + signal.SIGKILL)
        if os.getpgrp() != os.getpid():
            os.setpgid(0, 0)
        directory = os.getcwd()
        isolation.isolate(private_tmp=private_tmp)
        _restore_directory(directory)
        os.set_inheritable(control.fileno(), True)
        numbers = ",".join(str(int(number)) for number in ignored) or "-"
        code = _INIT_CODE.format(root=str(ROOT))
        marked = [init.MARKER, name, str(control.fileno()), str(int(foreground)), numbers]
        os.execve(sys.executable, [sys.executable, "-I", "-S", "-B", "-c", code, *marked, *argv], _environment(name))
    except TestbedError as error:
        report(error)
    except OSError as error:
        report(TestbedError(f"cannot start the sandbox: {error}", symptoms.hint(str(error))))
    finally:
        os._exit(1)


def _hung_up(control: socket.socket) -> bool:
    try:
        # What stands in it is for later: a Ctrl-C may have come already.
        return not control.recv(1, socket.MSG_PEEK | socket.MSG_DONTWAIT)
    except BlockingIOError:
        return False


def _restore_directory(directory: str) -> None:
    # The directory is the same, but where something private was mounted above it, only its name leads back.
    try:
        os.chdir(directory)
    except OSError:
        os.chdir("/")


def _environment(name: str) -> dict[str, str]:
    """The caller's, with this Python's programs and root's on PATH, and Open vSwitch's tools turned to the run's."""
    environment = {key: value for key, value in os.environ.items() if not key.startswith("OVS_")}
    path = environment.get("PATH", os.defpath).split(os.pathsep)
    path = [entry for entry in (os.path.dirname(sys.executable),) if entry not in path] + path
    path += [entry for entry in ("/usr/local/sbin", "/usr/sbin", "/sbin") if entry not in path]
    environment["PATH"] = os.pathsep.join(path)
    environment["OVS_RUNDIR"] = "/run/openvswitch"
    environment["TESTBED_SANDBOX"] = name
    return environment


@dataclass(slots=True)
class _Outer:
    """The process outside: waits for PID 1, and tells it what happens out here."""

    pid: int
    control: socket.socket
    terminal: Terminal | None
    watched: list[tuple[int, str]]
    _deadline: float | None = None
    _wakeup: int = -1

    def hand_over(self, terminal: Terminal) -> None:
        """Gives the terminal to the group of PID 1, which hands it on to the command."""
        try:
            os.setpgid(self.pid, self.pid)
        except (PermissionError, ProcessLookupError):
            pass  # it has done so itself and gone on
        terminal.give(self.pid)

    def wait(self, mask: Iterable[int]) -> int:
        """Waits for the end of PID 1 and returns the exit status. `mask` is the signal mask to go back to."""
        self._listen(mask)
        poll = select.poll()
        for fd in (self._wakeup, self.control.fileno(), *(fd for fd, _ in self.watched)):
            poll.register(fd, select.POLLIN)
        while True:
            timeout = None if self._deadline is None else max(0.0, self._deadline - time.monotonic()) * 1000
            ready = {fd for fd, _ in poll.poll(timeout)}
            for signum in self._signals():
                self._on_signal(signum)
            done, status = os.waitpid(self.pid, os.WNOHANG)
            if done:
                return self._result(status)
            for fd, name in self.watched:
                if fd in ready:
                    poll.unregister(fd)
                    self._end(f"{name} above this run has ended, so the run ends too")
            if self.control.fileno() in ready and not self._on_word():
                poll.unregister(self.control)
            if self._deadline is not None and time.monotonic() >= self._deadline:
                os.kill(self.pid, signal.SIGKILL)
                self._deadline = None

    def close(self) -> None:
        """Ends PID 1 if it still lives: by now only because of an error here."""
        self.control.close()
        try:
            os.kill(self.pid, signal.SIGKILL)
            os.waitpid(self.pid, 0)
        except (ProcessLookupError, ChildProcessError):
            pass  # it has ended and was waited for, which is the rule

    def _listen(self, mask: Iterable[int]) -> None:
        self._wakeup, write_end = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        signal.set_wakeup_fd(write_end, warn_on_full_buffer=False)
        for number in _HANDLED:
            if not _is_ignored(number):
                signal.signal(number, lambda signum, frame: None)
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)

    def _signals(self) -> bytes:
        try:
            return os.read(self._wakeup, 4096)
        except BlockingIOError:
            return b""

    def _on_signal(self, number: int) -> None:
        if number == signal.SIGINT:
            self._say(init.INTERRUPT)
        elif number in _ENDING:
            self._end(None)

    def _end(self, why: str | None) -> None:
        if self._deadline is None:
            if why is not None:
                report(TestbedError(why))
            self._deadline = time.monotonic() + FORCE_SECONDS
            self._say(init.TERMINATE)

    def _say(self, word: bytes) -> None:
        try:
            self.control.send(word, socket.MSG_NOSIGNAL)
        except OSError:
            pass  # PID 1 has ended, which the next waitpid() tells

    def _on_word(self) -> bool:
        """Hears PID 1 out; False when it has closed its end."""
        try:
            word = self.control.recv(64)
        except OSError:
            return False
        if init.STOPPED in word:
            self._stopped()
        return bool(word)

    def _stopped(self) -> None:
        """The command was stopped: stop too, so that the shell above sees it, and go on when the shell says so."""
        terminal = self.terminal
        if terminal is None:
            return
        if not terminal.ours:
            terminal.take_back()
            os.kill(0, signal.SIGTSTP)
        if terminal.ours:
            terminal.given()
            self._say(init.FOREGROUND)
        else:
            self._say(init.CONTINUE)

    def _result(self, status: int) -> int:
        if os.WIFSIGNALED(status):
            number = signal.Signals(os.WTERMSIG(status))
            report(TestbedError(f"the sandbox's first process was ended by {number.name}, and all in it with it"))
        return init.exit_status(status)
