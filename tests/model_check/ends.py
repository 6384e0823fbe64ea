"""Two real stacks with one established flow between them, whose state can be kept and put back cheaply."""

from __future__ import annotations

import copy
import random
from dataclasses import dataclass
from typing import Any

from serval_node.sal.context import Progress, StackConfig
from serval_node.sal.flow_table import Flow
from serval_node.sal.moves import Cause, MigrationRefused
from serval_node.sal.outputs import Deliver, Send
from serval_node.sal.service_table import Action, Target
from serval_node.sal.stack import Stack
from serval_node.wire.ipv4 import PROTOCOL_SERVAL, PROTOCOL_TCP, Address, Ipv4Header, address, build_ipv4
from serval_node.wire.sal_header import decode
from serval_node.wire.serviceid import Prefix, ServiceID
from serval_node.wire.transport import ACK, SYN, TcpHeader, build_tcp, to_kernel

SERVICE = ServiceID(bytes(range(32)))
SAL0, VIRTUAL = address("198.18.0.1"), address("198.18.7.7")
PORT, LISTEN = 40000, 80
PLACES = {"a": tuple(map(address, ("10.0.1.1", "10.0.1.2"))), "b": tuple(map(address, ("10.0.2.1", "10.0.2.2")))}


@dataclass(frozen=True)
class Packet:
    """A packet on its way: who sent it, its addresses, and the SAL part."""

    sender: str
    source: Address
    destination: Address
    data: bytes


class End:
    """One host: its stack, its flow, and the environment that the stack asks."""

    def __init__(self, name: str, config: StackConfig) -> None:
        self.name = name
        self.places = PLACES[name]
        self.stack = Stack(config=config, environment=self, rng=random.Random(name))
        self.flow: Flow | None = None
        self._context: Any = self.stack._context  # its timers are part of what is kept

    # -- the stack's environment

    def source_address(self, destination: Address) -> Address | None:
        return self.places[0]

    def link_mtu(self, address: Address) -> int:
        return 1500

    def is_local(self, address: Address) -> bool:
        return address in self.places

    def service_for(self, address: Address, port: int) -> ServiceID | None:
        return SERVICE if address == VIRTUAL else None

    def progress(self, local_flow: int) -> Progress | None:
        return None

    # -- what happens to it

    def receive(self, packet: Packet, now: float) -> None:
        raw = build_ipv4(packet.source, packet.destination, PROTOCOL_SERVAL, packet.data)
        self.stack.network_packet(memoryview(raw), now)

    def kernel(self, segment: bytes, peer: tuple[Address, int], port: int, now: float) -> None:
        whole = to_kernel(segment, PROTOCOL_TCP, SAL0, peer[0], port, peer[1])
        self.stack.kernel_packet(memoryview(build_ipv4(SAL0, peer[0], PROTOCOL_TCP, whole)), 0, now)

    def move(self, place: int, now: float, *, lost: bool) -> bool:
        """Start a move; False where it is refused (there already)."""
        assert self.flow is not None
        try:
            self.stack.migrate(self.flow.local_flow, self.places[place], now, Cause("model", lost, now, now))
        except MigrationRefused:
            return False
        return True

    def sent(self) -> list[Packet]:
        """The packets since the last call."""
        self.stack.take_events()
        return [
            Packet(self.name, output.source, output.destination, output.data)
            for output in self.stack.take_outputs()
            if isinstance(output, Send)
        ]

    def delivered(self) -> list[TcpHeader]:
        return [
            TcpHeader.decode(Ipv4Header.decode(output.packet).payload(output.packet))
            for output in self.stack.take_outputs()
            if isinstance(output, Deliver)
        ]

    # -- keeping and putting back

    def keep(self) -> Any:
        flow = self.flow
        assert flow is not None
        values = {name: getattr(flow, name) for name in flow.__slots__}
        values["control"] = copy.copy(flow.control)
        values["control"].pending = copy.copy(flow.control.pending)
        record = values["migration"] = copy.copy(flow.migration)
        if record is not None:
            record.move, record.peer_move = copy.copy(record.move), copy.copy(record.peer_move)
        return values, list(self._context._timers)

    def put_back(self, kept: Any) -> None:
        values, timers = kept
        flow = self.flow
        assert flow is not None
        for name, value in values.items():
            setattr(flow, name, value)
        # What was kept must survive what follows, so the flow gets copies.
        flow.control = copy.copy(values["control"])
        flow.control.pending = copy.copy(values["control"].pending)
        record = flow.migration = copy.copy(values["migration"])
        if record is not None:
            record.move, record.peer_move = copy.copy(record.move), copy.copy(record.peer_move)
        self._context._timers[:] = timers
        self._context.outputs.clear()
        self._context.events.clear()


def established(config: StackConfig) -> dict[str, End]:
    """Client a and server b after a real handshake, both confirmed."""
    a, b = End("a", config), End("b", config)
    a.stack.service_table.add_target(Prefix.of(SERVICE), Target(Action.FORWARD, address=b.places[0]), "hand")
    b.stack.service_table.add_target(
        Prefix.of(SERVICE), Target(Action.DEMUX, port=LISTEN, protocol=PROTOCOL_TCP), "local"
    )
    peer = VIRTUAL, LISTEN
    a.kernel(build_tcp(0, 0, 100, 0, SYN), peer, PORT, 0.0)
    (syn,) = a.sent()
    b.receive(syn, 0.0)
    (b.flow,) = b.stack.flows
    b.kernel(build_tcp(0, 0, 500, 101, SYN | ACK), b.flow.kernel_peer, LISTEN, 0.0)
    (syn_ack,) = b.sent()
    a.receive(syn_ack, 0.0)
    (a.flow,) = a.stack.flows
    a.kernel(build_tcp(0, 0, 101, 501, ACK), peer, PORT, 0.0)
    (third_ack,) = a.sent()
    b.receive(third_ack, 0.0)
    b.kernel(build_tcp(0, 0, 501, 101, ACK), b.flow.kernel_peer, LISTEN, 0.0)
    for packet in b.sent():
        a.receive(packet, 0.0)
    assert not a.flow.unconfirmed
    # The name's instance is known under both of its addresses: for a client that looks for its peer.
    a.stack.service_table.add_target(Prefix.of(SERVICE), Target(Action.FORWARD, address=b.places[1]), "hand")
    for end in (a, b):
        end.sent()
        end.stack.handle_timer(1000.0)  # what the opening left behind
        end.sent()
    assert decode(syn.data).services == (SERVICE,)
    return {"a": a, "b": b}
