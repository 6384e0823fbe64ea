"""The first hour at the prompt: wrong words, Ctrl-C at any moment, a node that is killed, a terminal that is closed."""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.sandbox.first_hour import RUN, machine
from tests.sandbox.support import eventually, processes_with
from tests.sandbox.test_terminal import Terminal, terminal
from tests.terminals import press_until_shown

__all__ = ["terminal"]  # the fixture
pytestmark = pytest.mark.usefixtures("host_unchanged")

PROMPT = "mininet> "
NO_NETEM = 'case "$*" in *netem*) echo "Error: unknown qdisc" >&2; exit 2;; esac; exec /usr/sbin/tc "$@"'

WRONG_WORDS = {
    "anna ping ben": "unknown command or host 'anna'; did you mean ann?; try: help; hosts and switches: ann cleo dan",
    "tabels": "unknown command or host 'tabels'; did you mean tables?; try: help",
    "ann servall table": "servall: command not found",
    "kill web.example": "two words are wanted: SERVICE HOST",
    "kill web.example nobody": "no instance of web.example that the testbed started is running on nobody",
    "kill web.exampl dan": "there are: bulk.example dan, web.example dan",
    "start nosuch.service dan": "the topology declares no service 'nosuch.service'; there are: web.example, bulk.exam",
    "start web.exampl dan": "no service 'web.exampl'; did you mean web.example?",
    "start web.example anna": "no host 'anna'; did you mean ann?; there are: ann, cleo, dan, r1, r2",
    "start web.example r1": "r1 has no Serval node",
    "start web.example dan": "web.example is running on dan already",
    "servicectl servces": "invalid choice: 'servces'",
    "ann serval tabel": "invalid choice: 'tabel'",
    "ann serval connect web.exampl": "no rule of this host leads to web.exampl",
    "ann serval trace nosuch.example": "nobody serves nosuch.example",
    "impair r1 dan delay=5ms": "no link between r1 and dan; there are: ",
    "impair r1 r2 delay=5": "write a number and its unit: 250us, 5ms, 0.1s",
    "source nowhere": "nowhere: No such file or directory",
}


def test_prompt_from_beginning_to_end(terminal: Callable[..., Terminal], tmp_path: Path) -> None:
    """One network for all: no netem, the host's port 6653 in use, wrong words, Ctrl-C, kill -9, a closed terminal."""
    with socket.create_server(("127.0.0.1", 6653)):
        session = terminal(*machine(tmp_path, programs={"tc": NO_NETEM}), *RUN)
        session.expect(r"r1-r2 100 Mbit/s, 5 ms by relay \(this kernel has no netem\)", within=30)
        session.expect(PROMPT, within=30)
    for words, answer in WRONG_WORDS.items():
        assert answer in _ask(session, words), words
    session.type("ann ping dan\n")
    session.expect("icmp_seq=1")
    session.interrupt()
    session.expect(PROMPT)
    press_until_shown(session.interrupt, session.expect, "Interrupt")
    session.expect(PROMPT)
    assert "web.example" in _ask(session, "services")
    node = _ask(session, "sh cat /run/testbed/hosts/dan/servald.log").partition("(process ")[2].partition(")")[0]
    said = _ask(session, f"sh kill -9 {node}")
    # The launcher learns of it a moment later; the next command at the latest tells.
    said += "" if "has ended" in said else _ask(session, "sh sleep 0.2")
    assert "the node of dan has ended by itself; its log: sh cat /run/testbed/hosts/dan/servald.log" in said
    assert "`restart dan` starts it again" in said
    assert "nothing listens on /run/serval/control.sock" in _ask(session, "dan serval table")
    said = _ask(session, "restart dan")
    assert "the node of dan runs, and the controller knows it; bulk.example, web.example registered again" in said
    assert "the node of dan is running" in _ask(session, "restart dan")
    assert "This is dan" in _ask(session, "ann curl -sS -m 5 http://web.example/")
    assert "is neither up nor down" in _ask(session, "link ann s1 away")
    before = _ask(session, "ann ip route")
    assert _ask(session, "link ann s1 down") == PROMPT.strip()
    assert "default" not in _ask(session, "ann ip route")
    assert "are back: ann: default via " in _ask(session, "link ann s1 up")
    assert _ask(session, "ann ip route") == before
    assert "This is dan" in _ask(session, "ann curl -sS -m 20 http://web.example/")
    os.close(session.fd)  # SIGHUP
    eventually(lambda: not processes_with(session.token), within=15, what="no process is left after the hang-up")
    session.fd = os.open(os.devnull, os.O_RDONLY)  # for the fixture to close


def _ask(session: Terminal, words: str) -> str:
    """What the prompt answers."""
    session.output = ""
    session.type(f"{words}\n")
    deadline = time.monotonic() + 20
    while not session.output.endswith(PROMPT):
        assert time.monotonic() < deadline and session.read(0.05), session.output
    assert "Traceback" not in session.output
    return " ".join(session.output.partition("\n")[2].split())


EARLY = (0.0, 0.02, 0.05, 0.08, 0.12, 0.2, 0.3)
"""Seconds after the start: before make's shell, Python and the sandbox are there, or while they come."""
STEPS = (
    "Open vSwitch and controller: ",
    "hosts and 7 links: ",
    "3 switches: ",
    "Serval nodes: ",
    "controller knows every switch and node: ",
)


@pytest.mark.parametrize("moment", [*EARLY, *STEPS])
def test_ctrl_c_while_starting(moment: float | str, terminal: Callable[..., Terminal], tmp_path: Path) -> None:
    session = terminal("scripts/privileged", *machine(tmp_path), *RUN)
    # Before that it is this test's own process, in which Ctrl-C does something else.
    eventually(lambda: b"pytest" not in Path(f"/proc/{session.pid}/cmdline").read_bytes(), what="it has become the run")
    if isinstance(moment, str):
        session.expect(moment, within=30)
    else:
        deadline = time.monotonic() + moment
        while time.monotonic() < deadline:
            session.read(0.005)
    session.output = ""
    session.interrupt()
    status = session.wait(15)
    while session.read(0.05) and not session.output.endswith("s\r\n"):
        if "interrupted" not in session.output:
            break
    assert status in (130, -2)  # -2: ended by the signal itself, which a shell shows as 130
    assert "Traceback" not in session.output
    said = [line for line in session.output.split("^C")[-1].splitlines() if line]
    assert len(said) <= 2, said  # a step that ends at this moment, and the last line
    if isinstance(moment, str):
        assert said[-1].startswith("interrupted; stopped in order in "), said
    session.assert_gone()


def test_ctrl_c_during_the_tour(terminal: Callable[..., Terminal], tmp_path: Path) -> None:
    session = terminal(*machine(tmp_path), *RUN, "--tour")
    session.expect(r"\[2/6\]", within=40)
    session.interrupt()
    session.expect("interrupted; stopped in order in ")
    assert session.wait() == 130
    assert "Traceback" not in session.output
    session.assert_gone()
