"""The Lua dissector has the fields of the scapy layer. That it reads packets alike is shown by tests/wireshark."""

from __future__ import annotations

import re
from pathlib import Path

import serval_node.capture
from serval_node.capture.dissector import (
    FLAG_NAMES,
    PROTOCOLS,
    SAL,
    TYPES,
    SALAddresses,
    SALControl,
    SALPad,
    SALService,
    SALSource,
)
from serval_node.wire.encapsulation import SERVER_PORT
from serval_node.wire.ipv4 import PROTOCOL_SERVAL
from serval_node.wire.sal_header import BARE_LENGTH, MARK

LUA = (Path(serval_node.capture.__file__).parent / "serval.lua").read_text()
PREFIXES = {
    "": SAL,
    "pad.": SALPad,
    "control.": SALControl,
    "service.": SALService,
    "addresses.": SALAddresses,
    "source.": SALSource,
}
# Scapy holds the extensions in a field of their own, and bytes of no known extension in a Raw layer.
ONLY_SCAPY, ONLY_LUA = {"serval.extensions"}, {"serval.unknown"}


def lua_table(name: str) -> dict[int, str]:
    (body,) = re.findall(rf"^local {name} = \{{(.*)\}}$", LUA, re.MULTILINE)
    return {int(number, 0): text for number, text in re.findall(r'\[(\w+)\] = "(\w+)"', body)}


def test_the_fields_are_the_same() -> None:
    in_lua = re.findall(r'ProtoField\.\w+\("(serval\.[a-z0-9_.]*[a-z0-9_])"', LUA)
    in_scapy = {f"serval.{prefix}{field.name}" for prefix, layer in PREFIXES.items() for field in layer.fields_desc}
    assert len(in_lua) == len(set(in_lua))
    assert set(in_lua) - ONLY_LUA == in_scapy - ONLY_SCAPY


def test_the_flags_are_the_same() -> None:
    (line,) = re.findall(r"^local FLAGS = (.*)$", LUA, re.MULTILINE)
    flags = {name: int(mask, 0) for name, mask in re.findall(r'\{ "(\w+)", (0x\w+) \}', line)}
    assert flags == {name: 1 << bit for bit, name in enumerate(FLAG_NAMES) if not name.startswith("r")}


def test_the_numbers_are_the_same() -> None:
    numbers = {name: int(text, 0) for name, text in re.findall(r"^local ([A-Z_]+) = (\w+)$", LUA, re.MULTILINE)}
    constants = {
        "PROTOCOL_SERVAL": PROTOCOL_SERVAL,
        "SERVER_PORT": SERVER_PORT,
        "BARE_LENGTH": BARE_LENGTH,
        "MARK": MARK,
    }
    assert numbers == constants
    assert lua_table("TYPES") == TYPES
    assert lua_table("PROTOCOLS") == PROTOCOLS
