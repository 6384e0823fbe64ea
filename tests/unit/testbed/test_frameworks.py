"""Which Python runs the controller, and what is said where Ryu cannot run."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from testbed import frameworks
from testbed.errors import TestbedError


def test_os_ken_is_the_default_and_runs_in_this_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for value in (None, "", "osken"):
        monkeypatch.delenv("CONTROLLER", raising=False)
        if value is not None:
            monkeypatch.setenv("CONTROLLER", value)
        assert frameworks.chosen() == "osken"
    assert frameworks.interpreter("osken") == sys.executable


def test_another_framework_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CONTROLLER", "Ryu")
    with pytest.raises(TestbedError, match="no controller framework 'Ryu'"):
        frameworks.chosen()


def test_a_python_that_cannot_run_ryu_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    oldest, newest = frameworks.RYU_PYTHONS
    assert frameworks.ryu_obstacle(oldest) is None
    assert frameworks.ryu_obstacle(newest) is None
    beyond = (newest[0], newest[1] + 1)
    assert f"this is Python 3.{beyond[1]}" in str(frameworks.ryu_obstacle(beyond))
    monkeypatch.setattr(frameworks, "ryu_obstacle", lambda: "no Ryu here")
    with pytest.raises(TestbedError, match="no Ryu here") as caught:
        frameworks.interpreter("ryu")
    assert "os-ken" in str(caught.value.hint)


def test_a_missing_environment_is_said_with_what_makes_it(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(frameworks, "ryu_obstacle", lambda: None)
    monkeypatch.setattr(frameworks, "RYU_PYTHON", tmp_path / "python")
    with pytest.raises(TestbedError) as caught:
        frameworks.interpreter("ryu")
    assert "scripts/setup-ryu" in str(caught.value.hint)


def test_the_last_ready_line_names_the_framework() -> None:
    printed = "controller ready: os-ken 4.2.2, OpenFlow on x\nnoise\ncontroller ready: Ryu 4.34, OpenFlow on x\n"
    assert frameworks.named_in(printed) == "Ryu 4.34"
    assert frameworks.named_in("not yet") is None
