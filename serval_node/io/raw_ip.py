"""Raw IPv4 sockets of protocol 144 (SAL).

One socket receives; it never sends. For sending there is one header-included socket per own address, bound to the
interface that has the address: a flow that moved to it leaves by it whatever the routes to its peer say, and each
outgoing path has a send buffer of its own. Senders never receive (IPPROTO_RAW). A full send buffer is no loss: the
packet waits in the sender's backlog until the socket is writable.

A sender is shut while its backlog is not empty, or while it rests because its interface's shaper has let out what it
may for now (`shaper.Pace`). What the kernel hands over for a shut sender waits in that sender's own queue, so that one
full path does not stop the others.
"""

from __future__ import annotations

import errno
import socket
import struct
import time
from collections import Counter, deque

from serval_node.io.shaper import FRAME_HEADER, Pace, interface_of, open_notifications, shaper
from serval_node.wire.ipv4 import Address

SAL_PROTOCOL = 144
RECEIVE_BUFFER = 16 << 20
SEND_BUFFER = 256 << 10  # the kernel doubles it: about 220 frames of 1500 bytes with their overhead
BACKLOG_LIMIT = 1024  # packets; more are dropped and counted
HELD_LIMIT = 1 << 20  # bytes in front of one shut sender while others are open; more are dropped and counted

_SO_SNDBUFFORCE = 32
_SO_RCVBUFFORCE = 33
_SO_MEMINFO = 55
_SO_BINDTOIFINDEX = 62
_MEMINFO_DROPS = 8


class RawSender:
    """Sends complete IPv4 packets (the kernel fills in total length, identification and header checksum)."""

    def __init__(self, local: Address | None, *, send_buffer: int, drops: Counter[str]) -> None:
        """`local` is the own address that routing is to use as source, None for any. Raises OSError, with
        EADDRNOTAVAIL when `local` is not an address of this host."""
        self._drops = drops
        self.backlog: deque[tuple[bytes, str]] = deque()
        self.held: deque[bytes] = deque()
        self.pace: Pace | None = None
        self._held_bytes = 0
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

    def follow_interface(self, interface: int | None) -> None:
        """Send by this interface only (None or 0: as routed), at the pace of its shaper. What has gone in the meantime
        leaves the sender as it was: the next notice from the kernel brings it up to date.
        """
        try:
            self.socket.setsockopt(socket.SOL_SOCKET, _SO_BINDTOIFINDEX, interface or 0)
        except OSError as error:
            if error.errno not in (errno.ENODEV, errno.EPERM, errno.ENOPROTOOPT):  # gone; not allowed; before Linux 5.1
                raise
        self.pace = _pace(interface)

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
        else:
            self.spend(len(packet), 1)

    def spend(self, size: int, packets: int) -> None:
        """`packets` IPv4 packets of `size` bytes altogether were sent."""
        if self.pace is not None:
            self.pace.spend(size + packets * FRAME_HEADER, time.monotonic())

    def packets_at_once(self, size: int) -> int | None:
        """How many IPv4 packets of `size` bytes the shaper lets out at once; None: any number."""
        if self.pace is None:
            return None
        return int(self.pace.room(time.monotonic()) / (size + FRAME_HEADER))

    def shut(self) -> bool:
        """Whether nothing more is to be sent for now."""
        if self.backlog:
            return True
        return self.pace is not None and self.pace.opens_at > time.monotonic()

    def hold(self, packet: bytes) -> None:
        """Keeps what came from sal0 for this sender until it is open again."""
        if self._held_bytes + len(packet) > HELD_LIMIT:
            self._drops["path_queue_full"] += 1
            return
        self._held_bytes += len(packet)
        self.held.append(packet)

    def hold_first(self, packet: bytes) -> None:
        """Keeps the rest of what was sent in part: it is the first to be released."""
        self._held_bytes += len(packet)
        self.held.appendleft(packet)

    def release(self) -> bytes:
        """The oldest packet that is held; raises IndexError when there is none."""
        packet = self.held.popleft()
        self._held_bytes -= len(packet)
        return packet

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
            else:
                self.spend(len(packet), 1)
            self.backlog.popleft()
        return True

    def count_error(self, number: int, packets: int = 1) -> None:
        self._drops["send_" + errno.errorcode.get(number, str(number)).lower()] += packets

    def close(self) -> None:
        self._drops["send_closed"] += len(self.backlog) + len(self.held)
        self.backlog.clear()
        self.held.clear()
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
            sender.follow_interface(_interface(local))
        return sender

    def addresses_changed(self) -> None:
        """Looks again which interface has each address. To be called when links or addresses have changed."""
        for local, sender in self._senders.items():
            sender.follow_interface(_interface(local))

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
            sender.pace = _pace(_interface(local))

    def senders(self) -> list[RawSender]:
        return [self.unbound, *self._senders.values()]

    def kernel_drops(self) -> int:
        """Packets that the kernel threw away because the receive buffer was full."""
        figures = self.receiver.getsockopt(socket.SOL_SOCKET, _SO_MEMINFO, 64)
        words = struct.unpack(f"={len(figures) // 4}I", figures)
        return words[_MEMINFO_DROPS] if len(words) > _MEMINFO_DROPS else 0

    def close(self) -> None:
        self.receiver.close()
        self.shaper_events.close()
        for sender in self.senders():
            sender.close()
        self._senders.clear()


def _interface(local: Address) -> int | None:
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


def _force_buffer(sock: socket.socket, force_option: int, option: int, size: int) -> None:
    try:
        sock.setsockopt(socket.SOL_SOCKET, force_option, size)
    except PermissionError:
        # Only the first user namespace may go beyond net.core.{r,w}mem_max; elsewhere take what is allowed.
        sock.setsockopt(socket.SOL_SOCKET, option, size)
