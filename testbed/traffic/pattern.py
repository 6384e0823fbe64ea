"""What a stream carries: blocks of the same random bytes, each with its number in front. Pure.

So every byte of a stream is known from its position alone. A byte that was changed, lost, doubled or put elsewhere
differs, and so does a whole block. Whoever compares needs no copy of what came: bytes are received where their
block's expected bytes are compared with them.
"""

from __future__ import annotations

import random
from functools import lru_cache

BLOCK = 1 << 18
_NUMBER = 8
_RANDOM = random.Random(5).randbytes(BLOCK)


class WrongData(OSError):
    """What came is not what was sent."""


class Blocks:
    """One block at a time, in a buffer that the next one reuses."""

    def __init__(self) -> None:
        self._buffer = bytearray(_RANDOM)
        self._number = -1

    def block(self, number: int) -> bytearray:
        if number != self._number:
            self._buffer[:_NUMBER] = number.to_bytes(_NUMBER, "big")
            self._number = number
        return self._buffer


@lru_cache(maxsize=16)
def leading(size: int) -> bytes:
    """The first bytes of every stream."""
    blocks = Blocks()
    return b"".join(bytes(blocks.block(number)) for number in range(-(-size // BLOCK)))[:size]


class Source:
    """The stream's bytes from a position on, for a sender."""

    def __init__(self, position: int = 0) -> None:
        self.position = position
        self._blocks = Blocks()

    def piece(self, most: int) -> memoryview:
        """The bytes that come next: up to `most` of them, fewer at a block's end. `sent` says how many have left."""
        number, at = divmod(self.position, BLOCK)
        return memoryview(self._blocks.block(number))[at : min(at + most, BLOCK)]

    def sent(self, count: int) -> None:
        self.position += count


class Verifier:
    """The stream's bytes as they come, for a receiver. Bytes are compared when their block is full, or at `check`."""

    def __init__(self) -> None:
        self.position = 0
        self._buffer = bytearray(BLOCK)
        self._view = memoryview(self._buffer)
        self._expected = Blocks()

    def space(self) -> memoryview:
        """Where the next bytes belong."""
        return self._view[self.position % BLOCK :]

    def came(self, count: int) -> None:
        """So many bytes have been put there. Raises WrongData."""
        self.position += count
        if self.position % BLOCK == 0 and count and self._buffer != self._expected.block(self.position // BLOCK - 1):
            self._differ(BLOCK, self.position // BLOCK - 1)

    def check(self) -> None:
        """Compare what stands in the block that is not full yet. Raises WrongData."""
        number, filled = divmod(self.position, BLOCK)
        if self._buffer[:filled] != self._expected.block(number)[:filled]:
            self._differ(filled, number)

    def _differ(self, filled: int, number: int) -> None:
        expected = self._expected.block(number)
        first = next(at for at in range(filled) if self._buffer[at] != expected[at])
        raise WrongData(f"other bytes than were sent, from byte {number * BLOCK + first} on")
