"""`serval watch` on running nodes: on a terminal of its own, as lines, and through the death of the node."""

from __future__ import annotations

import fcntl
import os
import pty
import re
import select
import signal
import struct
import subprocess
import sys
import termios
import time
from collections.abc import Iterator

import pytest

from tests.emulation.node_hosts import Host, HostNet, host_net, wait_for

WATCH = (sys.executable, "-m", "serval_node.cli", "watch", "--interval", "0.2")
ALT_SCREEN, NORMAL_SCREEN, HOME = "\x1b[?1049h", "\x1b[?1049l", "\x1b[H"
LIMIT = 20.0


class Watched:
    """`serval watch` on a terminal of `lines` and `columns`."""

    def __init__(self, host: Host, *words: str, lines: int = 30, columns: int = 110) -> None:
        self._master, self._slave = pty.openpty()
        self.resize(lines, columns, tell=False)
        self.settings = termios.tcgetattr(self._slave)
        ends = {"stdin": self._slave, "stdout": self._slave, "stderr": self._slave}
        self.process: subprocess.Popen[bytes] = host.popen(*WATCH, *words, **ends, env={**os.environ, "TERM": "xterm"})
        self.output = ""

    def resize(self, lines: int, columns: int, *, tell: bool = True) -> None:
        fcntl.ioctl(self._master, termios.TIOCSWINSZ, struct.pack("HHHH", lines, columns, 0, 0))
        if tell:
            os.kill(self.process.pid, signal.SIGWINCH)  # it is not this terminal's controlling session

    def picture(self) -> list[str]:
        """The lines of the last whole picture, without styles."""
        whole = self.output.split(HOME)[:-1]
        text = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", whole[-1]) if whole else ""
        return [line.rstrip() for line in text.replace("\r", "").split("\n")]

    def read(self, seconds: float) -> None:
        if select.select([self._master], [], [], seconds)[0]:
            self.output += os.read(self._master, 65536).decode(errors="replace")

    def until(self, *pattern: str) -> list[str]:
        """The first picture with a line for each of these regular expressions."""
        deadline = time.monotonic() + LIMIT
        while True:
            lines = self.picture()
            if all(any(re.search(item, line) for line in lines) for item in pattern):
                return lines
            assert time.monotonic() < deadline, f"{pattern} was not shown: {lines}"
            self.read(0.1)

    def press(self, key: bytes) -> None:
        os.write(self._master, key)

    def end(self) -> int:
        """The exit status; what was still written is read meanwhile."""
        deadline = time.monotonic() + LIMIT
        while self.process.poll() is None:
            assert time.monotonic() < deadline, "it did not end"
            self.read(0.05)
        self.read(0.1)
        return self.process.returncode

    def restored(self) -> bool:
        return (
            self.output.rstrip().endswith(NORMAL_SCREEN)
            and "\x1b[?25h" in self.output
            and termios.tcgetattr(self._slave) == self.settings
        )

    def close(self) -> None:
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()
        os.close(self._master)
        os.close(self._slave)


@pytest.fixture(scope="module")
def net() -> Iterator[HostNet]:
    with host_net() as net:
        for name in ("ann", "dan"):
            net.add(name)
        net.hosts["ann"].forward("*.example", net.hosts["dan"].address)
        yield net


@pytest.fixture
def dan(net: HostNet) -> Host:
    return net.hosts["dan"]


@pytest.fixture
def watched(dan: Host) -> Iterator[Watched]:
    made = Watched(dan)
    yield made
    made.close()


