"""The data path's engines on a bench: datagram sockets instead of sal0 and the raw socket, no privilege needed."""

from __future__ import annotations

import ctypes
import errno
import socket
import struct
import threading
import weakref
from collections import Counter, deque
from dataclasses import dataclass

from serval_node.io.datapath_rx import Receiver
from serval_node.io.datapath_rx_vector import VectorReceiver
from serval_node.io.datapath_tx import Transmitter
from serval_node.io.datapath_tx_vector import VectorTransmitter
from serval_node.io.fast_flow import FastFlow, FlowPaths
from serval_node.io.raw_ip import RawSender
from serval_node.io.sender import Sender
from serval_node.io.tun import GSO_NONE, GSO_TCPV4, NEEDS_CHECKSUM, VNET_HEADER, VNET_HEADER_LENGTH
from serval_node.sal.flow_table import ForwardingState
from serval_node.wire.checksum import ones_sum, sums_to_zero
from serval_node.wire.ipv4 import Ipv4Header, address, build_ipv4
from serval_node.wire.sal_header import bare_header
from serval_node.wire.transport import to_kernel

TCP = 6
LARGEST = 1 << 17


def state(number: int = 1, **changes: object) -> ForwardingState:
    """The forwarding state of a made-up flow."""
    values: dict[str, object] = {
        "local_flow": 0x1000 + number,
        "peer_flow": 0x2000 + number,
        "protocol": TCP,
        "local_address": address("10.0.0.1"),
        "peer_address": address("10.0.0.2"),
        "kernel_local": (address("198.18.0.1"), 40000 + number),
        "kernel_peer": (address("198.18.77.3"), 80),
        **changes,
    }
    return ForwardingState(**values)  # type: ignore[arg-type]


def datagram_pair() -> tuple[socket.socket, socket.socket]:
    pair = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
    for end in pair:
        end.setblocking(False)
        end.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 20)
    return pair


def close_both(one: socket.socket, other: socket.socket) -> None:
    one.close()
    other.close()


class FakeSender(RawSender):
    """Records what is sent; takes `room` packets, then its buffer is full."""

    def __init__(self) -> None:
        self.backlog = deque()
        self.held = deque()
        self.pace = None
        self._held_bytes = 0
        self._drops: Counter[str] = Counter()
        self.sent: list[bytes] = []
        self.room = 1 << 30
        self.refuse: dict[int, int] = {}  # call number of sendmmsg -> errno
        self.calls = 0
        self.socket = self  # type: ignore[assignment]

    def fileno(self) -> int:
        return -1

    def sendto(self, packet: bytes, destination: tuple[str, int]) -> int:
        assert destination == ("10.0.0.2", 0)
        if len(self.sent) >= self.room:
            raise BlockingIOError(errno.EAGAIN, "full")
        self.sent.append(bytes(packet))
        return len(packet)

    def sendmmsg(self, fd: int, messages: int, count: int) -> int:
        """Reads the packets out of memory as the kernel would."""
        self.calls += 1
        if self.calls in self.refuse:
            return -self.refuse[self.calls]
        taken = 0
        while taken < count and len(self.sent) < self.room:
            name, name_length, vectors, number = struct.unpack_from(
                "=QI4xQQ", ctypes.string_at(messages + 64 * taken, 64)
            )
            family, peer = struct.unpack("=H2x4s8x", ctypes.string_at(name, name_length))
            assert (family, peer) == (socket.AF_INET, address("10.0.0.2"))
            parts = struct.unpack(f"={2 * number}Q", ctypes.string_at(vectors, 16 * number))
            self.sent.append(b"".join(ctypes.string_at(*part) for part in zip(parts[::2], parts[1::2], strict=True)))
            taken += 1
        return taken or -errno.EAGAIN


class TransmitBench:
    """Kernel packets in at `kernel`, wire packets out at `sender.sent`."""

    def __init__(self, monkeypatch, *, vector: bool) -> None:
        self.kernel, self.tun = datagram_pair()
        weakref.finalize(self, close_both, self.kernel, self.tun)
        self.paths = FlowPaths()
        self.sender = FakeSender()
        self.slow: list[tuple[bytes, int]] = []
        kind = VectorTransmitter if vector else Transmitter
        self.shut: list[Sender] = []
        self.read_on = False
        self.engine = kind(
            self.tun, self.paths, lambda packet, gso: self.slow.append((bytes(packet), gso)), self._note_shut
        )
        monkeypatch.setattr("serval_node.io.datapath_tx_vector.sendmmsg", self.sender.sendmmsg)

    def _note_shut(self, sender: Sender) -> bool:
        self.shut.append(sender)
        return self.read_on

    def flow(self, forwarding: ForwardingState, sender: FakeSender | None = None) -> FastFlow:
        flow = FastFlow(forwarding, sender or self.sender)
        self.paths.add(flow)
        return flow

    def give(self, packet: bytes, *, gso_size: int = 0, partial: bool = False) -> None:
        vnet = VNET_HEADER.pack(
            NEEDS_CHECKSUM if partial else 0, GSO_TCPV4 if gso_size else GSO_NONE, 40, gso_size, 20, 16
        )
        self.kernel.send(vnet + packet)


