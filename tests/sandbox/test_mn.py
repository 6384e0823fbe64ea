"""`testbed mn`: Mininet's own mn with its options, its prompt and Serval hosts, in a sandbox that leaves nothing."""

from __future__ import annotations

import os
import re
import select
import signal
import subprocess
import tempfile
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.sandbox.support import ROOT, TESTBED, execute, processes_with
from tests.terminals import press_until_shown

DATACENTER = ("--custom", "topologies/datacenter.py", "--topo", "datacenter")
ALL_PINGS = "0% dropped (72/72 received)"  # among nine hosts and routers
UNMODIFIED = """
import runpy, sys
import mininet.clean, mininet.net
import testbed.openvswitch
testbed.openvswitch.start("/run/testbed/logs")
# These two reach out of the sandbox: limits of the whole machine, and files of others in /tmp.
mininet.net.fixLimits = lambda: None
mininet.clean.cleanup = lambda: sys.exit("mn failed")
del sys.modules["testbed.openvswitch"], sys.modules["testbed"]
sys.path[:] = [entry for entry in sys.path if entry != {root!r}]
sys.argv = ["mn", *{arguments!r}]
runpy.run_path("/usr/bin/mn", run_name="__main__")
"""

pytestmark = pytest.mark.usefixtures("host_unchanged", "nothing_in_tmp")


@pytest.fixture
def nothing_in_tmp() -> Iterator[None]:
    """Mininet's controllers and switches write logs into /tmp, and its prompt a history into the user's home."""
    history = Path.home() / ".mininet_history"

    def state() -> tuple[set[str], float]:
        logs = {name for name in os.listdir("/tmp") if re.fullmatch(r"[cs]\d+(-of[dp])?\.(log|listen)", name)}
        return logs, history.stat().st_mtime if history.exists() else 0.0

    before = state()
    yield
    assert state() == before


def mn(*options: str, prompt: str = "", path: str = os.environ["PATH"]) -> subprocess.CompletedProcess[str]:
    """`testbed mn -- OPTIONS`, with a file of lines for its prompt; all output in `stdout`."""
    token = f"token-{uuid.uuid4()}"
    with tempfile.TemporaryFile("w+") as lines:
        lines.write(prompt)
        lines.seek(0)
        done = subprocess.run(
            [*TESTBED, "mn", "--", *options],
            stdin=lines,
            cwd=ROOT,
            env={**os.environ, "PATH": path, "TOKEN": token},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=60,
            check=False,
        )
    assert not processes_with(token)
    return done


class Session:
    """`testbed mn -- OPTIONS` with a pipe to its prompt."""

    def __init__(self, *options: str) -> None:
        self.token = f"token-{uuid.uuid4()}"
        self.output = ""
        self.process = subprocess.Popen(
            [*TESTBED, "mn", "--", *options],
            cwd=ROOT,
            env={**os.environ, "TOKEN": self.token},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )

    def read(self, seconds: float) -> bool:
        """Reads what comes within the time; False at the end."""
        assert self.process.stdout is not None
        if not select.select([self.process.stdout], [], [], seconds)[0]:
            return True
        data = os.read(self.process.stdout.fileno(), 65536)
        self.output += data.decode()
        return bool(data)

    def expect(self, text: str, within: float = 20.0) -> None:
        """Waits for the text (a regular expression) and forgets all up to it."""
        deadline = time.monotonic() + within
        while not (match := re.search(text, self.output)):
            assert time.monotonic() < deadline, f"no {text!r} in {self.output!r}"
            assert self.read(0.05) or re.search(text, self.output), f"ended without {text!r}: {self.output!r}"
        self.output = self.output[match.end() :]

    def type(self, text: str) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(text.encode())
        self.process.stdin.flush()

    def run(self, line: str, shown: str = "") -> None:
        """Types a line at the prompt (sooner, a running command would get it), and waits for what it shows."""
        self.expect("mininet> ")
        self.type(f"{line}\n")
        self.expect(shown)

    def end(self) -> int:
        """Ends its input; the exit status, after which nothing of it is left."""
        assert self.process.stdin is not None
        self.process.stdin.close()
        while self.read(20.0):
            pass
        status = self.process.wait(5)
        assert not processes_with(self.token)
        return status

    def close(self) -> None:
        """Kills what a failed test has left."""
        self.process.kill()
        self.process.wait()
        for stream in (self.process.stdin, self.process.stdout):
            if stream is not None:
                stream.close()


@pytest.fixture
def session() -> Iterator[Callable[..., Session]]:
    sessions: list[Session] = []

    def start(*options: str) -> Session:
        sessions.append(Session(*options))
        return sessions[-1]

    yield start
    for one in sessions:
        one.close()


def test_the_plain_datacenter_is_connected_over_its_routers() -> None:
    # TCP too: with Mininet's own links it passes no switch in user space as the kernel offloads it.
    done = mn(*DATACENTER, "--test", "pingall+iperf,seconds=1")
    assert done.returncode == 0, done.stdout
    assert ALL_PINGS in done.stdout
    assert re.search(r"Results: \['[\d.]+ [MG]bits/sec", done.stdout)
    assert "Serval node" not in done.stdout


