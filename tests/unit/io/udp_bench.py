"""The data path's engines for flows inside UDP on a bench: fake sockets cut and join datagrams as the kernel does."""

from __future__ import annotations

import ctypes
import errno
import socket
import struct
from collections import deque

from serval_node.io.datapath_rx_udp import PARTIAL_VNET_HEADER, UdpReceiver
from serval_node.io.datapath_rx_udp_vector import VectorUdpReceiver
from serval_node.io.tun import GSO_NONE, GSO_TCPV4, NEEDS_CHECKSUM, VNET_HEADER, VNET_HEADER_LENGTH
from serval_node.io.udp_encap import (
    IP_PKTINFO,
    IP_TTL,
    LONGEST,
    MOST_SEGMENTS,
    SOL_UDP,
    UDP_GRO,
    UDP_SEGMENT,
    UdpSender,
)
from serval_node.sal.flow_table import ForwardingState
from serval_node.wire.checksum import ones_sum, sums_to_zero
from serval_node.wire.ipv4 import Ipv4Header, UdpPorts, address
from serval_node.wire.sal_header import bare_header
from serval_node.wire.transport import to_kernel, to_wire
from tests.unit.io.datapath_bench import TCP, FakeSender, Frame, ReceiveBench, Wire, state

PORTS = UdpPorts(54324, 54325)
LIMIT = 1460


def udp_state(number: int = 1, **changes: object) -> ForwardingState:
    return state(number, **{"ports": PORTS, "segment_limit": LIMIT, **changes})


class FakeUdpSender(FakeSender, UdpSender):
    """Records datagrams as they are on the wire, after the kernel has cut them; `datagrams` says how many it was given
    at once.
    """

    def __init__(self) -> None:
        super().__init__()
        self.local = address("10.0.0.1")
        self.told: list[str] = []
        self._tell = lambda local, peer, why: self.told.append(why)
        self._proved, self._singles = set(), set()
        self.datagrams: list[int] = []

    def sendto(self, packet: bytes, destination: tuple[str, int]) -> int:
        assert destination == ("10.0.0.2", PORTS.peer)
        self.sent.append(bytes(packet))
        return len(packet)

    def sendmmsg(self, fd: int, messages: int, count: int) -> int:
        self.calls += 1
        if self.calls in self.refuse:
            return -self.refuse[self.calls]
        for index in range(count):
            name, length, vectors, number, control, control_length = struct.unpack_from(
                "=QI4xQQQQ", ctypes.string_at(messages + 64 * index, 64)
            )
            family, port, peer = struct.unpack("=H2s4s8x", ctypes.string_at(name, length))
            assert (family, int.from_bytes(port, "big"), peer) == (socket.AF_INET, PORTS.peer, address("10.0.0.2"))
            parts = struct.unpack(f"={2 * number}Q", ctypes.string_at(vectors, 16 * number))
            data = b"".join(ctypes.string_at(*part) for part in zip(parts[::2], parts[1::2], strict=True))
            size = len(data)
            if control_length:
                assert control_length == socket.CMSG_SPACE(2)
                cmsg_length, level, kind, size = struct.unpack("=QiiH6x", ctypes.string_at(control, control_length))
                assert (cmsg_length, level, kind) == (socket.CMSG_LEN(2), SOL_UDP, UDP_SEGMENT)
            assert len(data) <= LONGEST and -(-len(data) // size) <= MOST_SEGMENTS
            self.datagrams.append(-(-len(data) // size))
            self.sent += [data[at : at + size] for at in range(0, len(data), size)]
        return count


class UdpWire(Wire):
    """What the kernel has joined: (bytes, size of the segments, source, port)."""

    def recvmsg_into(self, places: list[memoryview], room: int) -> tuple:
        if not self.packets:
            raise BlockingIOError(errno.EAGAIN, "empty")
        data, size, source, port = self.packets.popleft()
        places[0][: len(data)] = data
        ancillary = [
            (socket.IPPROTO_IP, IP_PKTINFO, struct.pack("=i4s4s", 3, address("10.0.0.1"), address("10.0.0.1"))),
            (socket.IPPROTO_IP, IP_TTL, struct.pack("=i", 61)),
        ]
        if size < len(data):
            ancillary.append((SOL_UDP, UDP_GRO, struct.pack("=i", size)))
        return len(data), ancillary, 0, (source, port)


class UdpReceiveBench(ReceiveBench):
    """Datagrams in by `give`; frames for sal0 whose checksum counts as verified."""

    def __init__(self, monkeypatch, *, vector: bool) -> None:
        super().__init__(monkeypatch, vector=False)
        self.receiver: UdpWire = UdpWire()
        self.receiver.packets = deque()
        kind = VectorUdpReceiver if vector else UdpReceiver
        slow = lambda packet: self.slow.append(bytes(packet))  # noqa: E731
        self.engine = kind(self.tun, self.receiver, self.paths, slow, self.first.append, port=PORTS.local)

    def _frame(self, data: bytes) -> Frame:
        flags, gso_type, header_length, gso_size, start, offset = VNET_HEADER.unpack_from(data)
        packet = data[VNET_HEADER_LENGTH:]
        assert (flags, start, offset) == (NEEDS_CHECKSUM, 20, 16)
        assert sums_to_zero(packet[:20])
        header = Ipv4Header.decode(packet)
        assert header.total_length == len(packet) and header.tos == 0
        assert gso_type == (GSO_TCPV4 if gso_size else GSO_NONE)
        if gso_size:
            assert header_length == 20 + (packet[32] >> 4) * 4
        else:
            assert data[:VNET_HEADER_LENGTH] == PARTIAL_VNET_HEADER
        pseudo = ones_sum(header.source + header.destination) + TCP + len(packet) - 20
        assert struct.unpack("!H", packet[36:38])[0] == pseudo % 65535
        ends = header.source, header.destination
        ports = struct.unpack("!HH", packet[20:24])
        return Frame(packet[:20] + to_kernel(packet[20:], TCP, *ends, *ports), gso_size)


def datagram(forwarding: ForwardingState, segment: bytes) -> bytes:
    """A segment as the flow's peer, behind a NAT, sends it: its checksum is for another address."""
    header = bare_header(forwarding.peer_flow, forwarding.local_flow, TCP)
    return header + to_wire(segment, TCP, address("192.168.0.9"), forwarding.local_address)


def joined(pieces: list[bytes], source: str = "10.0.0.2", port: int = PORTS.peer) -> tuple[bytes, int, str, int]:
    """As the kernel joins datagrams of one size, but for the last."""
    assert {len(piece) for piece in pieces[:-1]} <= {len(pieces[0])} and len(pieces[-1]) <= len(pieces[0])
    return b"".join(pieces), len(pieces[0]), source, port
