"""A small UDP in the place of the kernel's: sockets by port, and the ICMP errors of either side."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from serval_node.wire.ipv4 import (
    ICMP_PORT_UNREACHABLE,
    PROTOCOL_ICMP,
    PROTOCOL_UDP,
    Ipv4Header,
    build_ipv4,
    icmp_unreachable,
)
from serval_node.wire.transport import UdpHeader, build_udp, verify

Endpoint = tuple[bytes, int]
ERRORS = {0: "ENETUNREACH", 1: "EHOSTUNREACH", 3: "ECONNREFUSED", 4: "EMSGSIZE"}


@dataclass(eq=False)
class UdpSocket:
    """One socket; ``answer(data)`` makes it a server. ``error`` is what a connected program's next call would raise."""

    udp: Udp
    local: Endpoint
    received: list[tuple[bytes, Endpoint]] = field(default_factory=list)
    answer: Callable[[bytes], bytes] | None = None
    error: str | None = None

    def sendto(self, data: bytes, peer: Endpoint) -> None:
        segment = build_udp(self.local[1], peer[1], data)
        # As with checksum offload: what stands in the field is not the checksum.
        segment = segment[:6] + b"\x12\x34" + segment[8:]
        self.udp.emit(build_ipv4(self.local[0], peer[0], PROTOCOL_UDP, segment), 0)

    @property
    def data(self) -> list[bytes]:
        return [data for data, _ in self.received]

    def close(self) -> None:
        del self.udp.sockets[self.local[1]]


class Udp:
    """The UDP of one host."""

    def __init__(self, address: bytes, emit: Callable[[bytes, int], None]) -> None:
        self.address = address
        self.emit = emit
        self.sockets: dict[int, UdpSocket] = {}
        self._port = 50000

    def socket(self, port: int | None = None, *, answer: Callable[[bytes], bytes] | None = None) -> UdpSocket:
        if port is None:
            self._port += 1
            port = self._port
        self.sockets[port] = UdpSocket(self, (self.address, port), answer=answer)
        return self.sockets[port]

    def input(self, header: Ipv4Header, segment: bytes) -> None:
        assert verify(segment, PROTOCOL_UDP, header.source, header.destination), "checksum towards the kernel"
        udp = UdpHeader.decode(segment)
        assert udp.length == len(segment)
        socket = self.sockets.get(udp.destination_port)
        peer = header.source, udp.source_port
        if socket is None:
            quote = build_ipv4(header.source, header.destination, PROTOCOL_UDP, segment)
            error = icmp_unreachable(quote, ICMP_PORT_UNREACHABLE)
            assert error[9] == PROTOCOL_ICMP
            self.emit(error, 0)
            return
        socket.received.append((segment[8:], peer))
        if socket.answer is not None:
            socket.sendto(socket.answer(segment[8:]), peer)

    def error(self, code: int, quoted: Ipv4Header, segment: bytes) -> None:
        socket = self.sockets.get(int.from_bytes(segment[:2], "big"))
        if socket is not None:
            socket.error = ERRORS[code]
