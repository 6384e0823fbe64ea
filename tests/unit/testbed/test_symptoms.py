"""What to do about what programs and the system say when something runs out."""

from __future__ import annotations

import errno
import os
import resource
from pathlib import Path

import pytest

from testbed import symptoms


@pytest.mark.parametrize(
    ("said", "advice"),
    [
        ("ovsdb-server: failed to write (No space left on device)", "make room"),
        ("Disk quota exceeded", "make room"),
        ("[Errno 24] Too many open files", "ulimit -n"),
        ("fork: retry: Resource temporarily unavailable", "ulimit -u"),
        ("RuntimeError: can't start new thread", "ulimit -u"),
        ("Cannot allocate memory", "memory is used up"),
        ("cannot listen on 127.0.0.1:6653: Address already in use", "ss -ltnp"),
    ],
)
def test_shortages_are_recognised(said: str, advice: str) -> None:
    assert advice in (symptoms.hint(said) or "")


def test_other_words_mean_no_shortage() -> None:
    assert symptoms.hint("it is not for me") is None


def test_what_waits_for_a_thread_is_told_of_a_low_limit_only(monkeypatch: pytest.MonkeyPatch) -> None:
    said = "ovs-vsctl, for the switches, was not done within 10 s"
    monkeypatch.setattr(resource, "getrlimit", lambda limit: (30, 30))
    assert "the limit of processes is 30" in (symptoms.hint(said) or "")
    monkeypatch.setattr(resource, "getrlimit", lambda limit: (100_000, 100_000))
    assert symptoms.hint(said) is None


def test_full_places_are_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(symptoms, "room", lambda place: 0.0 if place == tmp_path else 1e9)
    assert symptoms.disk_hint([tmp_path]) == f"make room in {tmp_path} (df -h), then start again"
    assert "df -h shows where" in symptoms.disk_hint()


def test_room_of_what_is_not_there_yet_is_that_of_the_directory_above(tmp_path: Path) -> None:
    found = os.statvfs(tmp_path)
    assert symptoms.room(tmp_path / "not" / "yet") == pytest.approx(found.f_bavail * found.f_frsize, rel=0.1)


def test_errors_of_the_system_are_explained() -> None:
    error = symptoms.explained(OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "/run/testbed/x"))
    assert error.message == "/run/testbed/x: No space left on device"
    assert "make room" in (error.hint or "")
    assert symptoms.explained(MemoryError()).message == "no memory is left"
