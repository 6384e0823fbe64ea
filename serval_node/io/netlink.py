"""What this host's network looks like: links, own addresses, and the own address towards a destination.

`HostNetwork` answers from memory and keeps itself current by the kernel's route netlink notifications: the event loop
watches its file descriptor and calls `readable()`. A route's source address is asked for once by connecting a UDP
socket (no packet is sent) and remembered until links, addresses or routes change.
"""

from __future__ import annotations

import errno
import socket
import struct
import sys
from dataclasses import dataclass

from serval_node.io.netlink_message import ask, attribute, attributes, dump, messages
from serval_node.wire.ipv4 import Address

_NETLINK_ROUTE = 0
_RTM_NEWLINK, _RTM_DELLINK, _RTM_GETLINK = 16, 17, 18
_RTM_NEWADDR, _RTM_DELADDR, _RTM_GETADDR = 20, 21, 22
_RTM_NEWROUTE, _RTM_DELROUTE, _RTM_GETROUTE = 24, 25, 26
_GROUPS = 0x1 | 0x10 | 0x40  # RTMGRP_LINK, RTMGRP_IPV4_IFADDR, RTMGRP_IPV4_ROUTE
_IFINFOMSG = struct.Struct("=BxHiII")  # family, type, index, flags, change mask
_IFADDRMSG = struct.Struct("=BBBBI")  # family, prefix length, flags, scope, index
# Family, lengths of destination and source, TOS, table, protocol, scope, type, flags.
_RTMSG = struct.Struct("=BBBBBBBBI")
_RTM_F_FIB_MATCH = 0x2000  # answer with the route that matches, and refuse where none does (Linux 4.13)
_RTA_DST, _RTA_SRC, _RTA_OIF = 1, 2, 4
_IFLA_IFNAME, _IFLA_MTU = 3, 4
_IFA_ADDRESS, _IFA_LOCAL = 1, 2
_IFF_UP, _IFF_LOOPBACK, _IFF_LOWER_UP = 0x1, 0x8, 0x10000
_ANY_PORT = 9  # discard; nothing is sent there
_CACHE_LIMIT = 65536


@dataclass(frozen=True, slots=True)
class Link:
    """An interface. `up`: enabled and with carrier."""

    index: int
    name: str
    mtu: int
    up: bool
    loopback: bool


@dataclass(frozen=True, slots=True)
class InterfaceAddress:
    """An own IPv4 address."""

    link_index: int
    address: Address
    prefix_length: int


@dataclass(frozen=True, slots=True)
class NetworkChange:
    """What one call of `readable()` found changed: links and addresses that came, went or changed state, and whether
    any route did, of whatever table.
    """

    links_down: tuple[Link, ...] = ()
    links_up: tuple[Link, ...] = ()
    added: tuple[InterfaceAddress, ...] = ()
    removed: tuple[InterfaceAddress, ...] = ()
    routes: bool = False

    @property
    def places(self) -> bool:
        """Whether links or addresses have changed."""
        return bool(self.links_down or self.links_up or self.added or self.removed)


