"""From listening sockets to DEMUX rules and registrations (slides 27 and 28): the shell around
`listeners.Bindings`.

bind() of a name alone does nothing here; a binding begins when a socket listens, and ends when the kernel lists
it no more. What is bound is also written to a file, so that a restarted daemon serves the sockets that went on
listening.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterable
from typing import Any

from serval_node.control.messages import Binding as Registration
from serval_node.control.messages import NodeMessage, Register, Unregister
from serval_node.daemon.listeners import POLL_SECONDS, Binding, Bindings, Change, DemuxTarget, ListenerRefused, choose
from serval_node.daemon.log import log
from serval_node.daemon.loop import EventLoop, Timer
from serval_node.daemon.names import HostNames
from serval_node.daemon.rules import RuleBook
from serval_node.io import sock_diag
from serval_node.io.sock_diag import DestroyMonitor, InetSocket
from serval_node.sal.service_table import Action, ServiceTable, Target
from serval_node.wire.ipv4 import PROTOCOL_TCP, PROTOCOL_UDP, address, address_text
from serval_node.wire.serviceid import Prefix

ORIGIN = "local"


class Advertiser:
    """Keeps the DEMUX rules of this host's listening sockets and tells the controller of their services."""

    def __init__(
        self,
        loop: EventLoop,
        table: ServiceTable,
        names: HostNames,
        announce: Callable[[NodeMessage], None],
        path: str | None = None,
    ) -> None:
        """`announce` sends to the controller; `path` is the file that survives a restart. Raises OSError."""
        self._loop = loop
        self._table = table
        self._names = names
        self._announce = announce
        self._path = path
        self._bindings = Bindings()
        self._registered: dict[Prefix, Registration] = {}
        self._monitor = DestroyMonitor()
        self._poll: Timer | None = None
        self._outside: RuleBook | None = None
        self._outside_ended: Callable[[], None] = lambda: None
        self._connection_ended: Callable[[InetSocket], None] = lambda sock: None
        loop.add_reader(self._monitor.fileno(), self._destroyed)
        self._restore()

    def follow(self, rules: RuleBook, ended: Callable[[], None]) -> None:
        """Let the DEMUX targets that others set live as long as their sockets too; `ended` is called when some
        ended.
        """
        self._outside, self._outside_ended = rules, ended

    def watch_connections(self, ended: Callable[[InetSocket], None]) -> None:
        """Call `ended` for each connected socket, and each of UDP, that the kernel destroyed; notices may get lost."""
        self._connection_ended = ended

    # -- what sockets there are

    def listening(self, protocol: int = PROTOCOL_TCP) -> list[InetSocket]:
        """The listening TCP sockets of this host, or its UDP sockets that are not connected; ends the bindings of those
        that are gone.
        """
        streams, datagrams = sock_diag.listeners(), sock_diag.udp_sockets()
        found = [*streams, *datagrams]
        self._apply(self._bindings.reconcile(found))
        if self._outside is not None and self._outside.reconcile(sock.cookie for sock in found):
            self._outside_ended()
        self._arm()
        if protocol == PROTOCOL_UDP:
            return [sock for sock in datagrams if not sock.peer_port]  # a connected one takes nothing from others
        return streams

    def names_of(self, sock: InetSocket) -> list[str]:
        """The services that a listening socket stands for."""
        return [
            self._names.describe(binding.prefix) for binding in self._bindings.items() if binding.cookie == sock.cookie
        ]

    def registrations(self) -> tuple[Registration, ...]:
        return tuple(self._registered.values())

    # -- what begins

    def bind(
        self,
        prefix: Prefix,
        port: int,
        inodes: Iterable[int] | None = None,
        *,
        protocol: int = PROTOCOL_TCP,
        announced: bool = True,
    ) -> list[str]:
        """Let `prefix` be served by what listens on `port`, or has bound it for UDP (only the sockets `inodes`, if
        given); returns warnings. Unless `announced`, only this host knows of it.

        Raises ListenerRefused.
        """
        wanted = None if inodes is None else set(inodes)
        sockets = [
            sock
            for sock in self.listening(protocol)
            if sock.local_port == port and (wanted is None or sock.inode in wanted)
        ]
        if not sockets:
            kind = "has bound UDP port" if protocol == PROTOCOL_UDP else "listens on port"
            raise ListenerRefused(f"nothing {kind} {port}")
        warnings: dict[str, None] = {}
        for sock, reach in choose(sockets):
            binding = Binding(prefix, sock.cookie, sock.inode, port, reach.address, protocol, announced)
            self._apply(self._bindings.add(binding))
            if reach.warning is not None:
                warnings[reach.warning] = None
        return list(warnings)

    def unbind(self, prefix: Prefix, port: int, protocol: int = PROTOCOL_TCP) -> None:
        """Take `prefix` back from the sockets on `port`; raises ListenerRefused when it is not served there."""
        there = prefix, port, protocol
        found = [item for item in self._bindings.items() if (item.prefix, item.port, item.protocol) == there]
        if not found:
            raise ListenerRefused(f"{self._names.describe(prefix)} is not served by port {port}")
        for binding in found:
            self._apply(self._bindings.remove(prefix, binding.inode))

    # -- what ends

    def _destroyed(self) -> None:
        sockets, lost = self._monitor.readable()
        if lost or any(self._follows(sock.cookie) for sock in sockets):
            self.listening()
        for sock in sockets:
            if sock.peer_port or sock.protocol == PROTOCOL_UDP:
                self._connection_ended(sock)

    def _follows(self, cookie: int) -> bool:
        return self._bindings.holds(cookie) or (self._outside is not None and self._outside.holds(cookie))

    def _arm(self) -> None:
        if not len(self._bindings) and (self._outside is None or not self._outside.follows_sockets):
            if self._poll is not None:
                self._poll.cancel()
                self._poll = None
        elif self._poll is None:
            self._poll = self._loop.call_later(POLL_SECONDS, self._expired)

    def _expired(self) -> None:
        self._poll = None
        self.listening()

    def close(self) -> None:
        """Remove every rule and unregister every service; the file keeps what listens for the next daemon."""
        self._path = None
        self._apply(self._bindings.clear())
        self._loop.remove_reader(self._monitor.fileno())
        self._monitor.close()

    # -- consequences

    def _apply(self, change: Change) -> None:
        for target in change.begun:
            self._table.add_target(target[0], _demux(target), ORIGIN)
            log(f"{self._names.describe(target[0])} is served by {_place(target)}")
        for target in change.ended:
            self._table.remove_target(target[0], _demux(target), ORIGIN)
            log(f"{self._names.describe(target[0])} is no longer served by {_place(target)}")
        if change:
            for prefix in {target[0] for target in (*change.begun, *change.ended)}:
                self._register(prefix)
            self._save()
        self._arm()

    def _register(self, prefix: Prefix) -> None:
        announced = [binding for binding in self._bindings.items() if binding.prefix == prefix and binding.announced]
        # A port of TCP and one of UDP are two ways to the same instance.
        weight = len({(binding.port, binding.address) for binding in announced})
        if weight == 0:
            if self._registered.pop(prefix, None) is not None:
                self._announce(Unregister(prefix))
            return
        registration = Registration(prefix, weight=weight, name=self._names.naming.name_text(prefix))
        if self._registered.get(prefix) != registration:
            self._registered[prefix] = registration
            self._announce(Register(registration))

    # -- the file

    def _save(self) -> None:
        if self._path is None:
            return
        rows = [
            {
                "service": self._names.describe(item.prefix),
                "prefix": str(item.prefix),
                "cookie": item.cookie,
                "inode": item.inode,
                "port": item.port,
                "address": address_text(item.address),
                "protocol": item.protocol,
                "announced": item.announced,
            }
            for item in self._bindings.items()
        ]
        part = self._path + ".part"
        with open(part, "w", encoding="utf-8") as file:
            json.dump(rows, file)
        os.replace(part, self._path)

    def _restore(self) -> None:
        if self._path is None or not os.path.exists(self._path):
            return
        sockets = [*sock_diag.listeners(), *sock_diag.udp_sockets()]
        alive = {(sock.cookie, sock.inode, sock.local_port) for sock in sockets}
        for service, binding in _read(self._path):
            self._names.naming.parse(service)  # so that lists show it by name again
            if (binding.cookie, binding.inode, binding.port) in alive:
                self._apply(self._bindings.add(binding))


def _demux(target: DemuxTarget) -> Target:
    _, port, listen_address, protocol = target
    return Target(Action.DEMUX, port=port, protocol=protocol, listen_address=listen_address)


def _place(target: DemuxTarget) -> str:
    _, port, listen_address, protocol = target
    return f"{address_text(listen_address)}:{port}" + ("/udp" if protocol == PROTOCOL_UDP else "")


def _read(path: str) -> list[tuple[str, Binding]]:
    try:
        with open(path, encoding="utf-8") as file:
            rows: list[dict[str, Any]] = json.load(file)
        return [
            (
                str(row["service"]),
                Binding(
                    Prefix.from_text(row["prefix"]),
                    row["cookie"],
                    row["inode"],
                    row["port"],
                    address(row["address"]),
                    row.get("protocol", PROTOCOL_TCP),
                    row.get("announced", True),
                ),
            )
            for row in rows
        ]
    except (ValueError, KeyError, TypeError) as error:
        log(f"{path} cannot be read ({error}): sockets that listened before are not served again")
        return []
