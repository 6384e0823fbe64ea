"""Sockets that connect, bind, listen and accept by service name (S13, S20, S37, S51).

    from serval_node import socket as serval

    with serval.create_connection("web.example") as conn:       # connect(name): whoever serves it
        conn.sendall(b"hello")

    with serval.create_server(("web.example", 8080)) as server:  # bind(name, port) and listen()
        conn, _ = server.accept()
        print(conn.local_service)                                # the serviceID that the client asked for

    with serval.datagram_socket("log.example") as sock:          # datagrams for the service come here
        data, sender = sock.recvfrom(2048)                       # sender: the serviceID of who sent it
        sock.sendto(b"thanks", sender)

What these functions return are kernel sockets (subclasses of socket.socket), so ssl, http.client, asyncio,
select and sendfile work as ever. They need the node's daemon at /run/serval/control.sock (environment variable
SERVAL_CONTROL names another place); ordinary sockets in the same process stay ordinary.

A service is given as "name", ("name", port), "name:port", "0x..." (hexadecimal, with /bits for bind), the
original's decimal form, or a ServiceID or Prefix. A peer has no name: accept() returns ("", 0) in the place of
an address, as the original does.
"""

from __future__ import annotations

import asyncio
import errno
import os
import secrets
import socket as _socket
from collections.abc import Awaitable, Callable
from typing import Any

from serval_node.application import (
    SAL0_ADDRESS,
    Service,
    by_name,
    is_virtual,
    node,
    pair,
    service_text,
)
from serval_node.datagram_socket import NOBODY, DatagramSocket, Sender, datagram_socket
from serval_node.wire.serviceid import ServiceID

__all__ = [
    "NAMELESS",
    "NOBODY",
    "DatagramSocket",
    "Sender",
    "ServalSocket",
    "create_connection",
    "create_server",
    "datagram_socket",
    "local_service",
    "open_connection",
    "report_load",
    "socket",
    "start_server",
]

NAMELESS = ("", 0)
DEFAULT_BACKLOG = 128

_TCP_CLOSE = 7  # the first byte of TCP_INFO: no connection, nor one in the making


