"""scripts/provision and the Vagrantfile that calls it; what it installs is rehearsed on fresh systems, not here."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PROVISION = ROOT / "scripts" / "provision"

_RECORDS = '#!/bin/sh\necho "$(basename "$0") $*" >> "$CALLS"\n{}\n'


def provision(
    *words: str, path: Path | None = None, environment: dict[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    where = f"{path}:{os.environ['PATH']}" if path else os.environ["PATH"]
    return subprocess.run(
        [PROVISION, *words],
        env={**os.environ, "PATH": where, **(environment or {})},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=20,
        check=False,
    )


def with_programs(tmp_path: Path, *, check_status: int) -> tuple[subprocess.CompletedProcess[str], str]:
    """Runs it where make, modprobe and sudo only say that they were called."""
    programs, calls = tmp_path / "programs", tmp_path / "calls"
    programs.mkdir()
    endings = {"make": f"exit {check_status}", "modprobe": "exit 1", "sudo": "exit 1"}
    for name, ending in endings.items():
        (programs / name).write_text(_RECORDS.format(ending))
        (programs / name).chmod(0o755)
    done = provision(path=programs, environment={"CALLS": str(calls)})
    return done, calls.read_text()


def test_it_ends_with_the_check_and_its_status(tmp_path: Path) -> None:
    done, calls = with_programs(tmp_path, check_status=3)
    assert done.returncode == 3, done.stderr
    assert calls.splitlines()[-1] == "make check"
    assert "tun" in calls, "a module that cannot be loaded is no error: the check says what takes its place"


def test_words_that_it_does_not_know_are_refused(tmp_path: Path) -> None:
    assert provision("--help").returncode == 0
    assert "Exit status" in provision("--help").stdout
    assert provision("--force").returncode == 1
    done = provision(str(tmp_path))
    assert (done.returncode, done.stderr) == (1, f"provision: {tmp_path} is no copy of the testbed\n")


def test_vagrant_runs_the_same_script_on_a_pinned_box() -> None:
    text = (ROOT / "Vagrantfile").read_text()
    assert "scripts/provision" in text
    assert "config.vm.box_version = " in text
    for made in (".venv/", ".venv-ryu/", ".vm/", "results/"):  # `vagrant rsync` deletes what the host does not have
        assert f'"{made}"' in text
