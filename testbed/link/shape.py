"""What one direction of a link is asked for, as data: from a topology's options, and as it is changed later. Pure.

Options have Mininet's names and units: bw (Mbit/s), delay and jitter ("5ms", one way), loss (percent),
max_queue_size (full frames); `reorder`, `impairable` and `mtu` (bytes, of both ends) are ours.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from testbed.errors import TestbedError

FRAME_BYTES = 1514
MTUS = (576, 9216)
"""Smallest and largest MTU that a link may be given; 1500 is what it has otherwise."""
QUEUE_SECONDS = 0.05
MIN_QUEUE_BYTES = 128 << 10  # two of the largest offloaded segments
BURST_SECONDS = 0.001
MAX_DELAY = 10.0
MAX_QUEUE = 1_000_000
_TIMES = {"us": 1e-6, "ms": 1e-3, "s": 1.0}
_DELAY = re.compile(r"(\d+(?:\.\d+)?)(us|ms|s)\Z")
_RATES = {"": 1.0, "kbit": 1e-3, "mbit": 1.0, "gbit": 1e3}
_RATE = re.compile(r"(\d+(?:\.\d+)?)([a-z]*)(?:/s)?\Z")


def parse_delay(text: str) -> float:
    """Seconds from Mininet's notation: "5ms", "250us", "0.1s". Raises TestbedError."""
    match = _DELAY.match(str(text).strip())
    if match is None:
        raise TestbedError(f"{text!r} is no delay", "write a number and its unit: 250us, 5ms, 0.1s")
    return float(match[1]) * _TIMES[match[2]]


def parse_rate(value: float | str) -> float:
    """Mbit/s from a number of them, or from "500kbit", "10Mbit", "1Gbit/s". Raises TestbedError."""
    match = _RATE.match(str(value).strip().lower())
    if match is None or match[2] not in _RATES:
        raise TestbedError(f"{value!r} is no rate", "write a number of Mbit/s, or one with its unit: 500kbit, 1Gbit")
    return float(match[1]) * _RATES[match[2]]


