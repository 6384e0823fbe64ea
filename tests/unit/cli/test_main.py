"""The command's arguments and errors: one clear line, a status, never a traceback."""

from __future__ import annotations

import socket
import subprocess
import sys
from pathlib import Path

import pytest

from serval_node.cli.__main__ import main


@pytest.fixture
def nobody(tmp_path: Path) -> str:
    return str(tmp_path / "control.sock")


COMMANDS = [
    ["table"],
    ["flows"],
    ["stat"],
    ["names"],
    ["connect", "web.example"],
    ["connect", "web.example", "--count", "3"],
    ["bind", "web.example", "80"],
    ["bind", "web.example"],
    ["run", "--service", "web.example", "--", "true"],
    ["trace", "web.example"],
    ["events"],
    ["events", "--follow"],
]


@pytest.mark.parametrize("words", COMMANDS, ids=" ".join)
def test_without_a_daemon(nobody: str, words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--control", nobody, *words]) == 1
    error = capsys.readouterr().err
    if "--count" not in words:
        assert error.startswith("serval: ")
        assert "is the daemon running in this host?" in error
        assert len(error.splitlines()) == 1


def test_a_daemon_that_has_died_is_the_same(nobody: str, capsys: pytest.CaptureFixture[str]) -> None:
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(nobody)
    assert main(["--control", nobody, "table"]) == 1
    assert "is the daemon running" in capsys.readouterr().err


@pytest.mark.parametrize(
    "words",
    [
        [],
        ["dance"],
        ["connect"],
        ["connect", "web.example", "--count", "0"],
        ["connect", "web.example", "--timeout", "-1"],
        ["trace", "web.example", "--timeout", "nan"],
        ["migrate", "flow", "7", "ann-eth1", "--timeout", "0"],
        ["bind", "web.example", "99999"],
        ["run", "--", "true"],
        ["run", "--service", "web.example", "--main", "x", "--", "true"],
    ],
    ids=" ".join,
)
def test_wrong_arguments_have_status_2(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as end:
        main(words)
    assert end.value.code == 2
    assert "usage:" in capsys.readouterr().err


def test_a_command_that_is_missing(nobody: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--control", nobody, "run", "--service", "web.example"]) == 2
    assert capsys.readouterr().err == "serval: no command: serval run --service NAME -- COMMAND [ARGUMENT...]\n"


@pytest.mark.parametrize("words", [["migrate", "auto", "foo", "on"], ["encapsulation", "default"]], ids=" ".join)
def test_words_that_do_not_go_together_have_status_2_too(
    nobody: str, words: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["--control", nobody, *words]) == 2
    assert capsys.readouterr().err.startswith("serval: ")


def test_a_full_disk_is_one_clear_line(nobody: str) -> None:
    words = ["--control", nobody, "watch", "--seconds", "0.3", "--interval", "0.2"]
    with open("/dev/full", "w") as full:
        done = subprocess.run(
            [sys.executable, "-m", "serval_node.cli", *words],
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            timeout=30,
            check=False,
        )
    assert (done.returncode, done.stderr) == (1, "serval: cannot write what there is to say: No space left on device\n")


@pytest.mark.parametrize("command", ["table", "flows", "connect", "bind", "stat", "run", "trace", "names", "watch"])
def test_every_command_explains_itself(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as end:
        main([command, "--help"])
    assert end.value.code == 0
    assert len(capsys.readouterr().out) > 100
