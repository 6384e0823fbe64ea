"""How long a virtual machine stands still while it moves: the model of iterative pre-copy. Pure.

Memory of M bytes is copied at B bytes a second while the machine writes D bytes a second anew. Round 0 copies all of
it; round n what was written during round n - 1:

    t(0) = M / B,    t(n) = t(n - 1) * D / B = (M / B) * (D / B)^n

The machine is stopped when what is left can be copied within the limit, or when rounds bring no gain any more (D >= B)
or have become too many. What it then stands still for is the time of the last copy and a fixed part for devices and
wake-up. The scheme is that of C. Clark et al., "Live Migration of Virtual Machines", NSDI 2005, section 3; the
geometric series that of S. Akoush et al., "Predicting the Performance of Virtual Machine Migration", MASCOTS 2010.
"""

from __future__ import annotations

from dataclasses import dataclass

MOST_ROUNDS = 30
LIMIT_SECONDS = 0.02
"""What QEMU calls downtime-limit, as the real form sets it on a fast link."""
WAKE_SECONDS = 0.025
"""Devices and the hand-over itself. Of the real form, at 1 Gbit/s, 17 to 45 ms lie between stop and resume at a limit
of 20 ms, of which 3 to 17 ms were the last copy; this is about their difference."""


@dataclass(frozen=True)
class PreCopy:
    """One migration. Seconds and bytes; `standstill` holds the fixed part too."""

    rounds: int
    copy: float
    standstill: float
    copied: float


def migrate(
    memory: float, dirty: float, bandwidth: float, *, limit: float = LIMIT_SECONDS, wake: float = WAKE_SECONDS
) -> PreCopy:
    """memory in bytes, dirty and bandwidth in bytes a second, limit and wake in seconds.

    Raises ValueError for a memory or bandwidth that is not more than 0, or a negative dirty rate.
    """
    if memory <= 0 or bandwidth <= 0 or dirty < 0:
        raise ValueError(f"memory {memory:g}, dirty rate {dirty:g}, bandwidth {bandwidth:g}: no migration has these")
    left, seconds, copied, rounds = memory, 0.0, 0.0, 0
    while left / bandwidth > limit and rounds < MOST_ROUNDS:
        took = left / bandwidth
        seconds, copied, rounds = seconds + took, copied + left, rounds + 1
        written = min(memory, dirty * took)
        if written >= left:
            break  # it writes as fast as it is copied
        left = written
    return PreCopy(rounds, seconds, left / bandwidth + wake, copied + left)
