"""A reader: types the pages' commands at the prompt of `make topo-datacenter`, and in a shell beside it."""

from __future__ import annotations

import fcntl
import os
import re
import select
import shutil
import struct
import subprocess
import termios
import time
from collections.abc import Sequence
from pathlib import Path

from tests.docs.pages import PROMPT, ROOT, Command
from tests.sandbox.test_terminal import Terminal

START_SECONDS = 90.0
COMMAND_SECONDS = 40.0
COLUMNS = 500  # nothing that is typed or shown is wrapped
RUN_COMMAND = "make topo-datacenter"
UNSET = ("MAKEFLAGS", "MAKELEVEL", "MFLAGS", "VIRTUAL_ENV", "PYTEST_CURRENT_TEST", "PYTEST_ADDOPTS", "CONTROLLER")

OWN = ["help", "tables", "services", "kill", "start", "impair", "link", "plug", "move", "nodes", "net", "links", "dump"]
"""The prompt's own commands that pages type."""

_SHELLED = ("sh ", "servicectl")
_CAPTURED = re.compile(r"capture: one file per interface beside (\S+)")
_RESULT = re.compile(r"^result: (\S+)$", re.MULTILINE)
_results: set[Path] = set()
_FAILED = re.compile(r"^\*\*\* ", re.MULTILINE)
_SERVICE = re.compile(r"--service[ =](\S+)")


class CommandFailed(Exception):
    """A command that did not do what its page says; one line, and what it showed."""


def environment() -> dict[str, str]:
    """A reader's: without what make, pytest and an activated environment would add."""
    return {name: value for name, value in os.environ.items() if name not in UNSET} | {"PATH": _path(), "TERM": "dumb"}


def _path() -> str:
    venv = str(ROOT / ".venv" / "bin")
    return os.pathsep.join(part for part in os.environ["PATH"].split(os.pathsep) if part != venv)


def shell(command: str) -> tuple[int, str]:
    """Run a shell command in the tree; its status, and what it showed. Raises CommandFailed when it does not end."""
    try:
        done = subprocess.run(
            ["bash", "-c", command],
            cwd=ROOT,
            env=environment(),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=COMMAND_SECONDS,
            check=False,
        )
    except subprocess.TimeoutExpired as expired:
        shown = expired.stdout.decode(errors="replace") if isinstance(expired.stdout, bytes) else expired.stdout or ""
        raise CommandFailed(f"did not end within {COMMAND_SECONDS:g} s; it showed: {shown}") from None
    _results.update(map(Path, _RESULT.findall(done.stdout)))
    return done.returncode, done.stdout


def remove_results() -> None:
    """What the commands of a page have measured."""
    for path in _results:
        if path.name == "result.json" and path.is_relative_to(ROOT / "results"):
            shutil.rmtree(path.parent, ignore_errors=True)
            latest = path.parent.parent / "latest"
            if latest.is_symlink() and not latest.exists():
                latest.unlink()
    _results.clear()


def _as_reader(command: str) -> list[str]:
    """The command in a reader's environment: Terminal has none to choose."""
    unset = [word for name in UNSET for word in ("-u", name)]
    return ["env", *unset, f"PATH={_path()}", "TERM=dumb", "bash", "-c", command]


def _widen(terminal: Terminal) -> None:
    fcntl.ioctl(terminal.fd, termios.TIOCSWINSZ, struct.pack("HHHH", 50, COLUMNS, 0, 0))


def other_run(command: str) -> tuple[int, str]:
    """A run beside the first, left by `exit` when it gives its prompt; what it captured is removed again."""
    terminal = Terminal(*_as_reader(command))
    _widen(terminal)
    deadline = time.monotonic() + START_SECONDS
    try:
        while not terminal.output.endswith(PROMPT) and terminal.read(0.1):
            if time.monotonic() > deadline:
                raise CommandFailed(f"no prompt after {START_SECONDS:g} s, but: {terminal.output}")
        if terminal.output.endswith(PROMPT):
            terminal.type("exit\n")
        status = terminal.wait(30)
    finally:
        terminal.close()
    if captured := _CAPTURED.search(terminal.output):
        # Two runs that begin in the same second share the directory.
        shutil.rmtree(Path(captured[1]).parents[1], ignore_errors=True)
    return status, terminal.output.replace("\r", "")


