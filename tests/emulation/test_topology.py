"""`testbed run datacenter` as its user meets it: the tour, the prompt, captures, larger and looped networks."""

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
from pathlib import Path

import pytest
from scapy.utils import PcapReader

from serval_node.capture.dissector import SAL
from testbed.network import ServalNetwork
from tests.terminals import press_ctrl_c
from topologies.datacenter import Datacenter

# The inner half: these tests are in a sandbox already.
LAUNCH = [sys.executable, "-m", "testbed", "launch", "datacenter"]
PROMPT = "mininet> "


@pytest.fixture(scope="module")
def tour(tmp_path_factory: pytest.TempPathFactory) -> tuple[subprocess.CompletedProcess[str], Path]:
    """A run without a terminal and with captures: what it printed, and the captures' directory."""
    directory = tmp_path_factory.mktemp("capture")
    done = subprocess.run(
        [*LAUNCH, "--capture", str(directory)],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    return done, directory


def test_without_a_terminal_a_tour_passes(tour: tuple[subprocess.CompletedProcess[str], Path]) -> None:
    done, _ = tour
    assert done.returncode == 0, done.stdout + done.stderr
    assert "FAIL" not in done.stdout
    assert len(re.findall(r"^PASS ", done.stdout, re.MULTILINE)) == 6
    assert re.search(r"24 connects, \d of 4 instances", done.stdout)
    assert "withdrawn after" in done.stdout
    # Nobody receives more than the links leave; the rest is for bursts and the granularity of clocks.
    shares = [float(share) for share in re.findall(r"\((\d+) % of what the links leave\)", done.stdout)]
    assert len(shares) == 2 and max(shares) <= 100, shares


def test_the_banner_says_what_was_built_and_how(tour: tuple[subprocess.CompletedProcess[str], Path]) -> None:
    shown = tour[0].stdout
    for words in (
        "7 Serval nodes, 12 links",
        "r1, r2 (no Serval)",
        "Open vSwitch's datapath",
        "r1-r2 100 Mbit/s, 5 ms by ",
        "asked 95.64 Mbit/s of TCP payload, achieved ",
        "delay       asked 5 ms",
        "out of band",
        "try:",
    ):
        assert words in shown


def test_a_capture_has_each_interface_and_the_way_of_the_first_packet(
    tour: tuple[subprocess.CompletedProcess[str], Path],
) -> None:
    directory = tour[1]
    for name in ("ann-eth0", "cleo-eth0", "dan-eth0", "r1-eth0", "r1-eth1"):
        assert (directory / f"{name}.pcap").stat().st_size > 24
    first: list[str] = []
    with PcapReader(str(directory / "all.pcapng")) as packets:
        for packet in packets:
            if SAL not in packet:
                continue
            if packet.sniffed_on in first:
                break
            first.append(packet.sniffed_on)
    # Client, both plain routers on either side, service router: in the order of time across hosts.
    assert first[:6] == ["ann-eth0", "r1-eth0", "r1-eth1", "r2-eth1", "r2-eth0", "cleo-eth0"] or (
        first[0] == "ann-eth0" and first[-1] == "cleo-eth0"
    )


class Terminal:
    """A run on a terminal of its own."""

    def __init__(self, *arguments: str) -> None:
        self.pid, self.fd = pty.fork()
        if not self.pid:
            # Whatever the tests were started from: this is a terminal.
            os.environ["TERM"] = "xterm-256color"
            os.execv(sys.executable, [*LAUNCH, "--no-calibration", *arguments])
        self._unread = ""
        self._status: int | None = None

    def until(self, text: str, *, within: float = 30.0) -> str:
        """What is shown up to and with `text`."""
        deadline = time.monotonic() + within
        while text not in self._unread:
            ready, _, _ = select.select([self.fd], (), (), max(0.0, deadline - time.monotonic()))
            assert ready, f"{text!r} was not shown within {within:g} s, but: {self._unread}"
            try:
                self._unread += os.read(self.fd, 65536).decode(errors="replace")
            except OSError:  # the other side of the terminal is closed
                pytest.fail(f"ended without {text!r}: {self._unread}")
        shown, found, self._unread = self._unread.partition(text)
        return shown + found

    def type(self, line: str) -> str:
        """What a command at the prompt shows."""
        os.write(self.fd, line.encode() + b"\n")
        return self.until(PROMPT)

    def press(self, key: bytes) -> None:
        if key == b"\x03":
            press_ctrl_c(self.fd)
        else:
            os.write(self.fd, key)

    def status(self) -> int:
        """Waits for the end of the run; its exit status."""
        if self._status is None:
            try:
                while os.read(self.fd, 65536):
                    continue
            except OSError:  # the other side of the terminal is closed: the run has ended
                pass
            self._status = os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])
        return self._status

    def close(self) -> None:
        """Ends the run if it still goes on, in order, so that the next one finds nothing of it."""
        if self._status is None:
            os.kill(self.pid, signal.SIGTERM)
            self.status()
        os.close(self.fd)


