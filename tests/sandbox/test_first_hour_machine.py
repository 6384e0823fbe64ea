"""The first hour on a machine that lacks something: each text says what is wrong and what to do, at once."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

from tests.sandbox.first_hour import LAUNCH, NO_HTB, RUN, SMALL, assert_helpful, machine, run
from tests.sandbox.support import ROOT, TESTBED

pytestmark = pytest.mark.usefixtures("host_unchanged")

CONNECT = """
from testbed.network import ServalNetwork
from topologies.datacenter import Datacenter
with ServalNetwork(Datacenter(racks=1, hosts=1, clients=1)) as net:
    print(net.run_in("ann", ["curl", "-s", "http://web.example/"]), end="")
"""


@pytest.mark.parametrize(
    ("missing", "text", "packages"),
    [
        (["mnexec"], "the program mnexec is missing", "mininet"),
        (
            ["ovsdb-server", "ovs-vswitchd"],
            "programs are missing: ovsdb-server, ovs-vswitchd",
            "openvswitch-switch",
        ),
        (
            ["ip", "tc", "ping", "iperf3", "tcpdump"],
            "programs are missing: ip, tc, ping, iperf3, tcpdump",
            "iperf3 iproute2 iputils-ping tcpdump",
        ),
    ],
)
def test_missing_programs(missing: Sequence[str], text: str, packages: str, tmp_path: Path) -> None:
    start = machine(tmp_path, without=missing, tmpfs={str(ROOT / "results"): "size=1m"})
    done = run(*start, *TESTBED, "run", "datacenter", *SMALL, "--capture")
    hint = f"install what is missing: make setup; if that finds nothing to do: apt-get install --reinstall {packages}"
    assert_helpful(done, f"testbed: {text}\n  {hint}\n")


def test_without_mininets_modules(tmp_path: Path) -> None:
    (where,) = __import__("mininet").__path__
    done = run(*machine(tmp_path, tmpfs={where: "size=4k"}), *RUN)
    assert_helpful(done, "has no module mininet", "install what is missing: make setup")


@pytest.mark.parametrize(("program", "status"), [("ovsdb-server", 3), ("ovs-vswitchd", 4)])
def test_open_vswitch_that_dies_at_its_start(program: str, status: int, tmp_path: Path) -> None:
    dying = {program: f"echo it is not for me >&2; exit {status}"}
    done = run(*machine(tmp_path, programs=dying), *RUN)
    assert_helpful(done, f"testbed: {program} ended during its start with status {status}: it is not for me")
    kept = re.search(r"its log is (.*)\n", done.stdout)[1]
    assert kept.startswith(str(ROOT / "results/failed-datacenter-"))
    assert f"testbed: the logs were kept in {kept.partition('/logs/')[0]}\n" in done.stdout


_NO_VETH = 'case "$*" in *veth*) echo "Error: Unknown device type." >&2; exit 2;; esac; exec /usr/sbin/ip "$@"'


@pytest.mark.parametrize(
    ("programs", "bind", "said"),
    [
        (
            {"tc": NO_HTB},
            {},
            "HTB, which makes rates (Specified qdisc kind is unknown.): sudo modprobe sch_htb",
        ),
        ({"ip": _NO_VETH}, {}, "veth interfaces (Unknown device type.): sudo modprobe veth"),
        (
            {},
            {"/dev/null": "/dev/net/tun"},
            "TUN devices with segmentation offload (Inappropriate ioctl for device): sudo modprobe tun",
        ),
    ],
)
def test_kernel_that_lacks_something(programs: dict[str, str], bind: dict[str, str], said: str, tmp_path: Path) -> None:
    done = run(*machine(tmp_path, programs=programs, bind=bind), *RUN)
    assert_helpful(done, f"testbed: this kernel ({os.uname().release}) lacks what the testbed needs", f"\n  {said}")


@pytest.mark.parametrize(
    ("capability", "said"),
    [
        ("sys_admin", "in a container it needs --cap-add SYS_ADMIN,NET_ADMIN or --privileged"),
        ("net_admin", "in a container it needs --cap-add SYS_ADMIN,NET_ADMIN or --privileged"),
        ("net_raw", "raw and packet sockets (Operation not permitted): sudo modprobe af_packet"),
    ],
)
def test_container_without_a_capability(capability: str, said: str, tmp_path: Path) -> None:
    drop = ["setpriv", f"--bounding-set=-{capability}", f"--inh-caps=-{capability}"]
    assert_helpful(run(*machine(tmp_path), *drop, *RUN), said)


def test_neither_root_nor_sudo_nor_tun(tmp_path: Path) -> None:
    done = run(*machine(tmp_path, nobody="0600"), "scripts/privileged", *RUN)
    assert_helpful(
        done,
        "This needs network namespaces and /dev/net/tun, and none of three ways to them is open here:",
        "you are not root",
        "/dev/net/tun cannot be read and written",
    )


def test_port_of_the_controller_in_use_in_the_same_sandbox(tmp_path: Path) -> None:
    program = (
        "import socket, subprocess, sys\nholder = socket.create_server(('127.0.0.1', 6653))\n"
        "sys.exit(subprocess.run(sys.argv[1:]).returncode)"
    )
    done = run(*machine(tmp_path), *TESTBED, "exec", "--", sys.executable, "-c", program, *LAUNCH)
    assert_helpful(
        done,
        "cannot listen on 127.0.0.1:6653: Address already in use",
        "another program of this sandbox has that port: `ss -ltnp`, in the same sandbox, shows which; end it",
    )


@pytest.mark.parametrize("where", ["TMPDIR", "/run"])
def test_no_room(where: str, tmp_path: Path) -> None:
    environment = dict(os.environ)
    if where == "TMPDIR":
        # Not /tmp itself: the project may lie there.
        where = environment["TMPDIR"] = str(tmp_path / "small")
        Path(where).mkdir()
    full = f'mount -t tmpfs -o size=64k full {where}; head -c 65536 /dev/zero >{where}/file 2>/dev/null; exec "$@"'
    done = run(*machine(tmp_path), *TESTBED, "exec", "--", "sh", "-c", full, "-", *LAUNCH, env=environment)
    assert_helpful(done, f"testbed: no room is left in {where}\n  make room in {where}")


@pytest.mark.parametrize(
    ("options", "reason"), [("ro,size=1m", "Read-only file system"), ("size=60k", "No space left on device")]
)
def test_results_that_cannot_be_written(options: str, reason: str, tmp_path: Path) -> None:
    done = run(*machine(tmp_path, tmpfs={str(ROOT / "results"): options}), *RUN, "--capture")
    assert_helpful(done, f"/capture: {reason}\n", "or name another directory: --capture DIR")
    assert "Open vSwitch and controller" not in done.stdout  # told before anything is started


def test_logs_go_elsewhere_when_results_cannot_be_written(tmp_path: Path) -> None:
    dying = {"ovs-vswitchd": "exit 1"}
    start = machine(tmp_path, programs=dying, tmpfs={str(ROOT / "results"): "ro,size=1m"})
    done = run(*start, *RUN, env={**os.environ, "TMPDIR": str(tmp_path)})
    assert_helpful(done, f"testbed: the logs were kept in {tmp_path}/failed-datacenter-")
    assert list(tmp_path.glob("failed-datacenter-*/logs/ovs-vswitchd.log"))


CAPTURE = """
import os, sys, time
from pathlib import Path
from mininet.link import Link
from mininet.node import Node
from testbed.capture import Capture
from testbed.errors import TestbedError
first, second = Node("h1"), Node("h2")
Link(first, second)
for node, address in ((first, "10.0.0.1/8"), (second, "10.0.0.2/8")):
    node.cmd(f"ip address add {address} dev {node.name}-eth0; ip link set {node.name}-eth0 up")
