"""What a command in the sandbox finds on its PATH."""

from __future__ import annotations

import os
import sys

import pytest

from testbed import sandbox

ROOTS = ["/usr/local/sbin", "/usr/sbin", "/sbin"]


@pytest.mark.parametrize("path", ["/usr/bin:/bin", None])
def test_this_pythons_programs_come_first_and_roots_last(path: str | None, monkeypatch: pytest.MonkeyPatch) -> None:
    if path is None:
        monkeypatch.delenv("PATH")
    else:
        monkeypatch.setenv("PATH", path)
    monkeypatch.setattr(sys, "executable", "/opt/serval/bin/python")
    found = sandbox._environment("name")["PATH"].split(":")
    own = (path or os.defpath).split(":")
    assert found == ["/opt/serval/bin", *own, *(entry for entry in ROOTS if entry not in own)]


def test_a_path_that_has_them_keeps_its_order(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", ":".join(["/usr/bin", "/opt/serval/bin", *ROOTS]))
    monkeypatch.setattr(sys, "executable", "/opt/serval/bin/python")
    assert sandbox._environment("name")["PATH"] == os.environ["PATH"]
