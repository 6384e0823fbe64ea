"""Checksums and serial numbers against their definitions."""

from __future__ import annotations

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from serval_node.wire.checksum import internet_checksum, ones_sum, pseudo_sum, sums_to_zero
from serval_node.wire.serial import serial_add, serial_diff, serial_leq, serial_lt

U32 = st.integers(0, 0xFFFFFFFF)


def reference_sum(data: bytes) -> int:
    """RFC 1071, word by word with end-around carry."""
    data += bytes(len(data) % 2)
    total = 0
    for (word,) in struct.iter_unpack("!H", data):
        total += word
        total = (total & 0xFFFF) + (total >> 16)
    return total


@given(st.binary(max_size=200))
def test_sum_and_checksum_are_those_of_rfc_1071(data: bytes) -> None:
    assert ones_sum(data) == reference_sum(data) % 65535
    assert internet_checksum(data) == ~reference_sum(data) & 0xFFFF


@pytest.mark.parametrize("data", [b"", bytes(4), b"\xff\xff", b"\xff\xfe\x00\x01", bytes(6) + b"\x01"])
def test_both_zeros(data: bytes) -> None:
    assert internet_checksum(data) == ~reference_sum(data) & 0xFFFF


@given(st.binary(min_size=2, max_size=60))
def test_a_checksummed_block_verifies(data: bytes) -> None:
    block = data + bytes(len(data) % 2)
    checksum = internet_checksum(block).to_bytes(2, "big")
    assert sums_to_zero(block + checksum)
    assert not sums_to_zero(b"\x00\x01" + block + checksum)


def test_nothing_but_zeros_does_not_verify() -> None:
    assert not sums_to_zero(bytes(12))


@given(st.binary(min_size=4, max_size=4), st.binary(min_size=4, max_size=4), st.integers(0, 255), st.integers(0, 65535))
def test_pseudo_header(source: bytes, destination: bytes, protocol: int, length: int) -> None:
    block = source + destination + struct.pack("!BBH", 0, protocol, length)
    assert pseudo_sum(source, destination, protocol, length) % 65535 == ones_sum(block)


@given(U32, st.integers(1, 0x7FFFFFFF))
def test_serial_order_survives_the_wrap(start: int, step: int) -> None:
    later = serial_add(start, step)
    assert serial_lt(start, later) and serial_leq(start, later)
    assert not serial_lt(later, start) and not serial_leq(later, start)
    assert serial_diff(later, start) == step and serial_diff(start, later) == -step
    assert serial_add(later, -step) == start


@given(U32)
def test_serial_equality(number: int) -> None:
    assert serial_leq(number, number) and not serial_lt(number, number) and serial_diff(number, number) == 0


def test_serial_examples() -> None:
    assert serial_lt(0xFFFFFFFE, 1) and serial_add(0xFFFFFFFE, 3) == 1