@pytest.fixture
def terminal() -> Iterator[Terminal]:
    made = Terminal("--racks", "1", "--clients", "1", "--delay", "1ms")
    try:
        made.until(PROMPT)
        yield made
    finally:
        made.close()


def test_the_prompt_has_servals_commands(terminal: Terminal) -> None:
    assert "*.example" in terminal.type("ann serval table")
    assert "10.2.1.1" in terminal.type("cleo serval table")
    tables = terminal.type("tables")
    assert all(f"--- {name}" in tables for name in ("ann", "cleo", "dan", "eve"))
    # A name behind servicectl stays a name, elsewhere it becomes an address.
    assert "web.example" in terminal.type("ann servicectl rules cleo")
    assert "PING 10.2.1.1" in terminal.type("ann ping -c 1 dan")
    assert "web.example" in terminal.type("services")
    assert "unknown command or host 'zoe'" in terminal.type("zoe serval table")
    assert "no link between ann and dan" in terminal.type("impair ann dan delay=1ms")
    assert "none of rate=10" in terminal.type("impair r1 r2 loss=much")
    terminal.type("impair r1 r2 delay=30ms")
    assert re.search(r"time=6\d\.", terminal.type("ann ping -c 1 dan"))
    assert "killed process" in terminal.type("kill web.example dan")
    assert re.search("no instance of web.example|has no server", terminal.type("kill web.example dan"))
    assert "Traceback" not in terminal.type("help")
    os.write(terminal.fd, b"exit\n")
    assert "stopped in order" in terminal.until("stopped in order")
    assert terminal.status() == 0


def test_watch_fills_the_screen_at_the_prompt_and_gives_it_back(terminal: Terminal) -> None:
    # Mininet's hosts have pseudo-terminals without a size: it is that of the prompt's own.
    fcntl.ioctl(terminal.fd, termios.TIOCSWINSZ, struct.pack("HHHH", 33, 101, 0, 0))
    for key in (b"q", b"\x03"):
        os.write(terminal.fd, b"ann serval watch --interval 0.2\n")
        terminal.until("\x1b[?1049h")
        shown = terminal.until("\x1b[H" + "\x1b[1mann (host)") + terminal.until("q quit")
        lines = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", shown).replace("\r", "").split("\n")
        assert max(map(len, lines)) == 101 and any("*.example" in line for line in lines)
        terminal.press(key)
        assert terminal.until(PROMPT).endswith(f"\x1b[?1049l{PROMPT}")
    assert "still here" in terminal.type("ann echo still here")


def test_ctrl_c_at_the_prompt_interrupts_the_command_and_end_of_input_the_run(terminal: Terminal) -> None:
    os.write(terminal.fd, b"ann sh -c 'echo begun; exec sleep 100'\n")
    terminal.until("sleep 100'")  # as typed
    terminal.until("begun")
    terminal.press(b"\x03")
    terminal.until(PROMPT, within=5)
    assert "This is" in terminal.type("ann curl -s http://web.example/")
    terminal.press(b"\x04")
    terminal.until("stopped in order")
    assert terminal.status() == 0


def test_a_network_with_loops_carries_traffic_once() -> None:
    with ServalNetwork(Datacenter(racks=2, hosts=1, clients=1, spines=2, delay="0")) as net:
        shown = net.run_in("ann", ["ping", "-c", "5", "-i", "0.2", "-W", "2", "eve"], timeout=15)
        assert "5 received" in shown
        assert "DUP" not in shown
        assert net.run_in("ann", ["curl", "-s", "http://web.example/"]).startswith("This is ")


def test_a_larger_network_is_quick_to_build() -> None:
    with ServalNetwork(Datacenter(racks=4, hosts=8, clients=4, delay="0")) as net:
        assert len(net.serval_hosts) == 37
        assert net.start_seconds < 40
        assert len(net.targets(net.routers[0], "web.example")) == 32
