"""One thing that was looked at: whether it is there, what was seen, and what to do where it is not."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

OK, SUBSTITUTE, ABSENT, MISSING = "ok", "substitute", "absent", "MISSING"
"""SUBSTITUTE: something else does it. ABSENT: not there, and only what asks for it does without. MISSING: needed."""
_STATE_WIDTH, _NAME_WIDTH = 12, 40


@dataclass(frozen=True, slots=True)
class Finding:
    """said: what was seen, or what takes its place; remedy: what to do, empty where nothing is to be done."""

    name: str
    state: str
    said: str
    remedy: str = ""

    def lines(self) -> list[str]:
        """For a person: one line, and a second one with the remedy."""
        first = f"{self.state:<{_STATE_WIDTH}}{self.name:<{_NAME_WIDTH}}{self.said}"
        return [first] + ([f"{'':<{_STATE_WIDTH + _NAME_WIDTH}}to mend it: {self.remedy}"] if self.remedy else [])

    def as_json(self) -> dict[str, Any]:
        return {"name": self.name, "state": self.state, "said": self.said, "remedy": self.remedy or None}


def verdict(found: Iterable[Finding]) -> tuple[bool, str]:
    """Whether the testbed runs here, and the last line that says so."""
    findings = list(found)
    missing = [finding.name for finding in findings if finding.state == MISSING]
    if missing:
        return False, f"check: the testbed does not run here yet; missing: {', '.join(missing)}"
    replaced = sum(finding.state == SUBSTITUTE for finding in findings)
    absent = sum(finding.state == ABSENT for finding in findings)
    words = [f"{replaced} with a substitute"] if replaced else []
    words += [f"{absent} optional ones absent"] if absent else []
    return True, f"check: the testbed runs here{' (' + ', '.join(words) + ')' if words else ''}"
