"""`testbed check`: it finds what is there, and says of what is not how to get it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.sandbox.first_hour import NO_HTB, assert_helpful, machine, run
from tests.sandbox.support import TESTBED

pytestmark = pytest.mark.usefixtures("host_unchanged")

CHECK = (*TESTBED, "check")


def test_this_machine_runs_the_testbed() -> None:
    done = run(*CHECK, "--json")
    told: dict[str, Any] = json.loads(done.stdout)
    assert (told["runs"], done.returncode) == (True, 0), done.stdout
    found = {finding["name"]: finding for finding in told["findings"]}
    assert {"programs", "sandbox", "HTB, which makes rates", "netem", "MPTCP"} <= found.keys()
    assert found["two Serval hosts"]["state"] == "ok"
    assert "ann reached dan by the name" in found["two Serval hosts"]["said"]


def test_what_is_missing_is_named_with_its_remedy(tmp_path: Path) -> None:
    done = run(*machine(tmp_path, without=["mnexec", "iperf3", "tshark"]), *CHECK)
    assert_helpful(
        done,
        "MISSING     programs ",
        "programs are missing: mnexec, iperf3",
        "to mend it: install what is missing: make setup",
        "absent      tshark ",
        "to mend it: sudo apt-get install --no-install-recommends tshark",
        "check: the testbed does not run here yet; missing: programs",
    )
    assert "two Serval hosts" not in done.stdout, "without programs no network is tried"


def test_a_kernel_without_a_feature(tmp_path: Path) -> None:
    done = run(*machine(tmp_path, programs={"tc": NO_HTB}), *CHECK)
    assert_helpful(done, "MISSING     HTB, which makes rates ", "to mend it: sudo modprobe sch_htb")
    assert "ok          veth interfaces " in done.stdout


def test_without_mininets_modules(tmp_path: Path) -> None:
    (where,) = __import__("mininet").__path__
    done = run(*machine(tmp_path, tmpfs={where: "size=4k"}), *CHECK)
    assert_helpful(done, "MISSING     Python packages ", "mininet (the distribution's)")


def test_where_no_sandbox_can_be_made(tmp_path: Path) -> None:
    done = run(*machine(tmp_path, nobody="0600"), *CHECK)
    assert_helpful(done, "MISSING     sandbox ", "cannot be opened for reading and writing", "run it with sudo")


def test_a_network_that_does_not_start(tmp_path: Path) -> None:
    dying = {"ovs-vswitchd": "echo it is not for me >&2; exit 4"}
    done = run(*machine(tmp_path, programs=dying), *CHECK)
    assert_helpful(done, "MISSING     two Serval hosts ", "it is not for me", "the logs were kept in ")
