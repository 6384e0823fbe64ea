"""The same controllers under original Ryu: `CONTROLLER=ryu make topo-datacenter`, without a terminal."""

from __future__ import annotations

import os
import re
import subprocess
import sys

import pytest

from testbed import frameworks

LAUNCH = [sys.executable, "-m", "testbed", "launch", "datacenter", "--no-calibration"]


def run(choice: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        LAUNCH,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
        env={**os.environ, "CONTROLLER": choice},
    )


def test_the_tour_passes_under_ryu() -> None:
    obstacle = frameworks.ryu_obstacle()
    if obstacle is not None:
        pytest.skip(f"Python without Ryu: {obstacle}")
    done = run("ryu")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "FAIL" not in done.stdout
    assert len(re.findall(r"^PASS ", done.stdout, re.MULTILINE)) == 6
    assert "controller       Ryu 4.34;" in done.stdout


def test_a_framework_that_does_not_exist_is_refused_by_name() -> None:
    done = run("pox")
    assert done.returncode == 1
    assert "there is no controller framework 'pox'" in done.stderr
