"""Hosts joined in memory under a virtual clock: real stacks, small fake kernels, a data path that does what it is told,
and a network that loses, duplicates and delays packets as a seed decides.
"""

from __future__ import annotations

import heapq
import itertools
import random
from collections.abc import Callable
from dataclasses import dataclass, field

from serval_node.io.tun import GSO_TCPV4, VNET_HEADER, VNET_HEADER_LENGTH
from serval_node.io.unacknowledged import Memory, Unacknowledged
from serval_node.sal.context import Progress
from serval_node.sal.events import Event
from serval_node.sal.flow_table import ForwardingState
from serval_node.sal.moves import Cause
from serval_node.sal.outputs import Deliver, DoubtSent, InstallPath, Output, RemovePath, Send, SendAgain
from serval_node.sal.service_table import Action, Target
from serval_node.sal.stack import Stack, StackConfig
from serval_node.wire.encapsulation import encapsulate, open_packet
from serval_node.wire.ipv4 import PROTOCOL_SERVAL, PROTOCOL_TCP, PROTOCOL_UDP, Ipv4Header, UdpPorts, address, build_ipv4
from serval_node.wire.naming import SERVICE_PORT_ANY, Naming
from serval_node.wire.sal_header import SalPacket, bare_header, decode
from serval_node.wire.serial import serial_add, serial_lt
from serval_node.wire.serviceid import Prefix, ServiceID
from serval_node.wire.transport import FIN, RST, SYN, TcpHeader, split, to_kernel, to_wire, verify
from tests.unit.sal.fake_tcp import Kernel, Listener, Socket
from tests.unit.sal.fake_udp import UdpSocket

SAL0 = address("198.18.0.1")
LOOPBACK = address("127.0.0.1")
WEB = "web.example"
NAMES = {WEB: address("198.18.10.1"), "bulk.example": address("198.18.10.2"), "web.other": address("198.18.10.3")}
NAMING = Naming({"example": 0x9C1185, "other": 0x9C1186})
WEB_ID = NAMING.service_id(WEB)
WEB_BIND = NAMING.bind_prefix(WEB)
DELAY = 0.010

# Says whether a packet of `host` to the network is lost: (host, send, packet).
Loss = Callable[["Host", Send, SalPacket], bool]


def forward(*names: str, **fields: object) -> tuple[Target, ...]:
    """FORWARD targets to these addresses."""
    return tuple(Target(Action.FORWARD, address=address(name), **fields) for name in names)  # type: ignore[arg-type]


@dataclass
class Names:
    """The environment of one host."""

    own: bytes
    routes: Callable[[bytes], bool]
    exact: dict[bytes, ServiceID] = field(default_factory=dict)
    others: set[bytes] = field(default_factory=set)
    mtu: int = 1500
    mtus: dict[bytes, int] = field(default_factory=dict)
    copies: dict[int, Copies] = field(default_factory=dict)

    def source_address(self, destination: bytes) -> bytes | None:
        if destination == LOOPBACK:
            return LOOPBACK
        return self.own if self.routes(destination) else None

    def is_local(self, address: bytes) -> bool:
        return address in (self.own, LOOPBACK) or address in self.others

    def service_for(self, address: bytes, port: int) -> ServiceID | None:
        if address in self.exact:
            return self.exact[address]
        for name, known in NAMES.items():
            if known == address:
                return NAMING.service_id(name, 0 if port == SERVICE_PORT_ANY else port)
        return None

    def link_mtu(self, address: bytes) -> int:
        return self.mtus.get(address, self.mtu)

    def progress(self, local_flow: int) -> Progress | None:
        copies = self.copies.get(local_flow)
        return None if copies is None else copies.progress()


@dataclass
class Copies:
    """What the data path keeps of one flow: TCP numbers, and copies of what it sent."""

    kept: Unacknowledged
    sent_next: int | None = None
    peer_ack: int | None = None
    own_ack: int | None = None
    doubted: int | None = None

    def progress(self) -> Progress:
        return Progress(self.sent_next, self.peer_ack, self.own_ack, 500)

    def note_sent(self, packet: bytes, tcp: TcpHeader, payload: int, gso: int) -> None:
        end = serial_add(tcp.seq, payload)
        self.own_ack = tcp.ack
        if payload:
            self.kept.keep(end, memoryview(VNET_HEADER.pack(1, GSO_TCPV4 if gso else 0, 40, gso, 20, 16) + packet))
        if self.sent_next is None or serial_lt(self.sent_next, end):
            self.sent_next = end

    def note_received(self, ack: int) -> None:
        if self.peer_ack is None or serial_lt(self.peer_ack, ack):
            self.peer_ack = ack
            self.kept.trim(ack)

    def again(self, output: SendAgain) -> list[tuple[bytes, int]]:
        """What is to be sent again: packets as from sal0, and their segment sizes."""
        if self.doubted is None or self.own_ack is None:
            return []
        if output.acknowledged is not None:
            self.kept.trim(output.acknowledged)
        packets = self.kept.lacking(self.doubted, output.had, self.own_ack, 500)
        self.doubted = None
        return [(packet[VNET_HEADER_LENGTH:], VNET_HEADER.unpack_from(packet)[3]) for packet in packets]


