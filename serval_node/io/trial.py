"""Does a path carry super-segments, many TCP segments in one UDP datagram of the kernel's, or does it lose them?"""

from __future__ import annotations

STRIKES = 3
_HALF = 0x80000000
_MASK = 0xFFFFFFFF


class Trial:
    """Whether a peer gets super-segments: watched on one flow until it is known.

    They arrive when something is acknowledged that went out in a super-segment only. They do not when the flow had to
    send again STRIKES times before that; the kernel's first attempts to do so are super-segments too.
    """

    __slots__ = ("_begun", "_covered", "_strikes")

    def __init__(self) -> None:
        self._begun = False
        self._covered = 0  # up to here everything since the first super-segment went out singly as well
        self._strikes = 0

    def sent(self, sequence: int, payload: int, *, joined: bool, again: bool) -> bool:
        """`payload` bytes from `sequence` on went out, `again` if some of it had before; True: super-segments do not
        arrive.
        """
        if not self._begun:
            if joined:
                self._begun, self._covered = True, sequence
            return False
        if again:
            self._strikes += 1
        if not joined and sequence - self._covered - 1 & _MASK >= _HALF:
            end = sequence + payload & _MASK
            if end - self._covered & _MASK < _HALF:
                self._covered = end
        return self._strikes >= STRIKES

    def acknowledged(self, number: int) -> bool:
        """Whether that proves that they arrive."""
        return self._begun and 0 < number - self._covered & _MASK < _HALF
