"""ServiceIDs and prefixes of them: the keys of the service table (slides 17 and 31)."""

from __future__ import annotations

import re
from dataclasses import dataclass

LENGTH = 32
BITS = 256

_MASKS = tuple(((1 << bits) - 1) << (BITS - bits) for bits in range(BITS + 1))
_HEX = re.compile(r"(?:0[xX])?([0-9a-fA-F]+)\Z")


@dataclass(frozen=True, slots=True, order=True)
class ServiceID:
    """A 256-bit service identifier; its order is that of the 256-bit number.

    Raises ``ValueError`` when ``raw`` has not 32 bytes.
    """

    raw: bytes

    def __post_init__(self) -> None:
        if len(self.raw) != LENGTH:
            raise ValueError(f"a serviceID has {LENGTH} bytes, not {len(self.raw)}")

    @classmethod
    def from_hex(cls, text: str) -> ServiceID:
        """Left-justified hexadecimal text, with or without ``0x``. Raises ``ValueError``."""
        return cls(_left_justified(text))

    @classmethod
    def from_number(cls, number: int) -> ServiceID:
        """The original's decimal form: the number in the first four bytes, big endian. Raises ``ValueError``."""
        if not 0 <= number <= 0xFFFFFFFF:
            raise ValueError(f"a decimal serviceID is at most {0xFFFFFFFF}, not {number}")
        return cls(number.to_bytes(4, "big") + bytes(LENGTH - 4))

    def hex(self) -> str:
        """All 64 hexadecimal digits."""
        return self.raw.hex()

    def __str__(self) -> str:
        return "0x" + _shortened(self.raw)

    def __repr__(self) -> str:
        return f"ServiceID({self})"


@dataclass(frozen=True, slots=True, order=True)
class Prefix:
    """The serviceIDs that share the first ``bits`` bits (0..256) of ``raw``; further bits of ``raw`` are cleared.

    Raises ``ValueError`` for another number of bits or bytes.
    """

    raw: bytes
    bits: int

    def __post_init__(self) -> None:
        if len(self.raw) != LENGTH:
            raise ValueError(f"a prefix has {LENGTH} bytes, not {len(self.raw)}")
        if not 0 <= self.bits <= BITS:
            raise ValueError(f"a prefix has 0 to {BITS} bits, not {self.bits}")
        if self.bits != BITS:
            object.__setattr__(self, "raw", masked(self.raw, self.bits))

    @classmethod
    def of(cls, service_id: ServiceID) -> Prefix:
        """The prefix of 256 bits: this serviceID alone."""
        return cls(service_id.raw, BITS)

    @classmethod
    def default(cls) -> Prefix:
        """The prefix of no bits, which covers everything."""
        return cls(bytes(LENGTH), 0)

    @classmethod
    def from_text(cls, text: str) -> Prefix:
        """The form of ``str()``: hexadecimal, left-justified, ``0x`` optional, then ``/bits`` (256 without it).

        Raises ``ValueError``. Names and decimal forms are read by :class:`serval_node.wire.naming.Naming`.
        """
        digits, slash, length = text.partition("/")
        if not slash:
            return cls(_left_justified(digits), BITS)
        return cls(_left_justified(digits), parse_bits(length))

    @property
    def exact(self) -> bool:
        """Whether this stands for one serviceID."""
        return self.bits == BITS

    @property
    def service_id(self) -> ServiceID:
        """The lowest serviceID of the prefix; of an exact prefix, the serviceID."""
        return ServiceID(self.raw)

    def covers(self, other: ServiceID | Prefix) -> bool:
        """Whether every serviceID of ``other`` is one of this prefix (each prefix covers itself)."""
        if isinstance(other, Prefix) and other.bits < self.bits:
            return False
        return masked(other.raw, self.bits) == self.raw

    def __str__(self) -> str:
        return f"0x{_shortened(self.raw)}/{self.bits}"

    def __repr__(self) -> str:
        return f"Prefix({self})"


def masked(raw: bytes, bits: int) -> bytes:
    """The 32 bytes of ``raw`` with all but the first ``bits`` bits cleared."""
    return (int.from_bytes(raw, "big") & _MASKS[bits]).to_bytes(LENGTH, "big")


def parse_bits(text: str) -> int:
    """The number behind the slash. Raises ``ValueError``."""
    if not text.isascii() or not text.isdigit() or int(text) > BITS:
        raise ValueError(f"a prefix length is a number from 0 to {BITS}, not {text!r}")
    return int(text)


def _left_justified(text: str) -> bytes:
    match = _HEX.match(text)
    if match is None:
        raise ValueError(f"not hexadecimal: {text!r}")
    digits = match.group(1)
    if len(digits) > 2 * LENGTH:
        raise ValueError(f"{len(digits)} hexadecimal digits, a serviceID has {2 * LENGTH}")
    return bytes.fromhex(digits.ljust(2 * LENGTH, "0"))


def _shortened(raw: bytes) -> str:
    """Hexadecimal without trailing zero bytes, one byte at least."""
    return raw.rstrip(b"\0").hex() or "00"
