"""DEMUX rules that live exactly as long as the kernel's listening sockets behind them, or UDP's bound ones.

A *binding* joins a prefix of serviceIDs to one listening socket, known by the kernel's cookie. It ends when the
kernel no longer lists the socket: closed by its last holder, its last holder dead (kill -9 included), or shut
down. Holders are not tracked at all, so pre-fork servers, inherited descriptors and statically linked programs
need nothing special.

The end of a socket is told by the kernel (destroy groups of sock_diag) within about a millisecond. No kernel
event tells of shutdown() on a listening socket, so the list is also read every POLL_SECONDS while there is a
binding.
"""

from __future__ import annotations

import ipaddress
import socket
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from serval_node.daemon.virtual_addresses import SAL0_ADDRESS
from serval_node.io.sock_diag import InetSocket
from serval_node.wire.ipv4 import PROTOCOL_TCP
from serval_node.wire.serviceid import Prefix

POLL_SECONDS = 0.2

LOOPBACK_FIRST = 127

# Prefix, kernel port, the address that packets go to, transport protocol.
DemuxTarget = tuple[Prefix, int, bytes, int]

_V4_MAPPED = bytes(10) + b"\xff\xff"


class ListenerRefused(ValueError):
    """A listening socket that SYNs of a service cannot be handed to; the text says why."""


@dataclass(frozen=True, slots=True)
class Reach:
    """How a SYN gets to a listening socket: the address it is sent to, and what the user should know about it."""

    address: bytes
    warning: str | None = None


def reach(listener: InetSocket) -> Reach:
    """Where SYNs for `listener` must go on sal0; raises ListenerRefused.

    Wildcard listeners (0.0.0.0, dual-stack [::]) get them at sal0's own address, others at the address that
    they listen on.
    """
    address = listener.local_address
    if listener.family == socket.AF_INET6:
        if address[:12] == _V4_MAPPED:
            address = address[12:]
        elif not listener.wildcard:
            text = ipaddress.IPv6Address(address).compressed
            raise ListenerRefused(
                f"port {listener.local_port} listens on [{text}] only, Serval carries IPv4: listen on 0.0.0.0 or [::]"
            )
        elif listener.v6only:
            raise ListenerRefused(
                f"port {listener.local_port} listens on [::] with IPV6_V6ONLY set, so no IPv4 connection reaches it: "
                "listen on 0.0.0.0, or clear IPV6_V6ONLY"
            )
        else:
            return Reach(SAL0_ADDRESS)
    if not any(address):
        return Reach(SAL0_ADDRESS)
    if address[0] == LOOPBACK_FIRST or address == SAL0_ADDRESS:
        return Reach(address)
    text = ipaddress.IPv4Address(address).compressed
    return Reach(address, f"port {listener.local_port} listens on {text} only: its flows cannot outlive that address")


@dataclass(frozen=True, slots=True)
class Binding:
    """`prefix` is served by one listening socket on kernel port `port`, whose SYNs go to `address`.

    `cookie` is the kernel's number for the socket that no other of this boot has; `inode` is what its holders
    see. `announced`: whether others are told of the service; a socket that only wants answers needs its rule alone.
    """

    prefix: Prefix
    cookie: int
    inode: int
    port: int
    address: bytes
    protocol: int = PROTOCOL_TCP
    announced: bool = True

    @property
    def target(self) -> DemuxTarget:
        """What of it makes a DEMUX target: several sockets (SO_REUSEPORT workers) may stand behind one."""
        return (self.prefix, self.port, self.address, self.protocol)


@dataclass(frozen=True, slots=True)
class Change:
    """DEMUX targets that begin and end with a change of the bindings."""

    begun: tuple[DemuxTarget, ...] = ()
    ended: tuple[DemuxTarget, ...] = ()

    def __bool__(self) -> bool:
        return bool(self.begun or self.ended)


class Bindings:
    """All bindings of a host. Pure: it is told which sockets the kernel lists."""

    def __init__(self) -> None:
        self._bindings: set[Binding] = set()

    def __len__(self) -> int:
        return len(self._bindings)

    def items(self) -> list[Binding]:
        return sorted(
            self._bindings,
            key=lambda item: (item.prefix.raw, item.prefix.bits, item.protocol, item.port, item.inode),
        )

    def holds(self, cookie: int) -> bool:
        """Whether a socket stands behind a binding."""
        return any(binding.cookie == cookie for binding in self._bindings)

    def add(self, binding: Binding) -> Change:
        known = {other.target for other in self._bindings}
        self._bindings.add(binding)
        return Change() if binding.target in known else Change(begun=(binding.target,))

    def remove(self, prefix: Prefix, inode: int) -> Change:
        """End the bindings of one socket below one prefix; the socket may go on listening."""
        return self._keep(lambda binding: not (binding.prefix == prefix and binding.inode == inode))

    def reconcile(self, listening: Iterable[InetSocket]) -> Change:
        """End every binding whose socket is not among `listening`."""
        alive = {listener.cookie for listener in listening}
        return self._keep(lambda binding: binding.cookie in alive)

    def clear(self) -> Change:
        return self._keep(lambda _binding: False)

    def _keep(self, wanted: Callable[[Binding], bool]) -> Change:
        before = {binding.target for binding in self._bindings}
        self._bindings = {binding for binding in self._bindings if wanted(binding)}
        after = {binding.target for binding in self._bindings}
        return Change(ended=tuple(sorted(before - after)))


def choose(listeners: Iterable[InetSocket]) -> list[tuple[InetSocket, Reach]]:
    """Of the sockets on one port, those that SYNs should go to: all that share the widest address that can be
    reached.

    A program often listens on 0.0.0.0 and [::] at once; that is one service on one port. Raises ListenerRefused
    when none can be reached, with the reason of the first.
    """
    reachable: list[tuple[InetSocket, Reach]] = []
    refusal: ListenerRefused | None = None
    for listener in listeners:
        try:
            reachable.append((listener, reach(listener)))
        except ListenerRefused as error:
            refusal = refusal or error
    if not reachable:
        raise refusal or ListenerRefused("nothing listens there")
    best = min(reachable, key=lambda pair: _preference(pair[1].address))[1].address
    return [pair for pair in reachable if pair[1].address == best]


def _preference(address: bytes) -> tuple[int, bytes]:
    if address == SAL0_ADDRESS:
        return (0, address)
    return (1 if address[0] == LOOPBACK_FIRST else 2, address)
