"""Fixtures of the sandbox tests, which start their sandboxes from outside any."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from testbed import sandbox
from tests.sandbox.support import Host, Run, eventually

if os.geteuid() != 0:
    # They become a user or cripple a machine, which only root can; without root all the other tests are run by a user.
    collect_ignore_glob = ["test_user.py", "test_first_hour*.py"]


@pytest.fixture(autouse=True)
def outside() -> None:
    """These tests are about the way in."""
    assert not sandbox.inside(), "run the sandbox tests outside any sandbox: make test-sandbox"


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[..., Run]]:
    """Starts a sandbox with the stubborn payload: start(*above, mode=...)."""
    runs = []

    def start_run(*above: str, mode: str = "polite") -> Run:
        runs.append(Run(tmp_path, above, mode))
        runs[-1].wait_ready()
        return runs[-1]

    yield start_run
    for run in runs:
        run.close()


@pytest.fixture
def host_unchanged() -> Iterator[dict[str, Any]]:
    """Fails the test if the host's mounts, links or sysctls are different after it."""
    before = Host.state()
    yield before
    # Interfaces of a namespace that has ended go a moment later.
    eventually(lambda: Host.state()["links"] == before["links"], within=3, what="the host's interfaces are as before")
    assert Host.state() == before
