"""The sockets and timers around the controller channel (serval_node.control.channel)."""

from __future__ import annotations

import errno
import random
import socket
import time
from collections.abc import Callable

from serval_node.control.channel import ChannelFailed, ChannelUp, NodeChannel, Request
from serval_node.control.messages import NodeMessage
from serval_node.daemon.config import ControllerAddress
from serval_node.daemon.log import log
from serval_node.daemon.loop import EventLoop, Timer

FIRST_RETRY_SECONDS = 0.1
LAST_RETRY_SECONDS = 2.0
CONNECT_LIMIT_SECONDS = 5.0
RELAXED_SECONDS = 0.02
_CHUNK = 1 << 16


class ControllerLink:
    """Keeps one connection to the controller, trying again for ever with growing pauses.

    `make_socket` gives a TCP socket in the namespace where the controller is; `handle` gets its requests.
    """

    def __init__(
        self,
        loop: EventLoop,
        address: ControllerAddress,
        channel: NodeChannel,
        make_socket: Callable[[], socket.socket],
        handle: Callable[[Request], None],
        rng: random.Random,
    ) -> None:
        self._loop = loop
        self._address = (address.host, address.port)
        self._channel = channel
        self._make_socket = make_socket
        self._handle = handle
        self._rng = rng
        self._socket: socket.socket | None = None
        self._output = bytearray()
        self._retry = FIRST_RETRY_SECONDS
        self._timer: Timer | None = None
        self._relaxed: Timer | None = None
        self._postponed: list[Callable[[], NodeMessage]] = []
        self._connecting = False
        self._quiet = False
        self._connect()

    @property
    def up(self) -> bool:
        return self._channel.up

    def send(self, message: NodeMessage) -> None:
        """Queue a message; without a connection it is not kept, because the next NODE_STATE says it all."""
        self._queue_postponed()
        if self._channel.send(message):
            self._flush()

    def send_later(self, make: Callable[[], NodeMessage]) -> None:
        """As `send`, but together with what else comes within RELAXED_SECONDS, and made only then: messages about
        flows come while a flow is being opened, when there are better things to do.
        """
        if not self._channel.up:
            return
        self._postponed.append(make)
        if self._relaxed is None:
            self._relaxed = self._loop.call_later(RELAXED_SECONDS, self._flush)

    def _queue_postponed(self) -> None:
        postponed, self._postponed = self._postponed, []
        for make in postponed:
            self._channel.send(make())

    def send_state(self) -> None:
        """Tell the controller the whole state again."""
        self._queue_postponed()
        if self._channel.send_state():
            self._flush()

    def answer(self, xid: int, message: NodeMessage) -> None:
        self._queue_postponed()
        self._channel.answer(xid, message)
        self._flush()

    def result(self, xid: int, reason: str | None = None) -> None:
        self._queue_postponed()
        self._channel.result(xid, reason)
        self._flush()

    def close(self, limit: float = 0.5) -> None:
        """Send what is queued, for at most `limit` seconds, and close."""
        self._cancel()
        sock, self._socket = self._socket, None
        if sock is None:
            return
        self._loop.remove_reader(sock.fileno())
        self._loop.remove_writer(sock.fileno())
        self._queue_postponed()
        self._output += self._channel.take_output()
        try:
            sock.settimeout(limit)
            sock.sendall(self._output)
            # Closing with unread requests would reset the connection, and the controller would lose the last
            # messages.
            sock.shutdown(socket.SHUT_WR)
            deadline = time.monotonic() + limit
            while time.monotonic() < deadline and sock.recv(_CHUNK):
                continue
        except OSError:
            pass  # the controller has gone; it will see the connection end
        sock.close()

    # -- connection

    def _connect(self) -> None:
        try:
            sock = self._make_socket()
        except (OSError, RuntimeError) as error:
            self._failed(f"no socket for the controller: {error}")
            return
        sock.setblocking(False)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._socket = sock
        self._connecting = True
        result = sock.connect_ex(self._address)
        if result not in (0, errno.EINPROGRESS):
            self._failed(_reason(result))
            return
        self._timer = self._loop.call_later(CONNECT_LIMIT_SECONDS, lambda: self._failed("no answer"))
        self._loop.add_writer(sock.fileno(), self._connected)

    def _connected(self) -> None:
        assert self._socket is not None
        self._loop.remove_writer(self._socket.fileno())
        result = self._socket.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        if result:
            self._failed(_reason(result))
            return
        self._connecting = False
        self._cancel()
        self._loop.add_reader(self._socket.fileno(), self._readable)
        self._channel.connected(time.monotonic())
        self._flush()

    def _readable(self) -> None:
        assert self._socket is not None
        try:
            data = self._socket.recv(_CHUNK)
        except BlockingIOError:
            return
        except OSError as error:
            self._failed(error.strerror or str(error))
            return
        if not data:
            self._failed("it closed the connection")
            return
        self._channel.receive(data, time.monotonic())
        self._take_events()
        self._flush()

    def _take_events(self) -> None:
        for event in self._channel.take_events():
            if isinstance(event, Request):
                self._handle(event)
            elif isinstance(event, ChannelUp):
                self._retry = FIRST_RETRY_SECONDS
                self._quiet = False
                log(f"controller {self._address[0]}:{self._address[1]} is there")
            elif isinstance(event, ChannelFailed):
                self._flush()
                self._failed(event.reason)
                return

    def _flush(self) -> None:
        if self._relaxed is not None:
            self._relaxed.cancel()
            self._relaxed = None
        self._queue_postponed()
        self._output += self._channel.take_output()
        if self._socket is None or self._connecting:
            return
        fd = self._socket.fileno()
        try:
            while self._output:
                del self._output[: self._socket.send(self._output)]
            self._loop.remove_writer(fd)
        except BlockingIOError:
            self._loop.add_writer(fd, self._flush)
        except OSError as error:
            self._failed(error.strerror or str(error))
            return
        self._arm()

    def _arm(self) -> None:
        when = self._channel.next_timer()
        if when is None or (self._timer is not None and self._timer.when <= when and self._timer.pending):
            return
        self._cancel()
        self._timer = self._loop.call_later(max(0.0, when - time.monotonic()), self._expired)

    def _expired(self) -> None:
        self._timer = None
        self._channel.handle_timer(time.monotonic())
        self._take_events()
        if self._socket is not None:
            self._flush()

    def _failed(self, reason: str) -> None:
        if not self._quiet:
            log(f"controller {self._address[0]}:{self._address[1]}: {reason}; trying again until it is there")
            self._quiet = True
        sock, self._socket = self._socket, None
        self._connecting = False
        if sock is not None:
            self._loop.remove_reader(sock.fileno())
            self._loop.remove_writer(sock.fileno())
            sock.close()
        self._output.clear()
        self._postponed.clear()
        self._channel.disconnected()
        self._cancel()
        # A whole network must not knock at a restarted controller in step.
        self._timer = self._loop.call_later(self._retry * self._rng.uniform(0.75, 1.25), self._connect)
        self._retry = min(self._retry * 2, LAST_RETRY_SECONDS)

    def _cancel(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None


def _reason(number: int) -> str:
    if number == errno.ECONNREFUSED:
        return "nobody listens there"
    return errno.errorcode.get(number, str(number))
