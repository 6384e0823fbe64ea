"""The socket of the search for a service router: asks by broadcast, and answers for a node that is one (S61)."""

from __future__ import annotations

import random
import socket
import time
from collections import Counter
from collections.abc import Callable
from typing import Any

from serval_node.control.router_messages import MAX_LENGTH, NO_TOKEN, PORT, Kind, RouterMessage
from serval_node.control.rules import MessageError
from serval_node.daemon.adhoc import broadcast_links, is_neighbour
from serval_node.daemon.loop import EventLoop, Timer
from serval_node.daemon.router_search import Finding, RouterSearch, SearchEvent, Timing
from serval_node.io.netlink import HostNetwork
from serval_node.wire.ipv4 import Address, address, address_text

_AT_ONCE = 64


class RouterDiscovery:
    """One node's part: a host that searches, or a service router that answers. Without either there is no socket."""

    def __init__(
        self,
        loop: EventLoop,
        network: HostNetwork,
        *,
        name: str,
        is_router: Callable[[], bool],
        use: Callable[[Address | None], None],
        tell: Callable[[SearchEvent], None],
        controlled: Callable[[], bool],
        rng: random.Random,
    ) -> None:
        """`use` gets the router that was found, None when there is none any more; `tell` hears what happened;
        `is_router` says whether this node forwards now, `controlled` whether a controller makes the rules.
        """
        self._loop = loop
        self._network = network
        self._name = name
        self._is_router = is_router
        self._use = use
        self._tell = tell
        self._controlled = controlled
        self._search = RouterSearch(rng)
        self._socket: socket.socket | None = None
        self._timer: Timer | None = None
        self._used: Address | None = None
        self.counters: Counter[str] = Counter()

    # -- switched

    def open(self, *, find: bool, controller_expected: bool) -> None:
        """Begin: to answer if this node is a service router, to search if it shall. Raises OSError."""
        if self._is_router():
            self.role_changed()
        elif find:
            self._listen()
            if controller_expected:
                # Its channel takes a moment.
                self._search.stand_aside(time.monotonic(), Timing().patience)
            else:
                self._search.start(time.monotonic())
            self._settle()

    def role_changed(self) -> None:
        """This node has become a service router, or is none any more. Raises OSError."""
        self._search.stop()
        self._settle()
        if self._is_router():
            self._listen()
            self._announce()
        else:
            self.close()

    def find(self, on: bool) -> None:
        """Search (anew), or stop searching. Raises ValueError when that cannot be."""
        if self._is_router():
            raise ValueError("this node is a service router itself")
        if on:
            try:
                self._listen()
            except OSError as error:
                raise ValueError(f"UDP port {PORT} cannot be used: {error.strerror}") from None
            now = time.monotonic()
            self._search.stand_aside(now) if self._controlled() else self._search.start(now)
        else:
            self._search.stop()
        self._settle()
        if not on:
            self.close()

    def network_changed(self) -> None:
        """Links or addresses came, went or changed state."""
        if self._socket is None:
            return
        if self._is_router():
            self._announce()
        else:
            self._search.look_again(time.monotonic())
            self._settle()

    def close(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._socket is not None:
            self._loop.remove_reader(self._socket.fileno())
            self._socket.close()
            self._socket = None

    def view(self) -> dict[str, Any]:
        """For `serval router`; times in seconds before now."""
        router, now = self._search.router, time.monotonic()
        return {
            "is_router": self._is_router(),
            "state": self._search.state.value,
            "router": address_text(router.address) if router is not None else None,
            "name": router.name if router is not None else None,
            "found": round(now - router.found, 3) if router is not None else None,
            "heard": round(now - router.heard, 3) if router is not None else None,
            "answered": self.counters["router_questions_answered"],
        }

    def figures(self) -> dict[str, int]:
        """Counters of both parts."""
        return dict(self.counters + self._search.counters)

    # -- datagrams

    def _listen(self) -> None:
        if self._socket is not None:
            return
        sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK)
        try:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_BROADCAST, 1)
            sock.bind(("", PORT))
        except OSError:
            sock.close()
            raise
        self._socket = sock
        self._loop.add_reader(sock.fileno(), self._readable)

    def _readable(self) -> None:
        for _ in range(_AT_ONCE):
            if self._socket is None:
                return
            try:
                data, (text, port) = self._socket.recvfrom(MAX_LENGTH)
            except BlockingIOError:
                break
            except OSError:
                continue  # an ICMP error about a question of ours: the router is gone, which its silence will tell
            self._receive(data, address(text), port)
        self._settle()

    def _receive(self, data: bytes, sender: Address, port: int) -> None:
        if self._network.is_local(sender):
            return  # our own broadcast
        try:
            message = RouterMessage.decode(data)
        except MessageError:
            self.counters["router_messages_malformed"] += 1
            return
        if not is_neighbour(self._network, sender):
            self.counters["router_messages_from_afar"] += 1
        elif message.kind is Kind.QUERY:
            if self._is_router():
                self.counters["router_questions_answered"] += 1
                self._send(RouterMessage(Kind.ANSWER, message.token, self._name), sender, port)
        elif message.kind is Kind.ANSWER:
            self._search.receive(sender, message.token, message.name, time.monotonic())
        elif self._search.state is not Finding.FOUND:
            self._search.look_again(time.monotonic())

    def _announce(self) -> None:
        for link in broadcast_links(self._network):
            self._send(RouterMessage(Kind.ANNOUNCE, NO_TOKEN, self._name), link.broadcast, PORT)

    def _send(self, message: RouterMessage, to: Address, port: int) -> None:
        assert self._socket is not None
        try:
            self._socket.sendto(message.encode(), (address_text(to), port))
        except OSError:
            self.counters["router_messages_unsent"] += 1  # no route or a full buffer: it is asked again anyway

    # -- what follows

    def _settle(self) -> None:
        """Carry out what the search wants."""
        for question in self._search.take_questions():
            message = RouterMessage(Kind.QUERY, question.token, self._name)
            if question.to is not None:
                self._send(message, question.to, PORT)
                continue
            for link in broadcast_links(self._network):
                self._send(message, link.broadcast, PORT)
        router = self._search.router.address if self._search.router is not None else None
        if router != self._used:
            self._used = router
            self._use(router)
        for event in self._search.take_events():
            self._tell(event)
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        due = self._search.next_timer()
        if due is not None:
            self._timer = self._loop.call_later(max(0.0, due - time.monotonic()), self._expired)

    def _expired(self) -> None:
        self._timer = None
        self._search.handle_timer(time.monotonic(), controlled=self._controlled())
        self._settle()