class Reader(Terminal):
    """The running network and its prompt."""

    def __init__(self, command: str = RUN_COMMAND) -> None:
        super().__init__(*_as_reader(command))
        self.command = command
        _widen(self)
        self.banner = self._until_prompt(START_SECONDS)
        self._background: set[str] = set()
        self._killed: set[tuple[str, ...]] = set()
        self._impaired = False

    def _until_prompt(self, seconds: float) -> str:
        deadline = time.monotonic() + seconds
        while not self.output.endswith(PROMPT):
            if time.monotonic() > deadline:
                raise CommandFailed(f"no prompt after {seconds:g} s, but: {self.output}")
            if not self.read(0.1):
                raise CommandFailed(f"the run ended: {self.output}")
        shown, self.output = self.output.removesuffix(PROMPT), ""
        return shown.replace("\r", "")

    def prompt(self, line: str, seconds: float = COMMAND_SECONDS) -> str:
        """Type a line; what it shows. Raises CommandFailed when the prompt does not come back."""
        self.type(line + "\n")
        shown = self._until_prompt(seconds)
        return shown.partition("\n")[2]  # the first line is the echo of what was typed

    def run(self, command: Command) -> tuple[int, str]:
        """A prompt command's status and what it shows; the prompt's own commands end with 1 when they say ***."""
        text = command.bare
        words = text.split()
        if text.endswith("&"):
            return 0, self._start(words[0], text)
        self._note(words)
        if text.startswith(_SHELLED):
            shown, _, status = self.prompt(f"{text}; echo status=$?").rpartition("status=")
            return int(status), shown
        shown = self.prompt(text)
        if _FAILED.search(shown):
            return 1, shown
        if words[0] in OWN:
            return 0, shown
        said = self.prompt(f"{words[0]} echo status=$?").strip()
        if not said.startswith("status="):
            raise CommandFailed(f"its status is not known: {said!r}")
        return int(said.removeprefix("status=")), shown

    def _start(self, host: str, text: str) -> str:
        self._background.add(host)
        shown = self.prompt(text)
        service = _SERVICE.search(text)
        if service and " standby " in text:
            self._until(f"the offer of {host}", "servicectl services", rf"{re.escape(service[1])}.*{host} +standby")
        elif service:
            # A person is slower than the controller; the next command is not.
            self._until(f"{service[1]} on {host}", f"{host} serval table {service[1]}", "DEMUX")
            if service[1].endswith(".example"):  # the block that a router serves
                self._until(f"{service[1]} at the router", f"cleo serval table {service[1]}", f"FORWARD|{service[1]}")
        return shown

    def _until(self, what: str, line: str, wanted: str) -> None:
        deadline = time.monotonic() + COMMAND_SECONDS
        while not re.search(wanted, shown := self.prompt(line)):
            if time.monotonic() > deadline:
                raise CommandFailed(f"still not there: {what}; {line} shows {shown}")
            select.select([self.fd], [], [], 0.05)

    def _note(self, words: Sequence[str]) -> None:
        if words[0] == "kill":
            self._killed.add(tuple(words[1:]))
        elif words[0] == "start":
            self._killed.discard(tuple(words[1:]))
        elif words[0] == "impair":
            self._impaired = True

    def reset(self) -> None:
        """The network as it was at first: for the next page."""
        for host in sorted(self._background):
            self.prompt(f"{host} kill $(jobs -p); wait")
        for words in sorted(self._killed):
            self._well(f"start {' '.join(words)}")
        if self._impaired:
            self._well("impair r1 r2 delay=5ms jitter=0ms loss=0 hole=off")
        self.forget()
        self._well("sh python -m tests.docs.reset && echo done", "done")

    def forget(self) -> None:
        """What was typed until now needs no reset."""
        self._background.clear()
        self._killed.clear()
        self._impaired = False

    def _well(self, line: str, wanted: str = "") -> None:
        shown = self.prompt(line)
        if _FAILED.search(shown) or wanted not in shown:
            raise CommandFailed(f"reset: {line}: {shown}")

    def exit(self) -> int:
        """Leave the prompt; the run's exit status."""
        self.type("exit\n")
        return self.wait(30)


def tree() -> set[str]:
    """What lies in the project's directory: a command must leave it so."""
    caches = {".pytest_cache", ".mypy_cache", ".ruff_cache", ".hypothesis"}
    return {path.name for path in Path(ROOT).iterdir()} - caches