class HostNetwork:
    """Links and addresses of the network namespace in which this was made."""

    def __init__(self, *, ignore: tuple[str, ...] = ("sal0",)) -> None:
        """`ignore` names the links whose addresses are not the host's own (sal0's are virtual). Raises OSError."""
        self._ignore = frozenset(ignore)
        self._sources: dict[Address, Address | None] = {}
        self.links: dict[int, Link] = {}
        self.addresses: tuple[InterfaceAddress, ...] = ()
        self._own: frozenset[Address] = frozenset()
        self._events = socket.socket(
            socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK, _NETLINK_ROUTE
        )
        self._events.bind((0, _GROUPS))
        self._reload()

    def fileno(self) -> int:
        return self._events.fileno()

    def close(self) -> None:
        self._events.close()

    def is_local(self, address: Address) -> bool:
        """Whether packets to `address` are for this host (loopback's 127.0.0.0/8 included)."""
        return address in self._own or address[0] == 127

    def own_addresses(self) -> list[Address]:
        """The host's own addresses, without loopback and sal0, in the kernel's order."""
        return [entry.address for entry in self.addresses if entry.address[0] != 127]

    def link_of(self, address: Address) -> Link | None:
        """The link that carries an own address."""
        for entry in self.addresses:
            if entry.address == address:
                return self.links.get(entry.link_index)
        return None

    def link_named(self, name: str) -> Link | None:
        """The interface of this name; not those that are ignored."""
        found = (link for link in self.links.values() if link.name == name and name not in self._ignore)
        return next(found, None)

    def smallest_mtu(self) -> int:
        """The smallest MTU of the host's links (loopback and sal0 aside); 1500 when there is none."""
        return min((link.mtu for link in self._outer_links()), default=1500)

    def largest_mtu(self) -> int:
        return max((link.mtu for link in self._outer_links()), default=1500)

    def source_address(self, destination: Address) -> Address | None:
        """The own address that routing chooses towards `destination`; None: no route, or only into sal0."""
        try:
            return self._sources[destination]
        except KeyError:
            pass
        if len(self._sources) >= _CACHE_LIMIT:
            self._sources.clear()
        source = _routed_source(destination)
        if source is not None and not self.is_local(source):
            source = None
        self._sources[destination] = source
        return source

    def has_route(self, source: Address, destination: Address) -> bool:
        """Whether the host's routes lead to `destination` over the link of an own address, for packets with this
        source. The kernel itself would take an unknown destination to be on the link. True when it cannot be asked.
        """
        link = self.link_of(source)
        return link is not None and _routed_over(link.index, source, destination)

    def readable(self) -> NetworkChange:
        """Reads the kernel's notifications. Called when `fileno()` is readable; never blocks."""
        stale = routes = False
        while True:
            try:
                data = self._events.recv(65536)
            except BlockingIOError:
                break
            except OSError as error:
                if error.errno != errno.ENOBUFS:
                    raise
                stale = routes = True  # notifications were lost: everything is read again below
                continue
            self._sources.clear()
            for message in messages(data):
                stale = stale or message.kind in (_RTM_NEWLINK, _RTM_DELLINK, _RTM_NEWADDR, _RTM_DELADDR)
                routes = routes or message.kind in (_RTM_NEWROUTE, _RTM_DELROUTE)
        if not stale:
            return NetworkChange(routes=routes)
        old_links, old_addresses = self.links, self.addresses
        self._reload()
        return self._difference(old_links, old_addresses, routes)

    def _outer_links(self) -> list[Link]:
        return [link for link in self.links.values() if not link.loopback and link.name not in self._ignore]

    def _reload(self) -> None:
        self._sources.clear()
        self.links = {link.index: link for link in dump_links()}
        ignored = {link.index for link in self.links.values() if link.name in self._ignore}
        self.addresses = tuple(entry for entry in dump_addresses() if entry.link_index not in ignored)
        self._own = frozenset(entry.address for entry in self.addresses)

    def _difference(
        self, links: dict[int, Link], addresses: tuple[InterfaceAddress, ...], routes: bool
    ) -> NetworkChange:
        was_up = {index for index, link in links.items() if link.up}
        is_up = {index for index, link in self.links.items() if link.up}
        return NetworkChange(
            links_down=tuple(links[index] for index in sorted(was_up - is_up)),
            links_up=tuple(self.links[index] for index in sorted(is_up - was_up)),
            added=tuple(entry for entry in self.addresses if entry not in addresses),
            removed=tuple(entry for entry in addresses if entry not in self.addresses),
            routes=routes,
        )


def dump_links() -> list[Link]:
    """Every interface of this network namespace. Raises OSError."""
    found = []
    for message in dump(_NETLINK_ROUTE, _RTM_GETLINK, _IFINFOMSG.pack(socket.AF_UNSPEC, 0, 0, 0, 0)):
        if message.kind == _RTM_NEWLINK:
            _, _, index, flags, _ = _IFINFOMSG.unpack_from(message.body)
            values = attributes(message.body, _IFINFOMSG.size)
            name = values.get(_IFLA_IFNAME, b"").rstrip(b"\0").decode()
            mtu = int.from_bytes(values.get(_IFLA_MTU, b""), sys.byteorder)
            up = flags & _IFF_UP != 0 and flags & _IFF_LOWER_UP != 0
            found.append(Link(index, name, mtu, up, bool(flags & _IFF_LOOPBACK)))
    return found


def dump_addresses() -> list[InterfaceAddress]:
    """Every IPv4 address of this network namespace. Raises OSError."""
    found = []
    for message in dump(_NETLINK_ROUTE, _RTM_GETADDR, _IFADDRMSG.pack(socket.AF_INET, 0, 0, 0, 0)):
        if message.kind == _RTM_NEWADDR:
            family, prefix_length, _, _, index = _IFADDRMSG.unpack_from(message.body)
            values = attributes(message.body, _IFADDRMSG.size)
            # On a point-to-point link IFA_ADDRESS is the peer; IFA_LOCAL is ours.
            address = values.get(_IFA_LOCAL, values.get(_IFA_ADDRESS))
            if family == socket.AF_INET and address is not None and len(address) == 4:
                found.append(InterfaceAddress(index, address, prefix_length))
    return found


def _routed_source(destination: Address) -> Address | None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as probe:
        try:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_BROADCAST, 1)
            probe.connect((socket.inet_ntoa(destination), _ANY_PORT))
        except OSError:
            return None  # no route, or a destination that no packet may have
        return socket.inet_aton(probe.getsockname()[0])


def _routed_over(link_index: int, source: Address, destination: Address) -> bool:
    request = _RTMSG.pack(socket.AF_INET, 32, 32, 0, 0, 0, 0, 0, _RTM_F_FIB_MATCH)
    request += attribute(_RTA_DST, destination) + attribute(_RTA_SRC, source)
    request += attribute(_RTA_OIF, link_index.to_bytes(4, sys.byteorder))
    try:
        ask(_NETLINK_ROUTE, _RTM_GETROUTE, request)
    except OSError as error:
        return error.errno not in (errno.EHOSTUNREACH, errno.ENETUNREACH, errno.ENODEV)
    return True
