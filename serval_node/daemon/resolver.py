"""The sockets of the host's name server: UDP and TCP on 127.0.0.1:53."""

from __future__ import annotations

import socket

from serval_node.daemon.dns import MAX_QUERY_BYTES, NameServer
from serval_node.daemon.loop import EventLoop, Timer

ADDRESS = "127.0.0.1"
PORT = 53
TCP_IDLE_SECONDS = 5.0
MAX_TCP_CONNECTIONS = 64
_BATCH = 32


class ResolverError(RuntimeError):
    """The name server's address is taken; one clear line."""


class Resolver:
    """Serves a NameServer on the loop. Raises ResolverError."""

    def __init__(self, loop: EventLoop, server: NameServer) -> None:
        self._loop = loop
        self._server = server
        self._udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._tcp = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        self._tcp.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self._clients: set[_TcpClient] = set()
        try:
            for sock in (self._udp, self._tcp):
                sock.setblocking(False)
                sock.bind((ADDRESS, PORT))
            self._tcp.listen(16)
        except OSError as error:
            self._udp.close()
            self._tcp.close()
            raise ResolverError(f"cannot answer names on {ADDRESS}:{PORT}: {error.strerror}") from None
        loop.add_reader(self._udp.fileno(), self._datagrams)
        loop.add_reader(self._tcp.fileno(), self._accept)

    def _datagrams(self) -> None:
        for _ in range(_BATCH):
            try:
                query, client = self._udp.recvfrom(MAX_QUERY_BYTES)
            except BlockingIOError:
                return
            except OSError:
                continue  # the error of an earlier answer whose client had gone
            answer = self._server.answer(query)
            if answer is not None:
                try:
                    self._udp.sendto(answer, client)
                except OSError:
                    continue  # the client has gone, or its buffer is full: it asks again

    def _accept(self) -> None:
        try:
            sock, _ = self._tcp.accept()
        except OSError:
            return  # the client gave up between the event and this call
        if len(self._clients) >= MAX_TCP_CONNECTIONS:
            sock.close()
            return
        self._clients.add(_TcpClient(sock, self._loop, self._server, self._clients))

    def close(self) -> None:
        for client in list(self._clients):
            client.close()
        for sock in (self._udp, self._tcp):
            self._loop.remove_reader(sock.fileno())
            sock.close()


class _TcpClient:
    """One connection: queries with a two-byte length in front, answered in order."""

    def __init__(self, sock: socket.socket, loop: EventLoop, server: NameServer, clients: set[_TcpClient]) -> None:
        sock.setblocking(False)
        self._socket = sock
        self._loop = loop
        self._server = server
        self._clients = clients
        self._input = b""
        self._idle: Timer = loop.call_later(TCP_IDLE_SECONDS, self.close)
        loop.add_reader(sock.fileno(), self._readable)

    def _readable(self) -> None:
        try:
            data = self._socket.recv(65536)
            if not data:
                self.close()
                return
            self._input += data
            while len(self._input) >= 2 and len(self._input) >= 2 + (size := int.from_bytes(self._input[:2], "big")):
                query, self._input = self._input[2 : 2 + size], self._input[2 + size :]
                answer = self._server.answer(query)
                if answer is not None:
                    self._socket.sendall(len(answer).to_bytes(2, "big") + answer)
        except BlockingIOError:
            return  # nothing more to read; an answer of some hundred bytes fits into the send buffer
        except OSError:
            self.close()

    def close(self) -> None:
        if self._socket.fileno() >= 0:
            self._idle.cancel()
            self._loop.remove_reader(self._socket.fileno())
            self._socket.close()
        self._clients.discard(self)
