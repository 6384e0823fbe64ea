"""The guest's one interface: its address and default route, and the notice by which the guest learns that it has moved.

After a move QEMU announces the guest on its new link, and has the guest's driver do so too. The kernel tells that to
whoever listens: RTM_NEWLINK with the event NETDEV_NOTIFY_PEERS (rtnetlink(7), linux/if_link.h). Nothing else in the
guest shows that another machine runs it now: the link was never down.
"""

from __future__ import annotations

import errno
import os
import socket
import struct
from collections.abc import Sequence
from dataclasses import dataclass

from serval_node.io.netlink_message import attribute, attributes, messages

INTERFACE = "eth0"
_HEADER = struct.Struct("=IHHII")
_REQUEST, _ACK, _REPLACE, _CREATE = 0x1, 0x4, 0x100, 0x400
_NEWLINK, _NEWADDR, _DELADDR, _NEWROUTE = 16, 20, 21, 24
_ERROR = 2
_LINK = struct.Struct("=BxHiII")
_ADDRESS = struct.Struct("=BBBBI")
_ROUTE = struct.Struct("=BBBBBBBBI")
_MAIN, _STATIC, _UNIVERSE, _UNICAST = 254, 4, 0, 1
_IFLA_ADDRESS, _IFLA_MTU, _IFLA_EVENT = 1, 4, 44
_IFA_ADDRESS, _IFA_LOCAL, _IFA_BROADCAST = 1, 2, 4
_RTA_OIF, _RTA_GATEWAY = 4, 5
_NOTIFY_PEERS = 4  # IFLA_EVENT_NOTIFY_PEERS
_UP = 1
_RTMGRP_LINK = 1
_ANSWER_SECONDS = 2.0


class Place:
    """An address with the length of its prefix, and the default gateway."""

    def __init__(self, address: str, prefix_length: int, gateway: str) -> None:
        self.address = socket.inet_aton(address)
        self.prefix_length = prefix_length
        self.gateway = socket.inet_aton(gateway)


@dataclass(frozen=True)
class Change:
    """Requests to the kernel, ready to be sent. Made beforehand, since after a move every line of code costs."""

    datagram: bytes
    requests: int

    @classmethod
    def of(cls, requests: Sequence[tuple[int, int, bytes]]) -> Change:
        """Of requests, each a message type, flags and body."""
        datagram = b""
        for number, (kind, flags, body) in enumerate(requests, 1):
            datagram += _HEADER.pack(_HEADER.size + len(body), kind, _REQUEST | _ACK | flags, number, 0) + body
            datagram += bytes(-len(datagram) % 4)
        return cls(datagram, len(requests))


class Network:
    """Sets what the agent is told, and hears of moves."""

    def __init__(self) -> None:
        self.place: Place | None = None
        self._index = socket.if_nametoindex(INTERFACE)
        self._link = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, socket.NETLINK_ROUTE)
        self._link.bind((0, _RTMGRP_LINK))
        self._link.setblocking(False)
        self._requests = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, socket.NETLINK_ROUTE)
        self._requests.settimeout(_ANSWER_SECONDS)
        self._requests.bind((0, 0))

    def fileno(self) -> int:
        return self._link.fileno()

    def moved(self) -> bool:
        """Whether one of the notices that wait says that the guest was announced anew."""
        found = False
        while True:
            try:
                found = announces(self._link.recv(1 << 16), self._index) or found
            except BlockingIOError:
                return found

    def configure(self, mac: str, mtu: int) -> None:
        """Give the interface its hardware address and MTU, and set it up. Raises OSError."""
        values = attribute(_IFLA_ADDRESS, bytes.fromhex(mac.replace(":", "")))
        values += attribute(_IFLA_MTU, struct.pack("=I", mtu))
        link = _LINK.pack(socket.AF_UNSPEC, 0, self._index, _UP, _UP)
        self._carry_out(Change.of([(_NEWLINK, 0, link + values)]))

    def prepare(self, place: Place) -> Change:
        """What takes the guest from where it is to another place: its address and default route, and no other.

        All in one datagram: whoever watches the routes finds everything done when it looks.
        """
        index = struct.pack("=I", self._index)
        broadcast = int.from_bytes(place.address, "big") | (0xFFFFFFFF >> place.prefix_length)
        address = self._address(place) + attribute(_IFA_BROADCAST, broadcast.to_bytes(4, "big"))
        route = _ROUTE.pack(socket.AF_INET, 0, 0, 0, _MAIN, _STATIC, _UNIVERSE, _UNICAST, 0)
        route += attribute(_RTA_GATEWAY, place.gateway) + attribute(_RTA_OIF, index)
        requests = [(_NEWADDR, _CREATE | _REPLACE, address), (_NEWROUTE, _CREATE | _REPLACE, route)]
        old = self.place
        if old is not None and old.address != place.address:
            requests.append((_DELADDR, 0, self._address(old)))
        return Change.of(requests)

    def go(self, place: Place, change: Change) -> None:
        """Go to a place by what was prepared for it. Raises OSError."""
        self._carry_out(change)
        self.place = place

    def _address(self, place: Place) -> bytes:
        header = _ADDRESS.pack(socket.AF_INET, place.prefix_length, 0, _UNIVERSE, self._index)
        return header + attribute(_IFA_LOCAL, place.address) + attribute(_IFA_ADDRESS, place.address)

    def _carry_out(self, change: Change) -> None:
        """Raises OSError for the first request that the kernel refuses."""
        self._requests.send(change.datagram)
        answered = 0
        while answered < change.requests:
            for message in messages(self._requests.recv(1 << 16)):
                if message.kind != _ERROR:
                    continue
                answered += 1
                code = -struct.unpack_from("=i", message.body)[0]
                if code not in (0, errno.EADDRNOTAVAIL):  # an address that is gone already need not be removed
                    raise OSError(code, os.strerror(code))


def announces(data: bytes, index: int) -> bool:
    """Whether one of the kernel's messages says that peers are told where this interface is. Pure."""
    return any(
        message.kind == _NEWLINK
        and _LINK.unpack_from(message.body)[2] == index
        and attributes(message.body, _LINK.size).get(_IFLA_EVENT) == struct.pack("=I", _NOTIFY_PEERS)
        for message in messages(data)
    )
