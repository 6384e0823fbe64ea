from __future__ import annotations

import hashlib
import string

import pytest
from hypothesis import given
from hypothesis import strategies as st

from serval_node.wire import naming
from serval_node.wire.naming import NAME_BITS, NAME_PORT_BITS, Naming, ServiceNameError, normal_name
from serval_node.wire.serviceid import Prefix, ServiceID

EXAMPLE = 0x5E1F00
LABELS = st.text(string.ascii_lowercase + string.digits + "-_", min_size=1, max_size=12)
NAMES = st.builds(lambda labels, top: ".".join([*labels, "p" + top]), st.lists(LABELS, min_size=1, max_size=3), LABELS)
PORTS = st.integers(0, 65535)
ANY_PREFIX = st.builds(Prefix, st.binary(min_size=32, max_size=32), st.integers(0, 256))


WRONG_TEXTS = [
    *("", "web", "cafe", "web:80", "10.0.0.1", "web.example:", "web.example:65536", "web.example:-1"),
    "web.example:80:80",
    *("web..example", ".example", "*.", "*.example/24", "*.a.b", "web.example/", "web.example/257", "web ser.example"),
    *("/80", "w\u00e9b.example", "web.\u212aelvin", "web.example:\u00b2"),
    *("4294967296", "0xweb", "0x/8", "a/b/c", "1" * 65, f"{'x' * 64}.example", ".".join(["x" * 50] * 6)),
]


@pytest.fixture
def names() -> Naming:
    return Naming({"example": EXAMPLE})


def two_labels_of_one_block() -> tuple[str, str]:
    """By birthday, a few thousand labels are enough for two that hash to one block."""
    seen: dict[bytes, str] = {}
    number = 0
    while True:
        label = f"p{number}"
        block = hashlib.sha256(f"provider:{label}".encode()).digest()[:3]
        if block in seen and block[:2] != b"\0\0":
            return seen[block], label
        seen[block] = label
        number += 1


def test_layout_of_a_names_service_id(names: Naming) -> None:
    raw = names.service_id("web.example", 80).raw
    assert raw[:3] == EXAMPLE.to_bytes(3, "big")
    assert raw[3:10] == hashlib.sha256(b"name:web").digest()[:7]
    assert raw[10:12] == (80).to_bytes(2, "big")
    assert raw[12:] == bytes(20)
    assert names.service_id("a.web.example").raw[3:10] == hashlib.sha256(b"name:a.web").digest()[:7]


def test_connect_and_bind_meet(names: Naming) -> None:
    """A program connecting to the bare name and one connecting to port 80 reach the one bind; a port's is narrower."""
    wide, narrow = names.bind_prefix("web.example"), names.bind_prefix("web.example", 80)
    assert (wide.bits, narrow.bits) == (NAME_BITS, NAME_PORT_BITS) == (80, 96)
    assert wide.covers(names.service_id("web.example")) and wide.covers(names.service_id("web.example", 80))
    assert wide.covers(narrow) and narrow.covers(names.service_id("web.example", 80))
    assert not narrow.covers(names.service_id("web.example")) and not narrow.covers(names.service_id("web.example", 81))
    assert names.block("example").covers(wide) and not wide.covers(names.service_id("mail.example"))


@given(NAMES, PORTS)
def test_every_node_computes_the_same(name: str, port: int) -> None:
    assert Naming().service_id(name, port) == Naming().service_id(name.upper() + ".", port)


@given(st.text(string.ascii_lowercase, min_size=1, max_size=12))
def test_derived_blocks_keep_off_the_decimal_ids(label: str) -> None:
    block = Naming().block(label)
    assert block.bits == 24 and block.raw[:2] != b"\0\0"


def test_a_label_that_hashes_to_the_decimal_ids_is_hashed_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(naming, "_digest", lambda kind, text: b"\0\0\x09" + bytes(29))
    again = hashlib.sha256(b"\0\0\x09" + bytes(29)).digest()[:3]
    assert Naming().block("label").raw[:3] == again


def test_a_derived_block_that_is_taken_is_refused_naming_both() -> None:
    first, second = two_labels_of_one_block()
    names = Naming()
    names.block(first)
    with pytest.raises(ServiceNameError, match=f"'{second}' and '{first}'"):
        names.service_id(f"web.{second}")
    names.block(first)
    declared = Naming({"mine": int.from_bytes(Naming().block(first).raw[:3], "big")})
    with pytest.raises(ServiceNameError, match=f"'{first}' and 'mine'"):
        declared.block(first)
    assert Naming({second: 0x123456}).block(second) != Naming().block(second)


