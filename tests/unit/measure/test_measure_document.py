"""The result file: refused places, broken files, and that there is a whole file at any moment."""

from __future__ import annotations

import errno
import json
import os
import shutil
from pathlib import Path

import pytest

from testbed.errors import TestbedError
from testbed.measure import document, files


def test_a_directory_is_made_and_left_empty(tmp_path: Path) -> None:
    made = files.prepare(tmp_path / "bench", "now")
    assert made == tmp_path / "bench" / "now" and not list(made.iterdir())


def test_two_runs_of_one_second_have_two_directories(tmp_path: Path) -> None:
    assert [files.prepare(tmp_path, "now").name for _ in range(3)] == ["now", "now-2", "now-3"]


def test_a_place_that_is_a_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "bench").write_text("not a directory")
    with pytest.raises(TestbedError, match=r"cannot write results to .*/bench/now: (.|\n)*choose with --results DIR"):
        files.prepare(tmp_path / "bench", "now")


def test_a_directory_without_permission_is_refused(tmp_path: Path) -> None:
    if os.geteuid() == 0:
        place = Path("/proc/self/results")  # root may write everywhere but there
    else:
        place = tmp_path / "closed"
        place.mkdir(mode=0o500)
    with pytest.raises(TestbedError, match="cannot write results to"):
        files.prepare(place, "now")


def test_a_nearly_full_disk_is_refused_before_anything_is_measured(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage._replace(free=3 << 20))
    with pytest.raises(TestbedError, match=r"is full: 3 MiB free, 32 MiB needed\n  make room"):
        files.prepare(tmp_path, "now")
    assert not list(tmp_path.iterdir())


def test_a_write_that_fails_leaves_the_file_before(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / files.FILE_NAME
    first = document.new({"pairs": 6}, {}, [])
    files.save(first, path)

    def full(self: Path, text: str, encoding: str) -> int:
        self.write_bytes(text.encode(encoding)[:100])
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(Path, "write_text", full)
    with pytest.raises(TestbedError, match="No space left on device"):
        files.save({**first, "ended": "never"}, path)
    assert document.load(path) == first and list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "is no result file"),
        ("[]", "is no result file of this project"),
        ('{"format": "something else"}', "is no result file of this project"),
        (json.dumps({**document.FORMAT.head(), "version": 99}), "has version 99 of the format; this program reads 1"),
        (json.dumps(document.FORMAT.head()), "lacks 'created'"),
    ],
)
def test_what_is_no_result_is_refused(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "x.json"
    path.write_text(text)
    with pytest.raises(TestbedError, match=message):
        document.load(path)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(TestbedError, match=r"cannot read .*nothing.json: No such file"):
        document.load(tmp_path / "nothing.json")
