"""A second shell enters a running sandbox; /proc is the only registry."""

from __future__ import annotations

import json
import os
import pwd
import signal
import subprocess
import time
from collections.abc import Callable

import pytest

from tests.sandbox.support import ROOT, TESTBED, Run, eventually, processes_with

pytestmark = pytest.mark.usefixtures("host_unchanged")


def _testbed(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*TESTBED, *arguments],
        cwd=ROOT,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )


def test_list(start: Callable[..., Run]) -> None:
    first, second = start(), start()
    names = {entry["name"]: entry for entry in json.loads(_testbed("list", "--json").stdout)}
    assert {first.token, second.token} <= set(names)
    assert names[first.token]["pid"] == first.init
    assert names[first.token]["user"] == pwd.getpwuid(os.geteuid()).pw_name
    line = next(line for line in _testbed("list").stdout.splitlines() if first.token in line)
    assert str(first.init) in line
    os.kill(first.init, signal.SIGKILL)
    first.process.wait()
    assert first.token not in _testbed("list").stdout


def test_attach_by_name_and_by_number(start: Callable[..., Run]) -> None:
    run, other = start(), start()
    script = "for n in net mnt pid ipc uts; do readlink /proc/self/ns/$n; done; ls /run; ip -br link; exit 6"
    for name in (run.token, str(run.init)):
        done = _testbed("attach", name, "--", "sh", "-c", script)
        assert done.returncode == 6
        assert set(done.stdout.split()[:5]) == run.namespaces
        assert "openvswitch" in done.stdout
        assert "left@right" in done.stdout
    assert not run.namespaces & other.namespaces


def test_the_projects_own_commands_are_on_path(start: Callable[..., Run]) -> None:
    done = _testbed("attach", start().token, "--", "servicectl", "--help")
    assert (done.returncode, done.stderr) == (0, "")
    assert "service controller" in done.stdout


def test_which_one(start: Callable[..., Run]) -> None:
    run = start()
    done = _testbed("attach", "no-such-name", "--", "true")
    assert done.returncode == 1
    assert done.stderr.splitlines()[0] == "testbed: no sandbox called no-such-name is running"
    assert run.token in done.stderr
    start()
    done = _testbed("attach", "--", "true")
    assert done.returncode == 1
    assert done.stderr.startswith("testbed: several sandboxes are running")


def test_attached_command_ends_with_the_sandbox(start: Callable[..., Run]) -> None:
    run = start()
    with subprocess.Popen(
        [*TESTBED, "attach", run.token, "--", "sh", "-c", "echo in; sleep 600; true"],
        cwd=ROOT,
        env={**os.environ, "TOKEN": run.token},
        stdout=subprocess.PIPE,
    ) as attached:
        assert attached.stdout is not None
        assert attached.stdout.readline() == b"in\n"
        os.kill(run.outer, signal.SIGKILL)
        assert attached.wait(5) == 137
    run.assert_gone()


def test_killed_attach_takes_its_command_along(start: Callable[..., Run]) -> None:
    run = start()
    token = f"attached-{run.token[6:]}"
    attached = subprocess.Popen(
        [*TESTBED, "attach", run.token, "--", "sleep", "600"], cwd=ROOT, env={**os.environ, "TOKEN": token}
    )
    eventually(lambda: len(processes_with(token)) == 2, what="the command runs")
    attached.kill()
    attached.wait()
    eventually(lambda: not processes_with(token), within=3, what="the command has ended")
    assert run.process.poll() is None


def test_missing_program(start: Callable[..., Run]) -> None:
    run = start()
    done = _testbed("attach", run.token, "--", "no-such-program")
    assert (done.returncode, done.stderr) == (127, "testbed: no-such-program: no such program\n")


def test_a_host_of_the_network(start: Callable[..., Run]) -> None:
    run = start()
    show = "readlink /proc/self/ns/net /proc/self/ns/mnt; command -v serval"
    shell = "unshare --net --mount sh -c 'readlink /proc/self/ns/net /proc/self/ns/mnt; sleep 600; true' mininet:ann"
    with subprocess.Popen(
        [*TESTBED, "attach", run.token, "--", "sh", "-c", f"{shell}; true"],
        cwd=ROOT,
        env={**os.environ, "TOKEN": run.token},
        stdout=subprocess.PIPE,
        text=True,
    ) as host:
        assert host.stdout is not None
        own = [host.stdout.readline().strip() for _ in range(2)]
        assert not run.namespaces & set(own)
        for words in (["--host", "ann", run.token], [run.token, "--host", "ann"]):
            done = _testbed("attach", *words, "--", "sh", "-c", show)
            assert done.stdout.split()[:2] == own, done.stderr
            assert done.stdout.split()[2].endswith("/serval")
        done = _testbed("attach", "--host", "anna", run.token, "--", "true")
        assert done.returncode == 1
        assert f"no host 'anna' in the sandbox {run.init} ({run.token}); did you mean ann?" in done.stderr
        assert "there are: ann" in done.stderr
        os.kill(run.outer, signal.SIGKILL)
        host.wait(10)


def test_two_runs_differ_in_when_and_where_they_were_started(start: Callable[..., Run]) -> None:
    before = time.time()
    run = start()
    entry = next(item for item in json.loads(_testbed("list", "--json").stdout) if item["name"] == run.token)
    assert entry["directory"] == str(ROOT)
    assert before - 1 < entry["started"] < time.time() + 1
    line = next(line for line in _testbed("list").stdout.splitlines() if run.token in line)
    assert f"since {time.strftime('%H:', time.localtime(entry['started']))}" in line
    assert f" in {ROOT} " in line
