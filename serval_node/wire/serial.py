"""32-bit serial arithmetic (RFC 1982): SAL version numbers and TCP sequence numbers wrap."""

from __future__ import annotations

MASK = 0xFFFFFFFF
_HALF = 0x80000000


def serial_add(number: int, step: int) -> int:
    """``number + step`` modulo 2**32; ``step`` may be negative."""
    return (number + step) & MASK


def serial_diff(a: int, b: int) -> int:
    """How far ``a`` is ahead of ``b``, in -2**31 .. 2**31-1."""
    distance = (a - b) & MASK
    return distance - (MASK + 1) if distance & _HALF else distance


def serial_lt(a: int, b: int) -> bool:
    """``a`` comes before ``b``. At a distance of exactly 2**31 each comes before the other, as in most TCPs."""
    return ((a - b) & _HALF) != 0


def serial_leq(a: int, b: int) -> bool:
    """``a`` comes before ``b`` or is ``b``."""
    return a == b or ((a - b) & _HALF) != 0
