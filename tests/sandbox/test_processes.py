"""The one place that starts programs, and whose the files are that it makes."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from testbed import ownership, processes
from testbed.errors import TestbedError


def test_daemon_is_ready_when_it_says_so(tmp_path: Path) -> None:
    flag, log = tmp_path / "flag", tmp_path / "logs" / "daemon.log"
    script = f"echo hello; sleep 0.2; touch {flag}; exec sleep 600"
    daemon = processes.start("sleeper", ["sh", "-c", script], log=log, ready=flag.exists)
    try:
        assert flag.exists()
        assert daemon.alive
        assert log.read_text() == "hello\n"
    finally:
        assert daemon.stop() == -15
    assert not daemon.alive


def test_daemon_that_ends_early_is_told_with_its_last_words(tmp_path: Path) -> None:
    began = time.monotonic()
    with pytest.raises(TestbedError) as caught:
        processes.start(
            "failing", ["sh", "-c", "echo no such port >&2; exit 3"], log=tmp_path / "log", ready=lambda: False
        )
    assert time.monotonic() - began < processes.READY_SECONDS / 2
    assert caught.value.message == "failing ended during its start with status 3: no such port"
    assert str(tmp_path / "log") in str(caught.value.hint)


def test_daemon_that_is_never_ready_is_stopped(tmp_path: Path) -> None:
    pid_file = tmp_path / "pid"
    script = f"echo $$ > {pid_file}; exec sleep 600"
    with pytest.raises(TestbedError, match=r"slow was not ready within 0\.3 s"):
        processes.start("slow", ["sh", "-c", script], log=tmp_path / "log", ready=lambda: False, timeout=0.3)
    assert not Path(f"/proc/{pid_file.read_text().strip()}").exists()


def test_daemon_that_ignores_sigterm_is_killed(tmp_path: Path) -> None:
    flag = tmp_path / "flag"
    script = f"trap '' TERM; touch {flag}; while :; do sleep 0.1; done"
    daemon = processes.start("deaf", ["sh", "-c", script], log=tmp_path / "log", ready=flag.exists)
    assert daemon.stop(timeout=0.3) == -9


def test_command_errors_name_the_command() -> None:
    with pytest.raises(TestbedError, match=r"`sh -c echo why >&2; exit 4` failed with status 4: why"):
        processes.run(["sh", "-c", "echo why >&2; exit 4"])
    with pytest.raises(TestbedError, match="the program no-such-program is missing"):
        processes.run(["no-such-program"])
    with pytest.raises(TestbedError, match=r"was not done within 0\.1 s"):
        processes.run(["sleep", "5"], timeout=0.1)
    assert processes.run(["echo", "fine"]) == "fine\n"


def test_files_belong_to_whoever_typed_sudo(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ownership, "caller", lambda: (1234, 4321))
    monkeypatch.setattr(ownership.os, "chown", chowned := _Recorder())
    made = ownership.make_directory(tmp_path / "results" / "first")
    (made / "file").touch()
    assert made.is_dir()
    assert chowned.paths == [str(tmp_path / "results"), str(made)]
    chowned.paths.clear()
    assert ownership.owned_by_caller(made, recursive=True) == made
    assert chowned.paths == [str(made), str(made / "file")]
    assert chowned.ids == {(1234, 4321)}


def test_without_sudo_nothing_changes_hands(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SUDO_UID", raising=False)
    assert ownership.caller() is None
    before = tmp_path.stat().st_uid
    ownership.owned_by_caller(tmp_path)
    assert tmp_path.stat().st_uid == before


class _Recorder:
    """Stands for os.chown."""

    def __init__(self) -> None:
        self.paths: list[str] = []
        self.ids: set[tuple[int, int]] = set()

    def __call__(self, path: object, uid: int, gid: int, *, follow_symlinks: bool) -> None:
        assert not follow_symlinks
        self.paths.append(str(path))
        self.ids.add((uid, gid))
