"""A small TCP in the place of the kernel's: enough of RFC 9293 to open, carry data under loss, close and reset.

It answers as Linux does where the stack relies on it: an old segment is answered by an ACK with the next number
expected, a RST is believed only with exactly that number (RFC 5961), a repeated SYN repeats the SYN-ACK, a full
accept queue drops the third ACK, and data for a closed socket is answered by RST.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass, field

from serval_node.wire.ipv4 import PROTOCOL_ICMP, PROTOCOL_TCP, PROTOCOL_UDP, Ipv4Header, build_ipv4
from serval_node.wire.serial import serial_add, serial_diff, serial_lt
from serval_node.wire.transport import ACK, FIN, PSH, RST, SYN, TcpHeader, build_tcp, verify
from tests.unit.sal.fake_udp import Udp

Endpoint = tuple[bytes, int]
Emit = Callable[[bytes, int], None]

MSS = 1448
SUPER_SEGMENT = 8 * MSS
WINDOW = 40 * MSS
RETRANSMIT, LONGEST_RETRANSMIT = 0.3, 2.0
SYN_RETRANSMIT = 1.0
SYN_OPTIONS = bytes.fromhex("020405a8 0402080a0000000100000000 01030307".replace(" ", ""))
ICMP_ERRORS = {0: "ENETUNREACH", 1: "EHOSTUNREACH", 2: "ENOPROTOOPT", 3: "ECONNREFUSED"}


@dataclass(eq=False, repr=False)
class Socket:
    """One connection. ``error`` is what the program's next call would raise; ``eof`` that the peer has shut down."""

    kernel: Kernel
    local: Endpoint
    peer: Endpoint
    state: str
    iss: int
    listener: Listener | None = None
    received: bytearray = field(default_factory=bytearray)
    unread: bool = False
    eof: bool = False
    error: str | None = None
    snd_una: int = 0
    snd_nxt: int = 0
    rcv_nxt: int = 0
    buffer: bytearray = field(default_factory=bytearray)
    fin_wanted: bool = False
    closed: bool = False
    early: dict[int, bytes] = field(default_factory=dict)
    early_fin: int | None = None
    due: float | None = None
    interval: float = RETRANSMIT

    # -- the program's calls

    def send(self, data: bytes, now: float) -> None:
        self.buffer += data
        self.push(now)

    def shutdown(self, now: float) -> None:
        self.fin_wanted = True
        self.push(now)

    def close(self, now: float) -> None:
        """As close(2): unread data makes it a reset."""
        self.closed = True
        if self.state in ("SYN_SENT", "CLOSED"):
            self.vanish()
        elif self.unread:
            self.abort()
        else:
            self.shutdown(now)

    def abort(self) -> None:
        """SO_LINGER 0 and close, or close with unread data."""
        self.emit(RST | ACK, self.snd_nxt)
        self.vanish()

    # -- sending

    @property
    def fin_end(self) -> int:
        """The number after our FIN."""
        return serial_add(self.iss, 1 + self.total + 1)

    @property
    def total(self) -> int:
        """Bytes that were ever written."""
        return len(self.buffer)

    def emit(self, flags: int, seq: int, data: bytes = b"", options: bytes = b"", gso: int = 0) -> None:
        ack = self.rcv_nxt if flags & ACK else 0
        segment = build_tcp(self.local[1], self.peer[1], seq, ack, flags, window=500, options=options, data=data)
        # As with checksum offload: what stands in the field is not the checksum.
        self.kernel.emit(build_ipv4(self.local[0], self.peer[0], PROTOCOL_TCP, segment), gso)

    def push(self, now: float) -> None:
        """Send what the window allows, FIN last."""
        if self.state not in ("ESTABLISHED", "TIME_WAIT"):
            return
        end = serial_add(self.iss, 1 + self.total)
        limit = serial_add(self.snd_una, WINDOW)
        while serial_lt(self.snd_nxt, end) and serial_lt(self.snd_nxt, limit):
            start = serial_diff(self.snd_nxt, self.iss) - 1
            data = bytes(self.buffer[start : start + SUPER_SEGMENT])
            last = start + len(data) == self.total
            flags = ACK | (PSH if last else 0) | (FIN if last and self.fin_wanted else 0)
            self.emit(flags, self.snd_nxt, data, gso=MSS if len(data) > MSS else 0)
            self.snd_nxt = serial_add(self.snd_nxt, len(data) + bool(flags & FIN))
        if self.fin_wanted and self.snd_nxt == end:
            self.emit(FIN | ACK, self.snd_nxt)
            self.snd_nxt = self.fin_end
        if self.snd_nxt != self.snd_una and self.due is None:
            self.due = now + self.interval

    def timer(self, now: float) -> None:
        self.interval = min(2 * self.interval, LONGEST_RETRANSMIT if self.state == "ESTABLISHED" else 64)
        self.due = now + self.interval
        if self.state == "SYN_SENT":
            self.emit(SYN, self.iss, options=SYN_OPTIONS)
        elif self.state == "SYN_RCVD":
            self.emit(SYN | ACK, self.iss, options=SYN_OPTIONS)
        else:
            self.due = None
            self.snd_nxt = self.snd_una
            self.push(now)

    # -- receiving

    def receive(self, tcp: TcpHeader, data: bytes, now: float) -> None:
        if self.state == "SYN_SENT":
            self.receive_syn_sent(tcp, now)
        elif self.state == "SYN_RCVD":
            self.receive_syn_received(tcp, data, now)
        else:
            self.receive_established(tcp, data, now)

    def receive_syn_sent(self, tcp: TcpHeader, now: float) -> None:
        if not tcp.flags & ACK or tcp.ack != serial_add(self.iss, 1):
            return
        if tcp.flags & RST:
            self.fail("ECONNREFUSED")
        elif tcp.flags & SYN:
            self.state, self.due, self.interval = "ESTABLISHED", None, RETRANSMIT
            self.rcv_nxt = serial_add(tcp.seq, 1)
            self.snd_una = self.snd_nxt = serial_add(self.iss, 1)
            self.emit(ACK, self.snd_nxt)
            self.push(now)

    def receive_syn_received(self, tcp: TcpHeader, data: bytes, now: float) -> None:
        assert self.listener is not None
        if tcp.flags & RST:
            if tcp.seq == self.rcv_nxt:
                self.vanish()
        elif tcp.flags & SYN:
            self.emit(SYN | ACK, self.iss, options=SYN_OPTIONS)
        elif tcp.flags & ACK and tcp.ack == serial_add(self.iss, 1):
            if self.listener.closed:
                self.kernel.refuse(self.local, self.peer, tcp, data)
                self.vanish()
                return
            if len(self.listener.queue) >= self.listener.backlog:
                return
            self.state, self.due, self.interval = "ESTABLISHED", None, RETRANSMIT
            self.snd_una = self.snd_nxt = serial_add(self.iss, 1)
            self.listener.queue.append(self)
            if self.listener.on_accept is not None:
                self.listener.on_accept(self, now)
            self.receive_established(tcp, data, now)

    def receive_established(self, tcp: TcpHeader, data: bytes, now: float) -> None:
        ahead = serial_diff(tcp.seq, self.rcv_nxt)
        length = len(data) + bool(tcp.flags & FIN)
        if tcp.flags & RST:
            if ahead == 0:
                self.fail("ECONNRESET")
            elif 0 < ahead < WINDOW:
                self.emit(ACK, self.snd_nxt)
            return
        if ahead < 0 or ahead >= WINDOW or tcp.flags & SYN:
            self.emit(ACK, self.snd_nxt)
            if ahead + length <= 0 or ahead >= WINDOW or tcp.flags & SYN:
                return
        if data and self.closed and serial_lt(self.rcv_nxt, serial_add(tcp.seq, len(data))):
            self.abort()
            return
        if tcp.flags & ACK and serial_lt(self.snd_una, tcp.ack) and serial_diff(tcp.ack, self.iss) <= self.total + 2:
            self.snd_una = tcp.ack
            if serial_lt(self.snd_nxt, tcp.ack):
                self.snd_nxt = tcp.ack
            self.due, self.interval = None, RETRANSMIT
        if length:
            self.take(tcp, data)
            self.emit(ACK, self.snd_nxt)
        self.push(now)
        self.finish(now)

    def take(self, tcp: TcpHeader, data: bytes) -> None:
        if tcp.flags & FIN:
            self.early_fin = serial_add(tcp.seq, len(data))
        if data and not self.eof:
            self.early[tcp.seq] = max(self.early.get(tcp.seq, b""), data, key=len)
        progress = True
        while progress:
            progress = False
            for seq, piece in list(self.early.items()):
                skip = serial_diff(self.rcv_nxt, seq)
                if skip >= 0:
                    del self.early[seq]
                    if skip < len(piece):
                        self.received += piece[skip:]
                        self.rcv_nxt = serial_add(self.rcv_nxt, len(piece) - skip)
                    progress = True
        if self.early_fin == self.rcv_nxt and not self.eof:
            self.eof = True
            self.rcv_nxt = serial_add(self.rcv_nxt, 1)
            if self.kernel.on_eof is not None:
                self.kernel.on_eof(self)

    def finish(self, now: float) -> None:
        if self.eof and self.fin_wanted and self.snd_una == self.fin_end and self.state == "ESTABLISHED":
            self.state, self.due = "TIME_WAIT", None
            if self.kernel.on_destroy is not None:
                self.kernel.on_destroy(self)

    def fail(self, error: str) -> None:
        self.error = error
        self.vanish()

    def vanish(self) -> None:
        """Destroyed; of a request that was never accepted nobody is told, as in Linux."""
        told = self.state not in ("SYN_RCVD", "TIME_WAIT", "CLOSED")
        self.state, self.due = "CLOSED", None
        self.kernel.sockets.pop((self.local, self.peer), None)
        if told and self.kernel.on_destroy is not None:
            self.kernel.on_destroy(self)


