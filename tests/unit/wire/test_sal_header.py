from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from serval_node.wire.checksum import internet_checksum
from serval_node.wire.sal_header import (
    MARK,
    MAX_SOURCES,
    AddressList,
    Control,
    ControlFlag,
    DropReason,
    Extension,
    Pad,
    SalPacket,
    Service,
    Source,
    WireError,
    bare_header,
    decode,
    encode,
)
from serval_node.wire.serviceid import ServiceID

U32 = st.integers(0, 0xFFFFFFFF)
ADDRESSES = st.binary(min_size=4, max_size=4)
FLAGS = st.integers(0, 63).map(lambda bits: bits << 2)
CONTROL = st.builds(Control, FLAGS, U32, U32, st.binary(min_size=8, max_size=8), st.integers(0, 255))
SERVICE = st.builds(Service, st.builds(ServiceID, st.binary(min_size=32, max_size=32)))
SOURCE = st.builds(Source, st.lists(ADDRESSES, min_size=2, max_size=MAX_SOURCES).map(tuple))
ADDRESS_LIST = st.builds(AddressList, U32, U32, st.lists(ADDRESSES, max_size=60).map(tuple))
PADS = st.just((Pad(), Pad(), Pad(), Pad()))

CONTROL_BYTES = bytes([0x10, 20]) + bytes(18)
SERVICE_BYTES = bytes([0x20, 36]) + bytes(34)
SOURCE_BYTES = bytes([0x40, 12]) + bytes(10)
ADDRESS_BYTES = bytes([0x30, 12]) + bytes(10)


@st.composite
def extension_lists(draw: st.DrawFn) -> tuple[Extension, ...]:
    """Any legal combination of extensions in any order, padding in between."""
    found: list[Extension] = draw(st.lists(SERVICE, max_size=2))
    for strategy in (CONTROL, SOURCE, ADDRESS_LIST):
        found += draw(st.lists(strategy, max_size=1))
    if draw(st.booleans()):
        found += draw(PADS)
    return tuple(draw(st.permutations(found)))


PACKETS = st.builds(SalPacket, U32, U32, st.integers(0, 255), extension_lists(), st.binary(max_size=40))


def with_checksum(header: bytes) -> bytes:
    blank = header[:10] + b"\0\0" + header[12:]
    return blank[:10] + internet_checksum(blank).to_bytes(2, "big") + blank[12:]


def packet_of(*extensions: bytes, payload: bytes = b"") -> bytes:
    body = b"".join(extensions)
    words = (12 + len(body)) // 4
    return with_checksum(bytes(8) + bytes([words, 6, 0, 0]) + body) + payload


def reason_of(data: bytes) -> DropReason:
    with pytest.raises(WireError) as caught:
        decode(data)
    return caught.value.reason


@given(PACKETS)
def test_round_trip_keeps_everything_and_the_order(packet: SalPacket) -> None:
    data = encode(packet)
    assert decode(data) == packet
    assert encode(decode(data)) == data
    header = data[: data[8] * 4]
    assert internet_checksum(header[:10] + b"\0\0" + header[12:]) == int.from_bytes(header[10:12], "big")


@given(PACKETS)
def test_any_buffer_decodes_alike(packet: SalPacket) -> None:
    data = encode(packet)
    assert decode(bytearray(data)) == decode(memoryview(data)) == packet


@given(st.binary(max_size=400))
def test_garbage_raises_wire_error_only(data: bytes) -> None:
    for candidate in (data, with_checksum(data) if len(data) >= 12 else data):
        try:
            encode(decode(candidate))
        except WireError as error:
            assert isinstance(error.reason, DropReason)


@given(st.lists(st.binary(min_size=2, max_size=255), max_size=12), st.binary(max_size=3))
def test_garbage_extensions_under_a_right_checksum_raise_wire_error_only(parts: list[bytes], rest: bytes) -> None:
    body = b"".join(bytes([part[0] % 0x60, len(part)]) + part[2:] for part in parts) + rest
    body = body[: 243 * 4]
    body += bytes(-len(body) % 4)
    try:
        encode(decode(packet_of(body)))
    except WireError as error:
        assert error.reason is not DropReason.BAD_CHECKSUM


@given(PACKETS, st.data())
def test_one_changed_bit_in_the_header_is_noticed(packet: SalPacket, data: st.DataObject) -> None:
    sound = encode(packet)
    at = data.draw(st.integers(0, sound[8] * 4 - 1))
    if at == 8:  # another length is another range of bytes: see the length tests
        return
    broken = bytearray(sound)
    broken[at] ^= 1 << data.draw(st.integers(0, 7))
    assert reason_of(bytes(broken)) is DropReason.BAD_CHECKSUM


