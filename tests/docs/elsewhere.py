"""The commands of the documentation that are not run with their page: why, and which test runs them otherwise."""

from __future__ import annotations

import re
from dataclasses import dataclass


@dataclass(frozen=True)
class Elsewhere:
    """`pattern` matches the whole command without its comment; `test` is FILE or FILE::TEST, None: there is none."""

    pattern: str
    reason: str
    test: str | None


ELSEWHERE = (
    Elsewhere(r"make setup", "installs packages", "tests/unit/test_setup.py"),
    Elsewhere(r"make setup-vm", "installs packages", "tests/unit/test_setup_vm.py"),
    Elsewhere(r"make (lint|test(-unit|-sandbox|-emulation|-experiments|-docs)?)", "this test is part of it", None),
    Elsewhere(
        r"CONTROLLER=ryu make .*",
        "needs an environment that is made over the network the first time",
        "tests/emulation/test_ryu.py",
    ),
    Elsewhere(
        r"(make topo-datacenter ARGS=\"|(CONTROLLER=ryu )?\.venv(-ryu)?/bin/python -m controllers\.run )--app .*",
        "runs until it is stopped, with an app that the reader has",
        "tests/emulation/test_own_apps.py",
    ),
    Elsewhere(r"make bench", "takes eleven minutes", "tests/emulation/test_benchmarks.py"),
    Elsewhere(
        r"make bench ARGS=\"handover.*\"", "takes from six minutes to an hour", "tests/emulation/test_handover.py"
    ),
    Elsewhere(r"make bench ARGS=\"false-alarms\"", "takes ten minutes", "tests/emulation/test_benchmarks.py"),
    Elsewhere(r"make bench ARGS=\"relay\"", "takes four minutes", "tests/emulation/test_benchmarks.py"),
    Elsewhere(
        r"make (report|plots)( ARGS=.*)?", "needs results of experiments", "tests/unit/report/test_report_command.py"
    ),
    Elsewhere(
        r"\.venv/bin/testbed reproduce slide.*", "takes many minutes", "tests/unit/report/test_report_reproduce.py"
    ),
    Elsewhere(
        r"make experiments?(-NAME)?( ARGS=.*)?", "takes many minutes", "tests/unit/experiment/test_all_experiments.py"
    ),
    Elsewhere(
        r"\.venv/bin/python -m testbed\.experiment (show|export) .*",
        "needs the result of an experiment",
        "tests/experiments/test_experiments.py",
    ),
    Elsewhere(r"make model-check", "takes minutes", "tests/unit/sal/test_model_check.py"),
    Elsewhere(r"(sudo|apt-get) .*", "changes the machine", None),
    Elsewhere(r"scripts/provision", "installs packages, then does make check", "tests/sandbox/test_check.py"),
    Elsewhere(
        r"make test-wireshark|(wireshark|tshark) .*", "setup does not install it", "tests/wireshark/test_tshark.py"
    ),
    Elsewhere(
        r"\.venv/bin/testbed attach( --host ann)?",
        "a shell to type in, and the only sandbox is meant",
        "tests/sandbox/test_attach.py",
    ),
)


def elsewhere(command: str) -> Elsewhere | None:
    """The entry for a command."""
    return next((item for item in ELSEWHERE if re.fullmatch(item.pattern, command)), None)
