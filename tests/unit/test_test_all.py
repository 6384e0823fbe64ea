"""scripts/test-all, with a `make` that only says its phase: what fails is noticed in either lane, and named."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).resolve().parents[2] / "scripts" / "test-all"
PHASES = ["lint", "test-unit", "test-sandbox", "test-docs", "test-experiments", "test-emulation"]
MAKE = """#!/bin/sh
echo "phase $1"
case " $SLOW " in *" $1 "*) exec sleep 60 ;; esac
case " $FAIL " in *" $1 "*) exit 2 ;; esac
"""


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """A tree with a `make`, and with rights to be had."""
    for name, text in {"bin/make": MAKE, "scripts/privileged": '#!/bin/sh\nexec "$@"\n'}.items():
        path = tmp_path / name
        path.parent.mkdir()
        path.write_text(text)
        path.chmod(0o755)
    return tmp_path


def started(tree: Path, **settings: str) -> subprocess.Popen[str]:
    environment = {**os.environ, "PATH": f"{tree / 'bin'}:{os.environ['PATH']}", **settings}
    return subprocess.Popen([sys.executable, str(SCRIPT)], cwd=tree, env=environment, stdout=subprocess.PIPE, text=True)


def ran(tree: Path, **settings: str) -> tuple[int, list[str], str]:
    """Its status, the phases in the order in which they were shown, and its last line."""
    process = started(tree, **settings)
    said = process.communicate(timeout=30)[0].splitlines()
    return process.returncode, [line.split()[1] for line in said if line.startswith("phase ")], said[-1]


def test_all_phases_pass_and_those_beside_are_shown_last(tree: Path) -> None:
    status, shown, last = ran(tree)
    beside = ["test-unit", "test-sandbox", "test-docs", "test-experiments"]
    assert (status, shown) == (0, ["lint", "test-emulation", *beside])
    assert last.startswith("make test: lint, unit, sandbox, emulation, docs and experiments passed in ")


def test_one_after_the_other(tree: Path) -> None:
    assert ran(tree, JOBS="1")[:2] == (0, PHASES)


@pytest.mark.parametrize("jobs", ["", "1"])
@pytest.mark.parametrize("phase", PHASES)
def test_what_fails_is_named(tree: Path, phase: str, jobs: str) -> None:
    status, _, last = ran(tree, FAIL=phase, JOBS=jobs)
    assert (status, last) == (1, f"make test: failed in {phase}")


def test_after_lint_that_fails_nothing_runs(tree: Path) -> None:
    assert ran(tree, FAIL="lint")[1] == ["lint"]


def test_both_lanes_may_fail(tree: Path) -> None:
    status, shown, last = ran(tree, FAIL="test-unit test-emulation")
    assert (status, shown) == (1, ["lint", "test-emulation", "test-unit"])
    assert last == "make test: failed in test-unit and test-emulation"


def test_no_rights_no_tests(tree: Path) -> None:
    (tree / "scripts" / "privileged").write_text("#!/bin/sh\nexit 1\n")
    assert ran(tree)[:2] == (1, ["lint"])


def test_a_signal_ends_both_lanes(tree: Path) -> None:
    process = started(tree, SLOW="test-unit test-emulation")
    assert process.stdout is not None
    for line in process.stdout:
        if line == "phase test-emulation\n":
            break
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=30)
    assert process.returncode == 128 + signal.SIGTERM
