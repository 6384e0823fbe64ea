"""Service names and the serviceIDs they stand for (docs/naming.md, slide 17).

    bits 0..23            24..79           80..95   96..255
    +----------------+------------------+--------+------------------------------+
    | provider block | the other labels |  port  | free for self-certification  |
    +----------------+------------------+--------+------------------------------+
     `example`         `web`              0 or 80  zero in a name's serviceID

A serviceID is computed from the name alone: no directory is asked, so every node computes the same one, provided that
all were given the same declared providers.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping

from .serviceid import BITS, LENGTH, Prefix, ServiceID, parse_bits

PROVIDER_BITS = 24
LABEL_BITS = 56
PORT_BITS = 16
NAME_BITS = PROVIDER_BITS + LABEL_BITS
NAME_PORT_BITS = NAME_BITS + PORT_BITS

SERVICE_PORT_ANY = 1
"""The kernel port that stands for port field 0: a TCP socket connected to port 0 breaks programs (ssl among them)."""

MAX_LABEL = 63
MAX_NAME = 253
# Names that describe() can give back; the oldest is forgotten, so that a program asking for endless names is harmless.
MAX_REMEMBERED = 1 << 16

_PROVIDER_BYTES = PROVIDER_BITS // 8
_LABEL_BYTES = LABEL_BITS // 8
_NAME_BYTES = NAME_BITS // 8
_FIRST_BLOCK = 0x000100  # 0x0000xx holds the original's decimal serviceIDs
_MAX_PORT = (1 << PORT_BITS) - 1
_LABEL = re.compile(r"[a-z0-9_-]+\Z")
_HEX = re.compile(r"[0-9a-fA-F]+\Z")
_TAIL = bytes(LENGTH - NAME_PORT_BITS // 8)


class ServiceNameError(ValueError):
    """A text that names no service, or two labels that claim one block; the message is one line for the user."""


class Naming:
    """The naming rule with the providers that a topology declares: label to 24-bit block.

    Raises :class:`ServiceNameError` for a block outside 0x000100..0xffffff or declared twice.
    """

    def __init__(self, providers: Mapping[str, int] | None = None) -> None:
        self._declared: dict[str, int] = {}
        self._owners: dict[int, str] = {}
        self._names: dict[bytes, str] = {}
        for given, block in (providers or {}).items():
            label = _provider_label(given)
            if not _FIRST_BLOCK <= block < 1 << PROVIDER_BITS:
                raise ServiceNameError(f"provider {label!r}: block {block:#08x} is not in 0x000100..0xffffff")
            if label in self._declared:
                raise ServiceNameError(f"provider {label!r} is declared twice")
            self._claim(block, label)
            self._declared[label] = block

    def block(self, label: str) -> Prefix:
        """The /24 of a provider: declared, or derived from the label. Raises :class:`ServiceNameError`."""
        label = _provider_label(label)
        block = self._declared.get(label)
        if block is None:
            block = _derived_block(label)
            self._claim(block, label)
        return Prefix(block.to_bytes(_PROVIDER_BYTES, "big") + bytes(LENGTH - _PROVIDER_BYTES), PROVIDER_BITS)

    def service_id(self, name: str, port: int = 0) -> ServiceID:
        """What connect(name) or connect(name, port) asks for. Raises :class:`ServiceNameError`."""
        if not 0 <= port <= _MAX_PORT:
            raise ServiceNameError(f"a port is a number from 0 to {_MAX_PORT}, not {port}")
        return ServiceID(self._name_bytes(name) + port.to_bytes(PORT_BITS // 8, "big") + _TAIL)

    def bind_prefix(self, name: str, port: int | None = None) -> Prefix:
        """What bind(name) takes, every port of it (80 bits), or bind(name, port) (96 bits; 0 is a port field too).

        Raises :class:`ServiceNameError`.
        """
        if port is None:
            return Prefix(self.service_id(name).raw, NAME_BITS)
        return Prefix(self.service_id(name, port).raw, NAME_PORT_BITS)

    def parse(self, text: str, *, exact: bool = False) -> Prefix:
        """Read any text form: ``web.example``, ``web.example:80``, ``*.example``, hexadecimal, decimal, ``default``.

        All but the last three may be followed by ``/bits``. Without it a name gives its bind prefix, or with
        ``exact`` the /256 that a connect asks for; hexadecimal and decimal forms give a /256. Hexadecimal text
        without ``0x`` is known by its ``/bits``, a letter or its 64 digits. Raises :class:`ServiceNameError`, with
        ``exact`` also for a text that stands for more than one serviceID.
        """
        try:
            prefix = self._parse(text.strip(), exact)
        except ServiceNameError:
            raise
        except ValueError as error:
            raise ServiceNameError(f"{text!r}: {error}") from None
        if exact and not prefix.exact:
            raise ServiceNameError(f"{text!r} stands for many services, one is needed here")
        return prefix

    def describe(self, what: Prefix | ServiceID) -> str:
        """The text that ``parse`` reads back: by name when this object has computed it, else decimal or hexadecimal.

        ``/bits`` is written where it is not the one that the text has by itself.
        """
        bits = what.bits if isinstance(what, Prefix) else None
        if bits == 0:
            return "default"
        if bits == PROVIDER_BITS:
            owner = self._owners.get(int.from_bytes(what.raw[:_PROVIDER_BYTES], "big"))
            if owner is not None:
                return f"*.{owner}"
        if bits is None or bits >= NAME_BITS:
            named = self.name_of(what)
            if named is not None:
                return _named_text(*named, bits)
        if bits in (None, BITS) and what.raw[:2] == b"\0\0" and not any(what.raw[4:]):
            return str(int.from_bytes(what.raw[:4], "big"))
        return str(what)

    def name_text(self, prefix: Prefix) -> str:
        """The text of ``describe`` where that is a name or ``*.provider``, else empty: for those who know less."""
        text = self.describe(prefix)
        return text if "." in text else ""  # no number has a dot

    def name_of(self, what: Prefix | ServiceID) -> tuple[str, int] | None:
        """Name and port field, when this object has computed the name; None when bits 96..255 are in use."""
        name = self._names.get(what.raw[:_NAME_BYTES])
        if name is None or any(what.raw[NAME_PORT_BITS // 8 :]):
            return None
        return name, int.from_bytes(what.raw[_NAME_BYTES : NAME_PORT_BITS // 8], "big")

    def _parse(self, text: str, exact: bool) -> Prefix:
        if text == "default":
            return Prefix.default()
        head, slash, length = text.partition("/")
        if text.startswith("*.") and not slash:
            return self.block(text[2:])
        if "." in head and not head.startswith("*."):
            return self._parse_name(head, parse_bits(length) if slash else None, exact)
        if _is_number(text) and len(text) < 2 * LENGTH:
            return Prefix.of(ServiceID.from_number(int(text)))
        if head[:2] in ("0x", "0X") or ((slash or len(head) == 2 * LENGTH) and _HEX.match(head)):
            return Prefix.from_text(text)
        raise ServiceNameError(
            f"{text!r} is no service: give a name of two labels or more (web.example), "
            "name:port, 0x... with /bits, or a number"
        )

    def _parse_name(self, text: str, bits: int | None, exact: bool) -> Prefix:
        name, colon, digits = text.partition(":")
        port = None
        if colon:
            if not _is_number(digits) or len(digits) > 5 or int(digits) > _MAX_PORT:
                raise ServiceNameError(f"{text!r}: a port is a number from 0 to {_MAX_PORT}")
            port = int(digits)
        if bits is not None:
            return Prefix(self.service_id(name, port or 0).raw, bits)
        if exact:
            return Prefix.of(self.service_id(name, port or 0))
        return self.bind_prefix(name, port)

    def _name_bytes(self, given: str) -> bytes:
        name, labels = _split_name(given)
        block = self.block(labels[-1]).raw[:_PROVIDER_BYTES]
        raw = block + _digest("name", ".".join(labels[:-1]))[:_LABEL_BYTES]
        known = self._names.get(raw)
        if known is None:
            if len(self._names) >= MAX_REMEMBERED:
                del self._names[next(iter(self._names))]
            self._names[raw] = name
        elif known != name:
            raise ServiceNameError(f"{name!r} and {known!r} have the same serviceID: rename one")
        return raw

    def _claim(self, block: int, label: str) -> None:
        owner = self._owners.setdefault(block, label)
        if owner != label:
            raise ServiceNameError(f"providers {label!r} and {owner!r} both have block {block:#08x}: declare another")


def normal_name(text: str) -> str:
    """A service name in its one spelling: lower case, no final dot. Raises :class:`ServiceNameError`."""
    return _split_name(text)[0]


def _split_name(text: str) -> tuple[str, list[str]]:
    # Not only the pattern: lower() makes ASCII of some other letters (the Kelvin sign).
    if not text.isascii():
        raise ServiceNameError(f"{text!r} is no service name: letters, digits, '-' and '_' only")
    name = text.lower().removesuffix(".")
    if len(name) > MAX_NAME:
        raise ServiceNameError(f"a name of {len(name)} characters: at most {MAX_NAME} are allowed")
    labels = name.split(".")
    for label in labels:
        _check_label(label, text)
    if len(labels) < 2:
        raise ServiceNameError(f"{text!r} is no service name: it needs two labels or more, as in web.example")
    if labels[-1].isdigit():
        raise ServiceNameError(f"{text!r} is no service name: its last label is a number")
    return name, labels


def _provider_label(text: str) -> str:
    label = text.lower() if text.isascii() else text
    _check_label(label, text)
    if label.isdigit():
        raise ServiceNameError(f"{text!r} is no provider: it is a number")
    return label


def _check_label(label: str, text: str) -> None:
    if len(label) > MAX_LABEL:
        raise ServiceNameError(f"{label[:12]}...: a label of {len(label)} characters, at most {MAX_LABEL} are allowed")
    if not _LABEL.match(label):
        what = "an empty label" if not label else f"{label!r}: letters, digits, '-' and '_' only"
        raise ServiceNameError(f"{text!r} is no service name: {what}")


def _derived_block(label: str) -> int:
    """24 bits of the label's hash, hashed again while they fall into the block of the decimal serviceIDs."""
    digest = _digest("provider", label)
    while True:
        block = int.from_bytes(digest[:_PROVIDER_BYTES], "big")
        if block >= _FIRST_BLOCK:
            return block
        digest = hashlib.sha256(digest).digest()


def _digest(kind: str, text: str) -> bytes:
    # The kind keeps a provider's label and an equal service label apart.
    return hashlib.sha256(f"{kind}:{text}".encode("ascii")).digest()


def _is_number(text: str) -> bool:
    return text.isascii() and text.isdigit()


def _named_text(name: str, port: int, bits: int | None) -> str:
    if bits is None:
        return f"{name}:{port}" if port else name
    if bits == NAME_BITS:
        return name
    if bits == NAME_PORT_BITS:
        return f"{name}:{port}"
    return f"{name}:{port}/{bits}" if port else f"{name}/{bits}"