@dataclass(frozen=True)
class Shape:
    """What one direction of a link is asked for. A wrong one cannot be made: it raises TestbedError.

    rate     Mbit/s of frames; None: unlimited
    delay    seconds, one way
    jitter   seconds: each frame's delay is drawn evenly from delay - jitter to delay + jitter
    loss     percent of frames, each by chance
    queue    how many full frames (of 1514 bytes) may wait for the rate; None: as many as it sends in 50 ms
    reorder  whether jitter may let a frame overtake the one before
    hole     whether it swallows everything, silently
    """

    rate: float | None = None
    delay: float = 0.0
    jitter: float = 0.0
    loss: float = 0.0
    queue: int | None = None
    reorder: bool = False
    hole: bool = False

    def __post_init__(self) -> None:
        if self.rate is not None and not 0.01 <= self.rate <= 100_000:
            raise TestbedError(f"a link's rate must be from 0.01 to 100000 Mbit/s, not {self.rate:g}")
        if not 0 <= self.delay <= MAX_DELAY:
            raise TestbedError(f"a link's delay must be from 0 to {MAX_DELAY:g} s, not {self.delay:g} s")
        if not 0 <= self.jitter <= self.delay:
            raise TestbedError(
                f"a link's jitter must be from 0 to its delay ({self.delay * 1e3:g} ms), not {self.jitter * 1e3:g} ms"
            )
        if not 0 <= self.loss <= 100:
            raise TestbedError(f"a link's loss must be from 0 to 100 percent, not {self.loss:g}")
        if self.queue is not None and not (isinstance(self.queue, int) and 1 <= self.queue <= MAX_QUEUE):
            raise TestbedError(f"a link's queue must be a whole number of frames, from 1 on, not {self.queue!r}")
        if self.queue is not None and self.rate is None:
            raise TestbedError("a link without a rate has no queue", "give it a rate (bw) too")

    @classmethod
    def parse(cls, options: Mapping[str, Any]) -> Shape:
        """From the link options of a topology; raises TestbedError."""
        rate = options.get("bw")
        return cls(
            rate=None if rate is None else _number("rate", rate),
            delay=_seconds(options.get("delay") or 0.0),
            jitter=_seconds(options.get("jitter") or 0.0),
            loss=_number("loss", options.get("loss") or 0.0),
            queue=options.get("max_queue_size"),
            reorder=bool(options.get("reorder", False)),
        )

    def changed(
        self,
        *,
        rate: float | str | None = None,
        delay: float | str | None = None,
        jitter: float | str | None = None,
        loss: float | None = None,
        queue: int | None = None,
        reorder: bool | None = None,
        hole: bool | None = None,
    ) -> Shape:
        """With what is given in place of what was; rate math.inf: unlimited, without a queue. Raises TestbedError."""
        new: dict[str, Any] = {}
        if rate is not None:
            new["rate"] = None if rate == math.inf else parse_rate(rate) if isinstance(rate, str) else float(rate)
            if rate == math.inf:
                new["queue"] = None
        new |= {name: _seconds(value) for name, value in (("delay", delay), ("jitter", jitter)) if value is not None}
        given = {"loss": loss, "queue": queue, "reorder": reorder, "hole": hole}
        new |= {name: value for name, value in given.items() if value is not None}
        return replace(self, **new)

    @property
    def impaired(self) -> bool:
        """Whether it needs more than a shaper."""
        return self.delay > 0 or self.loss > 0 or self.hole

    @property
    def burst(self) -> int:
        """HTB's burst in bytes: two frames, or what the rate sends in a millisecond."""
        return max(2 * FRAME_BYTES, round((self.rate or 0) * 1e6 / 8 * BURST_SECONDS))

    @property
    def queue_bytes(self) -> int:
        """Bytes that may wait for the rate."""
        if self.queue is not None:
            return self.queue * FRAME_BYTES
        return max(MIN_QUEUE_BYTES, round((self.rate or 0) * 1e6 / 8 * QUEUE_SECONDS))

    @property
    def single_frames(self) -> bool:
        """Whether offloaded segments must not enter: loss is per frame, and a short queue would drop them whole."""
        return self.loss > 0 or (self.rate is not None and self.queue_bytes < MIN_QUEUE_BYTES)

    def __str__(self) -> str:
        words = [f"{self.rate:g} Mbit/s" if self.rate is not None else "unlimited"]
        spread = f" +- {self.jitter * 1e3:g}" if self.jitter else ""
        words += [f"{self.delay * 1e3:g}{spread} ms"] if self.delay else []
        words += [f"{self.loss:g} % loss"] if self.loss else []
        words += [f"queue of {self.queue} frames"] if self.queue is not None else []
        words += ["black hole"] if self.hole else []
        return ", ".join(words)


def shapes(options: Mapping[str, Any]) -> tuple[Shape, Shape]:
    """Of both directions of a link, from its first end and from its second; params1 and params2 are what Mininet has
    for options of one end alone. Raises TestbedError.
    """
    first, second = ({**options, **(options.get(end) or {})} for end in ("params1", "params2"))
    return Shape.parse(first), Shape.parse(second)


def mtu(options: Mapping[str, Any]) -> int | None:
    """The MTU that a link is to have, None for the usual. Raises TestbedError."""
    value = options.get("mtu")
    least, most = MTUS
    if value is not None and not (isinstance(value, int) and least <= value <= most):
        raise TestbedError(f"a link's MTU must be a whole number of bytes from {least} to {most}, not {value!r}")
    return value


def _seconds(value: float | str) -> float:
    return parse_delay(value) if isinstance(value, str) else float(value)


def _number(what: str, value: object) -> float:
    try:
        return float(value)  # type: ignore[arg-type]
    except (TypeError, ValueError):
        raise TestbedError(f"a link's {what} is a number, not {value!r}") from None
