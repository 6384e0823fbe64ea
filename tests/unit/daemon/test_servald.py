"""servald's own errors at the start: one clear line and a status."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from serval_node.daemon.servald import main

ROOT = Path(__file__).resolve().parents[3]


def test_a_configuration_that_is_wrong(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "config.json"
    path.write_text('{"name": "ann", "roll": 1}')
    assert main(["--config", str(path)]) == 1
    assert capsys.readouterr().err.startswith(f"servald: {path}: unknown key 'roll'")
    assert main(["--config", str(tmp_path / "none.json")]) == 1
    assert capsys.readouterr().err == f"servald: cannot read {tmp_path}/none.json: No such file or directory\n"


def test_without_privileges_it_says_what_is_missing(tmp_path: Path) -> None:
    config = tmp_path / "config.json"
    config.write_text(json.dumps({"name": "ann", "run_dir": str(tmp_path / "run")}))
    words = [sys.executable, "-m", "serval_node.daemon", "--config", str(config)]
    # Root may give its capabilities up, unless whoever started the tests has taken them away already.
    drop = ["setpriv", "--inh-caps=-all", "--bounding-set=-all", "true"]
    if os.geteuid() == 0 and subprocess.run(drop, capture_output=True, check=False).returncode == 0:
        words = ["setpriv", "--inh-caps=-all", "--bounding-set=-all", "--no-new-privs", *words]
    done = subprocess.run(words, capture_output=True, text=True, check=False, timeout=30, cwd=ROOT)
    assert done.returncode == 1
    needed = "a node needs root, or CAP_NET_ADMIN and CAP_NET_RAW in its network namespace"
    assert done.stderr == f"servald: Operation not permitted: {needed}\n"
    assert not (tmp_path / "run" / "control.sock").exists()


def test_help_explains_itself(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as end:
        main(["--help"])
    assert end.value.code == 0
    assert "smallest configuration" in capsys.readouterr().out
