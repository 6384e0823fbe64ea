"""The one place that starts programs: daemons with log and observed readiness, commands with a checked status."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from testbed import symptoms
from testbed.errors import TestbedError
from testbed.ownership import make_directory, owned_by_caller

POLL_SECONDS = 0.01
READY_SECONDS = 10.0
STOP_SECONDS = 3.0
COMMAND_SECONDS = 10.0
_TAIL_LINES = 5
_REASON = re.compile(r"(?:controller|[\w. -]+: error): (.+)")


class Daemon:
    """A program that runs in the background, in a session of its own, with its output in a log file.

    The session keeps it out of the reach of the terminal: Ctrl-C at the prompt is not for it.
    """

    def __init__(self, name: str, process: subprocess.Popen[bytes], log: Path, log_start: int = 0) -> None:
        """`log_start`: bytes in the log that are older than this process."""
        self.name = name
        self.log = log
        self._process = process
        self._log_start = log_start
        self._asked_to_end = False

    @property
    def pid(self) -> int:
        """Its process id, also after its end."""
        return self._process.pid

    @property
    def alive(self) -> bool:
        """False once it has ended."""
        return self._process.poll() is None

    def printed(self) -> str:
        """What it has printed so far; its log may begin with the words of a predecessor."""
        return self.log.read_bytes()[self._log_start :].decode(errors="replace")

    def wait_ready(self, ready: Callable[[], bool], *, timeout: float = READY_SECONDS) -> None:
        """Waits until `ready` says so; it is asked every few milliseconds.

        Raises TestbedError when the daemon ends before or the time (seconds) has passed.
        """
        deadline = time.monotonic() + timeout
        while not ready():
            if not self.alive:
                raise self._error(f"{self.name} ended during its start with {_status(self._process.returncode)}")
            if time.monotonic() >= deadline:
                raise self._error(f"{self.name} was not ready within {timeout:g} s")
            time.sleep(POLL_SECONDS)

    def ask_to_end(self) -> None:
        """Sends SIGTERM, once, and does not wait: of several that are to end, each ends while the others do."""
        if self.alive and not self._asked_to_end:
            self._asked_to_end = True
            self._process.terminate()
            # One that was stopped (Ctrl-Z, a debugger) would not hear it before the limit.
            self._process.send_signal(signal.SIGCONT)

    def stop(self, *, timeout: float = STOP_SECONDS) -> int:
        """Ends it by SIGTERM, after `timeout` seconds by SIGKILL, and returns its status as subprocess gives it.

        May be called again, and after it has ended by itself.
        """
        self.ask_to_end()
        try:
            return self._process.wait(timeout)
        except subprocess.TimeoutExpired:
            self._process.kill()
            return self._process.wait()

    def kill(self) -> None:
        """Ends it by SIGKILL, as in a crash."""
        self._process.kill()
        self._process.wait()

    def _error(self, message: str) -> TestbedError:
        lines = self.log.read_text(errors="replace").splitlines()[-_TAIL_LINES:]
        text = f"{message}: {reason(lines) or ' | '.join(lines) or 'it printed nothing'}"
        return TestbedError(text, _hints(text, f"its log is {self.log}"))


def start(
    name: str,
    argv: Sequence[str],
    *,
    log: str | os.PathLike[str],
    ready: Callable[[], bool] | None = None,
    timeout: float = READY_SECONDS,
    env: Mapping[str, str] | None = None,
    cwd: str | os.PathLike[str] | None = None,
    pass_fds: Sequence[int] = (),
) -> Daemon:
    """Starts a daemon and, with `ready`, waits until it is; one that fails at that is stopped.

    Its output is appended to `log`, whose directory is made. `env` is the whole environment (default: this process's).
    Raises TestbedError when the program is missing, ends early, or is not ready in time (seconds).
    """
    path = Path(log)
    try:
        make_directory(path.parent)
        log_file = path.open("ab")
    except OSError as error:
        raise TestbedError(
            f"{name}: cannot write its log {path}: {error.strerror}", symptoms.hint(str(error))
        ) from None
    with log_file as output:
        owned_by_caller(path)
        log_start = output.tell()
        try:
            process = subprocess.Popen(
                list(argv),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                env=None if env is None else dict(env),
                cwd=cwd,
                pass_fds=pass_fds,
            )
        except OSError as error:
            raise _cannot_start(name, argv, error) from None
    daemon = Daemon(name, process, path, log_start)
    if ready is not None:
        try:
            daemon.wait_ready(ready, timeout=timeout)
        except BaseException:  # also when Ctrl-C ends the wait: nothing that failed to start is left running
            daemon.stop()
            raise
    return daemon


def run(
    argv: Sequence[str],
    *,
    timeout: float = COMMAND_SECONDS,
    env: Mapping[str, str] | None = None,
    cwd: str | os.PathLike[str] | None = None,
) -> str:
    """Runs a command to its end and returns what it printed on standard output.

    Raises TestbedError, with the command and what it said, when it is missing, fails, or is not done in time (seconds).
    """
    first, *more = " ".join(argv).splitlines() or [""]
    command = f"{first} ..." if more else first  # of a script; which line it was, the script itself says
    try:
        done = subprocess.run(
            list(argv),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=timeout,
            env=None if env is None else dict(env),
            cwd=cwd,
            check=False,
        )
    except OSError as error:
        raise _cannot_start(argv[0], argv, error) from None
    except subprocess.TimeoutExpired:
        text = f"`{command}` was not done within {timeout:g} s"
        raise TestbedError(text, symptoms.hint(text)) from None
    if done.returncode:
        said = " | ".join((done.stderr or done.stdout).strip().splitlines()[-_TAIL_LINES:]) or "it said nothing"
        text = f"`{command}` failed with {_status(done.returncode)}: {said}"
        raise TestbedError(text, symptoms.hint(said))
    return done.stdout


def reason(lines: Sequence[str]) -> str | None:
    """The last line of a program that says in it alone why it ended, as the controller does (below a traceback of an
    app) and argparse (below the usage); None for other output.
    """
    found = _REASON.fullmatch(lines[-1]) if lines else None
    return found[1] if found else None


def _status(code: int) -> str:
    return f"signal {signal.Signals(-code).name}" if code < 0 else f"status {code}"


def _cannot_start(name: str, argv: Sequence[str], error: OSError) -> TestbedError:
    # Looking for a bare name, a directory on PATH that may not be read counts like one that does not have it.
    unreadable = isinstance(error, PermissionError) and "/" not in argv[0]
    if unreadable or (isinstance(error, FileNotFoundError) and error.filename in (None, argv[0])):
        return TestbedError(f"{name}: the program {argv[0]} is missing", "install what is missing: make setup")
    text = f"{name}: cannot start {argv[0]}: {error.strerror}"
    return TestbedError(text, symptoms.hint(text))


def _hints(said: str, place: str) -> str:
    known = symptoms.hint(said)
    return place if known is None else f"{known}\n  {place}"
