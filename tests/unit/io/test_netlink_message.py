"""Netlink framing: what the kernel writes is read, and what is cut short ends quietly."""

from __future__ import annotations

import struct

from hypothesis import given
from hypothesis import strategies as st

from serval_node.io.netlink_message import NetlinkMessage, attributes, messages


def message(kind: int, body: bytes, flags: int = 0) -> bytes:
    return struct.pack("=IHHII", 16 + len(body), kind, flags, 1, 0) + body + bytes(-len(body) % 4)


def attribute(kind: int, value: bytes) -> bytes:
    return struct.pack("=HH", 4 + len(value), kind) + value + bytes(-len(value) % 4)


def test_messages_and_attributes_are_aligned_to_four_bytes() -> None:
    data = message(16, b"abcde") + message(20, b"", flags=0x10)
    assert list(messages(data)) == [NetlinkMessage(16, b"abcde"), NetlinkMessage(20, b"", interrupted=True)]
    body = b"headhead" + attribute(3, b"eth0\0") + attribute(4 | 0x8000, b"\xdc\x05\0\0")
    assert attributes(body, 8) == {3: b"eth0\0", 4: b"\xdc\x05\0\0"}


def test_a_message_that_is_cut_short_ends_the_datagram() -> None:
    whole = message(16, b"abcd")
    assert list(messages(whole + message(17, b"efgh")[:-1])) == [NetlinkMessage(16, b"abcd")]
    assert attributes(attribute(1, b"abcd") + attribute(2, b"efgh")[:-1], 0) == {1: b"abcd"}


@given(st.binary(max_size=200))
def test_any_bytes_are_read_without_error(data: bytes) -> None:
    for found in messages(data):
        attributes(found.body, 0)
    attributes(data, 0)
