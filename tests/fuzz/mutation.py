"""Damage to bytes, as values: the same steps always do the same, whoever drew them."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass

from serval_node.wire.checksum import internet_checksum
from serval_node.wire.errors import WireError
from serval_node.wire.ipv4 import Ipv4Header
from serval_node.wire.sal_header import BARE_LENGTH
from serval_node.wire.transport import recompute_checksum

KINDS = ("flip", "set", "word", "cut", "drop", "repeat", "insert")
INTERESTING = (0, 1, 2, 0x7F, 0x80, 0xFF, 0x7FFF, 0x8000, 0xFFFF, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF)


@dataclass(frozen=True)
class Step:
    """``kind`` of KINDS; ``where`` 0 to 65535 is a place from the first to the last byte; ``value`` 0 to 2**32 - 1."""

    kind: str
    where: int
    value: int


def damage(data: bytes, steps: Sequence[Step]) -> bytes:
    """The data after these steps."""
    found = bytearray(data)
    for step in steps:
        place = step.where * len(found) >> 16
        if step.kind == "insert":
            found[place:place] = step.value.to_bytes(4, "big")[: 1 + step.value % 4]
        elif not found:
            continue
        elif step.kind == "flip":
            found[place] ^= 1 << step.value % 8
        elif step.kind == "set":
            found[place] = step.value & 0xFF
        elif step.kind == "word":
            size = min(4, len(found) - place)
            found[place : place + size] = step.value.to_bytes(4, "big")[:size]
        elif step.kind == "cut":
            del found[place:]
        elif step.kind == "drop":
            del found[place : place + 1 + step.value % 16]
        elif step.kind == "repeat":
            found[place:place] = found[place : place + 1 + step.value % 64]
    return bytes(found)


def draw_steps(rng: random.Random, most: int = 4) -> list[Step]:
    """A few steps by chance; values that parsers stumble over come often."""
    return [
        Step(
            rng.choice(KINDS),
            rng.randrange(65536),
            rng.choice(INTERESTING) if rng.random() < 0.5 else rng.getrandbits(32),
        )
        for _ in range(rng.randint(0, most))
    ]


def mend(packet: bytes) -> bytes:
    """The packet with all lengths and checksums of its headers right again, as far as they can be found: so that the
    damage reaches what is behind the checks.
    """
    if len(packet) < 20 + BARE_LENGTH or packet[0] != 0x45:
        return packet
    data = bytearray(packet)
    data[2:4] = (len(data) & 0xFFFF).to_bytes(2, "big")
    data[10:12] = bytes(2)
    data[10:12] = internet_checksum(data[:20]).to_bytes(2, "big")
    end = 20 + 4 * data[28]
    if not 20 + BARE_LENGTH <= end <= len(data):
        return bytes(data)
    try:
        header = Ipv4Header.decode(data)
        data[end:] = recompute_checksum(bytes(data[end:]), data[29], header.source, header.destination)
    except (WireError, ValueError):
        pass  # no transport header there: the stack has to find that out
    data[30:32] = bytes(2)
    data[30:32] = internet_checksum(data[20:end]).to_bytes(2, "big")
    return bytes(data)
