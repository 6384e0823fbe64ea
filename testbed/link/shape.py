"""What a link is asked for, as data: rate, delay and loss from the options of a topology. Pure."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from testbed.errors import TestbedError

FRAME_BYTES = 1514
QUEUE_SECONDS = 0.05
MIN_QUEUE_BYTES = 128 << 10  # two of the largest offloaded segments
BURST_SECONDS = 0.001
_UNITS = {"us": 1e-6, "ms": 1e-3, "s": 1.0}
_DELAY = re.compile(r"(\d+(?:\.\d+)?)(us|ms|s)\Z")


def parse_delay(text: str) -> float:
    """Seconds from Mininet's notation: "5ms", "250us", "0.1s". Raises TestbedError."""
    match = _DELAY.match(str(text).strip())
    if match is None:
        raise TestbedError(f"{text!r} is no delay", "write a number and its unit: 250us, 5ms, 0.1s")
    return float(match[1]) * _UNITS[match[2]]


@dataclass(frozen=True)
class Shape:
    """What a link is asked for: rate in Mbit/s (None: unlimited), one-way delay in seconds, loss in percent."""

    rate: float | None = None
    delay: float = 0.0
    loss: float = 0.0

    @classmethod
    def parse(cls, options: Mapping[str, Any]) -> Shape:
        """From the link options of a topology (bw, delay, loss); raises TestbedError."""
        rate, delay, loss = options.get("bw"), options.get("delay"), options.get("loss") or 0
        if rate is not None and not 0.01 <= float(rate) <= 100_000:
            raise TestbedError(f"a link's rate must be from 0.01 to 100000 Mbit/s, not {rate}")
        if not 0 <= float(loss) <= 100:
            raise TestbedError(f"a link's loss must be from 0 to 100 percent, not {loss}")
        return cls(None if rate is None else float(rate), parse_delay(delay) if delay else 0.0, float(loss))

    @property
    def impaired(self) -> bool:
        return self.delay > 0 or self.loss > 0

    @property
    def burst(self) -> int:
        """HTB's burst in bytes: two frames, or what the rate sends in a millisecond."""
        return max(2 * FRAME_BYTES, round((self.rate or 0) * 1e6 / 8 * BURST_SECONDS))

    @property
    def queue(self) -> int:
        """Bytes that may wait for the rate."""
        return max(MIN_QUEUE_BYTES, round((self.rate or 0) * 1e6 / 8 * QUEUE_SECONDS))

    def __str__(self) -> str:
        words = [f"{self.rate:g} Mbit/s" if self.rate is not None else "unlimited"]
        words += [f"{self.delay * 1e3:g} ms"] if self.delay else []
        words += [f"{self.loss:g} % loss"] if self.loss else []
        return ", ".join(words)
