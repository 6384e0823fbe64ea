"""The framework that the controller runs on, and the Python that starts it: Ryu has an environment of its own."""

from __future__ import annotations

import os
import re
import sys

from testbed import sandbox
from testbed.errors import TestbedError

RYU_PYTHON = sandbox.ROOT / ".venv-ryu" / "bin" / "python"
RYU_PYTHONS = ((3, 10), (3, 13))
"""The oldest and the newest Python on which Ryu 4.34 was seen to run."""

_READY = re.compile(r"^controller ready: ([^,\n]+),", re.MULTILINE)


def chosen() -> str:
    """ "osken" or "ryu", by the environment variable CONTROLLER; raises TestbedError."""
    choice = os.environ.get("CONTROLLER") or "osken"
    if choice not in ("osken", "ryu"):
        raise TestbedError(f"there is no controller framework {choice!r}", "CONTROLLER is osken (the default) or ryu")
    return choice


def ryu_obstacle(version: tuple[int, int] = sys.version_info[:2]) -> str | None:
    """Why this Python cannot run Ryu, None when it can."""
    oldest, newest = RYU_PYTHONS
    if oldest <= version <= newest:
        return None
    return f"Ryu 4.34 runs on Python {_dotted(oldest)} to {_dotted(newest)}, and this is Python {_dotted(version)}"


def interpreter(choice: str) -> str:
    """The Python that runs a controller on this framework; raises TestbedError that says what to do."""
    if choice == "osken":
        return sys.executable
    obstacle = ryu_obstacle()
    if obstacle is not None:
        raise TestbedError(obstacle, "without CONTROLLER=ryu the same applications run on os-ken, Ryu's continuation")
    if not RYU_PYTHON.exists():
        raise TestbedError(
            "Ryu's environment .venv-ryu has not been made", "make it with: scripts/setup-ryu (make does so by itself)"
        )
    return str(RYU_PYTHON)


def named_in(printed: str) -> str | None:
    """The framework and its version in what a controller printed last about being ready, None when it did not."""
    found = _READY.findall(printed)
    return found[-1] if found else None


def _dotted(version: tuple[int, int]) -> str:
    return ".".join(map(str, version))
