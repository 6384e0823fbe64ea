"""What tours share: steps that show something and check it, each with its verdict."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from testbed import hosts
from testbed.errors import TestbedError
from testbed.hosts import ServalHost
from testbed.network import Say

COMMAND_SECONDS = 30.0

Step = tuple[str, Callable[[], str]]
"""Its title, and what does it: returns what was seen to be right, or raises StepFailed or TestbedError."""


class StepFailed(Exception):
    """What a step showed is not what it should be; one line."""


def run_steps(steps: Sequence[Step], say: Say, *, what: str = "tour", which: str = "steps") -> int:
    """All steps, also after one that failed; returns the exit status: 0 when all passed.

    The last line says so: "tour: 5 of 6 steps passed".
    """
    failed = 0
    for number, (title, step) in enumerate(steps, 1):
        say(f"\n[{number}/{len(steps)}] {title}")
        try:
            say(f"PASS {step()}")
        except (StepFailed, TestbedError) as error:
            failed += 1
            say(f"FAIL {error}")
    say(f"\n{what}: {len(steps) - failed} of {len(steps)} {which} passed")
    return 1 if failed else 0


def show(host: ServalHost, *words: str, say: Say, at_most: int = 40) -> str:
    """Say a command and, of what it prints in the host, the first lines; returns all of it. Raises TestbedError."""
    say(f"  {host.name}> {' '.join(words)}")
    output = hosts.run(host, words, timeout=COMMAND_SECONDS)
    lines = output.rstrip().splitlines()
    for line in lines[:at_most]:
        say(f"    {line}")
    if len(lines) > at_most:
        say(f"    ... {len(lines) - at_most} more")
    return output
