"""What every test has: a deadline, and on demand the rule that a skipped test has failed."""

from __future__ import annotations

import signal
import threading
from collections.abc import Generator
from types import FrameType

import pytest

DEADLINE_SECONDS = 60.0
EMULATION_DEADLINE_SECONDS = 180.0
OPTIONAL = ("kernel without ", "Python without Ryu: ", "machine without real VMs ")
"""A skip whose reason begins so is about what the testbed has a substitute for (netem, the OVS module, Ryu, QEMU)."""


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--no-skips",
        action="store_true",
        help=f"count a skipped test as failed, unless its reason begins with one of {OPTIONAL}",
    )


def _deadline(item: pytest.Item) -> float:
    marker = item.get_closest_marker("deadline")
    if marker is not None:
        return float(marker.args[0])
    in_sandbox = item.nodeid.startswith(("tests/emulation/", "tests/sandbox/"))
    return EMULATION_DEADLINE_SECONDS if in_sandbox else DEADLINE_SECONDS


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item: pytest.Item) -> Generator[None, object, object]:
    """Fails a test that waits longer than its deadline, with the stack of where it waited."""
    if threading.current_thread() is not threading.main_thread():
        return (yield)
    seconds = _deadline(item)

    def expired(signum: int, frame: FrameType | None) -> None:
        pytest.fail(f"still running after its deadline of {seconds:g} s")

    previous = signal.signal(signal.SIGALRM, expired)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        return (yield)
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, previous)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    report = yield
    if report.skipped and not hasattr(report, "wasxfail") and item.config.getoption("--no-skips"):
        reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else str(report.longrepr)
        if not reason.removeprefix("Skipped: ").startswith(OPTIONAL):
            report.outcome = "failed"
            report.longrepr = f"{item.nodeid} was skipped, and here a skip is a failure: {reason}"
    return report
