"""What is known of one path: its round trip, and how long silence is normal on it. Times in seconds."""

from __future__ import annotations

import math

# A probe is answered by the peer's processor, which may have other work. What it usually takes for that shows in its
# longest gaps of the last seconds, but those of a congestion control that waits are longer.
SLACK, MOST_SLACK = 0.015, 0.050
# Silences longer than this say that nobody sends, and nothing about the path.
LONGEST_GAP = 1.0

# What is usual where nothing is known.
UNKNOWN_GAP = 0.3

_GAP_GAIN, _RTT_GAIN, _DEVIATION_GAIN = 0.125, 0.25, 0.25


class RoundTrip:
    """Smoothed round trip and its mean deviation (as in RFC 6298), from probes' answers. Until the first of them it is
    what the flows' control packets took.
    """

    __slots__ = ("deviation", "mean", "samples")

    def __init__(self, mean: float | None) -> None:
        self.mean = mean
        self.deviation = 0.0
        self.samples = 0

    def add(self, sample: float) -> None:
        """A probe was answered after ``sample`` seconds."""
        if self.mean is None or not self.samples:
            self.mean = sample
        else:
            self.deviation += _DEVIATION_GAIN * (abs(sample - self.mean) - self.deviation)
            self.mean += _RTT_GAIN * (sample - self.mean)
        self.samples += 1

    def longest(self) -> float | None:
        """How long an answer may be under way; None while nothing is known."""
        if self.mean is None:
            return None
        return max(1.25 * self.mean, self.mean + 4 * self.deviation)


class Gaps:
    """How long the peer is silent while it sends: smoothed, and its mean deviation. The first gap of a path stands for
    both, so that it takes some more until much less counts as unusual.
    """

    __slots__ = ("deviation", "mean", "_longest", "_longest_at")

    def __init__(self) -> None:
        self.mean: float | None = None
        self.deviation = 0.0
        self._longest, self._longest_at = 0.0, 0.0

    def add(self, gap: float, now: float) -> None:
        """The longest gap in a stretch of traffic."""
        if gap > LONGEST_GAP:
            return
        if self.mean is None:
            self.mean = self.deviation = gap
        elif self.mean <= SLACK:
            # Where packets come rarely, a gap says nothing about the peer's processor: a delayed ACK, slow start.
            self._longest, self._longest_at = max(gap, self._lately(now)), now
        self.deviation += _DEVIATION_GAIN * (abs(gap - self.mean) - self.deviation)
        self.mean += _GAP_GAIN * (gap - self.mean)

    def usual(self) -> float:
        """Silence up to this length is nothing to look into."""
        if self.mean is None:
            return UNKNOWN_GAP
        return min(self.mean + 4 * self.deviation, LONGEST_GAP)

    def slack(self, now: float) -> float:
        """How long the peer's processor may have other work."""
        return min(max(SLACK, self._lately(now)), MOST_SLACK)

    def _lately(self, now: float) -> float:
        """The longest gap, halved for each second that has gone since."""
        return self._longest * math.pow(0.5, now - self._longest_at)
