"""The network's life: started in order, stopped in order, and nothing left, whatever goes wrong in between."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from testbed import hosts, nodes, openvswitch, processes, sandbox, switches, sysctl
from testbed.controller_process import CONTROLLER_SOCKET
from testbed.errors import TestbedError
from testbed.link import end
from testbed.network import ServalNetwork
from topologies.datacenter import Datacenter

SMALL = {"racks": 1, "hosts": 1, "clients": 1, "delay": "1ms"}


def processes_here() -> set[tuple[int, str]]:
    """Id and command line of each process of the sandbox; its id alone could come again."""
    found = set()
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                words = (entry / "cmdline").read_bytes()
            except OSError:  # it has ended meanwhile
                continue
            if words:  # what has ended and waits for its parent has no words left
                found.add((int(entry.name), words.decode(errors="replace")))
    return found


def interfaces_here() -> set[str]:
    return {path.name for path in Path("/sys/class/net").iterdir()}


@pytest.fixture
def nothing_left() -> Iterator[None]:
    """Fails a test after which a process or an interface is there that was not before."""
    before = processes_here(), interfaces_here()
    yield
    deadline = time.monotonic() + 3
    while (left := (processes_here() - before[0], interfaces_here() - before[1])) != (set(), set()):
        assert time.monotonic() < deadline, f"left behind: {left}"
        time.sleep(0.05)


def test_it_starts_says_what_it_does_and_leaves_nothing(nothing_left: None) -> None:
    said: list[str] = []
    with ServalNetwork(Datacenter(**SMALL), say=said.append) as net:
        assert [host.name for host in net.serval_hosts] == ["ann", "cleo", "dan"]
        assert net.run_in("ann", ["curl", "-s", "http://web.example/"]).startswith("This is dan")
        assert net.start_seconds < 15
        # A stock router's work: forwarding on, no daemon, one TTL each.
        assert net.run_in("r1", ["sysctl", "-n", "net.ipv4.ip_forward"]).strip() == "1"
        assert "ttl=62" in net.run_in("ann", ["ping", "-c", "1", "-W", "3", "dan"])
    assert len(said) >= 6
    assert any("Serval nodes" in line for line in said)
    net.stop()  # a second time does nothing


def test_rates_stay_when_switches_are_made_anew(nothing_left: None) -> None:
    net = ServalNetwork(Datacenter(**SMALL))
    net.start()
    try:
        # A bridge that is made anew finds the queueing disciplines on its ports.
        switches.stop(net.switches)
        for switch in net.switches:
            switch.start([])
        for link in net.links:
            for interface in (link.intf1, link.intf2):
                end.check(interface, link.shape)
    finally:
        net.stop()


def test_kernel_tcp_passes_the_switches(nothing_left: None) -> None:
    net = ServalNetwork(Datacenter(**SMALL))
    net.start()
    try:
        if openvswitch.datapath_type().name == "user":
            shown = net.run_in("ann", ["ethtool", "-k", "ann-eth0"])
            assert "tx-checksumming: off" in shown
        server = "import socket; l=socket.create_server(('',7000)); c,_=l.accept(); c.sendall(b'x'*300000)"
        client = (
            "import socket,time; e=time.time()+9\n"
            "while time.time()<e:\n"
            "  try: s=socket.create_connection(('dan',7000),5); break\n"
            "  except ConnectionRefusedError: time.sleep(.05)\n"
            "n=0\n"
            "while b:=s.recv(65536): n+=len(b)\n"
            "print(n)"
        )
        daemon = processes.start(
            "server", hosts.inside(net.find("dan"), ["python3", "-c", server]), log=net.logs / "server.log"
        )
        try:
            assert net.run_in("ann", ["python3", "-c", client], timeout=20).strip() == "300000"
        finally:
            daemon.stop()
    finally:
        net.stop()


def test_a_controller_that_cannot_start_is_named_with_its_log(nothing_left: None) -> None:
    net = ServalNetwork(Datacenter(**SMALL), controller_options=["--app", "no_such_app"])
    with pytest.raises(TestbedError, match=r"the controller ended during its start .*no_such_app") as failed:
        net.start()
    assert "controller.log" in str(failed.value)
    assert Path(net.logs / "controller.log").read_text()


def test_a_node_that_cannot_start_is_named_with_its_log(nothing_left: None, monkeypatch: pytest.MonkeyPatch) -> None:
    start = nodes.Launcher.start

    def with_a_wrong_role(self: nodes.Launcher, members: list, config: dict) -> list[str]:
        config["dan"]["role"] = "king"
        return start(self, members, config)

    monkeypatch.setattr(nodes.Launcher, "start", with_a_wrong_role)
    with pytest.raises(TestbedError, match="king"):
        ServalNetwork(Datacenter(**SMALL)).start()


def test_a_refusal_of_open_vswitch_is_one_short_line(nothing_left: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(switches, "MAX_BACKOFF_MS", 1)
    with pytest.raises(TestbedError) as failed:
        ServalNetwork(Datacenter(**SMALL)).start()
    assert "less than minimum allowed value" in failed.value.message
    assert len(failed.value.message) < 200


def test_a_program_that_is_missing_in_a_service_is_named(nothing_left: None) -> None:
    topo = Datacenter(**SMALL)
    topo.services[1] = topo.services[1].__class__("bulk.example", ("dan",), ("no-such-server",))
    net = ServalNetwork(topo)
    net.start()
    try:
        with pytest.raises(TestbedError, match="bulk.example") as failed:
            net.start_services()
        assert "bulk.example.log" in str(failed.value)
    finally:
        net.stop()


@pytest.mark.parametrize("delay", [0.2, 1.0, 2.0])
def test_ctrl_c_during_the_start_ends_in_order(nothing_left: None, delay: float) -> None:
    run = subprocess.Popen(
        [sys.executable, "-m", "testbed", "launch", "datacenter", "--no-calibration"],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )
    assert run.stdout is not None
    shown = [run.stdout.readline()]  # from here on it has its handlers
    time.sleep(delay)
    os.kill(run.pid, signal.SIGINT)
    rest, _ = run.communicate(timeout=30)
    shown.append(rest)
    text = "".join(shown)
    assert run.returncode == 128 + signal.SIGINT, text
    assert "stopped in order" in text
    assert "Traceback" not in text
    assert not CONTROLLER_SOCKET.exists()


def test_the_sandboxs_own_settings_are_not_mininets(nothing_left: None) -> None:
    before = sysctl.read("net.ipv4.tcp_rmem"), sysctl.read("net.ipv4.tcp_wmem")
    with ServalNetwork(Datacenter(**SMALL)):
        # Mininet's fixLimits would have written both.
        assert (sysctl.read("net.ipv4.tcp_rmem"), sysctl.read("net.ipv4.tcp_wmem")) == before


ASK_TWICE = """
import sys
from serval_node import socket as serval
with serval.create_connection("ask.example", 10) as conn:
    for word in (b"before", b"after"):
        conn.sendall(word)
        print(conn.recv(100).decode(), flush=True)
        sys.stdin.readline()
