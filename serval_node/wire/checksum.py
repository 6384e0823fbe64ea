"""The Internet checksum (RFC 1071) by arithmetic modulo 65535.

A block of 16-bit words is one large number whose digits have base 2**16, and 2**16 is 1 modulo 65535: the one's
complement sum of the words is that number modulo 65535. ``int.from_bytes`` and ``%`` run in C, so this is the fastest
way without numpy. Zero and 65535 are the same one's complement number; only a block of zeros has the sum "true zero".
"""

from __future__ import annotations

Buffer = bytes | bytearray | memoryview


def ones_sum(data: Buffer) -> int:
    """One's complement sum of the big-endian 16-bit words of ``data``, in 0..65534 (65535 is reported as 0).

    An odd last byte counts as the high byte of a word.
    """
    total = int.from_bytes(data, "big")
    if len(data) & 1:
        total <<= 8
    return total % 65535


def internet_checksum(data: Buffer) -> int:
    """The value of a checksum field that makes ``data`` (whose own field is zero) sum up to zero."""
    total = int.from_bytes(data, "big")
    if len(data) & 1:
        total <<= 8
    if total == 0:
        return 0xFFFF
    return -total % 65535


def sums_to_zero(data: Buffer) -> bool:
    """Whether ``data``, its checksum field included, verifies."""
    return ones_sum(data) == 0 and any(data)


def pseudo_sum(source: bytes, destination: bytes, protocol: int, length: int) -> int:
    """Sum of the IPv4 pseudo header (RFC 793): addresses, protocol and transport length; not reduced."""
    return int.from_bytes(source, "big") + int.from_bytes(destination, "big") + protocol + length
