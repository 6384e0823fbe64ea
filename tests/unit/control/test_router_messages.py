"""The datagrams by which hosts find service routers: round trip, and only MessageError for anything else."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from serval_node.control.router_messages import MAX_LENGTH, MAX_NAME, Kind, RouterMessage
from serval_node.control.rules import MessageError

TOKEN = bytes(range(8))


@given(
    st.sampled_from(Kind), st.binary(min_size=8, max_size=8), st.text(st.characters(categories=["L", "N"]), max_size=15)
)
def test_round_trip(kind: Kind, token: bytes, name: str) -> None:
    message = RouterMessage(kind, token, name)
    assert RouterMessage.decode(message.encode()) == message
    assert len(message.encode()) <= MAX_LENGTH


def test_the_bytes() -> None:
    assert RouterMessage(Kind.ANSWER, TOKEN, "cleo").encode() == b"SvRd\x01\x02" + TOKEN + b"\x04cleo"


def test_a_long_name_is_cut_between_letters() -> None:
    found = RouterMessage.decode(RouterMessage(Kind.QUERY, TOKEN, "é" * 60).encode())
    assert found.name == "é" * (MAX_NAME // 2)


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"SvRd\x01\x01" + TOKEN,
        b"SvRe\x01\x01" + TOKEN + b"\0",
        b"SvRd\x02\x01" + TOKEN + b"\0",
        b"SvRd\x01\x04" + TOKEN + b"\0",
        b"SvRd\x01\x01" + TOKEN + b"\x01",
        b"SvRd\x01\x01" + TOKEN + b"\0x",
        b"SvRd\x01\x01" + TOKEN + b"\x01\xff",
        b"SvRd\x01\x01" + TOKEN + b"\x01\x1b",
        b"SvRd\x01\x01" + TOKEN + b"\x40" + b"x" * 64,
    ],
)
def test_what_is_no_message(data: bytes) -> None:
    with pytest.raises(MessageError):
        RouterMessage.decode(data)


@given(st.binary(max_size=100))
def test_garbage_raises_nothing_else(data: bytes) -> None:
    for text in (data, b"SvRd\x01" + data):
        try:
            RouterMessage.decode(text)
        except MessageError:
            pass  # what it is for
