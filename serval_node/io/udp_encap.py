"""UDP sockets for packets of Serval inside UDP (serval_node.wire.encapsulation), many segments in one datagram.

Two sockets receive, one on each port of the encapsulation, for all own addresses. For sending there is one per own
address and port, as of the raw sockets; it is connected to nobody who would ever send, and so receives nothing.

The kernel takes up to 64 segments of equal length in one call and carries them through its layers, over veth links and
into the other host's socket as one (UDP_SEGMENT, UDP_GRO). Not every path does: some devices refuse it, and a switch
in user space may lose what is longer than its MTU without a word. So a path has to prove itself (trial.py); where it
does not, segments go one by one.
"""

from __future__ import annotations

import errno
import socket
from collections import Counter
from collections.abc import Callable

from serval_node.io.raw_ip import (
    RECEIVE_BUFFER,
    SEND_BUFFER,
    RawIp,
    dropped_by_kernel,
    force_receive_buffer,
    force_send_buffer,
    interface_index,
)
from serval_node.io.sender import Sender
from serval_node.io.trial import Trial
from serval_node.wire.encapsulation import PORTS
from serval_node.wire.ipv4 import HEADER_LENGTH, Address
from serval_node.wire.transport import UDP_HEADER_LENGTH

SOL_UDP = 17
UDP_SEGMENT = 103
UDP_GRO = 104
MOST_SEGMENTS = 64  # UDP_MAX_SEGMENTS of Linux before 6.9
LONGEST = 65507  # bytes in a UDP datagram

IP_PKTINFO, IP_TTL = 8, 2  # Python has no names for these before 3.14
_IP_RECVTTL = 12
_IP_MTU_DISCOVER, _IP_PMTUDISC_PROBE = 10, 3
_DISCARD_PORT = 9
_NOT_OFFERED = frozenset((errno.EIO, errno.EINVAL, errno.EOPNOTSUPP, errno.ENOPROTOOPT))

Tell = Callable[[Address, Address, str], None]
"""Own address, peer, and why segments go to it one by one from now on."""


class UdpSender(Sender):
    """Sends from one own address and port; the kernel adds the headers of IPv4 and UDP."""

    skip = HEADER_LENGTH
    added = HEADER_LENGTH + UDP_HEADER_LENGTH

    def __init__(self, local: Address, port: int, *, paced_by: Sender, drops: Counter[str], tell: Tell) -> None:
        """Raises OSError, with EADDRNOTAVAIL when `local` is not an address of this host."""
        self.local = local
        self.paced_by = paced_by
        self._tell = tell
        self._proved: set[Address] = set()
        self._singles: set[Address] = set()
        sock = udp_socket()
        try:
            force_send_buffer(sock, SEND_BUFFER)
            sock.setsockopt(socket.IPPROTO_IP, _IP_MTU_DISCOVER, _IP_PMTUDISC_PROBE)
            text = socket.inet_ntoa(local)
            sock.bind((text, port))
            sock.connect((text, _DISCARD_PORT))
        except OSError:
            sock.close()
            raise
        super().__init__(sock, drops)

    def joins(self, peer: Address) -> bool:
        return peer not in self._singles

    def trial(self, peer: Address) -> Trial | None:
        return None if peer in self._proved or peer in self._singles else Trial()

    def judge(self, peer: Address, arrived: bool) -> None:
        if arrived:
            self._proved.add(peer)
        elif peer not in self._proved:
            self._refuse(peer, "they are not acknowledged")

    def refused_by_kernel(self, number: int, peer: Address) -> bool:
        if number not in _NOT_OFFERED:
            return False
        self._refuse(peer, f"the kernel does not take them ({errno.errorcode[number]})")
        return True

    def _refuse(self, peer: Address, why: str) -> None:
        if peer not in self._singles:
            self._singles.add(peer)
            self._tell(self.local, peer, why)

    def forget(self) -> None:
        """The host's links have changed: what was known of the paths may be wrong."""
        self._proved.clear()
        self._singles.clear()


class UdpEncapsulation:
    """The receiving sockets and the senders. They share the pace of the raw senders of their address."""

    def __init__(self, raw: RawIp, *, join: bool) -> None:
        """`join`: receive many segments at once where the kernel has them. Raises OSError when a port is taken."""
        self._raw = raw
        self._senders: dict[tuple[Address, int], UdpSender] = {}
        self.receivers: dict[int, socket.socket] = {}
        self.tell: Tell = lambda local, peer, why: None
        try:
            for port in PORTS:
                self.receivers[port] = _receiver(port, join)
        except OSError:
            self.close()
            raise

    def sender(self, local: Address, port: int) -> UdpSender | None:
        """The sender from this address and port; None when it is not an own one."""
        sender = self._senders.get((local, port))
        if sender is None:
            raw = self._raw.sender(local)
            try:
                sender = UdpSender(local, port, paced_by=raw, drops=self._raw.drops, tell=self._told)
            except OSError:
                return None  # not an own address (EADDRNOTAVAIL), or no descriptor left for a socket
            self._senders[local, port] = sender
            sender.leave_by(interface_index(local))
        return sender

    def _told(self, local: Address, peer: Address, why: str) -> None:
        self.tell(local, peer, why)

    def addresses_changed(self) -> None:
        """Looks again which interface has each address. To be called when links or addresses have changed."""
        for (local, _), sender in self._senders.items():
            sender.leave_by(interface_index(local))
            sender.forget()

    def kernel_drops(self) -> int:
        """Packets that the kernel threw away because a receive buffer was full."""
        return sum(map(dropped_by_kernel, self.receivers.values()))

    def close(self) -> None:
        for sock in self.receivers.values():
            sock.close()
        for sender in self._senders.values():
            sender.close()
        self._senders.clear()


def udp_socket() -> socket.socket:
    sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK)
    # The receiver of a port and the senders from it stand side by side.
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    return sock


def _receiver(port: int, join: bool) -> socket.socket:
    sock = udp_socket()
    try:
        force_receive_buffer(sock, RECEIVE_BUFFER)
        sock.setsockopt(socket.IPPROTO_IP, IP_PKTINFO, 1)
        sock.setsockopt(socket.IPPROTO_IP, _IP_RECVTTL, 1)
        if join:
            try:
                sock.setsockopt(SOL_UDP, UDP_GRO, 1)
            except OSError as error:
                if error.errno != errno.ENOPROTOOPT:  # before Linux 5.0: one by one
                    raise
        sock.bind(("", port))
    except OSError:
        sock.close()
        raise
    return sock
