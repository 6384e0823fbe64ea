"""Sockets for datagrams by service name: the class behind `serval_node.socket.datagram_socket`."""

from __future__ import annotations

import errno
import os
import secrets
import socket as _socket
from dataclasses import dataclass
from typing import Any

from serval_node.application import SAL0_ADDRESS, Service, by_name, node, pair, service_text
from serval_node.wire.serviceid import LENGTH, ServiceID

NOBODY = ServiceID(bytes(LENGTH))
"""Of the sender of what came by a connected flow: the original tells no more of it either."""

_IP_MTU_DISCOVER, _IP_PMTUDISC_DO = 10, 2
_REMEMBERED = 1024
_REFUSALS = {"ENETUNREACH": errno.ENETUNREACH, "EHOSTUNREACH": errno.EHOSTUNREACH}

_Endpoint = tuple[str, int]


@dataclass(frozen=True, slots=True, eq=False)
class Sender(ServiceID):
    """The source serviceID of a datagram, and the way back: sendto() with it answers this very sender, where sendto()
    with the ServiceID alone is resolved anew. Equal to a ServiceID with the same bits.
    """

    endpoint: _Endpoint

    def __eq__(self, other: object) -> bool:
        return isinstance(other, ServiceID) and other.raw == self.raw

    def __hash__(self) -> int:
        return hash((self.raw,))


class DatagramSocket(_socket.socket):
    """A UDP socket whose addresses are services.

    Unconnected, each datagram is resolved by itself and carries the serviceID of its sender: the one given to bind(),
    else a random one that only this host knows. connect() makes a flow instead, with SAL's handshake: all datagrams
    go to one instance, and the flow can move to other addresses.
    """

    def __init__(self) -> None:
        """Raises OSError."""
        super().__init__(_socket.AF_INET, _socket.SOCK_DGRAM)
        self._own: Service | None = None
        self._peer: Service | None = None
        self._open = False
        self._targets: dict[str, _Endpoint] = {}
        self._senders: dict[_Endpoint, Sender] = {}
        try:
            # What does not fit the link is an error here, and not fragments, which SAL does not carry.
            self.setsockopt(_socket.IPPROTO_IP, _IP_MTU_DISCOVER, _IP_PMTUDISC_DO)
            super().bind((SAL0_ADDRESS, 0))
        except OSError:
            self.close()
            raise

    # -- addresses

    def bind(self, address: Any) -> None:
        """Take a service: when this returns, datagrams for it come here. Raises OSError with the daemon's reason."""
        if self._peer is not None or self._open:
            raise OSError(errno.EINVAL, "this socket sends already under a serviceID: bind() comes first, and once")
        self._take(address, announced=True)

    def _take(self, service: Service, *, announced: bool) -> None:
        port, inode = super().getsockname()[1], os.fstat(self.fileno()).st_ino
        node.ask("datagram_open", service=service_text(service), local_port=port, inode=inode, announced=announced)
        self._own, self._open = service, True

    def connect(self, address: Any) -> None:
        """Open a flow to a service; the rules that its SYN meets choose the instance. It returns when the SYN is on its
        way: what is sent meanwhile waits for the answer, and a refusal (ECONNREFUSED) comes with a later call.

        Raises OSError: EINVAL (no such form of a name, or a socket that is bound), ENETUNREACH, EHOSTUNREACH.
        """
        if self._open:
            raise OSError(errno.EINVAL, "a socket that is bound or has sent is unconnected: take another to connect")
        super().connect(self._target(address))
        self._peer = address
        answer = node.ask("datagram_connect", service=service_text(address), local_port=super().getsockname()[1])
        if answer["refusal"] is not None:
            number = _REFUSALS[answer["refusal"]]
            raise by_name(OSError(number, os.strerror(number)), address)

    def _target(self, service: Any) -> _Endpoint:
        """The kernel's address for a service or a sender."""
        if isinstance(service, Sender):
            return service.endpoint
        text = service_text(service)
        if text not in self._targets:
            answer = node.ask("address", name=text)
            if len(self._targets) >= _REMEMBERED:
                self._targets.clear()
            self._targets[text] = (answer["address"], answer["port"])
        return self._targets[text]

    def getsockname(self) -> Any:
        """(service, port) of this end, ("", 0) when it is not bound."""
        return pair(self._own)

    def getpeername(self) -> Any:
        """(service, port) of the other end. Raises OSError when not connected."""
        super().getpeername()
        return pair(self._peer)

    def kernel_name(self) -> _Endpoint:
        """What the kernel calls this end, for `ss` and captures of sal0."""
        return super().getsockname()

    def kernel_peer(self) -> _Endpoint:
        """What the kernel calls the other end of a connected socket."""
        return super().getpeername()

    # -- datagrams

    def sendto(self, data: Any, *arguments: Any) -> int:
        """sendto(data, service) or sendto(data, flags, service); to a `Sender` it is an answer.

        Raises OSError: EMSGSIZE (longer than the link's MTU less 112 bytes; the first such datagram may be lost
        instead), ENETUNREACH.
        """
        *given, service = arguments
        flags: int = given[0] if given else 0
        if self._peer is None and not self._open:
            self._take(ServiceID(secrets.token_bytes(LENGTH)), announced=False)
            self._own = None
        return super().sendto(data, flags, self._target(service))

    def recvfrom(self, bufsize: int, flags: int = 0) -> tuple[bytes, Any]:
        """A datagram and its `Sender`: NOBODY's serviceID when it came by a flow of a connected client."""
        data, peer = super().recvfrom(bufsize, flags)
        return data, self._sender(peer)

    def recvfrom_into(self, buffer: Any, nbytes: int = 0, flags: int = 0) -> tuple[int, Any]:
        """As recvfrom(), into a buffer."""
        size, peer = super().recvfrom_into(buffer, nbytes, flags)
        return size, self._sender(peer)

    def _sender(self, peer: _Endpoint) -> Sender:
        found = self._senders.get(peer)
        if found is None:
            port = super().getsockname()[1]
            answer = node.ask("sender", peer=peer[0], peer_port=peer[1], local_port=port)
            known = NOBODY if answer["service"] is None else ServiceID.from_hex(answer["service"])
            if len(self._senders) >= _REMEMBERED:
                self._senders.clear()
            found = self._senders[peer] = Sender(known.raw, peer)
        return found


def datagram_socket(service: Service | None = None) -> DatagramSocket:
    """A socket for datagrams, bound when a service is given. Raises OSError."""
    sock = DatagramSocket()
    try:
        if service is not None:
            sock.bind(service)
    except BaseException:
        sock.close()
        raise
    return sock
