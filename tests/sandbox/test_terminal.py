"""Ctrl-C, Ctrl-Z and the foreground, at a real terminal."""

from __future__ import annotations

import os
import pty
import re
import select
import shlex
import signal
import sys
import termios
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.sandbox.support import ROOT, TESTBED, Run, eventually, processes_with
from tests.terminals import press_ctrl_c

pytestmark = pytest.mark.usefixtures("host_unchanged")

PROMPT = """
import sys
def talk():
    line = sys.stdin.readline()
    if not line:
        sys.exit(7)
    print("answer to " + line.strip().upper(), flush=True)
print("prompt ready", flush=True)
while True:
    try:
        while True:
            talk()
    except KeyboardInterrupt:
        print("interrupted here", flush=True)
"""
"""Like Mininet's prompt: Ctrl-C interrupts what was typed, end of input ends the run."""


WORK = """
import sys, time
try:
    print("working", flush=True)
    time.sleep(60)
except KeyboardInterrupt:
    print("tidy", flush=True)
    sys.exit(4)
"""


class Terminal:
    """A program at a new terminal, as its session leader."""

    def __init__(self, *argv: str) -> None:
        self.token = f"token-{uuid.uuid4()}"
        self.output = ""
        self.pid, self.fd = pty.fork()
        if not self.pid:
            os.chdir(ROOT)
            os.environ["TOKEN"] = self.token
            os.environ["PS1"] = "shell> "
            os.execvp(argv[0], argv)

    def read(self, seconds: float) -> bool:
        """Reads what comes within the time; False at the end."""
        if not select.select([self.fd], [], [], seconds)[0]:
            return True
        try:
            data = os.read(self.fd, 65536)
        except OSError:  # EIO: nobody has the terminal open any more
            return False
        self.output += data.decode(errors="replace")
        return bool(data)

    def expect(self, text: str, within: float = 10.0) -> None:
        """Waits for the text (a regular expression) and forgets all up to it."""
        deadline = time.monotonic() + within
        while not (match := re.search(text, self.output)):
            assert time.monotonic() < deadline, f"no {text!r} in {self.output!r}"
            assert self.read(0.05) or re.search(text, self.output), f"ended without {text!r}: {self.output!r}"
        self.output = self.output[match.end() :]

    def type(self, text: str) -> None:
        os.write(self.fd, text.encode())

    def interrupt(self) -> None:
        """Presses Ctrl-C."""
        press_ctrl_c(self.fd)

    def wait(self, within: float = 10.0) -> int:
        """Waits for the end of the session leader and returns its exit status."""
        deadline = time.monotonic() + within
        while True:
            done, status = os.waitpid(self.pid, os.WNOHANG)
            if done:
                self.pid = 0
                return os.waitstatus_to_exitcode(status)
            assert time.monotonic() < deadline, f"still running: {self.output!r}"
            self.read(0.02)

    def close(self) -> None:
        """Kills what a failed test has left."""
        for pid in processes_with(self.token):
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                pass  # it went with another one
        if self.pid:
            os.waitpid(self.pid, 0)
        os.close(self.fd)

    def assert_gone(self) -> None:
        """Fails if a process is left."""
        eventually(lambda: not processes_with(self.token), within=5, what="no process is left")


@pytest.fixture
def terminal() -> Iterator[Callable[..., Terminal]]:
    """Starts a program at a terminal of its own."""
    made = []

    def start(*argv: str) -> Terminal:
        made.append(Terminal(*argv))
        return made[-1]

    yield start
    for each in made:
        each.close()


@pytest.fixture
def prompt(tmp_path: Path) -> list[str]:
    """The command line of a run with a prompt."""
    (tmp_path / "prompt.py").write_text(PROMPT)
    return [*TESTBED, "exec", "--", sys.executable, str(tmp_path / "prompt.py")]


@pytest.fixture
def makefile(prompt: list[str], tmp_path: Path) -> list[str]:
    """The command line of a make that runs the run with a prompt."""
    (tmp_path / "Makefile").write_text(f"all:\n\t@{shlex.join(prompt)}; status=$$?; echo run-status $$status\n")
    return ["make", "-f", str(tmp_path / "Makefile")]


