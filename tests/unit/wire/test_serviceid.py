from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from serval_node.wire.serviceid import Prefix, ServiceID

RAWS = st.binary(min_size=32, max_size=32)
BITS = st.integers(0, 256)
PREFIXES = st.builds(Prefix, RAWS, BITS)


def as_bits(raw: bytes) -> str:
    return "".join(f"{byte:08b}" for byte in raw)


@given(RAWS, BITS)
def test_a_prefix_keeps_its_bits_and_no_others(raw: bytes, bits: int) -> None:
    assert as_bits(Prefix(raw, bits).raw) == as_bits(raw)[:bits].ljust(256, "0")


@given(RAWS, BITS, RAWS, BITS, st.integers(0, 256))
def test_covers_is_agreement_on_the_shorter_prefix(a: bytes, m: int, b: bytes, n: int, shared: int) -> None:
    b = Prefix(a, shared).raw[: shared // 8] + b[shared // 8 :]  # related often enough
    prefix, other = Prefix(a, m), Prefix(b, n)
    assert prefix.covers(other) == (m <= n and as_bits(a)[:m] == as_bits(other.raw)[:m])
    assert prefix.covers(ServiceID(b)) == (as_bits(a)[:m] == as_bits(b)[:m])
    assert prefix.covers(prefix) and prefix.covers(ServiceID(a)) and Prefix.default().covers(other)


@given(PREFIXES)
def test_text_round_trip(prefix: Prefix) -> None:
    assert Prefix.from_text(str(prefix)) == prefix
    assert Prefix.from_text(f"{prefix.raw.hex()}/{prefix.bits}") == prefix


@given(RAWS, RAWS)
def test_values_compare_hash_and_order_as_numbers(a: bytes, b: bytes) -> None:
    assert (ServiceID(a) < ServiceID(b)) == (int.from_bytes(a, "big") < int.from_bytes(b, "big"))
    assert ServiceID(a) == ServiceID(bytes(a)) and hash(ServiceID(a)) == hash(ServiceID(bytes(a)))
    assert ServiceID.from_hex(ServiceID(a).hex()) == ServiceID.from_hex(str(ServiceID(a))) == ServiceID(a)
    assert Prefix.of(ServiceID(a)).exact and Prefix.of(ServiceID(a)).service_id == ServiceID(a)


def test_a_longer_prefix_never_covers_a_shorter_one() -> None:
    assert not Prefix(bytes(32), 8).covers(Prefix.default()) and Prefix.default().covers(Prefix(bytes(32), 8))


def test_examples() -> None:
    assert str(Prefix.default()) == "0x00/0" and not Prefix.default().exact
    assert ServiceID.from_number(16390).hex() == "00004006" + "00" * 28
    assert str(Prefix(ServiceID.from_number(16390).raw, 32)) == "0x00004006/32"
    assert Prefix.from_text("5e1f") == Prefix.of(ServiceID.from_hex("0x5e1f"))
    assert Prefix(b"\xff" * 32, 12) == Prefix.from_text("0xfff/12") != Prefix.from_text("0xfff/13")


@pytest.mark.parametrize(
    "text", ["", "0x", "/8", "0xgg/8", "ab/", "ab/257", "ab/-1", "ab/ 8", "ab/²", "0" * 65, "ab/8/8"]
)
def test_wrong_text_is_a_value_error(text: str) -> None:
    with pytest.raises(ValueError):
        Prefix.from_text(text)


def test_wrong_lengths_are_value_errors() -> None:
    for raw in (b"", bytes(31), bytes(33)):
        with pytest.raises(ValueError):
            ServiceID(raw)
        with pytest.raises(ValueError):
            Prefix(raw, 8)
    for bits in (-1, 257):
        with pytest.raises(ValueError):
            Prefix(bytes(32), bits)
    for number in (-1, 1 << 32):
        with pytest.raises(ValueError):
            ServiceID.from_number(number)


def test_values_do_not_change() -> None:
    with pytest.raises(AttributeError):
        ServiceID(bytes(32)).raw = b""  # type: ignore[misc]
