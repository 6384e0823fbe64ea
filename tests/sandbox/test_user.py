"""Without root: a user namespace where that is possible, and else a clear line."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.sandbox.support import ROOT, TESTBED, Run

pytestmark = pytest.mark.usefixtures("host_unchanged")

NOBODY = 65534

# Becomes an unprivileged user in a mount namespace whose /dev/net has a tun device with the given mode (- for none).
_BECOME = """
import os, sys
from testbed import linux
from tests.sandbox.reachable import make_reachable
mode, *argv = sys.argv[1:]
linux.unshare(linux.CLONE_NEWNS)
linux.mount("none", "/", flags=linux.MS_REC | linux.MS_PRIVATE)
make_reachable(os.getcwd())
if mode != "host":
    linux.mount("none", "/dev/net", "tmpfs")
    if mode != "-":
        os.mknod("/dev/net/tun", 0o20000, os.makedev(10, 200))
        os.chmod("/dev/net/tun", int(mode, 8))
os.setgroups([]); os.setresgid(65534, 65534, 65534); os.setresuid(65534, 65534, 65534)
os.environ["PYTHONDONTWRITEBYTECODE"] = "1"
os.execvp(argv[0], argv)
"""


def as_nobody(tun: str = "0666") -> list[str]:
    """The start of a command line that runs the rest of it as nobody."""
    return [sys.executable, "-c", _BECOME, tun]


def _run(*command: str, tun: str = "0666") -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*as_nobody(tun), *command],
        cwd=ROOT,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )


def test_user_is_root_inside() -> None:
    script = "id -u; cat /proc/self/uid_map; ls /run; ip -br link; ip tuntap add dev sal0 mode tun && echo tun works"
    done = _run(*TESTBED, "exec", "--", "sh", "-c", script)
    assert done.stderr == ""
    uid, uid_map, *rest = done.stdout.splitlines()
    assert uid == "0"
    assert uid_map.split() == ["0", str(NOBODY), "1"]
    assert rest[:5] == ["lock", "netns", "openvswitch", "serval", "testbed"]
    assert rest[5].startswith("lo ")
    assert rest[-1] == "tun works"


def test_files_belong_to_the_user(tmp_path: Path) -> None:
    for directory in (tmp_path, *tmp_path.parents[:2]):
        directory.chmod(0o777)
    assert _run(*TESTBED, "exec", "--", "touch", str(tmp_path / "mine")).returncode == 0
    assert (tmp_path / "mine").stat().st_uid == NOBODY


def test_open_vswitch_in_a_user_namespace() -> None:
    program = (
        "from testbed import openvswitch, processes\nswitch = openvswitch.start()\n"
        "processes.run(['ovs-vsctl', '--timeout=5', 'add-br', 'br0', '--', 'set', 'bridge', 'br0', "
        "'datapath_type=netdev'])\nprint(processes.run(['ip', '-br', 'link', 'show', 'br0']).split()[0])\nswitch.stop()"
    )
    done = _run(*TESTBED, "exec", "--", sys.executable, "-c", program)
    assert (done.returncode, done.stdout) == (0, "br0\n"), done.stderr


def test_killed_outer_leaves_nothing(tmp_path: Path) -> None:
    tmp_path.chmod(0o777)
    for directory in tmp_path.parents[:2]:
        directory.chmod(0o755)
    run = Run(tmp_path, as_nobody())
    try:
        run.wait_ready()
        os.kill(run.outer, 9)
        run.assert_gone()
    finally:
        run.close()


def test_root_attaches_as_the_owner(tmp_path: Path) -> None:
    tmp_path.chmod(0o777)
    for directory in tmp_path.parents[:2]:
        directory.chmod(0o755)
    run = Run(tmp_path, as_nobody())
    try:
        run.wait_ready()
        attach = [*TESTBED, "attach", run.token, "--", "sh", "-c", "id -u; cat /proc/self/uid_map; ip -br link"]
        for above in ([], as_nobody()):
            done = subprocess.run([*above, *attach], cwd=ROOT, capture_output=True, text=True, timeout=30, check=False)
            assert done.stdout.split()[:4] == ["0", "0", str(NOBODY), "1"], done.stderr
            assert "left@right" in done.stdout
    finally:
        run.close()


def test_user_cannot_attach_to_roots(start: Callable[..., Run]) -> None:
    run = start()
    done = _run(*TESTBED, "attach", run.token, "--", "true")
    assert done.returncode == 1
    assert done.stderr.startswith(f"testbed: cannot enter the sandbox {run.init} ({run.token}) of root: ")
    assert json.loads(_run(*TESTBED, "list", "--json").stdout)


def test_tun_that_the_user_may_not_open() -> None:
    done = _run(*TESTBED, "exec", "--", "true", tun="0600")
    assert done.returncode == 1
    assert done.stderr == (
        f"testbed: /dev/net/tun cannot be opened for reading and writing by this user (uid {NOBODY})\n"
        "  run it with sudo, or allow it: sudo chmod 0666 /dev/net/tun\n"
    )


def test_tun_that_is_missing() -> None:
    done = _run(*TESTBED, "exec", "--", "true", tun="-")
    assert done.returncode == 1
    assert done.stderr == (
        "testbed: /dev/net/tun is missing, and every Serval host needs it\n"
        "  load the module (sudo modprobe tun); in a container pass --device /dev/net/tun\n"
    )


_FORBID = """
import os, sys
from testbed import linux
from tests.sandbox.reachable import make_reachable
linux.unshare(linux.CLONE_NEWNS)
linux.mount("none", "/", flags=linux.MS_REC | linux.MS_PRIVATE)
make_reachable(os.getcwd())
linux.mount("none", "/dev/net", "tmpfs")
os.mknod("/dev/net/tun", 0o20000, os.makedev(10, 200))
os.chmod("/dev/net/tun", 0o666)
made, mapped = os.pipe(), os.pipe()
child = os.fork()
if child:
    os.read(made[0], 1)
    for kind in ("uid", "gid"):
        open(f"/proc/{child}/{kind}_map", "w").write("0 0 65536")
    os.write(mapped[1], b"1")
    sys.exit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
linux.unshare(linux.CLONE_NEWUSER)
os.write(made[1], b"1")
os.read(mapped[0], 1)
open("/proc/sys/user/max_user_namespaces", "w").write("0")
os.setresgid(65534, 65534, 65534); os.setresuid(65534, 65534, 65534)
os.environ["PYTHONDONTWRITEBYTECODE"] = "1"
os.execvp(sys.argv[1], sys.argv[1:])
"""
"""Runs a command as nobody where no user namespace may be made: below one whose own limit, not the host's, is 0."""


def test_user_namespaces_that_are_not_allowed() -> None:
    done = subprocess.run(
        [sys.executable, "-c", _FORBID, *TESTBED, "exec", "--", "true"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    assert done.returncode == 1
    assert done.stderr == (
        "testbed: without root a sandbox needs a user namespace, and this machine does not allow one: "
        "user.max_user_namespaces is 0\n"
        "  run it with sudo, or allow it: sudo sysctl user.max_user_namespaces=10000\n"
    )
