"""What a run looks at before it starts anything."""

from __future__ import annotations

import errno
import os
import resource
from collections.abc import Callable
from pathlib import Path

import pytest

from testbed import isolation, requirements
from testbed.errors import TestbedError
from testbed.requirements import Feature


def _failing(error: Exception) -> Callable[[], None]:
    def trial() -> None:
        raise error

    return trial


def test_all_that_the_kernel_lacks_is_named_at_once() -> None:
    features = [
        Feature("news of sockets", "sudo modprobe tcp_diag", _failing(OSError(errno.ENOENT, "No such file"))),
        Feature("what it has", "nothing", lambda: None),
        Feature("HTB", "sudo modprobe sch_htb", _failing(TestbedError("`tc` failed with status 2: unknown qdisc"))),
    ]
    with pytest.raises(TestbedError) as raised:
        requirements.check_kernel(features)
    assert os.uname().release in raised.value.message
    assert (raised.value.hint or "").splitlines() == [
        "news of sockets (No such file): sudo modprobe tcp_diag",
        "  HTB (unknown qdisc): sudo modprobe sch_htb",
    ]


def test_every_feature_says_how_it_is_to_be_had() -> None:
    assert all("modprobe" in feature.remedy and "CONFIG_" in feature.remedy for feature in requirements.FEATURES)


def test_a_kernel_without_pidfds(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "pidfd_open", _failing_call(OSError(errno.ENOSYS, os.strerror(errno.ENOSYS))))
    with pytest.raises(TestbedError, match="has no pidfd_open: Function not implemented") as raised:
        isolation.check_kernel()
    assert "needs Linux 5.8 or newer" in (raised.value.hint or "")


def _failing_call(error: OSError) -> Callable[[int], int]:
    def call(_pid: int) -> int:
        raise error

    return call


def test_a_kernel_without_cubic(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(requirements.sysctl, "read", lambda name: "reno bbr")
    cubic = [feature for feature in requirements.FEATURES if "congestion" in feature.name]
    with pytest.raises(TestbedError) as raised:
        requirements.check_kernel(cubic)
    assert raised.value.hint == (
        "TCP congestion control cubic (reno bbr): sudo modprobe tcp_cubic (CONFIG_TCP_CONG_CUBIC)"
    )


def test_a_services_program_is_looked_for_too(monkeypatch: pytest.MonkeyPatch) -> None:
    there = {*requirements.PROGRAMS, "iperf3"}
    monkeypatch.setattr(requirements.shutil, "which", lambda name: name if name in there else None)
    requirements.missing_programs([requirements.MEASURING], [("iperf3", "--server")])
    with pytest.raises(TestbedError, match="the program nginx is missing") as raised:
        requirements.missing_programs([requirements.MEASURING], [("nginx", "-g")])
    assert "apt-get" not in (raised.value.hint or "")  # of what package it is, nobody said


@pytest.mark.parametrize(("members", "enough"), [(10, True), (2000, False)])
def test_open_files_for_so_many_members(members: int, enough: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    limits = {resource.RLIMIT_NOFILE: (64, 512), resource.RLIMIT_NPROC: (resource.RLIM_INFINITY,) * 2}
    monkeypatch.setattr(resource, "getrlimit", limits.__getitem__)
    monkeypatch.setattr(resource, "setrlimit", lambda limit, wanted: limits.update({limit: wanted}))
    if enough:
        requirements.check_limits(members)
        assert limits[resource.RLIMIT_NOFILE] == (512, 512)  # as many as allowed
    else:
        with pytest.raises(TestbedError, match="the limit of open files is 512, and this network needs about"):
            requirements.check_limits(members)


def test_a_trial_leaves_no_file(tmp_path: Path) -> None:
    requirements.check_writable(tmp_path)
    assert not list(tmp_path.iterdir())
    with pytest.raises(OSError, match="No such file"):
        requirements.check_writable(tmp_path / "missing")