def test_a_service_a_connect_and_its_end_are_marked(net: HostNet, dan: Host, watched: Watched) -> None:
    watched.until("^dan .host.", "^service table: 0", "^flow table: 0")
    assert ALT_SCREEN in watched.output
    server = dan.serve("web.example", "python3", "-m", "http.server", "8080", stderr=subprocess.DEVNULL)
    watched.until(r"^\+ web.example +80 DEMUX +198.18.0.1:8080")
    watched.until(r"^  web.example +80 DEMUX")
    client = net.hosts["ann"].popen(
        sys.executable, "-m", "serval_node.cli", "connect", "web.example", stdin=subprocess.PIPE
    )
    watched.until(r"^\* web.example .* 1\* +\d+\*", r"^\+ +\d+ +CONNECTED +<- web.example", r"^\+ .*SynReceived")
    assert client.stdin is not None
    client.stdin.close()
    os.killpg(server.pid, signal.SIGKILL)
    watched.until(r"^- web.example")
    watched.until("^service table: 0")
    watched.press(b"f")
    deadline = time.monotonic() + LIMIT
    while [line for line in watched.picture() if line.startswith("service table")]:
        assert time.monotonic() < deadline
        watched.read(0.1)
    assert watched.picture()[1].startswith("flow table: ")
    watched.press(b"q")
    assert watched.end() == 0
    assert watched.restored()


def test_the_window_may_change_its_size(watched: Watched) -> None:
    watched.until("^service table", "q quit")
    for lines, columns in ((12, 50), (40, 132)):
        watched.resize(lines, columns)
        deadline = time.monotonic() + LIMIT
        while len(watched.picture()) != lines:
            assert time.monotonic() < deadline
            watched.read(0.1)
        assert all(len(line) <= columns for line in watched.picture())


@pytest.mark.parametrize(("end", "status"), [(signal.SIGINT, 0), (signal.SIGTERM, 128 + signal.SIGTERM)])
def test_a_signal_leaves_the_terminal_as_it_was(watched: Watched, end: signal.Signals, status: int) -> None:
    watched.until("^service table")
    assert termios.tcgetattr(watched._slave) != watched.settings
    watched.process.send_signal(end)
    assert watched.end() == status
    assert watched.restored()
    assert "Traceback" not in watched.output


def test_a_node_that_dies_is_waited_for(net: HostNet, dan: Host, watched: Watched) -> None:
    watched.until("^dan .host.", "^service table")
    net.kill_node(dan)
    watched.until(r"^dan .host.  ! no answer, waiting since \d s  nothing listens on ")
    net.start_node(dan)
    dan.forward("again.example", "10.9.0.77")
    watched.until("^dan .host.  controller: none", r"^\+ again.example +\d+ FORWARD +10.9.0.77")
    dan.ask("rule_remove", prefix="again.example")


def test_lines_where_there_is_no_terminal(net: HostNet, dan: Host) -> None:
    once = dan.serval("watch", "--once", "--table", "service")
    assert once.stdout.startswith("service table of dan: 0\n") and "flow table" not in once.stdout
    watching = dan.popen(*WATCH, "--seconds", "30", stdout=subprocess.PIPE, text=True)
    assert watching.stdout is not None

    def line(*parts: str) -> str:
        deadline = time.monotonic() + LIMIT
        for text in watching.stdout or ():
            if all(part in text for part in parts):
                return text
            assert time.monotonic() < deadline
        raise AssertionError(f"ended without {parts}")

    dan.forward("early.example", "10.9.0.77")
    line(" service early.example FORWARD 10.9.0.77")
    dan.ask("rule_set", prefix="early.example", targets=[{"action": "forward", "address": "10.9.0.77", "weight": 5}])
    assert " * service early.example FORWARD 10.9.0.77: WEIGHT 1 -> 5" in line(" * ")
    net.kill_node(dan)
    line(" ! ", "waiting for it")
    net.start_node(dan)
    line(" ! the node of dan answers again")
    watching.send_signal(signal.SIGINT)
    assert watching.wait(LIMIT) == 0


def test_many_rows_cost_the_node_little(dan: Host, watched: Watched) -> None:
    """A picture of more rows than the screen has, and the node still asked once per picture."""
    for number in range(40):
        dan.forward(f"s{number}.example", "10.9.0.77")
    lines = watched.until("^service table: 40, ", "not on the screen")
    assert len(lines) <= 30
    watched.press(b"s")
    watched.until("^service table: 40, 14 not on the screen")
    watched.press(b" ")
    watched.press(b"q")
    assert watched.end() == 0
    for number in range(40):
        dan.ask("rule_remove", prefix=f"s{number}.example")
    wait_for("an empty table", lambda: not dan.ask("table")["entries"])