told = []
capture = Capture([first, second], Path(sys.argv[1]), snap=0, told=told.append)
deadline = time.monotonic() + 20
while not told and time.monotonic() < deadline:
    first.cmd("ping -q -c 50 -i 0.002 -s 1400 10.0.0.2")
print("told:", *told)
first.cmd("ping -c 1 10.0.0.2")  # the network goes on
try:
    capture.stop()
except TestbedError as error:
    print("error:", error)
print(len(told), [dump.alive for _, _, dump in capture._dumps])
"""


def test_disk_that_fills_up_under_a_capture(tmp_path: Path) -> None:
    where = tmp_path / "capture"
    where.mkdir()
    start = machine(tmp_path, tmpfs={str(where): "size=600k"})
    done = run(*start, *TESTBED, "exec", "--", sys.executable, "-c", CAPTURE, str(where))
    assert_helpful(
        done,
        f"told: the captures have ended: no room is left in {where}; the network goes on without them\n",
        f"make room in {where}",
        "\n1 [False, False]\n",
        status=0,
    )


@pytest.mark.parametrize(
    ("limits", "nobody", "text"),
    [
        ({"RLIMIT_NOFILE": 40}, "", "the limit of open files is 40, and this network needs about"),
        ({"RLIMIT_NOFILE": 6}, "", "the limit of open files is 6; raise it (ulimit -n 4096"),
        ({"RLIMIT_NPROC": 10}, "0666", "the limit of processes is 10, and this network needs about"),
        ({"RLIMIT_NPROC": 2}, "0666", "the limit of processes is reached: end other programs, or raise it (ulimit -u"),
    ],
)
def test_limits(limits: dict[str, int], nobody: str, text: str, tmp_path: Path) -> None:
    done = run(*machine(tmp_path, limits=limits, nobody=nobody), *RUN)
    assert_helpful(done, text, status=126 if limits == {"RLIMIT_NPROC": 2} else 1)


def test_two_at_once_in_a_read_only_tree_with_spaces_in_its_name(tmp_path: Path) -> None:
    """And with no home, the C locale and a short PATH."""
    tree = tmp_path / "Jürgens größter Versuch"
    packages = ("serval_node", "testbed", "topologies", "controllers")
    for name in packages:
        shutil.copytree(ROOT / name, tree / name, ignore=shutil.ignore_patterns("__pycache__"))
    start = machine(tmp_path, read_only=[str(tree)])
    command = [*start, *TESTBED, "exec", "--", sys.executable, "-c", CONNECT]
    # The interpreter of this environment would find the package in this tree first.
    environment = {"PATH": "/usr/bin:/bin", "LANG": "C", "PYTHONPATH": str(tree)}
    both = [
        subprocess.Popen(
            command, cwd=tree, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        )
        for _ in range(2)
    ]
    for process in both:
        assert process.communicate(timeout=60)[0] == "This is dan, one of the instances of web.example.\n"
        assert process.returncode == 0