class Host:
    """A stack, its kernel and its data path."""

    def __init__(self, world: World, name: str, own: str, seed: int, config: StackConfig) -> None:
        self.world = world
        self.name = name
        self.address = address(own)
        self.environment = Names(self.address, lambda destination: destination not in world.unreachable)
        self.stack = Stack(config=config, environment=self.environment, rng=random.Random(seed))
        self.kernel = Kernel(SAL0, random.Random(seed + 1), self.from_kernel)
        self.kernel.on_destroy = lambda socket: self.stack.kernel_socket_gone(socket.local, socket.peer, self.now)
        self.paths: dict[int, ForwardingState] = {}
        self.fast_packets = 0
        self.sent_again: list[tuple[int, int]] = []
        self.memory = Memory()
        self.events: list[Event] = []
        self._kernel_queue: list[tuple[bytes, int]] = []

    @property
    def now(self) -> float:
        return self.world.now

    # -- programs

    def connect(self, name: str = WEB, port: int = SERVICE_PORT_ANY, *, local_port: int | None = None) -> Socket:
        socket = self.kernel.connect(NAMES[name], port, self.now, local_port=local_port)
        self.settle()
        return socket

    def serve(
        self, prefix: Prefix = WEB_BIND, port: int = 80, *, backlog: int = 1000, at: bytes | None = None
    ) -> Listener:
        """A listening socket with its DEMUX rule."""
        listener = self.kernel.listen(port, backlog=backlog, address=at)
        target = Target(Action.DEMUX, port=port, protocol=PROTOCOL_TCP, listen_address=at, priority=32000)
        self.stack.service_table.add_target(prefix, target, "local")
        return listener

    def serve_datagrams(
        self, prefix: Prefix = WEB_BIND, port: int = 53, *, answer: Callable[[bytes], bytes] | None = None
    ) -> UdpSocket:
        """A UDP socket with its DEMUX rule."""
        target = Target(Action.DEMUX, port=port, protocol=PROTOCOL_UDP, priority=32000)
        self.stack.service_table.add_target(prefix, target, "local")
        return self.kernel.udp.socket(port, answer=answer)

    def sendto(self, socket: UdpSocket, data: bytes, name: str = WEB, port: int = SERVICE_PORT_ANY) -> None:
        socket.sendto(data, (NAMES[name], port))
        self.settle()

    def close_udp(self, socket: UdpSocket) -> None:
        """The program closes it: the daemon tells of each flow that no other socket stands behind."""
        socket.close()
        for flow in [flow for flow in self.stack.flows if flow.protocol == PROTOCOL_UDP]:
            if flow.kernel_local == socket.local:
                self.stack.kernel_socket_gone(*flow.kernel_key, self.now, PROTOCOL_UDP)
        self.stack.datagram_socket_gone(socket.local[1])
        self.settle()

    def unserve(self, listener: Listener, prefix: Prefix = WEB_BIND) -> None:
        entry = self.stack.service_table.get(prefix)
        assert entry is not None
        target = next(target for target in entry.targets() if target.port == listener.local[1])
        self.stack.service_table.remove_target(prefix, target, "local")
        self.kernel.close_listener(listener)

    def send(self, socket: Socket, data: bytes) -> None:
        socket.send(data, self.now)
        self.settle()

    def shutdown(self, socket: Socket) -> None:
        socket.shutdown(self.now)
        self.settle()

    def close(self, socket: Socket) -> None:
        socket.close(self.now)
        self.settle()

    def abort(self, socket: Socket) -> None:
        socket.abort()
        self.settle()

    # -- moving packets

    def from_kernel(self, packet: bytes, gso: int) -> None:
        self._kernel_queue.append((packet, gso))

    def from_network(self, packet: bytes) -> None:
        if not self._fast_receive(packet):
            self.stack.network_packet(memoryview(packet), self.now)
        self.settle()

    def settle(self) -> None:
        """Carry out everything, as the daemon's loop does after each batch."""
        while self._kernel_queue or self._pump():
            queue, self._kernel_queue = self._kernel_queue, []
            for packet, gso in queue:
                if not self._fast_send(packet, gso):
                    self.stack.kernel_packet(memoryview(packet), gso, self.now)
            self._pump()

    def add_address(self, text: str) -> bytes:
        """Another address of this host, reachable from everywhere until the world cuts it off."""
        added = address(text)
        self.environment.others.add(added)
        self.world.hosts[added] = self
        return added

    def migrate(self, flow_id: int, to: bytes, *, lost: bool = False, cause: str = "by hand") -> None:
        self.stack.migrate(flow_id, to, self.now, Cause(cause, lost, self.now, self.now))
        self.settle()

    def _pump(self) -> bool:
        outputs = self.stack.take_outputs()
        for output in outputs:
            self._carry_out(output)
        self.events += self.stack.take_events()
        return bool(outputs)

    def _carry_out(self, output: Output) -> None:
        if isinstance(output, Send):
            self.world.transmit(self, output)
        elif isinstance(output, Deliver):
            self.world.delivered += 1
            if not self.world.loses_delivery(self):
                self.kernel.input(output.packet, self.now)
        elif isinstance(output, InstallPath):
            before = self.paths.get(output.state.local_flow)
            assert before != output.state, "installed twice"
            self.paths[output.state.local_flow] = output.state
            self.environment.copies.setdefault(output.state.local_flow, Copies(Unacknowledged(self.memory)))
        elif isinstance(output, RemovePath):
            del self.paths[output.local_flow]
            self.environment.copies.pop(output.local_flow).kept.clear()
        elif isinstance(output, DoubtSent):
            copies = self.environment.copies[output.local_flow]
            copies.doubted = copies.sent_next
        elif isinstance(output, SendAgain):
            for packet, gso in self.environment.copies[output.local_flow].again(output):
                first = TcpHeader.decode(packet[20:]).seq
                self.sent_again.append((first, serial_add(first, len(packet) - 40)))
                assert self._fast_send(packet, gso)

    # -- the data path

    def _fast_send(self, packet: bytes, gso: int) -> bool:
        if packet[0] >> 4 != 4 or packet[9] != PROTOCOL_TCP:
            return False
        header = Ipv4Header.decode(packet)
        segment = header.payload(packet)
        tcp = TcpHeader.decode(segment)
        if tcp.flags & (SYN | FIN | RST):
            return False
        local, peer = (header.source, tcp.source_port), (header.destination, tcp.destination_port)
        for state in self.paths.values():
            if (state.kernel_local, state.kernel_peer) == (local, peer):
                payload = len(segment) - tcp.header_length
                self.environment.copies[state.local_flow].note_sent(packet, tcp, payload, gso)
                most = gso or len(segment)
                if state.segment_limit is not None:
                    most = min(most, state.segment_limit - tcp.header_length)
                for piece in split(segment, most):
                    wire = to_wire(piece, PROTOCOL_TCP, state.local_address, state.peer_address)
                    data = bare_header(state.local_flow, state.peer_flow, PROTOCOL_TCP) + wire
                    self.fast_packets += 1
                    self.world.transmit(
                        self, Send(state.local_address, state.peer_address, 64, data, ports=state.ports)
                    )
                return True
        return False

    def _fast_receive(self, packet: bytes) -> bool:
        header, data = open_packet(packet)
        for state in self.paths.values():
            if (header.source, header.destination) != (state.peer_address, state.local_address):
                continue
            if data[:12] != bare_header(state.peer_flow, state.local_flow, PROTOCOL_TCP):
                continue
            if len(data) < 12 + 20 or data[12 + 13] & (SYN | FIN | RST):
                return False
            if header.ports is None and not verify(data[12:], PROTOCOL_TCP, header.source, header.destination):
                return False
            (local, local_port), (peer, peer_port) = state.kernel_local, state.kernel_peer
            segment = to_kernel(data[12:], PROTOCOL_TCP, peer, local, peer_port, local_port)
            self.fast_packets += 1
            self.environment.copies[state.local_flow].note_received(TcpHeader.decode(data[12:]).ack)
            self.kernel.input(build_ipv4(peer, local, PROTOCOL_TCP, segment), self.now)
            self.stack.note_peer_activity(state.local_flow, self.now)
            return True
        return False

    # -- what a test asks

    def happened(self, kind: type) -> list[Event]:
        return [event for event in self.events if isinstance(event, kind)]

    def count(self, reason: object) -> int:
        return self.stack.counters.get(str(reason), 0)