"""


def test_a_link_that_comes_up_again_has_its_routes_and_flows(nothing_left: None) -> None:
    with ServalNetwork(Datacenter(**SMALL)) as net:
        ann, dan = net.serval_host("ann"), net.serval_host("dan")
        routes = {name: net.run_in(name, ["ip", "route"]) for name in ("ann", "r1", "r2")}
        with (
            dan.bind("ask.example"),
            subprocess.Popen(
                hosts.inside(ann, [sys.executable, "-c", ASK_TWICE]),
                cwd=sandbox.ROOT,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
            ) as program,
        ):
            assert program.stdin is not None and program.stdout is not None
            assert program.stdout.readline() == "before\n"
            assert net.set_link("ann", "s1", up=False) == []
            net.wait("ann's flow waits", lambda: bool(_lost(ann)), log=ann.log_path)
            assert "default" not in net.run_in("ann", ["ip", "route"])
            program.stdin.write("\n")
            program.stdin.flush()
            assert [line.split(" via ")[0] for line in net.set_link("ann", "s1", up=True)] == ["ann: default"]
            assert program.stdout.readline() == "after\n"
            program.stdin.close()
            assert program.wait(10) == 0
        net.configLinkStatus("r1", "r2", "down")
        net.configLinkStatus("r1", "r2", "up")
        assert {name: net.run_in(name, ["ip", "route"]) for name in routes} == routes


def _lost(host: hosts.ServalHost) -> list[str]:
    """Why the host's flows wait."""
    return [flow["lost"] for flow in nodes.ask(host, "flows")["flows"] if flow["lost"]]


def test_a_node_that_was_killed_is_started_again(nothing_left: None) -> None:
    with ServalNetwork(Datacenter(**SMALL)) as net:
        assert net._launcher is not None
        with pytest.raises(TestbedError, match=r"the node of dan is running \(process"):
            net.restart_node("dan")
        os.kill(net._launcher.pids["dan"], signal.SIGKILL)
        net.restart_node("dan")
        net.wait_service("web.example", ["dan"])
        assert net.run_in("ann", ["curl", "-sS", "-m", "5", "http://web.example/"]).startswith("This is dan")
