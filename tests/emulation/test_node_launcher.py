"""The launcher: many nodes from one imported parent, each in its host, and clear answers to wrong requests."""

from __future__ import annotations

import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.emulation.node_hosts import LAUNCHER, Host, HostNet, host_net, wait_for


@pytest.fixture
def net() -> Iterator[HostNet]:
    with host_net() as net:
        yield net


def pss(pid: int) -> int:
    """Proportional set size in KiB."""
    lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("Pss:"))


def test_nodes_start_fast_and_share_their_memory(net: HostNet) -> None:
    hosts = [net.add_plain(f"h{number}") for number in range(16)]
    started = time.monotonic()
    for host in hosts:
        net.start_node(host)
    seconds = time.monotonic() - started
    pids = [net.node_pid(host) for host in hosts]
    each = sum(map(pss, pids)) / len(pids)
    print(f"16 nodes one after the other in {seconds:.2f} s, {each / 1024:.1f} MiB each")
    assert seconds < 8
    assert each < 12 * 1024
    assert len(os.listdir(f"/proc/{net.launcher.pid}/task")) == 1
    for host, pid in zip(hosts, pids, strict=True):
        assert os.getsid(pid) == pid, "each node has its own session"
        assert os.readlink(f"/proc/{pid}/ns/net") == os.readlink(f"/proc/{host.shell.pid}/ns/net")
        assert os.readlink(f"/proc/{pid}/ns/mnt") == os.readlink(f"/proc/{host.shell.pid}/ns/mnt")


def test_nodes_draw_different_random_numbers(net: HostNet) -> None:
    hosts = [net.add(f"r{number}") for number in range(4)]
    boots = {host.ask("status")["boot"] for host in hosts}
    ids = {host.ask("flow_reserve")["flow_id"] for host in hosts}
    assert len(boots) == len(ids) == 4


def test_wrong_requests_are_answered_with_one_line(net: HostNet) -> None:
    ann = net.add("ann")

    def error(request: dict[str, object]) -> str:
        net.send(request)
        report = net.receive()
        assert report["event"] == "error", report
        assert "\n" not in report["error"]
        return report["error"]

    good = {"name": "ben", "run_dir": "/run/testbed/hosts/ben"}
    assert "unknown op" in error({"op": "dance"})
    assert "'pid'" in error({"op": "start", "config": good})
    assert "unknown key 'nme'" in error({"op": "start", "config": {**good, "nme": 1}, "pid": ann.shell.pid})
    assert "already running" in error({"op": "start", "config": {**good, "name": "ann"}, "pid": ann.shell.pid})
    assert "no node 'zoe'" in error({"op": "stop", "name": "zoe"})
    assert ann.ask("status")["name"] == "ann"


def test_a_node_that_cannot_start_is_reported(net: HostNet) -> None:
    net.send({"op": "start", "config": {"name": "ben", "run_dir": "/run/testbed/hosts/ben"}, "pid": 2**22 + 5})
    failed, ended = net.receive(), net.receive()
    assert (failed["event"], ended["event"], ended["status"]) == ("failed", "exit", 1)
    assert "no net namespace of process" in failed["error"]
    assert failed["error"] in Path("/run/testbed/hosts/ben/servald.log").read_text()


def test_the_end_of_a_node_is_reported(net: HostNet) -> None:
    ann = net.add("ann")
    os.kill(net.node_pid(ann), signal.SIGKILL)
    assert net.report("ann", "exit")["status"] == -signal.SIGKILL
    net.start_node(ann)  # sal0 went with the process, and the dead daemon's socket file is replaced
    assert net.stop_node(ann) == 0


def test_a_second_launcher_is_one_clear_error(net: HostNet) -> None:
    assert net.launcher.poll() is None
    done = subprocess.run(
        [sys.executable, "-m", "serval_node.daemon.launcher"], capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stderr) == (1, f"serval-launcher: another launcher is listening on {LAUNCHER}\n")


def test_nodes_end_with_their_launcher(net: HostNet) -> None:
    ann = net.add("ann")
    pid = net.node_pid(ann)
    net.launcher.kill()
    net.launcher.wait()
    wait_for("the node's end", lambda: not alive(pid))
    assert ann.run("ip", "link", "show", "sal0", check=False).returncode == 1


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except OSError:
        return False


def test_the_controller_channel_needs_no_interface_in_the_host(net: HostNet) -> None:
    """The channel's socket belongs to the launcher's namespace; the host's own 127.0.0.1 is another one."""
    program = """
import socket
s = socket.create_server(("127.0.0.1", 6653)); print("up", flush=True)
while True:
    c, peer = s.accept(); print(c.recv(8).hex(), flush=True); c.close()
"""
    controller = subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True)
    assert controller.stdout is not None
    try:
        assert controller.stdout.readline() == "up\n"
        ann: Host = net.add("ann", controller={"host": "127.0.0.1", "port": 6653})
        for _ in range(2):  # and again after the controller has closed the connection
            assert select.select([controller.stdout], [], [], 10)[0], "no connection came"
            assert controller.stdout.readline().startswith("0400"), "an OpenFlow 1.3 HELLO"
        addresses = ann.run("ip", "-4", "-o", "address", "show").stdout
        assert sorted(line.split()[1] for line in addresses.splitlines()) == ["eth0", "lo", "sal0"]
        assert ann.ask("status")["controller_up"] is False
    finally:
        controller.kill()
        controller.wait()
        controller.stdout.close()
