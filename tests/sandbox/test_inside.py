"""What a command finds inside a sandbox, and that the host is not touched by it."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.sandbox.support import NAMESPACES, ROOT, Run, execute

pytestmark = pytest.mark.usefixtures("host_unchanged")


def test_namespaces_are_new() -> None:
    program = "import json, os; print(json.dumps({n: os.readlink('/proc/self/ns/' + n) for n in %r}))"
    done = execute(sys.executable, "-c", program % (NAMESPACES,))
    inside = json.loads(done.stdout)
    for name in NAMESPACES:
        assert inside[name] != os.readlink(f"/proc/self/ns/{name}"), name


def test_network_is_loopback_only_and_up() -> None:
    links = json.loads(execute("ip", "-j", "address").stdout)
    assert [link["ifname"] for link in links] == ["lo"]
    assert "UP" in links[0]["flags"]
    assert not execute("ip", "route").stdout


def test_run_is_private() -> None:
    assert sorted(execute("ls", "/run").stdout.split()) == ["lock", "netns", "openvswitch", "serval", "testbed"]
    execute("touch", "/run/testbed/from-inside", "/var/run/also", "/dev/shm/testbed-shared")
    assert not Path("/run/testbed/from-inside").exists()
    assert not Path("/var/run/also").exists()
    assert not Path("/dev/shm/testbed-shared").exists()


def test_private_tmp_on_demand(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    assert execute("ls", str(tmp_path)).stdout == "file\n"
    program = "import sys; from testbed.cli import main; sys.exit(main(sys.argv[1:]))"
    shown = execute(sys.executable, "-c", program, "exec", "--private-tmp", "--", "ls", "-A", "/tmp")
    # Also a sandbox in a sandbox. Nothing is there but a project that lives there itself.
    own = [ROOT.relative_to("/tmp").parts[0]] if ROOT.is_relative_to("/tmp") else []
    assert (shown.returncode, shown.stdout.split()) == (0, own)


def test_processes_are_its_own() -> None:
    done = execute("sh", "-c", "cd /proc && echo [0-9]*; tr '\\0' '\\n' < /proc/1/cmdline")
    first, *command_line = done.stdout.splitlines()
    assert first.split() == ["1", "2"]
    assert "testbed-sandbox" in command_line


def test_sys_shows_the_namespace() -> None:
    assert execute("ls", "/sys/class/net").stdout.split() == ["lo"]


def test_host_sysctls_cannot_be_changed() -> None:
    # What it writes is what is there: a sandbox that lets it through does no harm in failing this test.
    script = "for f in vm/swappiness kernel/panic fs/file-max; do v=$(cat /proc/sys/$f); echo $v > /proc/sys/$f; done"
    errors = execute("sh", "-c", script).stderr.splitlines()
    assert len(errors) == 3
    assert all("Read-only" in line or "Permission denied" in line for line in errors)
    assert execute("hostname", "another").returncode == 0  # its own: the host's is looked at after the test


def test_namespace_sysctls_can_be_changed() -> None:
    names = "/proc/sys/net/ipv4/conf/all/rp_filter /proc/sys/net/ipv4/conf/default/rp_filter"
    assert execute("sh", "-c", f"cat {names}; echo 1 > /proc/sys/net/ipv4/ip_forward").stdout == "0\n0\n"
    done = execute("sh", "-c", "echo 1 > /proc/sys/net/ipv4/ip_forward && cat /proc/sys/net/ipv4/ip_forward")
    assert (done.returncode, done.stdout, done.stderr) == (0, "1\n", "")


def test_tun_works() -> None:
    assert execute("sh", "-c", "ip tuntap add dev sal0 mode tun && ip link show sal0").returncode == 0


@pytest.mark.parametrize(
    ("command", "status"),
    [("exit 0", 0), ("exit 3", 3), ("exit 255", 255), ("kill -TERM $$", 143), ("kill -KILL $$", 137)],
)
def test_exit_status_is_handed_through(command: str, status: int) -> None:
    assert execute("sh", "-c", command).returncode == status


def test_missing_program() -> None:
    done = execute("no-such-program")
    assert (done.returncode, done.stderr) == (127, "testbed: no-such-program: no such program\n")


def test_not_executable(tmp_path: Path) -> None:
    (tmp_path / "text").write_text("no program")
    done = execute(str(tmp_path / "text"))
    assert (done.returncode, done.stderr.count("\n")) == (126, 1)


def test_directory_environment_and_descriptors_are_the_callers(tmp_path: Path) -> None:
    program = "pwd; echo $WORD; echo $TESTBED_SANDBOX; ls /proc/self/fd | wc -l"
    environment = {**os.environ, "WORD": "kept", "PYTHONPATH": str(ROOT), "OVS_RUNDIR": "/elsewhere"}
    done = execute("sh", "-c", program + "; echo $OVS_RUNDIR", cwd=tmp_path, env=environment)
    # Standard streams, and the directory that ls reads.
    assert done.stdout.splitlines() == [str(tmp_path), "kept", "sh", "4", "/run/openvswitch"]


def test_default_signals_inside() -> None:
    done = execute("grep", "-E", "^Sig(Blk|Ign)", "/proc/self/status")
    # 32 and 33 are the C library's own; what it starts by posix_spawn (as make does) has them ignored.
    library = 0b11 << 31
    assert {int(line.split()[1], 16) & ~library for line in done.stdout.splitlines()} == {0}


def test_orphans_are_reaped() -> None:
    program = """
import os, sys, time
if not os.fork():
    if not os.fork():
        os._exit(0)
    time.sleep(0.2); os._exit(0)
time.sleep(0.6)
os.wait()
zombies = [p for p in os.listdir('/proc') if p.isdigit() and ') Z' in open(f'/proc/{p}/stat').read()]
sys.exit(len(zombies))
"""
    assert execute(sys.executable, "-c", program).returncode == 0


def test_enter_puts_a_script_inside(tmp_path: Path) -> None:
    script = tmp_path / "mine.py"
    script.write_text(
        "import sys, os\nfrom testbed import sandbox\nsandbox.enter()\nassert sandbox.inside()\n"
        "print(sys.argv[1:], os.getpid(), os.environ['TESTBED_SANDBOX'])\nsys.exit(9)\n"
    )
    done = subprocess.run(
        [sys.executable, str(script), "a", "b c"], capture_output=True, text=True, cwd=ROOT, check=False
    )
    assert (done.returncode, done.stdout, done.stderr) == (9, "['a', 'b c'] 2 mine\n", "")


def test_two_at_once_do_not_meet(start: Callable[..., Run]) -> None:
    first, second = start(), start()
    assert not first.namespaces & second.namespaces
    os.kill(first.outer, 9)
    first.assert_gone()
    assert second.process.poll() is None
    assert second.outer


def test_pid_1_writes_no_bytecode_into_the_tree(tmp_path: Path) -> None:
    """It runs isolated, so so the environment cannot forbid it, and below sudo the files would be root's."""
    shutil.copytree(ROOT / "testbed", tmp_path / "testbed", ignore=shutil.ignore_patterns("__pycache__"))
    environment = {**os.environ, "PYTHONDONTWRITEBYTECODE": "1"}
    subprocess.run(
        [sys.executable, "-m", "testbed", "exec", "--", "true"], cwd=tmp_path, env=environment, check=True, timeout=30
    )
    assert not list(tmp_path.rglob("__pycache__"))
