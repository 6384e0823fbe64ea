"""The script of docs/mininet.md, taken from the page, does what the page says; it enters its sandbox by itself."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.sandbox.support import ROOT

pytestmark = pytest.mark.usefixtures("host_unchanged")


def _run(program: str, directory: Path) -> subprocess.CompletedProcess[str]:
    script = directory / "script.py"
    script.write_text(program)
    # No environment is activated, and the script lies outside the project.
    return subprocess.run(
        [sys.executable, str(script)],
        cwd=directory,
        env={**os.environ, "PATH": "/usr/bin:/bin"},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def _script() -> str:
    (found,) = re.findall(r"```python\n(.*?)```", (ROOT / "docs" / "mininet.md").read_text(), re.DOTALL)
    return found


def test_the_script_of_the_page_binds_connects_and_prints_the_tables(tmp_path: Path) -> None:
    done = _run(_script(), tmp_path)
    assert done.returncode == 0, done.stderr
    assert "dan echoes: hello by name\n" in done.stdout
    tables = dict(re.findall(r"(\w+'s \w+ table)\n(.*?)\n\n", done.stdout + "\n\n", re.DOTALL))
    assert re.search(r"echo\.example +FORWARD +10\.0\.0\.2", tables["ann's service table"])
    assert re.search(r"echo\.example +DEMUX", tables["dan's service table"])
    (ann,) = re.findall(
        r"(\d+) .* CONNECTED +-> echo\.example +10\.0\.0\.1 +10\.0\.0\.2 +(\d+)", tables["ann's flow table"]
    )
    (dan,) = re.findall(
        r"(\d+) .* CONNECTED +<- echo\.example +10\.0\.0\.2 +10\.0\.0\.1 +(\d+)", tables["dan's flow table"]
    )
    assert ann == dan[::-1]  # each flow is the other's peer


def test_a_script_that_does_not_enter_a_sandbox_is_told_how(tmp_path: Path) -> None:
    done = _run(re.sub(r"(?m)^testbed\.enter_sandbox\(\).*$", "", _script()), tmp_path)
    assert done.returncode == 1
    assert "TestbedError: networks are built in a sandbox only" in done.stderr
    assert "testbed.enter_sandbox()" in done.stderr