@given(PACKETS, st.data())
def test_a_truncated_header_is_noticed(packet: SalPacket, data: st.DataObject) -> None:
    sound = encode(packet)
    assert reason_of(sound[: data.draw(st.integers(0, sound[8] * 4 - 1))]) is DropReason.TRUNCATED


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", DropReason.TRUNCATED),
        (with_checksum(bytes(8) + bytes([2, 6, 0, 0])), DropReason.BAD_HEADER_LENGTH),
        (bytes(12), DropReason.BAD_HEADER_LENGTH),
        (packet_of(bytes([0x50, 4, 0, 0])), DropReason.UNKNOWN_EXTENSION),
        (packet_of(bytes([0xF0, 4, 0, 0])), DropReason.UNKNOWN_EXTENSION),
        (packet_of(bytes([0x40, 0, 0, 0])), DropReason.BAD_EXTENSION),
        (packet_of(bytes([0x40, 4, 0, 0])), DropReason.BAD_EXTENSION),
        (packet_of(bytes([0x40, 8]) + bytes(6)), DropReason.BAD_EXTENSION),
        (packet_of(bytes([0x40, 4 + 4 * 21]) + bytes(2 + 4 * 21)), DropReason.BAD_EXTENSION),
        (packet_of(bytes([0x10, 16]) + bytes(14)), DropReason.BAD_EXTENSION),
        (packet_of(bytes([0x10, 24]) + bytes(22)), DropReason.BAD_EXTENSION),
        (packet_of(bytes([0x20, 32]) + bytes(30)), DropReason.BAD_EXTENSION),
        (packet_of(bytes([0x20, 40]) + bytes(34)), DropReason.BAD_EXTENSION),
        (packet_of(bytes([0x30, 8]) + bytes(6)), DropReason.BAD_EXTENSION),
        (packet_of(bytes([0, 0, 0, 0x10])), DropReason.BAD_EXTENSION),
        (packet_of(CONTROL_BYTES, CONTROL_BYTES), DropReason.DUPLICATE_EXTENSION),
        (packet_of(SOURCE_BYTES, SOURCE_BYTES), DropReason.DUPLICATE_EXTENSION),
        (packet_of(ADDRESS_BYTES, ADDRESS_BYTES), DropReason.DUPLICATE_EXTENSION),
        (packet_of(SERVICE_BYTES, SERVICE_BYTES, SERVICE_BYTES), DropReason.DUPLICATE_EXTENSION),
        (packet_of(bytes(12)), DropReason.TOO_MANY_EXTENSIONS),
    ],
)
def test_each_kind_of_bad_packet_has_its_reason(data: bytes, reason: DropReason) -> None:
    assert reason_of(data) is reason


def test_extensions_of_every_kind_are_accepted_together() -> None:
    data = packet_of(SOURCE_BYTES, SERVICE_BYTES, bytes(4), ADDRESS_BYTES, SERVICE_BYTES, CONTROL_BYTES, payload=b"x")
    packet = decode(data)
    assert len(packet.extensions) == 10 - 1 and packet.payload == b"x"
    assert encode(packet) == data


def test_reserved_bits_are_ignored_and_sent_as_zero() -> None:
    control = bytes([0x1F, 20, 0x83, 0xA7]) + bytes(16)
    service = bytes([0x2F, 36, 0xFF, 0xFF]) + bytes(32)
    source = bytes([0x4F, 12, 0xFF, 0xFF]) + bytes(8)
    packet = decode(packet_of(control, service, source))
    assert packet.control == Control(ControlFlag.SYN, 0, 0, bytes(8), mark=0xA7)
    clean = bytes([0x10, 20, 0x80, 0xA7]) + bytes(16)
    assert encode(packet) == packet_of(clean, SERVICE_BYTES, SOURCE_BYTES)


def test_the_mark_is_a_non_zero_reserved_byte() -> None:
    assert 0 < MARK < 256
    packet = SalPacket(1, 0, 6, (Control(ControlFlag.SYN, 1, 0, bytes(8), MARK),), b"")
    assert encode(packet)[12 + 3] == MARK


@pytest.mark.parametrize(
    "packet",
    [
        SalPacket(1 << 32, 0, 6, (), b""),
        SalPacket(0, -1, 6, (), b""),
        SalPacket(0, 0, 256, (), b""),
        SalPacket(0, 0, 6, (Pad(),), b""),
        SalPacket(0, 0, 6, (Pad(),) * 12, b""),
        SalPacket(0, 0, 6, (Control(ControlFlag.SYN, 0, 0, bytes(7)),), b""),
        SalPacket(0, 0, 6, (Control(ControlFlag.SYN, -1, 0, bytes(8)),), b""),
        SalPacket(0, 0, 6, (Source((bytes(4),)),), b""),
        SalPacket(0, 0, 6, (Source((bytes(4),) * 21),), b""),
        SalPacket(0, 0, 6, (Source((bytes(4), bytes(5))),), b""),
        SalPacket(0, 0, 6, (AddressList(0, 0, (bytes(4),) * 61),), b""),
        SalPacket(0, 0, 6, tuple(AddressList(0, 0, (bytes(4),) * 60) for _ in range(5)), b""),
    ],
)
def test_encode_refuses_what_does_not_fit(packet: SalPacket) -> None:
    with pytest.raises(ValueError):
        encode(packet)


@pytest.mark.statement("S18")
def test_bare_header_has_twelve_bytes_and_no_service() -> None:
    """S18: a data packet carries flowIDs only."""
    header = bare_header(3, 2, 6)
    assert header == bytes.fromhex("00000003000000020306fcf4")
    assert decode(header + b"data") == SalPacket(3, 2, 6, (), b"data")