@dataclass
class Frame:
    """What sal0 was given."""

    packet: bytes
    gso_size: int

    @property
    def segment(self) -> bytes:
        return self.packet[20:]

    @property
    def header(self) -> Ipv4Header:
        return Ipv4Header.decode(self.packet)


class Wire:
    """Stands for the raw socket: packets come from a list, one or many at a time."""

    def __init__(self) -> None:
        self.packets: deque[bytes] = deque()

    def fileno(self) -> int:
        return -1

    def recv_into(self, view: memoryview) -> int:
        if not self.packets:
            raise BlockingIOError(errno.EAGAIN, "empty")
        packet = self.packets.popleft()
        view[: len(packet)] = packet
        return len(packet)

    def recvmmsg(self, fd: int, messages: int, count: int) -> int:
        """Writes the packets into memory as the kernel would with MSG_TRUNC."""
        taken = 0
        while taken < count and self.packets:
            packet = self.packets.popleft()
            (vector,) = struct.unpack_from("=16xQ", ctypes.string_at(messages + 64 * taken, 64))
            place, room = struct.unpack("=QQ", ctypes.string_at(vector, 16))
            ctypes.memmove(place, packet, min(room, len(packet)))
            ctypes.memmove(messages + 64 * taken + 56, struct.pack("=I", len(packet)), 4)
            taken += 1
        return taken or -errno.EAGAIN


class ReceiveBench:
    """Wire packets in by `give`, which returns the frames that the kernel got."""

    def __init__(self, monkeypatch, *, vector: bool, mtu: int = 1500) -> None:
        self.tun, self._kernel = datagram_pair()
        weakref.finalize(self, close_both, self.tun, self._kernel)
        self.tun.setblocking(True)
        self._kernel.setblocking(True)
        self.receiver = Wire()
        self.paths = FlowPaths()
        self.slow: list[bytes] = []
        self.first: list[int] = []
        monkeypatch.setattr("serval_node.io.datapath_rx_vector.recvmmsg", self.receiver.recvmmsg)
        arguments = (
            self.tun,
            self.receiver,
            self.paths,
            lambda packet: self.slow.append(bytes(packet)),
            self.first.append,
        )
        self.engine: Receiver = VectorReceiver(*arguments, mtu=mtu) if vector else Receiver(*arguments)

    def flow(self, forwarding: ForwardingState) -> FastFlow:
        flow = FastFlow(forwarding, FakeSender())
        self.paths.add(flow)
        return flow

    def give(self, packets: list[bytes]) -> list[Frame]:
        written: list[bytes] = []
        reader = threading.Thread(target=lambda: written.extend(iter(lambda: self._kernel.recv(LARGEST), b"")))
        reader.start()
        try:
            self.receiver.packets.extend(packets)
            while self.receiver.packets:
                self.engine.receive()
        finally:
            self.tun.send(b"")
            reader.join()
        return [self._frame(data) for data in written]

    def _frame(self, data: bytes) -> Frame:
        flags, gso_type, header_length, gso_size, _, _ = VNET_HEADER.unpack_from(data)
        packet = data[VNET_HEADER_LENGTH:]
        assert flags == 0, "the kernel must verify the checksum"
        assert sums_to_zero(packet[:20])
        assert Ipv4Header.decode(packet).total_length == len(packet)
        assert gso_type == (GSO_TCPV4 if gso_size else GSO_NONE)
        if gso_size:
            assert header_length == 20 + (packet[32] >> 4) * 4
        return Frame(packet, gso_size)


def wire_packet(forwarding: ForwardingState, segment: bytes, *, tos: int = 0, ports: tuple[int, int] = (0, 0)) -> bytes:
    """The segment as the flow's peer sends it; the original's peers may send any ports."""
    source, destination = forwarding.peer_address, forwarding.local_address
    header = bare_header(forwarding.peer_flow, forwarding.local_flow, TCP)
    return build_ipv4(source, destination, 144, header + to_kernel(segment, TCP, source, destination, *ports), tos=tos)


def partial_checksum(segment: bytes, forwarding: ForwardingState) -> bytes:
    """The segment as the kernel leaves it to the device: the field holds the pseudo header's sum."""
    pseudo = ones_sum(forwarding.kernel_local[0] + forwarding.kernel_peer[0]) + TCP + len(segment)
    return segment[:16] + struct.pack("!H", pseudo % 65535) + segment[18:]
