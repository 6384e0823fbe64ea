"""The rate of an interface's own shaper, and pacing by it.

A token bucket such as HTB that always has packets waiting lets them out one by one, and sets a timer for nearly every
one: at 1 Gbit/s more work for the sender's core than everything else together (docs/performance.md). Who hands over no
more than the bucket holds passes at once, without any timer. So a sender keeps its own account of the bucket and rests,
about half a bucket at a time, while what is to be sent waits in front of it.

The shaper stays the one that limits: this account only says when to come back.
"""

from __future__ import annotations

import socket
import struct
from dataclasses import dataclass

from serval_node.io.netlink import dump_addresses
from serval_node.io.netlink_message import attributes, dump
from serval_node.wire.ipv4 import Address

FRAME_HEADER = 14  # Ethernet: what the interface adds to a packet before its shaper counts
SLOWEST_PACED = 150e6 / 8  # bytes per second; below, a timer per frame is no more than a rest per few frames
SHORTEST_BURST = 0.0008  # seconds; a smaller bucket runs over while its sender sleeps, and rate would be lost

_NETLINK_ROUTE = 0
_RTM_NEWTCLASS, _RTM_GETTCLASS = 40, 42
_RTMGRP_TC = 0x8
_TCMSG = struct.Struct("=BxxxiIII")  # family, interface, handle, parent, info
_TCA_KIND, _TCA_OPTIONS = 1, 2
_TCA_HTB_PARMS, _TCA_HTB_RATE64 = 1, 6
_HTB_OPTIONS = struct.Struct("=8xI12xI")  # of struct tc_htb_opt: rate (bytes per second), buffer (ticks)
_SECONDS_PER_TICK = 64e-9


@dataclass(frozen=True, slots=True)
class Bucket:
    """A token bucket: `rate` in bytes of frames per second, `burst` in bytes."""

    rate: float
    burst: float

    @property
    def worth_pacing(self) -> bool:
        return self.rate >= SLOWEST_PACED and self.burst >= self.rate * SHORTEST_BURST


class Pace:
    """One sender's account of a bucket. Times are monotonic seconds."""

    __slots__ = ("_depth", "_half", "_rate", "_zero")

    def __init__(self, bucket: Bucket, now: float) -> None:
        """The bucket counts as empty: what was sent before is not known."""
        self._rate = bucket.rate
        self._depth = bucket.burst / bucket.rate
        self._half = self._depth / 2
        self._zero = now  # when the bucket was, or will be, empty

    def spend(self, size: int, now: float) -> None:
        """`size` bytes of frames were given to the interface. More than the bucket holds may be spent."""
        self._zero = max(self._zero, now - self._depth) + size / self._rate

    def room(self, now: float) -> float:
        """The bytes that are in the bucket; below 0 when it was overdrawn."""
        return min(self._depth, now - self._zero) * self._rate

    @property
    def opens_at(self) -> float:
        """When the bucket is half full, and sending may go on."""
        return self._zero + self._half


def interface_of(address: Address) -> int | None:
    """The index of the interface that has an own address. Raises OSError."""
    return next((entry.link_index for entry in dump_addresses() if entry.address == address), None)


def shaper(interface: int) -> Bucket | None:
    """The interface's shaper if that is an HTB with one class (nothing is known about where packets go in a larger
    tree). Raises OSError."""
    request = _TCMSG.pack(socket.AF_UNSPEC, interface, 0, 0, 0)
    classes = [message for message in dump(_NETLINK_ROUTE, _RTM_GETTCLASS, request) if message.kind == _RTM_NEWTCLASS]
    return parse_class(classes[0].body) if len(classes) == 1 else None


def parse_class(body: bytes) -> Bucket | None:
    """The bucket of an HTB class from what follows the netlink header; None when it is something else."""
    values = attributes(body, _TCMSG.size)
    if values.get(_TCA_KIND) != b"htb\0":
        return None
    options = attributes(values.get(_TCA_OPTIONS, b""), 0)
    parameters = options.get(_TCA_HTB_PARMS, b"")
    if len(parameters) < _HTB_OPTIONS.size or _TCA_HTB_RATE64 in options:  # above 34 Gbit/s
        return None
    rate, ticks = _HTB_OPTIONS.unpack_from(parameters)
    return Bucket(float(rate), rate * ticks * _SECONDS_PER_TICK) if rate else None


def open_notifications() -> socket.socket:
    """A socket that becomes readable when a shaper of this network namespace was made, changed or taken away."""
    events = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK, 0)
    try:
        events.bind((0, _RTMGRP_TC))
    except OSError:
        events.close()
        raise
    return events
