"""The command `testbed check`: outside, where a sandbox may be refused, and inside, where everything is tried out."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from pathlib import Path

from testbed import failures
from testbed.check import machine
from testbed.check.findings import MISSING, Finding, verdict
from testbed.errors import TestbedError

LOGS = Path("/run/testbed/logs")
_LABEL = "check"


def run_inside(*, as_json: bool) -> int:
    """All of it, inside a sandbox; the exit status: 0 when the testbed runs here."""
    return _tell(_inside(), as_json=as_json)


def without_sandbox(error: TestbedError, *, as_json: bool) -> int:
    """What can be said when no sandbox can be made; 1."""

    def found() -> Iterator[Finding]:
        yield from machine.look()
        yield machine.sandbox_missing(error)

    return _tell(found(), as_json=as_json)


def _inside() -> Iterator[Finding]:
    whole = True
    for finding in machine.look():
        whole = whole and finding.state != MISSING
        yield finding
    yield machine.sandbox_there()
    if not whole:
        return  # what follows needs all of the above
    # They bring Mininet along, which `machine` has said to be there.
    from testbed.check import boot, kernel

    for finding in kernel.look():
        whole = whole and finding.state != MISSING
        yield finding
    if not whole:
        return
    LOGS.mkdir(parents=True, exist_ok=True)
    finding = boot.look(LOGS)
    if finding.state == MISSING and isinstance(kept := failures.save_logs(_LABEL), Path):
        finding = Finding(finding.name, finding.state, finding.said, f"the logs were kept in {kept}")
    yield finding


def _tell(found: Iterator[Finding], *, as_json: bool) -> int:
    begun = time.monotonic()
    findings = []
    for finding in found:
        findings.append(finding)
        if not as_json:
            print("\n".join(finding.lines()), flush=True)
    well, words = verdict(findings)
    if as_json:
        print(json.dumps({"runs": well, "findings": [finding.as_json() for finding in findings]}, indent=1))
    else:
        print(f"{words}; took {time.monotonic() - begun:.0f} s", flush=True)
    return 0 if well else 1