@dataclass(frozen=True)
class Seen:
    """A packet as it was handed to the network."""

    time: float
    host: str
    source: bytes
    destination: bytes
    ttl: int
    packet: SalPacket
    raw: bytes
    ports: UdpPorts | None = None


class World:
    """The clock and the network."""

    def __init__(self, seed: int = 1) -> None:
        self.rng = random.Random(seed)
        self.now = 1000.0
        self.delay = DELAY
        self.loss = 0.0
        self.duplication = 0.0
        self.jitter = 0.0
        self.delivery_loss = 0.0
        self.delivered = 0
        self.lose: Loss | None = None
        self.middlebox: Callable[[Send], Send | None] | None = None
        self.unreachable: set[bytes] = set()
        self.cut: set[bytes] = set()
        self.hosts: dict[bytes, Host] = {}
        self.links: dict[bytes, list[Host]] = {}
        self.seen: list[Seen] = []
        self.keep_seen = True
        self._seed = seed
        self._events: list[tuple[float, int, Host, bytes]] = []
        self._order = itertools.count()
        self._calls: list[tuple[float, int, Callable[[], None]]] = []

    def host(self, name: str, own: str, **config: object) -> Host:
        self._seed += 1000
        host = Host(self, name, own, self._seed, StackConfig(**config))  # type: ignore[arg-type]
        self.hosts[host.address] = host
        return host

    def link(self, broadcast: str, *members: Host) -> None:
        """A link on which what is sent to this address reaches every member but its sender."""
        self.links[address(broadcast)] = list(members)

    def loses_delivery(self, host: Host) -> bool:
        return self.delivery_loss > 0 and self.rng.random() < self.delivery_loss

    def at(self, when: float, call: Callable[[], None]) -> None:
        heapq.heappush(self._calls, (when, next(self._order), call))

    def transmit(self, host: Host, send: Send) -> None:
        packet = decode(send.data)
        assert not packet.payload or verify(packet.payload, packet.protocol, send.source, send.destination)
        if self.keep_seen:
            self.seen.append(
                Seen(self.now, host.name, send.source, send.destination, send.ttl, packet, send.data, send.ports)
            )
        if self.lose is not None and self.lose(host, send, packet):
            return
        if self.cut & {send.source, send.destination}:
            return
        if self.middlebox is not None:
            passed = self.middlebox(send)
            if passed is None:
                return
            send = passed
        copies = 2 if self.rng.random() < self.duplication else 1
        for _ in range(copies):
            if self.rng.random() < self.loss:
                continue
            self.inject(send, self.delay + self.rng.random() * self.jitter, sender=host)

    def inject(self, send: Send, delay: float = 0.0, *, sender: Host | None = None) -> None:
        """Let a packet arrive after ``delay``, wherever it came from."""
        if send.destination in self.links:
            receivers = [member for member in self.links[send.destination] if member is not sender]
        else:
            receiver = sender if send.destination == LOOPBACK else self.hosts.get(send.destination)
            receivers = [] if receiver is None else [receiver]
        if send.ports is None:
            raw = build_ipv4(send.source, send.destination, PROTOCOL_SERVAL, send.data, ttl=send.ttl)
        else:
            raw = encapsulate(send.source, send.destination, send.ports, send.data, ttl=send.ttl)
        for receiver in receivers:
            heapq.heappush(self._events, (self.now + delay, next(self._order), receiver, raw))

    def _each_host(self) -> list[Host]:
        return list(dict.fromkeys(self.hosts.values()))

    def _next(self) -> float | None:
        times = [queue[0][0] for queue in (self._events, self._calls) if queue]
        for host in self._each_host():
            times += [t for t in (host.stack.next_timer(), host.kernel.next_timer()) if t is not None]
        return min(times, default=None)

    def run(self, seconds: float = 5.0, *, until: Callable[[], bool] | None = None) -> None:
        """Let time pass; with ``until``, no longer than needed, and failing when it does not come true."""
        end = self.now + seconds
        while until is None or not until():
            when = self._next()
            if when is None or when > end:
                self.now = end
                assert until is None or until(), f"not after {seconds} s of virtual time"
                return
            self.now = max(self.now, when)
            while self._events and self._events[0][0] <= self.now:
                _, _, host, raw = heapq.heappop(self._events)
                if not self.cut & {raw[12:16], raw[16:20]}:
                    host.from_network(raw)
            while self._calls and self._calls[0][0] <= self.now:
                heapq.heappop(self._calls)[2]()
            for host in self._each_host():
                timer = host.stack.next_timer()
                if timer is not None and timer <= self.now:
                    host.stack.handle_timer(self.now)
                host.kernel.run_timers(self.now)
                host.settle()

    # -- what a test asks

    def controls(self, flags: int, host: str | None = None) -> list[Seen]:
        """The packets seen with exactly these CONTROL flags."""
        return [
            seen
            for seen in self.seen
            if (control := seen.packet.control) is not None and control.flags == flags and host in (None, seen.host)
        ]