def _talk(tty: Terminal) -> None:
    tty.expect("prompt ready")
    time.sleep(0.05)  # it is past the line that says so
    for word in ("one", "two"):
        tty.interrupt()
        tty.expect("interrupted here")
        tty.type(f"{word}\n")
        tty.expect(f"answer to {word.upper()}")


def test_ctrl_c_belongs_to_the_prompt(terminal: Callable[..., Terminal], prompt: list[str]) -> None:
    tty = terminal(*prompt)
    _talk(tty)
    tty.type("\x04")
    assert tty.wait() == 7
    tty.assert_gone()


def test_make_above_does_not_see_ctrl_c(terminal: Callable[..., Terminal], makefile: list[str]) -> None:
    tty = terminal(*makefile)
    _talk(tty)
    tty.type("\x04")
    tty.expect("run-status 7")
    assert tty.wait() == 0
    tty.assert_gone()


def test_ctrl_c_during_work_ends_the_run(terminal: Callable[..., Terminal]) -> None:
    tty = terminal(*TESTBED, "exec", "--", sys.executable, "-c", WORK)
    tty.expect("working")
    tty.interrupt()
    tty.expect("tidy")
    assert tty.wait() == 4
    tty.assert_gone()


def test_make_above_does_not_see_ctrl_c_during_work(terminal: Callable[..., Terminal], makefile: list[str]) -> None:
    """A command that does not read has the foreground all the same."""
    program = Path(makefile[-1]).with_name("prompt.py")
    program.write_text(WORK)
    tty = terminal(*makefile)
    tty.expect("working")
    tty.interrupt()
    tty.expect("tidy")
    tty.expect("run-status 4")
    assert tty.wait() == 0
    tty.assert_gone()


@pytest.mark.parametrize("part", range(3))
def test_ctrl_c_at_any_moment_of_the_start(terminal: Callable[..., Terminal], part: int) -> None:
    command = shlex.join([*TESTBED, "exec", "--", "sleep", "60"])
    for step in range(12):
        tty = terminal("sh", "-c", f"echo go; exec {command}")
        tty.expect("go")
        time.sleep(0.012 * step + 0.004 * part)
        tty.interrupt()
        # While the interpreter itself starts, Ctrl-C ends it by the signal, or by an error in the module it was at,
        # or Python says that it ignores it, which is out of our reach: then one presses it again.
        tty.read(0.3)
        if "Exception ignored" in tty.output:
            tty.interrupt()
        assert tty.wait(5) in (130, -signal.SIGINT, 1), tty.output
        tty.assert_gone()


def test_hang_up_ends_the_run(terminal: Callable[..., Terminal], prompt: list[str]) -> None:
    tty = terminal(*prompt)
    tty.expect("prompt ready")
    keep = tty.fd
    tty.fd = os.open("/dev/null", os.O_RDWR)
    os.close(keep)
    tty.wait()
    tty.assert_gone()


def test_settings_and_foreground_come_back_after_a_crash(terminal: Callable[..., Terminal]) -> None:
    script = shlex.join([*TESTBED, "exec", "--", "sh", "-c", "stty raw -echo; echo raw now; sleep 60"])
    tty = terminal("sh", "-c", f"{script}; echo status $?; read line; echo got $line")
    before = termios.tcgetattr(tty.fd)
    tty.expect("raw now")
    assert termios.tcgetattr(tty.fd) != before
    (init,) = (pid for pid in processes_with(tty.token) if _last_pid(pid) == "1")
    os.kill(init, signal.SIGKILL)
    tty.expect("status 137")
    assert termios.tcgetattr(tty.fd) == before
    tty.type("word\n")  # a shell in the background could not read
    tty.expect("got word")
    assert tty.wait() == 0
    tty.assert_gone()


def _stopped(token: str) -> bool:
    """Whether the outer process and the command are stopped; PID 1 never is."""
    states = [Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2][0] for pid in processes_with(token)]
    return states.count("T") == 2


def _last_pid(pid: int) -> str:
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("NSpid:") and len(line.split()) > 2:
            return line.split()[-1]
    return ""


