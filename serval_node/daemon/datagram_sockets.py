"""UDP sockets of this host's programs and the flows behind them: who connects, who sends unconnected, and what ends.

A UDP socket has no connection whose end could be seen in packets. The kernel tells when a socket is destroyed; its
flows are closed unless another socket goes on with the port (a copy of the program, SO_REUSEPORT, a connected socket
for one peer). The notice may overtake the socket's last datagrams in sal0: so the port is looked at again later.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from serval_node.daemon.advertiser import Advertiser
from serval_node.daemon.loop import EventLoop, Timer
from serval_node.daemon.names import HostNames
from serval_node.daemon.virtual_addresses import SAL0_ADDRESS
from serval_node.io import sock_diag
from serval_node.io.sock_diag import InetSocket
from serval_node.sal.flow_table import Endpoint
from serval_node.sal.resolution import UNREACHABLE_CODES
from serval_node.sal.stack import Stack
from serval_node.wire.ipv4 import ICMP_NET_UNREACHABLE, PROTOCOL_UDP, address_text, build_ipv4
from serval_node.wire.serviceid import Prefix, ServiceID
from serval_node.wire.transport import build_udp

LOOK_AGAIN_SECONDS = 1.0


class DatagramSockets:
    """What the node knows of UDP sockets."""

    def __init__(
        self, loop: EventLoop, stack: Stack, names: HostNames, advertiser: Advertiser, done: Callable[[], None]
    ) -> None:
        """``done`` carries out what the stack wants done."""
        self._loop = loop
        self._stack = stack
        self._names = names
        self._advertiser = advertiser
        self._done = done
        self._ports: set[int] = set()
        self._timer: Timer | None = None

    # -- requests of serval_node.socket

    def open(self, port: int, inode: int, prefix: Prefix, *, announced: bool) -> int:
        """A socket that sends unconnected datagrams under a service and receives those for it; its flowID.

        Raises ListenerRefused.
        """
        self._advertiser.bind(prefix, port, [inode], protocol=PROTOCOL_UDP, announced=announced)
        return self._stack.open_datagram_socket(port, prefix.service_id)

    def connect(self, port: int, text: str) -> dict[str, Any]:
        """Open a flow to a service for the socket with this port of sal0's address, before its first datagram: where it
        connects to, and by which errno there is no way. Raises ValueError: no such service.
        """
        virtual, kernel_port, service_id = self._names.endpoint(text)
        local, peer = (SAL0_ADDRESS, port), (virtual, kernel_port)
        packet = build_ipv4(SAL0_ADDRESS, virtual, PROTOCOL_UDP, build_udp(port, kernel_port))
        refusal = self._stack.connect_datagrams(local, peer, service_id, packet, time.monotonic())
        self._done()
        answer: dict[str, Any] = {"address": address_text(virtual), "port": kernel_port, "refusal": None}
        if refusal is not None:
            unreachable = UNREACHABLE_CODES.get(refusal) == ICMP_NET_UNREACHABLE
            answer["refusal"] = "ENETUNREACH" if unreachable else "EHOSTUNREACH"
        return answer

    def sender(self, peer: Endpoint, port: int) -> ServiceID | None:
        """The source serviceID of what came from a virtual peer; None for a flow, whose client is nameless."""
        found = self._stack.correspondent(peer, port)
        return None if found is None else found.service_id

    # -- the kernel's notices

    def ended(self, socket: InetSocket) -> None:
        """A UDP socket of this host was destroyed."""
        if not socket.local_port:
            return
        self._look_at({socket.local_port})
        self._ports.add(socket.local_port)
        if self._timer is None:
            self._timer = self._loop.call_later(LOOK_AGAIN_SECONDS, self._look_again)

    def _look_again(self) -> None:
        ports, self._ports, self._timer = self._ports, set(), None
        self._look_at(ports)

    def _look_at(self, ports: set[int]) -> None:
        left = [sock for sock in sock_diag.udp_sockets() if sock.local_port in ports]
        now = time.monotonic()
        flows = [flow for flow in self._stack.flows if flow.protocol == PROTOCOL_UDP]
        for flow in flows:
            local, peer = flow.kernel_key
            if local[1] in ports and not any(covers(sock, local, peer) for sock in left):
                self._stack.kernel_socket_gone(local, peer, now, PROTOCOL_UDP)
        for port in ports - {sock.local_port for sock in left}:
            self._stack.datagram_socket_gone(port)
        self._done()

    def close(self) -> None:
        if self._timer is not None:
            self._timer.cancel()


def covers(sock: InetSocket, local: Endpoint, peer: Endpoint) -> bool:
    """Whether what comes from ``peer`` for ``local`` is given to this socket, or what it sends leaves as such."""
    # The last four bytes are the IPv4 address, also of a dual-stack socket (::ffff:a.b.c.d).
    if sock.local_port != local[1] or not (sock.wildcard or sock.local_address[-4:] == local[0]):
        return False
    return not sock.peer_port or (sock.peer_address[-4:], sock.peer_port) == peer
