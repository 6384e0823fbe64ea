"""Raw IPv4 sockets of protocol 144 (SAL).

One socket receives; it never sends. For sending there is one header-included socket per own address, bound to the
interface that has the address: a flow that moved to it leaves by it whatever the routes to its peer say, and each
outgoing path has a send buffer of its own (sender.py). Senders never receive (IPPROTO_RAW).
"""

from __future__ import annotations

import errno
import socket
import struct
import time
from collections import Counter

from serval_node.io.sender import Sender
from serval_node.io.shaper import Pace, interface_of, open_notifications, shaper
from serval_node.wire.ipv4 import Address

SAL_PROTOCOL = 144
RECEIVE_BUFFER = 16 << 20
SEND_BUFFER = 256 << 10  # the kernel doubles it: about 220 frames of 1500 bytes with their overhead

_SO_SNDBUFFORCE = 32
_SO_RCVBUFFORCE = 33
_SO_MEMINFO = 55
_MEMINFO_DROPS = 8


class RawSender(Sender):
    """Sends complete IPv4 packets (the kernel fills in total length, identification and header checksum)."""

    def __init__(self, local: Address | None, *, send_buffer: int, drops: Counter[str]) -> None:
        """`local` is the own address that routing is to use as source, None for any. Raises OSError, with
        EADDRNOTAVAIL when `local` is not an address of this host."""
        sock = socket.socket(socket.AF_INET, socket.SOCK_RAW | socket.SOCK_CLOEXEC, socket.IPPROTO_RAW)
        try:
            sock.setblocking(False)
            force_send_buffer(sock, send_buffer)
            # Broadcast resolution of the original's hosts sends SYNs to the subnet's broadcast address.
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_BROADCAST, 1)
            if local is not None:
                sock.bind((socket.inet_ntoa(local), 0))
        except OSError:
            sock.close()
            raise
        super().__init__(sock, drops)

    def follow_interface(self, interface: int | None) -> None:
        """Send by this interface only (None or 0: as routed), at the pace of its shaper."""
        self.leave_by(interface)
        self.pace = _pace(interface)


class RawIp:
    """The receiving socket and the senders."""

    def __init__(self, *, receive_buffer: int = RECEIVE_BUFFER, send_buffer: int = SEND_BUFFER) -> None:
        """Raises PermissionError without CAP_NET_RAW."""
        self.drops: Counter[str] = Counter()
        self._send_buffer = send_buffer
        self._senders: dict[Address, RawSender] = {}
        self.receiver = socket.socket(socket.AF_INET, socket.SOCK_RAW | socket.SOCK_CLOEXEC, SAL_PROTOCOL)
        self.receiver.setblocking(False)
        force_receive_buffer(self.receiver, receive_buffer)
        self.unbound = RawSender(None, send_buffer=send_buffer, drops=self.drops)
        self.shaper_events = open_notifications()

    def sender(self, local: Address) -> RawSender:
        """The sender for packets with this source: one per own address. What keeps another host's source (a service
        router's) goes through `unbound`, which is also the answer for an address that is not an own one."""
        sender = self._senders.get(local)
        if sender is None:
            try:
                sender = RawSender(local, send_buffer=self._send_buffer, drops=self.drops)
            except OSError:
                return self.unbound  # not an own address (EADDRNOTAVAIL), or no descriptor left for a socket
            self._senders[local] = sender
            sender.follow_interface(interface_index(local))
        return sender

    def addresses_changed(self) -> None:
        """Looks again which interface has each address. To be called when links or addresses have changed."""
        for local, sender in self._senders.items():
            sender.follow_interface(interface_index(local))

    def shapers_changed(self) -> None:
        """Looks at the interfaces' shapers again. Called when `shaper_events` is readable."""
        try:
            while self.shaper_events.recv(65536):
                pass
        except BlockingIOError:
            pass
        except OSError as error:
            if error.errno != errno.ENOBUFS:  # notifications were lost; all is read anew anyway
                raise
        for local, sender in self._senders.items():
            sender.pace = _pace(interface_index(local))

    def senders(self) -> list[RawSender]:
        return [self.unbound, *self._senders.values()]

    def kernel_drops(self) -> int:
        """Packets that the kernel threw away because the receive buffer was full."""
        return dropped_by_kernel(self.receiver)

    def close(self) -> None:
        self.receiver.close()
        self.shaper_events.close()
        for sender in self.senders():
            sender.close()
        self._senders.clear()


def interface_index(local: Address) -> int | None:
    """The interface of an own address; None for loopback's addresses, which may be those of any."""
    try:
        return None if local[0] == 127 else interface_of(local)
    except OSError:
        return None


def _pace(interface: int | None) -> Pace | None:
    """The account that a sender is to keep of its interface's shaper."""
    try:
        bucket = None if interface is None else shaper(interface)
    except OSError:
        return None  # the interface went away in the meantime, or the kernel has no shapers: nothing to go by
    return Pace(bucket, time.monotonic()) if bucket is not None and bucket.worth_pacing else None


def force_send_buffer(sock: socket.socket, size: int) -> None:
    _force_buffer(sock, _SO_SNDBUFFORCE, socket.SO_SNDBUF, size)


def force_receive_buffer(sock: socket.socket, size: int) -> None:
    _force_buffer(sock, _SO_RCVBUFFORCE, socket.SO_RCVBUF, size)


def dropped_by_kernel(sock: socket.socket) -> int:
    """Packets that the kernel threw away because the socket's receive buffer was full."""
    figures = sock.getsockopt(socket.SOL_SOCKET, _SO_MEMINFO, 64)
    words = struct.unpack(f"={len(figures) // 4}I", figures)
    return words[_MEMINFO_DROPS] if len(words) > _MEMINFO_DROPS else 0


def _force_buffer(sock: socket.socket, force_option: int, option: int, size: int) -> None:
    try:
        sock.setsockopt(socket.SOL_SOCKET, force_option, size)
    except PermissionError:
        # Only the first user namespace may go beyond net.core.{r,w}mem_max; elsewhere take what is allowed.
        sock.setsockopt(socket.SOL_SOCKET, option, size)
