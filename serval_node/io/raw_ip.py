"""Raw IPv4 sockets of protocol 144 (SAL).

One socket receives; it never sends. For sending there is one header-included socket per own address, so that routing
rules by source address hold and each outgoing path has a send buffer of its own. Senders never receive
(IPPROTO_RAW). A full send buffer is no loss: the packet waits in the sender's backlog until the socket is writable.
"""

from __future__ import annotations

import errno
import socket
import struct
from collections import Counter, deque

from serval_node.wire.ipv4 import Address

SAL_PROTOCOL = 144
RECEIVE_BUFFER = 16 << 20
SEND_BUFFER = 256 << 10  # the kernel doubles it: about 220 frames of 1500 bytes with their overhead
BACKLOG_LIMIT = 1024  # packets; more are dropped and counted

_SO_SNDBUFFORCE = 32
_SO_RCVBUFFORCE = 33
_SO_MEMINFO = 55
_MEMINFO_DROPS = 8


class RawSender:
    """Sends complete IPv4 packets (the kernel fills in total length, identification and header checksum)."""

    def __init__(self, local: Address | None, *, send_buffer: int, drops: Counter[str]) -> None:
        """`local` is the own address that routing is to use as source, None for any. Raises OSError, with
        EADDRNOTAVAIL when `local` is not an address of this host."""
        self._drops = drops
        self.backlog: deque[tuple[bytes, str]] = deque()
        self.socket = socket.socket(socket.AF_INET, socket.SOCK_RAW | socket.SOCK_CLOEXEC, socket.IPPROTO_RAW)
        try:
            self.socket.setblocking(False)
            _force_buffer(self.socket, _SO_SNDBUFFORCE, socket.SO_SNDBUF, send_buffer)
            # Broadcast resolution of the original's hosts sends SYNs to the subnet's broadcast address.
            self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_BROADCAST, 1)
            if local is not None:
                self.socket.bind((socket.inet_ntoa(local), 0))
        except OSError:
            self.socket.close()
            raise

    def fileno(self) -> int:
        return self.socket.fileno()

    def send(self, packet: bytes | bytearray | memoryview, destination: str) -> None:
        """Sends `packet`, or keeps a copy in the backlog while the socket's buffer is full. Never raises OSError:
        what the kernel refuses is dropped and counted by its errno's name."""
        if self.backlog:
            self.park(bytes(packet), destination)
            return
        try:
            self.socket.sendto(packet, (destination, 0))
        except BlockingIOError:
            self.park(bytes(packet), destination)
        except OSError as error:
            self.count_error(error.errno or 0)

    def park(self, packet: bytes, destination: str) -> None:
        if len(self.backlog) < BACKLOG_LIMIT:
            self.backlog.append((packet, destination))
        else:
            self._drops["send_backlog_full"] += 1

    def flush(self) -> bool:
        """Sends what is in the backlog as far as the socket takes it. True: the backlog is empty."""
        while self.backlog:
            packet, destination = self.backlog[0]
            try:
                self.socket.sendto(packet, (destination, 0))
            except BlockingIOError:
                return False
            except OSError as error:
                self.count_error(error.errno or 0)
            self.backlog.popleft()
        return True

    def count_error(self, number: int, packets: int = 1) -> None:
        self._drops["send_" + errno.errorcode.get(number, str(number)).lower()] += packets

    def close(self) -> None:
        self._drops["send_closed"] += len(self.backlog)
        self.backlog.clear()
        self.socket.close()


class RawIp:
    """The receiving socket and the senders."""

    def __init__(self, *, receive_buffer: int = RECEIVE_BUFFER, send_buffer: int = SEND_BUFFER) -> None:
        """Raises PermissionError without CAP_NET_RAW."""
        self.drops: Counter[str] = Counter()
        self._send_buffer = send_buffer
        self._senders: dict[Address, RawSender] = {}
        self.receiver = socket.socket(socket.AF_INET, socket.SOCK_RAW | socket.SOCK_CLOEXEC, SAL_PROTOCOL)
        self.receiver.setblocking(False)
        _force_buffer(self.receiver, _SO_RCVBUFFORCE, socket.SO_RCVBUF, receive_buffer)
        self._unbound = RawSender(None, send_buffer=send_buffer, drops=self.drops)

    def sender(self, local: Address) -> RawSender:
        """The sender for packets with this source: one per own address. Packets that keep another host's source (a
        service router's) share one."""
        sender = self._senders.get(local)
        if sender is None:
            try:
                sender = RawSender(local, send_buffer=self._send_buffer, drops=self.drops)
            except OSError:
                return self._unbound  # not an own address (EADDRNOTAVAIL), or no descriptor left for a socket
            self._senders[local] = sender
        return sender

    def senders(self) -> list[RawSender]:
        return [self._unbound, *self._senders.values()]

    def kernel_drops(self) -> int:
        """Packets that the kernel threw away because the receive buffer was full."""
        figures = self.receiver.getsockopt(socket.SOL_SOCKET, _SO_MEMINFO, 64)
        words = struct.unpack(f"={len(figures) // 4}I", figures)
        return words[_MEMINFO_DROPS] if len(words) > _MEMINFO_DROPS else 0

    def close(self) -> None:
        self.receiver.close()
        for sender in self.senders():
            sender.close()
        self._senders.clear()


def _force_buffer(sock: socket.socket, force_option: int, option: int, size: int) -> None:
    try:
        sock.setsockopt(socket.SOL_SOCKET, force_option, size)
    except PermissionError:
        # Only the first user namespace may go beyond net.core.{r,w}mem_max; elsewhere take what is allowed.
        sock.setsockopt(socket.SOL_SOCKET, option, size)
