"""What the senders have in common: one for each own address and form of packet, a socket with a queue on either side.

A full send buffer is no loss: the packet waits in the sender's backlog until the socket is writable. A sender is shut
while its backlog is not empty, or while it rests because its interface's shaper has let out what it may for now
(`shaper.Pace`). What the kernel hands over for a shut sender waits in that sender's own queue, so that one full path
does not stop the others.
"""

from __future__ import annotations

import errno
import socket
import time
from collections import Counter, deque

from serval_node.io.shaper import FRAME_HEADER, Pace
from serval_node.io.trial import Trial
from serval_node.wire.ipv4 import Address

BACKLOG_LIMIT = 1024  # packets; more are dropped and counted
HELD_LIMIT = 1 << 20  # bytes in front of one shut sender while others are open; more are dropped and counted

_SO_BINDTOIFINDEX = 62

SocketAddress = tuple[str, int]


class Sender:
    """Base of RawSender and UdpSender. The socket is given what stands from position `skip` of an IPv4 packet on, and
    the kernel puts `added` bytes of headers in front of that.
    """

    skip = 0
    added = 0
    paced_by: Sender | None = None

    def __init__(self, sock: socket.socket, drops: Counter[str]) -> None:
        self.socket = sock
        self.backlog: deque[tuple[bytes, SocketAddress]] = deque()
        self.held: deque[bytes] = deque()
        self._pace: Pace | None = None
        self._drops = drops
        self._held_bytes = 0

    def fileno(self) -> int:
        return self.socket.fileno()

    @property
    def pace(self) -> Pace | None:
        """The account of the interface's shaper; senders of one address share one."""
        return self._pace if self.paced_by is None else self.paced_by.pace

    @pace.setter
    def pace(self, pace: Pace | None) -> None:
        self._pace = pace

    def joins(self, peer: Address) -> bool:
        """Whether many segments of a flow may go to this peer at once."""
        return False

    def trial(self, peer: Address) -> Trial | None:
        """What has to be watched on a flow to this peer to know whether it may stay so; None: nothing."""
        return None

    def judge(self, peer: Address, arrived: bool) -> None:
        """What such a trial has shown."""

    def refused_by_kernel(self, number: int, peer: Address) -> bool:
        """Whether an errno of sending many at once says that they have to go one by one; they will."""
        return False

    def leave_by(self, interface: int | None) -> None:
        """Send by this interface only (None or 0: as routed). What has gone in the meantime leaves the sender as it
        was: the next notice from the kernel brings it up to date.
        """
        try:
            self.socket.setsockopt(socket.SOL_SOCKET, _SO_BINDTOIFINDEX, interface or 0)
        except OSError as error:
            if error.errno not in (errno.ENODEV, errno.EPERM, errno.ENOPROTOOPT):  # gone; not allowed; before Linux 5.1
                raise

    def send(self, packet: bytes | bytearray | memoryview, destination: SocketAddress) -> None:
        """Sends `packet`, or keeps a copy in the backlog while the socket's buffer is full. Never raises OSError:
        what the kernel refuses is dropped and counted by its errno's name."""
        if self.backlog:
            self.park(bytes(packet), destination)
            return
        try:
            self.socket.sendto(packet, destination)
        except BlockingIOError:
            self.park(bytes(packet), destination)
        except OSError as error:
            self.count_error(error.errno or 0)
        else:
            self.spend(len(packet), 1)

    def spend(self, size: int, packets: int) -> None:
        """`packets` packets of `size` bytes altogether were given to the socket."""
        pace = self.pace
        if pace is not None:
            pace.spend(size + packets * (FRAME_HEADER + self.added), time.monotonic())

    def packets_at_once(self, size: int) -> int | None:
        """How many packets of `size` bytes the shaper lets out at once; None: any number."""
        pace = self.pace
        if pace is None:
            return None
        return int(pace.room(time.monotonic()) / (size + FRAME_HEADER + self.added))

    def shut(self) -> bool:
        """Whether nothing more is to be sent for now."""
        if self.backlog:
            return True
        pace = self.pace
        return pace is not None and pace.opens_at > time.monotonic()

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

    def park(self, packet: bytes, destination: SocketAddress) -> None:
        if len(self.backlog) < BACKLOG_LIMIT:
            self.backlog.append((packet, destination))
        else:
            self._drops["send_backlog_full"] += 1

    def flush(self) -> bool:
        """Sends what is in the backlog as far as the socket takes it. True: the backlog is empty."""
        while self.backlog:
            packet, destination = self.backlog[0]
            try:
                self.socket.sendto(packet, destination)
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
