"""A NAT in user space, because not every machine has nftables: masquerades UDP and drops every other protocol.

    python -m tests.emulation.nat INSIDE PUBLIC PORTS

Runs in the namespace of a host with two or more interfaces. INSIDE is the one behind which the masqueraded hosts are;
they send to this host as their router. To the others they seem to be PUBLIC, an address that is routed to this host
and is none of its own, with ports from PORTS ("20000-29999"). A mapping is for one address and port outside: nobody
else gets in through it. The kernel must not forward by itself (net.ipv4.ip_forward=0).

Standard input takes commands, a line each, and each is answered by a line of JSON: `rebind PORTS` forgets every mapping
and gives out ports from PORTS, `count` says what was done so far.

A packet that is longer than a link's MTU is lost here, like on a switch in user space: so are super-segments of senders
whose interfaces leave the cutting to others.
"""

from __future__ import annotations

import errno
import json
import os
import select
import socket
import sys
from collections import Counter
from dataclasses import dataclass, field

from serval_node.wire.errors import WireError
from serval_node.wire.ipv4 import PROTOCOL_UDP, Address, Ipv4Header, address, build_ipv4
from serval_node.wire.transport import UdpHeader, to_kernel

_ETH_P_IP = 0x0800
_TO_THIS_HOST = 0  # PACKET_HOST
_LONGEST = 1 << 17
_RECEIVE_BUFFER = 8 << 20

End = tuple[Address, int]


@dataclass
class Translation:
    """The mappings, and what became of packets. Pure."""

    public: Address
    ports: range
    counted: Counter[str] = field(default_factory=Counter)
    _next: int = 0
    _out: dict[tuple[End, End], int] = field(default_factory=dict)
    _in: dict[tuple[int, End], End] = field(default_factory=dict)

    def leaving(self, packet: bytes) -> bytes | None:
        """A packet from inside as it goes on; None when it does not."""
        opened = self._open(packet)
        if opened is None:
            return None
        header, udp, data = opened
        ends = (header.source, udp.source_port), (header.destination, udp.destination_port)
        port = self._out.get(ends)
        if port is None:
            if self._next >= len(self.ports):
                self.counted["no_port_left"] += 1
                return None
            port = self._out[ends] = self.ports[self._next]
            self._next += 1
            self._in[port, ends[1]] = ends[0]
        self.counted["out"] += 1
        return _built(header, (self.public, port), ends[1], data)

    def entering(self, packet: bytes) -> bytes | None:
        """A packet from outside as it goes on; None when it does not."""
        opened = self._open(packet)
        if opened is None:
            return None
        header, udp, data = opened
        source = header.source, udp.source_port
        inside = self._in.get((udp.destination_port, source)) if header.destination == self.public else None
        if inside is None:
            self.counted["not_mapped"] += 1
            return None
        self.counted["in"] += 1
        return _built(header, source, inside, data)

    def rebind(self, ports: range) -> None:
        self.ports, self._next = ports, 0
        self._out.clear()
        self._in.clear()

    def _open(self, packet: bytes) -> tuple[Ipv4Header, UdpHeader, bytes] | None:
        try:
            header = Ipv4Header.decode(packet)
            if header.protocol != PROTOCOL_UDP:
                self.counted[f"protocol_{header.protocol}"] += 1
                return None
            segment = header.payload(packet)
            udp = UdpHeader.decode(segment)
        except WireError as error:
            self.counted[error.reason.value] += 1
            return None
        if header.ttl <= 1:
            self.counted["ttl_exceeded"] += 1
            return None
        return header, udp, segment[: udp.length]


def _built(header: Ipv4Header, source: End, destination: End, datagram: bytes) -> bytes:
    # The checksum is made anew: that of a packet from this machine may be left to a device.
    datagram = to_kernel(datagram, PROTOCOL_UDP, source[0], destination[0], source[1], destination[1])
    return build_ipv4(source[0], destination[0], PROTOCOL_UDP, datagram, ttl=header.ttl - 1, tos=header.tos)


class Nat:
    """The sockets around a Translation."""

    def __init__(self, inside: str, translation: Translation) -> None:
        """Raises OSError."""
        self._inside = inside
        self._translation = translation
        self._packets = socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM, socket.htons(_ETH_P_IP))
        self._packets.setblocking(False)
        self._packets.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _RECEIVE_BUFFER)
        self._out = socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_RAW)

    def run(self) -> None:
        """Until standard input ends."""
        print(json.dumps({"ready": True}), flush=True)
        while True:
            ready, _, _ = select.select([self._packets.fileno(), 0], [], [])
            if self._packets.fileno() in ready:
                self._forward()
            if 0 in ready:
                line = os.read(0, 4096).decode()
                if not line:
                    return
                print(json.dumps(self._command(*line.split())), flush=True)

    def _forward(self) -> None:
        for _ in range(64):
            try:
                packet, (interface, _, kind, *_) = self._packets.recvfrom(_LONGEST)
            except BlockingIOError:
                return
            if kind != _TO_THIS_HOST:
                continue
            translation = self._translation
            translated = translation.leaving(packet) if interface == self._inside else translation.entering(packet)
            if translated is None:
                continue
            try:
                self._out.sendto(translated, (socket.inet_ntoa(translated[16:20]), 0))
            except OSError as error:
                reason = "too_long" if error.errno == errno.EMSGSIZE else errno.errorcode.get(error.errno or 0, "error")
                translation.counted[reason.lower()] += 1

    def _command(self, verb: str, *arguments: str) -> dict[str, int]:
        if verb == "rebind":
            self._translation.rebind(port_range(*arguments))
        return dict(self._translation.counted)


def port_range(text: str) -> range:
    """ "20000-29999". Raises ValueError."""
    first, _, last = text.partition("-")
    return range(int(first), int(last) + 1)


def main(arguments: list[str]) -> int:
    inside, public, ports = arguments
    try:
        Nat(inside, Translation(address(public), port_range(ports))).run()
    except OSError as error:
        print(f"nat: {inside}: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
