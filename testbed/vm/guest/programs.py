"""The programs of a guest, each in a session of its own with its output in a file, and servald, which is forked.

The agent has imported all of servald before the guest's state is saved: a forked one need not import it again, which
takes an emulated processor seconds.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
import traceback
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from serval_node.daemon.config import NodeConfig
from serval_node.daemon.servald import StartError, import_everything, run_node

OUTPUT = Path("/tmp/programs")
SERVALD_LOG = "/run/serval/servald.log"
END_SECONDS = 3.0
_POLL_SECONDS = 0.01
_PYTHON = ["/usr/bin/python3", "-S", "-u"]

import_everything()


@dataclass
class Program:
    """`status` is None while it runs, else as subprocess has it."""

    pid: int
    output: Path
    status: int | None = None


class Programs:
    """All of them, by name; the agent is PID 1, so orphans are its children too."""

    def __init__(self) -> None:
        self._known: dict[str, Program] = {}
        self._started: list[subprocess.Popen[bytes]] = []

    def run(self, name: str, argv: Sequence[str], python_path: str | None) -> None:
        """Start one. Raises OSError, also when one of that name runs."""
        known = self._known.get(name)
        if known is not None and known.status is None:
            raise OSError(f"{name} is running already")
        environment = dict(os.environ)
        if python_path is not None:
            environment["PYTHONPATH"] += ":" + python_path
        words = [*_PYTHON, *argv[1:]] if argv[0] == "python3" else list(argv)
        output = OUTPUT / name
        with output.open("wb") as file:
            process = subprocess.Popen(
                words,
                stdin=subprocess.DEVNULL,
                stdout=file,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                env=environment,
                cwd="/tmp",
            )
        self._started.append(process)
        self._known[name] = Program(process.pid, output)

    def output(self, name: str) -> str:
        """Raises OSError."""
        return self._find(name).output.read_text(errors="replace")

    def status(self, name: str) -> int | None:
        return self._find(name).status

    def end(self, name: str) -> None:
        """End it with all that it started, within END_SECONDS by force. Raises OSError."""
        program = self._find(name)
        deadline = time.monotonic() + END_SECONDS
        number = signal.SIGTERM
        while program.status is None:
            try:
                os.killpg(program.pid, number)
            except ProcessLookupError:
                pass  # it ends just now
            time.sleep(_POLL_SECONDS)
            self.reap()
            if time.monotonic() > deadline:
                number = signal.SIGKILL

    def reap(self) -> list[str]:
        """Take notice of children that have ended; the names of programs among them."""
        names: list[str] = []
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return names
            if not pid:
                return names
            code = os.waitstatus_to_exitcode(status)
            for process in self._started:
                if process.pid == pid:
                    process.returncode = code  # it cannot find out by itself any more
            self._started = [process for process in self._started if process.pid != pid]
            for name, program in self._known.items():
                if program.pid == pid:
                    program.status = code
                    names.append(name)

    def _find(self, name: str) -> Program:
        if name not in self._known:
            raise OSError(f"no program {name} was started; there are: {', '.join(self._known) or 'none'}")
        return self._known[name]


def start_servald(config: dict[str, Any]) -> int:
    """Fork servald; returns the descriptor on which it says, as one JSON object, that it is ready or why not."""
    told, tell = os.pipe2(os.O_CLOEXEC)
    if os.fork():
        os.close(tell)
        return told
    try:
        os.close(told)
        signal.set_wakeup_fd(-1)
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        os.setsid()
        log = os.open(SERVALD_LOG, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
        os.dup2(log, 1)
        os.dup2(log, 2)
        _serve(config, tell)
    except BaseException:  # noqa: BLE001 - nothing may go back into the agent's loop from here
        traceback.print_exc()
    finally:
        os._exit(1)


def _serve(config: dict[str, Any], tell: int) -> None:
    def say(message: dict[str, Any]) -> None:
        os.write(tell, json.dumps(message).encode())
        os.close(tell)

    try:
        run_node(NodeConfig.from_json(config), None, lambda warnings: say({"ok": True, "warnings": warnings}))
    except StartError as error:
        say({"ok": False, "error": str(error)})