@dataclass(eq=False, repr=False)
class Listener:
    """A listening socket; ``on_accept(socket, now)`` is called for each connection if it is set."""

    local: Endpoint
    backlog: int
    on_accept: Callable[[Socket, float], None] | None = None
    queue: list[Socket] = field(default_factory=list)
    closed: bool = False


class Kernel:
    """The TCP of one host. ``emit(packet, gso_size)`` gets what goes out through sal0."""

    def __init__(self, address: bytes, rng: random.Random, emit: Emit) -> None:
        self.address = address
        self.emit = emit
        self.sockets: dict[tuple[Endpoint, Endpoint], Socket] = {}
        self.listeners: dict[Endpoint, Listener] = {}
        self.udp = Udp(address, emit)
        self.icmp: list[tuple[int, int]] = []
        self.resets_sent = 0
        self.on_eof: Callable[[Socket], None] | None = None
        self.on_destroy: Callable[[Socket], None] | None = None
        self._rng = rng
        self._port = 40000

    def listen(self, port: int, *, backlog: int = 1000, address: bytes | None = None) -> Listener:
        listener = Listener((address or self.address, port), backlog)
        self.listeners[listener.local] = listener
        return listener

    def close_listener(self, listener: Listener) -> None:
        listener.closed = True
        del self.listeners[listener.local]
        for socket in [s for s in self.sockets.values() if s.listener is listener and s.state == "SYN_RCVD"]:
            socket.vanish()

    def connect(self, address: bytes, port: int, now: float, *, local_port: int | None = None) -> Socket:
        if local_port is None:
            self._port += 1
            local_port = self._port
        socket = Socket(self, (self.address, local_port), (address, port), "SYN_SENT", self._rng.getrandbits(32))
        self.sockets[socket.local, socket.peer] = socket
        socket.due, socket.interval = now + SYN_RETRANSMIT, SYN_RETRANSMIT
        socket.emit(SYN, socket.iss, options=SYN_OPTIONS)
        return socket

    def input(self, packet: bytes, now: float) -> None:
        header = Ipv4Header.decode(packet)
        segment = header.payload(packet)
        if header.protocol == PROTOCOL_ICMP:
            self._icmp(segment)
            return
        if header.protocol == PROTOCOL_UDP:
            self.udp.input(header, segment)
            return
        assert verify(segment, PROTOCOL_TCP, header.source, header.destination), "checksum towards the kernel"
        tcp = TcpHeader.decode(segment)
        data = segment[tcp.header_length :]
        local, peer = (header.destination, tcp.destination_port), (header.source, tcp.source_port)
        socket = self.sockets.get((local, peer))
        listener = self.listeners.get(local)
        if socket is not None and not (socket.state == "TIME_WAIT" and tcp.flags & SYN):
            socket.receive(tcp, data, now)
        elif tcp.flags & (SYN | ACK | RST) == SYN and listener is not None:
            self._accept(listener, local, peer, tcp, now)
        elif not tcp.flags & RST:
            self.refuse(local, peer, tcp, data)

    def _accept(self, listener: Listener, local: Endpoint, peer: Endpoint, tcp: TcpHeader, now: float) -> None:
        assert tcp.option(8) is None, "timestamps stay out of the SYN"
        socket = Socket(self, local, peer, "SYN_RCVD", self._rng.getrandbits(32), listener)
        socket.rcv_nxt = serial_add(tcp.seq, 1)
        socket.due, socket.interval = now + SYN_RETRANSMIT, SYN_RETRANSMIT
        self.sockets[local, peer] = socket
        socket.emit(SYN | ACK, socket.iss, options=SYN_OPTIONS)

    def refuse(self, local: Endpoint, peer: Endpoint, tcp: TcpHeader, data: bytes) -> None:
        self.resets_sent += 1
        if tcp.flags & ACK:
            segment = build_tcp(local[1], peer[1], tcp.ack, 0, RST)
        else:
            end = serial_add(tcp.seq, len(data) + bool(tcp.flags & SYN) + bool(tcp.flags & FIN))
            segment = build_tcp(local[1], peer[1], 0, end, RST | ACK)
        self.emit(build_ipv4(local[0], peer[0], PROTOCOL_TCP, segment), 0)

    def _icmp(self, message: bytes) -> None:
        self.icmp.append((message[0], message[1]))
        message += bytes(65535)  # the quote of a long packet is cut
        quoted = Ipv4Header.decode(message[8:])
        if quoted.protocol == PROTOCOL_UDP:
            self.udp.error(message[1], quoted, quoted.payload(message[8:]))
        if quoted.protocol != PROTOCOL_TCP:
            return
        tcp = TcpHeader.decode(quoted.payload(message[8:]))
        socket = self.sockets.get(((quoted.source, tcp.source_port), (quoted.destination, tcp.destination_port)))
        if socket is not None and socket.state == "SYN_SENT" and tcp.seq == socket.iss:
            socket.fail(ICMP_ERRORS[message[1]])

    def next_timer(self) -> float | None:
        return min((socket.due for socket in self.sockets.values() if socket.due is not None), default=None)

    def run_timers(self, now: float) -> None:
        for socket in list(self.sockets.values()):
            if socket.due is not None and socket.due <= now:
                socket.timer(now)
