"""However a run ends, nothing of it is left: no process, namespace, interface or mount."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Callable
from pathlib import Path

import pytest

from testbed import init, sandbox
from tests.sandbox.support import ROOT, TESTBED, Run, eventually, processes_with

pytestmark = pytest.mark.usefixtures("host_unchanged")

# A shell called make or sudo, which runs the run as its child (`; true` keeps dash from replacing itself by it).
_SCRIPT = '"$@"; true'


@pytest.fixture
def named_shell(tmp_path: Path) -> Callable[[str], str]:
    """Returns the path of a shell that has the name of another program."""

    def make(name: str) -> str:
        path = tmp_path / name
        path.symlink_to("/bin/dash")
        return str(path)

    return make


def test_kill_outer(start: Callable[..., Run]) -> None:
    run = start()
    os.kill(run.outer, signal.SIGKILL)
    run.assert_gone()


def test_kill_pid_1(start: Callable[..., Run], capfd: pytest.CaptureFixture[str]) -> None:
    run = start()
    os.kill(run.init, signal.SIGKILL)
    assert run.process.wait(5) == 137
    run.assert_gone()
    assert capfd.readouterr().err == (
        "testbed: the sandbox's first process was ended by SIGKILL, and all in it with it\n"
    )


@pytest.mark.parametrize("name", ["make", "sudo"])
def test_kill_wrapper(name: str, start: Callable[..., Run], named_shell: Callable[[str], str]) -> None:
    run = start(named_shell(name), "-c", _SCRIPT, name)
    os.kill(run.above(name), signal.SIGKILL)
    run.assert_gone(within=8)
    assert run.orderly


def test_kill_sudo_above_make_and_shell(start: Callable[..., Run], named_shell: Callable[[str], str]) -> None:
    shell = named_shell("sh-between")
    above = [named_shell("sudo"), "-c", _SCRIPT, "sudo", named_shell("make"), "-c", _SCRIPT, "make"]
    run = start(*above, shell, "-c", _SCRIPT, "sh")
    os.kill(run.above("sudo"), signal.SIGKILL)
    run.assert_gone(within=8)


def test_kill_real_make(start: Callable[..., Run], tmp_path: Path) -> None:
    (tmp_path / "Makefile").write_text("all:\n\t@exec $(RUN)\nvia-shell:\n\t@$(RUN); true\n")
    script = tmp_path / "wrap"
    for target in ("all", "via-shell"):
        # The command with its quoting goes through make's variable as a script of its own.
        inner = tmp_path / f"inner-{target}"
        script.write_text(
            "#!/bin/bash\n"
            f'printf "#!/bin/bash\\nexec" > {inner}; printf " %q" "$@" >> {inner}; chmod +x {inner}\n'
            f"exec make -f {tmp_path}/Makefile {target} RUN={inner}\n"
        )
        script.chmod(0o755)
        run = start(str(script))
        os.kill(run.above("make"), signal.SIGKILL)
        run.assert_gone(within=8)
        assert run.orderly


def test_kill_shell_between_make_and_run(start: Callable[..., Run], named_shell: Callable[[str], str]) -> None:
    run = start(named_shell("make"), "-c", _SCRIPT, "make", "/bin/dash", "-c", _SCRIPT, "sh")
    os.kill(run.above("dash"), signal.SIGKILL)
    run.assert_gone(within=8)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_ends_in_order_when_asked(number: signal.Signals, start: Callable[..., Run]) -> None:
    run = start()
    os.kill(run.outer, number)
    assert run.process.wait(5) == 0
    assert run.orderly
    run.assert_gone()


def test_sigint_without_terminal_reaches_the_command(start: Callable[..., Run]) -> None:
    run = start()
    os.kill(run.outer, signal.SIGINT)
    # Python's own death by Ctrl-C.
    assert run.process.wait(5) == 130
    run.assert_gone()


@pytest.mark.slow
def test_ends_by_force_after_the_limit(start: Callable[..., Run]) -> None:
    deaf, frozen = start(mode="stubborn"), start()
    frozen_init = frozen.init
    began = time.monotonic()
    os.kill(frozen_init, signal.SIGSTOP)
    for run in (deaf, frozen):
        os.kill(run.outer, signal.SIGTERM)
    assert deaf.process.wait(init.TERMINATE_SECONDS + 5) == 137
    assert time.monotonic() - began > init.TERMINATE_SECONDS - 0.5
    deaf.assert_gone()
    assert frozen.process.wait(sandbox.FORCE_SECONDS + 5) == 137
    frozen.assert_gone()


def test_daemons_end_with_the_command() -> None:
    token = f"token-{uuid.uuid4()}"
    program = "import subprocess; subprocess.Popen(['sleep', '600'], start_new_session=True)"
    began = time.monotonic()
    done = subprocess.run(
        [*TESTBED, "exec", "--", sys.executable, "-W", "ignore", "-c", program],
        env={**os.environ, "TOKEN": token},
        cwd=ROOT,
        check=False,
    )
    assert done.returncode == 0
    assert not processes_with(token)
    assert time.monotonic() - began < init.GRACE_SECONDS


def test_kill_outer_at_any_moment_of_the_start() -> None:
    token = f"token-{uuid.uuid4()}"
    for step in range(30):
        process = subprocess.Popen(
            [*TESTBED, "exec", "--", "sleep", "600"], env={**os.environ, "TOKEN": token}, cwd=ROOT
        )
        time.sleep(step * 0.006)
        process.kill()
        process.wait()
    try:
        eventually(lambda: not processes_with(token), within=5, what="no process is left")
    finally:
        for pid in processes_with(token):
            os.kill(pid, signal.SIGKILL)