def test_foreground_comes_back_when_the_sandbox_cannot_start(terminal: Callable[..., Terminal]) -> None:
    script = shlex.join([*TESTBED, "exec", "--", "no-such-program"])
    tty = terminal("sh", "-c", f"{script}; echo status $?; read line; echo got $line")
    tty.expect("no-such-program: no such program")
    tty.expect("status 127")
    tty.type("word\n")
    tty.expect("got word")
    assert tty.wait() == 0


def test_job_control_of_the_shell_above(terminal: Callable[..., Terminal], prompt: list[str]) -> None:
    tty = terminal("bash", "--norc", "--noprofile", "-i")
    tty.expect("shell> ")
    tty.type(shlex.join(prompt) + "; echo status $?\n")
    tty.expect("prompt ready")
    tty.type("\x1a")
    tty.expect("Stopped")
    tty.expect("shell> ")
    tty.type("echo still here\n")
    tty.expect("[\r\n]still here")
    tty.type("fg\n")
    tty.type("again\n")
    tty.expect("answer to AGAIN")
    tty.interrupt()
    tty.expect("interrupted here")
    tty.type("\x04")
    tty.expect("shell> ")
    tty.type("exit\n")
    assert tty.wait() == 7  # of the last command
    tty.assert_gone()


def test_kill_of_make_leaves_the_shell_above_its_terminal(
    terminal: Callable[..., Terminal], makefile: list[str]
) -> None:
    tty = terminal("bash", "--norc", "--noprofile", "-i")
    tty.expect("shell> ")
    tty.type(shlex.join(makefile) + "\n")
    tty.expect("prompt ready")
    (make,) = (pid for pid in processes_with(tty.token) if Path(f"/proc/{pid}/comm").read_text() == "make\n")
    os.kill(make, signal.SIGKILL)
    tty.expect("Killed")
    eventually(lambda: processes_with(tty.token) == [tty.pid], what="only the shell is left")
    for word in ("one", "two"):  # a shell in the background would end at its next read
        tty.type(f"echo still {word}\n")
        tty.expect(f"[\r\n]still {word}")
    tty.type("exit\n")
    assert tty.wait() == 0


def test_started_in_the_background_and_brought_forward(terminal: Callable[..., Terminal], prompt: list[str]) -> None:
    tty = terminal("bash", "--norc", "--noprofile", "-i")
    tty.expect("shell> ")
    tty.type(shlex.join(prompt) + " &\n")
    tty.expect("prompt ready")
    tty.type("echo mine\n")
    tty.expect("[\r\n]mine")
    # It is stopped because it wants to read, which the shell tells with its next prompt.
    eventually(lambda: _stopped(tty.token), what="the run is stopped")
    tty.type("\n")
    tty.expect("Stopped")
    tty.type("fg\n")
    tty.type("hello\n")
    tty.expect("answer to HELLO")
    tty.type("\x04")
    tty.expect("shell> ")
    tty.type("echo status $?\n")
    tty.expect("status 7")
    tty.type("exit\n")
    assert tty.wait() == 0


def test_attached_shell_has_the_terminal(terminal: Callable[..., Terminal], start: Callable[..., Run]) -> None:
    run = start()
    attach = shlex.join([*TESTBED, "attach", run.token, "--", "bash", "--norc", "--noprofile", "-i"])
    tty = terminal("sh", "-c", f"{attach}; echo status $?; read line; echo got $line")
    tty.expect("shell> ")
    tty.type("ip -br link | grep -c left@; sleep 60\n")
    tty.expect("[\r\n]1[\r\n]")
    time.sleep(0.2)
    tty.interrupt()
    tty.expect("shell> ")
    tty.type("exit 8\n")
    tty.expect("status 8")
    tty.type("word\n")
    tty.expect("got word")
    assert tty.wait() == 0
    assert run.process.poll() is None


def test_a_shell_inside_has_job_control(terminal: Callable[..., Terminal]) -> None:
    tty = terminal(*TESTBED, "exec", "--", "bash", "--norc", "--noprofile", "-i")
    tty.expect("shell> ")
    tty.type("sleep 60\n")
    time.sleep(0.2)
    tty.type("\x1a")
    tty.expect("Stopped")
    tty.type("kill %1; sleep 0.2; exit 5\n")
    assert tty.wait() == 5
    assert "no job control" not in tty.output