class ServalSocket(_socket.socket):
    """A TCP socket whose addresses are services. Made by `socket()`; `accept()` makes further ones.

    `local_service` is the serviceID that this end answers to: of an accepted socket the exact one that the
    client asked for.
    """

    def __init__(
        self, family: int = _socket.AF_INET, type: int = _socket.SOCK_STREAM, proto: int = 0, fileno: int | None = None
    ) -> None:
        """Without `fileno`, make a kernel socket and reserve its flowID (S37). Raises OSError."""
        if fileno is None and (family != _socket.AF_INET or type & 0xF != _socket.SOCK_STREAM):
            raise OSError(errno.EPROTONOSUPPORT, "Serval sockets are AF_INET stream sockets")
        self.local_service: ServiceID | None = None
        self._flow: int | None = None
        self._owner = 0
        self._own: Service | None = None
        self._peer: Service | None = None
        self._target: tuple[str, int] | None = None
        super().__init__(family, type, proto, fileno)
        if fileno is None:
            try:
                self._flow = node.ask("flow_reserve")["flow_id"]
            except OSError:
                super().close()
                raise
            self._owner = os.getpid()

    @property
    def reserved_flow(self) -> int | None:
        """The flowID that this socket holds until it connects (S37); None afterwards and for accepted sockets."""
        return self._flow

    # -- client

    def connect(self, address: Any) -> None:
        """Connect to a service; late binding: no directory is asked, the rules that the SYN meets choose the
        instance.

        Raises OSError: EINVAL (no such form of a name), ENETUNREACH (no rule), EHOSTUNREACH (DROP),
        ECONNREFUSED, ETIMEDOUT.
        """
        target = self._prepare(address)
        try:
            super().connect(target)
        except OSError as error:
            raise by_name(error, self._peer or address) from None

    def connect_ex(self, address: Any) -> int:
        """As connect(), but what the kernel refuses is returned as an errno."""
        return super().connect_ex(self._prepare(address))

    def _prepare(self, address: Any) -> tuple[str, int]:
        if self._peer is not None and is_virtual(address):
            return address  # an event loop calls again with the address that `virtual_address` gave it
        if self._target is not None and self._begun():
            return self._target  # asked again whether it is connected: no second flow is prepared
        self._bind_locally()
        local_port = super().getsockname()[1]
        answer = node.ask("connect", flow_id=self._flow, local_port=local_port, service=service_text(address))
        self._flow = None  # it belongs to the connection now
        self._peer = address
        self._target = (answer["address"], answer["port"])
        return self._target

    def _begun(self) -> bool:
        """Whether the kernel is connecting, connected or closing."""
        state: int = super().getsockopt(_socket.IPPROTO_TCP, _socket.TCP_INFO, 1)[0]
        return state != _TCP_CLOSE

    def virtual_address(self, service: Service) -> tuple[str, int]:
        """Prepare to connect to `service` and return the kernel's address for it, for event loops that connect
        themselves.
        """
        return self._prepare(service)

    def _bind_locally(self) -> None:
        if super().getsockname()[1] == 0:
            super().setsockopt(_socket.SOL_SOCKET, _socket.SO_REUSEADDR, 1)
            super().bind((SAL0_ADDRESS, 0))

    # -- server

    def bind(self, address: Any) -> None:
        """Take a service; nothing is advertised before listen() (S20). The kernel's port is any that is free."""
        node.ask("resolve", service=service_text(address))
        self._bind_locally()
        self._own = address

    def listen(self, backlog: int = DEFAULT_BACKLOG) -> None:
        """Listen, and be found: when this returns, the DEMUX rule stands. Raises OSError with the daemon's
        reason.

        An unbound socket gets a random serviceID, as in the original.
        """
        if self._own is None:
            self.bind(ServiceID(secrets.token_bytes(32)))
        assert self._own is not None
        super().listen(backlog)
        try:
            node.ask(
                "bind",
                service=service_text(self._own),
                port=super().getsockname()[1],
                inodes=[os.fstat(self.fileno()).st_ino],
            )
        except OSError:
            super().shutdown(_socket.SHUT_RDWR)  # a listener that nobody can reach by name must not look like one
            raise

    def accept(self) -> tuple[ServalSocket, tuple[str, int]]:
        """A connection and ("", 0): the peer has no name."""
        fd, peer = self._accept()  # type: ignore[attr-defined]
        accepted = ServalSocket(self.family, self.type, self.proto, fileno=fd)
        if _socket.getdefaulttimeout() is None and self.gettimeout():
            accepted.setblocking(True)
        try:
            answer = _ask_accepted(peer, super().getsockname()[1])
        except OSError:
            accepted.close()
            raise
        accepted._own = self._own
        if answer["local_service"] is not None:
            accepted.local_service = ServiceID.from_hex(answer["local_service"])
            accepted._own = answer["name"]
        return accepted, NAMELESS

    # -- both

    def getsockname(self) -> Any:
        """(service, port) of this end, ("", 0) for a client."""
        return pair(self._own)

    def getpeername(self) -> Any:
        """(service, port) of the other end, ("", 0) for a client of ours. Raises OSError when not connected."""
        super().getpeername()
        return pair(self._peer)

    def kernel_name(self) -> tuple[str, int]:
        """What the kernel calls this end, for `ss` and captures of sal0."""
        return super().getsockname()

    def kernel_peer(self) -> tuple[str, int]:
        """What the kernel calls the other end."""
        return super().getpeername()

    def detach(self) -> int:
        """The file descriptor, which then belongs to the caller; a reservation goes with it."""
        self._flow = None
        return super().detach()

    def _real_close(self, *arguments: Any) -> None:
        flow, self._flow = self._flow, None
        super()._real_close(*arguments)  # type: ignore[misc]
        if flow is not None and self._owner == os.getpid():
            try:
                node.ask("flow_release", flow_id=flow)
            except OSError:
                return  # no daemon, no reservation


