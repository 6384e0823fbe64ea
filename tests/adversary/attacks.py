"""The attacks: each makes whole IPv4 packets. What its sender knows stands in an :class:`Aim`, what it should meet with
in the names of the counters under which the target refuses it.

An off-path attacker knows addresses and services. FlowIDs, numbers and nonces are secrets of the two ends: attacks
that use them show what each of these secrets is good for.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass, replace

from serval_node.wire.ipv4 import PROTOCOL_SERVAL, PROTOCOL_TCP, Address, build_ipv4
from serval_node.wire.sal_header import (
    MAX_SOURCES,
    Control,
    ControlFlag,
    SalPacket,
    Service,
    Source,
    bare_header,
    encode,
)
from serval_node.wire.serviceid import ServiceID
from serval_node.wire.transport import ACK, SYN, build_tcp, to_wire

_SYN, _ACK, _RST, _FIN, _RSYN = (
    ControlFlag.SYN,
    ControlFlag.ACK,
    ControlFlag.RST,
    ControlFlag.FIN,
    ControlFlag.RSYN,
)


@dataclass(frozen=True)
class Aim:
    """Where an attack goes, and what the attacker knows (0 or empty: guessed).

    target, source  addresses; a ``source`` is what the packets claim, None: another forged one in each
    service         for attacks that open something
    src_flow, dst_flow  flowIDs of the connection under attack, as the one who is imitated would send them
    nonce, verno    of the one who is imitated
    seq, ack        the next TCP numbers, for data
    """

    target: Address
    source: Address | None = None
    service: ServiceID | None = None
    src_flow: int = 0
    dst_flow: int = 0
    nonce: bytes = b""
    verno: int = 0
    seq: int = 0
    ack: int = 0


Make = Callable[[Aim, random.Random], bytes]


@dataclass(frozen=True)
class Attack:
    """``refused`` names the counters of the target that count it; none: it is no attack, and is served. Some need the
    name of a service.
    """

    about: str
    refused: tuple[str, ...]
    make: Make
    needs_service: bool = False


def _source(aim: Aim, rng: random.Random) -> Address:
    return aim.source or bytes((10, 66, rng.randrange(256), rng.randrange(1, 255)))


def _whole(aim: Aim, source: Address, sal: bytes) -> bytes:
    return build_ipv4(source, aim.target, PROTOCOL_SERVAL, sal)


def _flows(aim: Aim, rng: random.Random) -> tuple[int, int]:
    return aim.src_flow or rng.getrandbits(32), aim.dst_flow or rng.getrandbits(32)


def _forged(flags: int) -> Make:
    """CONTROL with these flags; a nonce that is not known is guessed."""

    def make(aim: Aim, rng: random.Random) -> bytes:
        verno = aim.verno if aim.nonce else rng.getrandbits(32)
        control = Control(flags, verno, rng.getrandbits(32), aim.nonce or rng.randbytes(8))
        packet = SalPacket(*_flows(aim, rng), PROTOCOL_TCP, (control,), b"")
        return _whole(aim, _source(aim, rng), encode(packet))

    return make


def _syn(aim: Aim, rng: random.Random, *more: Source) -> bytes:
    assert aim.service is not None
    source = _source(aim, rng)
    segment = to_wire(build_tcp(0, 0, rng.getrandbits(32), 0, SYN, window=64240), PROTOCOL_TCP, source, aim.target)
    control = Control(_SYN, rng.getrandbits(32), 0, rng.randbytes(8))
    packet = SalPacket(rng.getrandbits(32), 0, PROTOCOL_TCP, (control, Service(aim.service), *more), segment)
    return _whole(aim, source, encode(packet))


def _syn_of_one(aim: Aim, rng: random.Random) -> bytes:
    return _syn(replace(aim, source=aim.source or bytes((10, 66, 0, 1))), rng)


def _search(aim: Aim, rng: random.Random) -> bytes:
    assert aim.service is not None
    control = Control(_RSYN, rng.getrandbits(32), rng.getrandbits(32), rng.randbytes(8))
    packet = SalPacket(*_flows(aim, rng), PROTOCOL_TCP, (control, Service(aim.service)), b"")
    return _whole(aim, _source(aim, rng), encode(packet))


def _syn_ack(aim: Aim, rng: random.Random) -> bytes:
    source = _source(aim, rng)
    segment = build_tcp(0, 0, rng.getrandbits(32), rng.getrandbits(32), SYN | ACK, window=64240)
    control = Control(_SYN | _ACK, rng.getrandbits(32), rng.getrandbits(32), rng.randbytes(8))
    flows = _flows(aim, rng)
    packet = SalPacket(*flows, PROTOCOL_TCP, (control,), to_wire(segment, PROTOCOL_TCP, source, aim.target))
    return _whole(aim, source, encode(packet))


def _full_source(aim: Aim, rng: random.Random) -> bytes:
    return _syn(aim, rng, Source(tuple(rng.randbytes(4) for _ in range(MAX_SOURCES))))


def _data(aim: Aim, rng: random.Random) -> bytes:
    source = _source(aim, rng)
    segment = build_tcp(0, 0, aim.seq, aim.ack, ACK, window=500, data=b"from elsewhere\n")
    sal = bare_header(*_flows(aim, rng), PROTOCOL_TCP) + to_wire(segment, PROTOCOL_TCP, source, aim.target)
    return _whole(aim, source, sal)


def _sal(extensions: bytes, *, words: int | None = None) -> bytes:
    """A SAL header with these bytes as extensions, and a right checksum."""
    blank = bytes(8) + bytes((words if words is not None else 3 + len(extensions) // 4, PROTOCOL_TCP)) + bytes(2)
    total = int.from_bytes(blank + extensions, "big")
    return blank[:10] + (-total % 65535).to_bytes(2, "big") + extensions


_CONTROL = bytes((0x10, 20, _ACK, 0)) + bytes(16)
# Header and extensions that break one rule each, under the name of the counter.
MALFORMED = {
    "truncated": _sal(b"", words=40),
    "bad_header_length": _sal(b"", words=2),
    "bad_checksum": _sal(b"")[:10] + b"\x12\x34",
    "bad_extension": _sal(bytes((0x40, 88)) + bytes(86)),
    "unknown_extension": _sal(bytes((0x50, 4, 0, 0))),
    "duplicate_extension": _sal(_CONTROL * 2),
    "too_many_extensions": _sal(bytes(12)),  # of PAD
    "bad_transport_checksum": _sal(b"") + build_tcp(0, 0, 1, 1, ACK),
    "bad_transport_header": _sal(b"") + bytes(19),
}


def _malformed(aim: Aim, rng: random.Random) -> bytes:
    return _whole(aim, _source(aim, rng), rng.choice(list(MALFORMED.values())))


ATTACKS: dict[str, Attack] = {
    "blind-rst": Attack("RST with a guessed nonce, to end a connection", ("wrong_nonce",), _forged(_RST | _ACK)),
    "blind-fin": Attack("FIN with a guessed nonce, to close a connection", ("wrong_nonce",), _forged(_FIN)),
    "forged-ack": Attack("ACK with a guessed nonce, to end a move or a handshake", ("wrong_nonce",), _forged(_ACK)),
    "forged-rsyn": Attack("RSYN with a guessed nonce, to draw a connection away", ("wrong_nonce",), _forged(_RSYN)),
    "replayed-rsyn": Attack("RSYN of an earlier move, sent again from elsewhere", ("stale_control",), _forged(_RSYN)),
    "forged-syn-ack": Attack("SYN-ACK with guessed numbers, to be the server", ("wrong_number",), _syn_ack),
    "syn-flood": Attack("SYNs that nobody will confirm, each of another client", ("half_open_full",), _syn, True),
    "delay-flood": Attack("SYNs of one client for a service under DELAY", ("delay_share",), _syn_of_one, True),
    "search-flood": Attack("RSYNs that a service router sends on to all", ("search_limited",), _search, True),
    "full-source": Attack("SYN whose SOURCE list has no room for one more", ("source_full",), _full_source, True),
    "malformed": Attack("headers that break one rule each", tuple(MALFORMED), _malformed),
    "wrong-flow": Attack("data to a flowID that nobody has", ("unknown_flow",), _data),
    "moved-data": Attack("right data with both flowIDs from another address: served (S10)", (), _data),
}