def test_mn_without_the_testbed_builds_the_datacenter() -> None:
    # As `sudo mn` does it: the distribution's Python, and nothing that leads to this project but the file's own path.
    # This machine's kernel may have no Open vSwitch, so the switches are in user space.
    arguments = [*DATACENTER, "--controller", "none", "--switch", "ovsbr,datapath=user", "--test", "pingall"]
    program = UNMODIFIED.format(root=str(ROOT), arguments=arguments)
    done = execute("/usr/bin/python3", "-c", program, timeout=60, env={"PATH": os.environ["PATH"]})
    assert done.returncode == 0, done.stderr
    assert ALL_PINGS in done.stdout + done.stderr


def test_serval_hosts_of_the_datacenter_use_its_router_and_its_links() -> None:
    lines = """
    cleo serval stat
    dan serval bind web.example &
    ann serval connect web.example --count 2
    ann serval trace web.example
    r1 sysctl -n net.ipv4.ip_forward
    ann ping -c 2 r1
    """
    done = mn(*DATACENTER, "--host", "serval", "--link", "tc", prompt=lines)
    assert done.returncode == 0, done.stdout
    assert "also the service router" not in done.stdout  # cleo is declared
    assert "web.example: dan 2" in done.stdout
    assert re.search(r"cleo +rule web.example: FORWARD; destination cleo -> dan", done.stdout)
    # The delay of 5 ms each way, by netem or by the relay.
    (took,) = re.findall(r"connect\(\) took (\d+\.\d+) ms", done.stdout)
    assert float(took) >= 10.0
    assert "0% packet loss" in done.stdout
    assert "Stopping 7 Serval nodes" in done.stdout  # r1 and r2 have none


def test_any_topology_gets_serval_hosts_with_and_without_names(session: Callable[..., Session]) -> None:
    prompt = session("--topo", "single,3", "--host", "serval", "--link", "tc,bw=10")
    prompt.expect(r"h1 is also the service router, for all names")
    prompt.run("h3 echo ready", "ready")
    prompt.expect("mininet> ")
    press_until_shown(lambda: prompt.process.send_signal(signal.SIGINT), prompt.expect, "Interrupt")
    prompt.run("h1 serval bind web.example &")
    prompt.run("h2 serval bind 0x4006 &")
    prompt.run("h3 serval connect web.example --count 2", "web.example: h1 2")
    prompt.run("h1 serval connect 0x4006 --count 1", "0x4006: h2 1")
    prompt.run("h3 serval connect nobody.example --count 1", "nobody serves nobody.example")
    prompt.run("s1 tc class show dev s1-eth1", "rate 10Mbit")
    prompt.run("servicectl services", r"web\.example\b.*\bh1\b")
    assert prompt.end() == 0, prompt.output
    assert "Stopping 3 Serval nodes" in prompt.output


def test_a_controller_of_mininets_own_leaves_no_log_behind(tmp_path: Path) -> None:
    controller = tmp_path / "controller"
    controller.write_text("#!/bin/sh\necho reference\nexec sleep 100\n")
    controller.chmod(0o755)
    path = f"{tmp_path}:{os.environ['PATH']}"
    done = mn("--controller", "ref", prompt="sh cat /tmp/c0.log\nsh ls /tmp\n", path=path)
    assert done.returncode == 0, done.stdout
    assert "reference" in done.stdout or "c0.log" in done.stdout  # it was there meanwhile


@pytest.mark.parametrize(
    ("options", "status", "said"),
    [
        (("--clean",), 1, "ends processes by name"),
        (("--topo", "nosuch"), 1, "mn --topo: there is no 'nosuch'"),
        (("--nosuch",), 2, "no such option: --nosuch"),
        (("--host", "serval,router=h9", "--test", "none"), 1, "no Serval host 'h9'; there are: h1, h2"),
        # Without a controller a switch forwards nothing.
        (("--controller", "none", "--arp", "--test", "pingall,timeout=1"), 1, "100% dropped"),
    ],
)
def test_errors_and_lost_pings_come_through_with_their_status(options: tuple[str, ...], status: int, said: str) -> None:
    done = mn(*options)
    assert (done.returncode, said in done.stdout) == (status, True), done.stdout


def test_a_delay_that_mininets_own_link_cannot_give_ends_the_run() -> None:
    done = mn("--link", "tcu,delay=10ms", "--test", "pingall")
    if "0% dropped (2/2 received)" in done.stdout:
        assert done.returncode == 0 and "*** Error" not in done.stdout  # this kernel has netem
    else:
        assert (done.returncode, "testbed: link at h1-eth0: tc: " in done.stdout) == (1, True), done.stdout


def test_ctrl_c_while_it_tests_ends_it(session: Callable[..., Session]) -> None:
    run = session("--host", "serval", "--test", "pingall,timeout=100")
    run.expect(r"\*\*\* Ping")
    run.process.send_signal(signal.SIGINT)
    assert run.end() == 128 + signal.SIGINT, run.output
    assert "interrupted" in run.output