def test_two_names_of_one_id_are_refused_naming_both(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(naming, "_digest", lambda kind, text: b"\x01" * 32)
    names = Naming()
    names.service_id("a.example")
    with pytest.raises(ServiceNameError, match=r"'b\.example' and 'a\.example'"):
        names.service_id("b.example")


@pytest.mark.parametrize(
    "providers",
    [{"a": 0xFF}, {"a": 1 << 24}, {"a": -1}, {"a": 256, "b": 256}, {"a": 256, "A": 257}, {"a.b": 256}, {"7": 256}],
)
def test_wrong_declarations_are_refused(providers: dict[str, int]) -> None:
    with pytest.raises(ServiceNameError):
        Naming(providers)


def test_text_forms(names: Naming) -> None:
    web = names.service_id("web.example")
    web80 = names.service_id("web.example", 80)
    assert names.parse(" Web.Example ") == names.bind_prefix("web.example")
    assert names.parse("web.example:80") == names.bind_prefix("web.example", 80)
    assert names.parse("web.example", exact=True) == Prefix.of(web)
    assert names.parse("web.example:80", exact=True) == Prefix.of(web80)
    assert names.parse("web.example:80/256") == Prefix.of(web80)
    assert names.parse("web.example/24") == names.parse("*.example") == names.block("example")
    assert names.parse("16390") == Prefix.of(ServiceID.from_number(16390))
    assert names.parse("0x4006/16") == names.parse("4006/16") == Prefix.from_text("4006/16")
    assert names.parse(web80.hex(), exact=True) == names.parse(f"0x{web80.hex()}") == Prefix.of(web80)
    assert names.parse("default") == Prefix.default()


@pytest.mark.parametrize("text", WRONG_TEXTS)
def test_wrong_text_is_one_clear_line(names: Naming, text: str) -> None:
    with pytest.raises(ServiceNameError) as caught:
        names.parse(text)
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 400


def test_a_label_may_have_63_characters(names: Naming) -> None:
    names.service_id(f"{'x' * 63}.example")
    with pytest.raises(ServiceNameError, match="64 characters"):
        names.service_id(f"{'x' * 64}.example")


@pytest.mark.parametrize("text", ["*.example", "default", "0x40/8", "web.example/80"])
def test_exact_wants_one_service(names: Naming, text: str) -> None:
    with pytest.raises(ServiceNameError, match="many services"):
        names.parse(text, exact=True)


@given(st.text(max_size=30), st.booleans())
def test_any_text_parses_or_is_refused(text: str, exact: bool) -> None:
    try:
        Naming().parse(text, exact=exact)
    except ServiceNameError:
        pass  # refused, as it should be


@given(NAMES, PORTS, st.integers(0, 256), ANY_PREFIX)
def test_describe_is_read_back(name: str, port: int, bits: int, other: Prefix) -> None:
    names = Naming()
    mine = names.service_id(name, port)
    for prefix in (
        Prefix(mine.raw, bits),
        names.bind_prefix(name),
        names.bind_prefix(name, port),
        Prefix.of(mine),
        other,
    ):
        assert names.parse(names.describe(prefix)) == prefix
    assert names.parse(names.describe(mine), exact=True) == Prefix.of(mine)


def test_describe(names: Naming) -> None:
    web80 = names.service_id("web.example", 80)
    assert names.describe(names.service_id("web.example")) == "web.example"
    assert names.describe(web80) == "web.example:80"
    assert names.describe(names.bind_prefix("web.example")) == "web.example"
    assert names.describe(names.bind_prefix("web.example", 0)) == "web.example:0"
    assert names.describe(Prefix.of(web80)) == "web.example:80/256"
    assert names.describe(names.block("example")) == "*.example"
    assert names.describe(Prefix.default()) == "default"
    assert names.describe(ServiceID.from_number(16390)) == "16390"
    assert Naming().describe(web80) == str(web80)
    certified = ServiceID(web80.raw[:31] + b"\1")
    assert names.describe(certified) == str(certified) and names.name_of(certified) is None
    assert names.name_of(web80) == ("web.example", 80)


def test_names_are_not_remembered_without_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(naming, "MAX_REMEMBERED", 3)
    names = Naming()
    ids = [names.service_id(f"s{number}.example") for number in range(5)]
    assert [names.name_of(service_id) is not None for service_id in ids] == [False, False, True, True, True]


def test_normal_name() -> None:
    assert normal_name("Web.Example.") == "web.example"
