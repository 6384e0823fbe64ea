"""The kernel's shaper: the commands that tc is told, and how what it shows is read. Pure."""

from __future__ import annotations

import re
from dataclasses import dataclass

from testbed.errors import TestbedError
from testbed.link.shape import FRAME_BYTES, Shape

QUANTUM_BYTES = 10 * FRAME_BYTES
RATE_TOLERANCE = 0.001
_RATE = re.compile(r"\brate (\d+(?:\.\d+)?)([KMGT]?)bit\b.* burst (\d+)([KM]?)b\b")
_SCALE = {"": 1, "K": 1e3, "M": 1e6, "G": 1e9, "T": 1e12}
_BINARY = {"": 1, "K": 1 << 10, "M": 1 << 20}


@dataclass(frozen=True)
class Achieved:
    """What tc says that an interface has: rate in bit/s, burst in bytes."""

    rate: float
    burst: int


def parse_class(text: str) -> Achieved:
    """Read `tc class show` of an interface with one HTB class; raises TestbedError."""
    match = _RATE.search(text)
    if match is None or "htb" not in text:
        raise TestbedError(f"no HTB class in what tc shows: {text.strip() or 'nothing'}")
    return Achieved(float(match[1]) * _SCALE[match[2]], int(match[3]) * _BINARY[match[4]])


def rate_lines(interface: str, shape: Shape, leaf: str | None = None) -> list[str]:
    """The tc commands that give an interface its rate; `leaf` is the qdisc below it (default: a queue in bytes)."""
    return [
        f"tc qdisc replace dev {interface} root handle 5: htb default 1",
        f"tc class replace dev {interface} parent 5: classid 5:1 htb rate {round((shape.rate or 0) * 1e6)}bit"
        f" burst {shape.burst} cburst {shape.burst} quantum {QUANTUM_BYTES}",
        f"tc qdisc replace dev {interface} parent 5:1 handle 6: {leaf or f'bfifo limit {shape.queue}'}",
    ]
