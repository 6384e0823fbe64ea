"""The kernel's TCP and UDP sockets through sock_diag (inet_diag.h): who listens, and which sockets disappear.

No kernel event tells of listen(), bind() or shutdown(); `listeners()` and `udp_sockets()` are to be polled.
`DestroyMonitor` hears of every socket that goes away (the multicast groups SKNLGRP_INET_TCP_DESTROY and so on),
`kill -9` of its last holder included; at that moment the kernel has already taken the inode from it, so that a listener
is recognised by its cookie, which no other socket of this boot has.
"""

from __future__ import annotations

import errno
import socket
import struct
import sys
from dataclasses import dataclass
from enum import IntEnum

from serval_node.io.netlink_message import NetlinkMessage, attributes, dump, messages

_NETLINK_SOCK_DIAG = 4
_SOCK_DIAG_BY_FAMILY = 20
_SOL_NETLINK = 270
_NETLINK_ADD_MEMBERSHIP = 1
_DESTROY_GROUPS = (1, 2, 3, 4)  # SKNLGRP_INET_TCP_DESTROY, INET_UDP, INET6_TCP, INET6_UDP
_ANY_STATE = 0xFFFFFFFF
_REQUEST = struct.Struct("=BBBxI48x")  # struct inet_diag_req_v2: family, protocol, extensions, states, socket id
_MESSAGE = struct.Struct("=BBBB2s2s16s16sIQIIIII")  # struct inet_diag_msg
_INET_DIAG_PROTOCOL = 10
_INET_DIAG_SKV6ONLY = 11


class TcpState(IntEnum):
    """Numbers of include/net/tcp_states.h. A UDP socket is ESTABLISHED when it is connected, else CLOSE."""

    ESTABLISHED = 1
    SYN_SENT = 2
    SYN_RECV = 3
    FIN_WAIT1 = 4
    FIN_WAIT2 = 5
    TIME_WAIT = 6
    CLOSE = 7
    CLOSE_WAIT = 8
    LAST_ACK = 9
    LISTEN = 10
    CLOSING = 11


@dataclass(frozen=True, slots=True)
class InetSocket:
    """A socket of the kernel, TCP or UDP. `local_address` has 4 bytes (AF_INET) or 16 (AF_INET6); `inode` is the number
    in /proc/PID/fd's `socket:[N]` (0 when no process holds it any more); `interface` the index it is bound to, or 0."""

    family: int
    state: TcpState
    local_address: bytes
    local_port: int
    peer_address: bytes
    peer_port: int
    interface: int
    cookie: int
    uid: int
    inode: int
    v6only: bool = False
    protocol: int = socket.IPPROTO_TCP

    @property
    def wildcard(self) -> bool:
        """Bound to 0.0.0.0 or [::]."""
        return not any(self.local_address)


def listeners() -> list[InetSocket]:
    """Every listening TCP socket of this network namespace, IPv4 and IPv6. Raises OSError."""
    return tcp_sockets(1 << TcpState.LISTEN)


def tcp_sockets(states: int) -> list[InetSocket]:
    """The TCP sockets in `states` (bits by TcpState number), IPv4 and IPv6. Raises OSError."""
    return _sockets(socket.IPPROTO_TCP, states, (socket.AF_INET6,))


def udp_sockets() -> list[InetSocket]:
    """The UDP sockets that have a local port, IPv4 and IPv6; none where the kernel cannot list them (udp_diag).
    Raises OSError.
    """
    return _sockets(socket.IPPROTO_UDP, _ANY_STATE, (socket.AF_INET, socket.AF_INET6))


def _sockets(protocol: int, states: int, may_lack: tuple[int, ...]) -> list[InetSocket]:
    found = []
    for family in (socket.AF_INET, socket.AF_INET6):
        request = _REQUEST.pack(family, protocol, 0, states)
        try:
            answers = dump(_NETLINK_SOCK_DIAG, _SOCK_DIAG_BY_FAMILY, request)
        except OSError as error:
            if family in may_lack and error.errno in (errno.ENOENT, errno.EAFNOSUPPORT):
                continue  # a kernel without IPv6, or without udp_diag
            raise
        found += [decoded for message in answers if (decoded := _decode(message, protocol)) is not None]
    return found


class DestroyMonitor:
    """Tells which TCP and UDP sockets of this network namespace were destroyed."""

    def __init__(self) -> None:
        """Raises OSError."""
        self._socket = socket.socket(
            socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK, _NETLINK_SOCK_DIAG
        )
        try:
            self._socket.bind((0, 0))
            for group in _DESTROY_GROUPS:
                self._socket.setsockopt(_SOL_NETLINK, _NETLINK_ADD_MEMBERSHIP, group)
        except OSError:
            self._socket.close()
            raise
        self.overruns = 0

    def fileno(self) -> int:
        return self._socket.fileno()

    def readable(self) -> tuple[list[InetSocket], bool]:
        """The sockets destroyed since the last call, and whether some notices were lost (then dump again). Their
        state is CLOSE, whatever they were. Never blocks."""
        destroyed: list[InetSocket] = []
        lost = False
        while True:
            try:
                data = self._socket.recv(65536)
            except BlockingIOError:
                return destroyed, lost
            except OSError as error:
                if error.errno != errno.ENOBUFS:
                    raise
                self.overruns += 1
                lost = True
                continue
            destroyed += [found for message in messages(data) if (found := _decode(message)) is not None]

    def close(self) -> None:
        self._socket.close()


def _decode(message: NetlinkMessage, protocol: int = socket.IPPROTO_TCP) -> InetSocket | None:
    """`protocol` is that of a socket whose message does not say it, as in the answer to a request for one."""
    if message.kind != _SOCK_DIAG_BY_FAMILY or len(message.body) < _MESSAGE.size:
        return None
    (
        family, state, _, _, local_port, peer_port, local, peer, interface, cookie, _, _, _, uid, inode,
    ) = _MESSAGE.unpack_from(message.body)  # fmt: skip
    length = 16 if family == socket.AF_INET6 else 4
    values = attributes(message.body, _MESSAGE.size)
    v6only = values.get(_INET_DIAG_SKV6ONLY, b"\0")
    return InetSocket(
        family=family,
        state=TcpState(state) if state in TcpState._value2member_map_ else TcpState.CLOSE,
        local_address=local[:length],
        local_port=int.from_bytes(local_port, "big"),
        peer_address=peer[:length],
        peer_port=int.from_bytes(peer_port, "big"),
        interface=interface,
        cookie=cookie,
        uid=uid,
        inode=inode,
        v6only=bool(int.from_bytes(v6only, sys.byteorder)),
        protocol=values[_INET_DIAG_PROTOCOL][0] if _INET_DIAG_PROTOCOL in values else protocol,
    )