def socket() -> ServalSocket:
    """An unconnected Serval socket; its flowID is in the flow table from now on (S37). Raises OSError."""
    return ServalSocket()


def _about_to_connect() -> ServalSocket:
    """A socket without a flowID: its request to connect reserves one, so that the daemon is asked once and not twice.
    Raises OSError.
    """
    return ServalSocket(fileno=_socket.socket(_socket.AF_INET, _socket.SOCK_STREAM).detach())


def create_connection(service: Service, timeout: float | None = None) -> ServalSocket:
    """Connect to a service. `timeout` in seconds also holds for later operations. Raises OSError."""
    sock = _about_to_connect()
    try:
        sock.settimeout(timeout)
        sock.connect(service)
    except BaseException:
        sock.close()
        raise
    return sock


def create_server(service: Service, *, backlog: int = DEFAULT_BACKLOG) -> ServalSocket:
    """Bind a service and listen. Raises OSError."""
    sock = ServalSocket()
    try:
        sock.bind(service)
        sock.listen(backlog)
    except BaseException:
        sock.close()
        raise
    return sock


async def open_connection(service: Service, **options: Any) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """asyncio.open_connection by service; with ssl=..., server_hostname is the service's name unless given.
    Raises OSError.
    """
    sock = _about_to_connect()
    try:
        sock.setblocking(False)
        target = sock.virtual_address(service)
        try:
            await asyncio.get_running_loop().sock_connect(sock, target)
        except OSError as error:
            raise by_name(error, service) from None
        if options.get("ssl"):
            options.setdefault("server_hostname", pair(service)[0])
        return await asyncio.open_connection(sock=sock, **options)
    except BaseException:
        sock.close()
        raise


ConnectedCallback = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None] | None]


async def start_server(callback: ConnectedCallback, service: Service, **options: Any) -> asyncio.AbstractServer:
    """asyncio.start_server by service: the rule stands once the server has started to serve. Raises OSError."""
    sock = ServalSocket()
    try:
        sock.bind(service)
        sock.setblocking(False)
        return await asyncio.start_server(callback, sock=sock, **options)
    except BaseException:
        sock.close()
        raise


def local_service(connection: asyncio.StreamWriter | _socket.socket) -> ServiceID | None:
    """The serviceID that the client of an accepted connection asked for; None when it came by no service.

    Takes an asyncio writer or any connected socket: what a TLS listener accepts is an ssl.SSLSocket and has no
    attribute of ours, nor has what an unmodified server accepts. Raises OSError: not connected, no daemon.
    """
    if isinstance(connection, asyncio.StreamWriter):
        transport_socket = connection.get_extra_info("socket")
        return getattr(getattr(transport_socket, "_sock", transport_socket), "local_service", None)
    if isinstance(connection, ServalSocket):
        return connection.local_service
    peer, own = connection.getpeername(), connection.getsockname()
    answer = _ask_accepted((peer[0].removeprefix("::ffff:"), peer[1]), own[1])
    return None if answer["local_service"] is None else ServiceID.from_hex(answer["local_service"])


def report_load(service: Service, figure: float | None) -> None:
    """Say how busy this instance of `service` is: any number, lower is better; None: let the open flows count.

    It takes the place of the number of flows that this host has open for the service, for policies that look at loads
    (docs/load-balancing.md), until the service is no longer served here. Raises OSError: not served here, no daemon.
    """
    node.ask("load", service=service_text(service), figure=figure)


def _ask_accepted(peer: tuple[str, int], local_port: int) -> dict[str, Any]:
    return node.ask("accepted", peer=peer[0], peer_port=peer[1], local_port=local_port)
