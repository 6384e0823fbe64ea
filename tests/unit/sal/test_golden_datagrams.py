"""The original's conversations in datagrams, one end played by our stack, as `test_golden` does it for TCP.

UDP of our end has nothing to say in a handshake; what its program sent goes into sal0, and its close is the end of the
kernel's socket.
"""

from __future__ import annotations

import random
from dataclasses import replace

import pytest

from serval_node.sal.moves import Cause
from serval_node.sal.outputs import Deliver, Send
from serval_node.sal.service_table import Action, Rule, Target
from serval_node.sal.stack import Stack, StackConfig
from serval_node.wire.ipv4 import PROTOCOL_UDP, Address, Ipv4Header, build_ipv4
from serval_node.wire.sal_header import ControlFlag, encode
from serval_node.wire.serviceid import Prefix, ServiceID
from serval_node.wire.transport import UdpHeader, build_udp, to_kernel
from tests.unit.sal.test_golden import (
    LISTEN_PORT,
    PORT,
    SAL0,
    VIRTUAL,
    Captured,
    End,
    captured,
)

_FIN, _RSYN = ControlFlag.FIN, ControlFlag.RSYN


class DatagramEnd(End):
    """Our stack as the client or the server."""

    protocol = PROTOCOL_UDP

    def __init__(self, packets: list[Captured], client: bool) -> None:
        super().__init__(packets, client)
        self.addresses = {found.ip.source for found in packets if self.is_own(found)}

    def is_own(self, found: Captured) -> bool:
        """By its flowID: the mover has two addresses."""
        return found.packet.src_flow == (self.syn if self.client else self.answer).packet.src_flow

    def is_local(self, address: Address) -> bool:
        return address in getattr(self, "addresses", {self.own})

    def close(self, now: float) -> list[bytes]:
        (flow,) = self.stack.flows
        self.stack.kernel_socket_gone(*flow.kernel_key, now, PROTOCOL_UDP)
        return self._outputs()

    def move(self, address: Address, now: float) -> list[bytes]:
        (flow,) = self.stack.flows
        self.stack.migrate(flow.local_flow, address, now, Cause("by hand", False, now, now))
        return self._outputs()


@pytest.mark.statement("S8")
@pytest.mark.parametrize("client", [True, False])
@pytest.mark.parametrize("name", ["udp-connected", "mig-udp"])
def test_our_end_says_what_the_original_said(name: str, client: bool) -> None:
    """Handshake, datagrams, in one of them a move, and the close: the captured packets and no others, in order."""
    packets = captured(name, PROTOCOL_UDP)
    end = DatagramEnd(packets, client)
    expected = []
    for position, found in enumerate(packets):
        if not end.is_own(found):
            end.network(found, found.time)
            continue
        expected.append(found.data)
        control = found.packet.control
        if client and position == 0:
            # The program's first datagram, captured later, asks for the SYN and waits.
            first = next(item for item in packets[1:] if end.is_own(item) and not item.packet.extensions)
            end.kernel(first.packet.payload, found.time)
            held = first
        elif control is None and not (client and found is held):
            end.kernel(found.packet.payload, found.time)
        elif control is not None and control.flags == _RSYN:
            end.move(found.ip.source, found.time)
        elif control is not None and control.flags == _FIN and not client:
            end.close(found.time)
    assert end.sent == expected
    assert end.stack.counters == {}
    (theirs,) = {
        tuple(item.packet.payload[8:] for item in packets if not item.packet.extensions and not end.is_own(item))
    }
    assert tuple(segment[8:] for segment in end.delivered) == theirs


class Fixed(random.Random):
    """Draws one number only."""

    def __init__(self, number: int) -> None:
        super().__init__(0)
        self._number = number

    def getrandbits(self, k: int, /) -> int:
        return self._number


class Bare:
    """A host with one address and one service."""

    def __init__(self, own: Address, service_id: ServiceID) -> None:
        self.own, self.service_id = own, service_id

    def source_address(self, destination: Address) -> Address | None:
        return self.own

    def is_local(self, address: Address) -> bool:
        return address == self.own

    def service_for(self, address: Address, port: int) -> ServiceID | None:
        return self.service_id if address == VIRTUAL else None

    def link_mtu(self, address: Address) -> int:
        return 1500


@pytest.mark.statement("S8")
def test_our_sender_of_unconnected_datagrams_says_what_the_original_said() -> None:
    (found,) = captured("udp-unconnected", PROTOCOL_UDP)
    destination, source = found.packet.services
    rng = Fixed(found.packet.src_flow)
    stack = Stack(config=StackConfig(), environment=Bare(found.ip.source, destination), rng=rng)
    target = Target(Action.FORWARD, address=found.ip.destination)
    stack.service_table.set_rule(Rule(Prefix.of(destination), (target,)), "hand")
    stack.open_datagram_socket(PORT, source)
    data = found.packet.payload[8:]
    packet = to_kernel(build_udp(0, 0, data), PROTOCOL_UDP, SAL0, VIRTUAL, PORT, 1)
    stack.kernel_packet(build_ipv4(SAL0, VIRTUAL, PROTOCOL_UDP, packet), 0, 1.0)
    (output,) = stack.take_outputs()
    assert isinstance(output, Send) and output.data == found.data
    assert (output.source, output.destination) == (found.ip.source, found.ip.destination)


@pytest.mark.statement("S8")
def test_our_receiver_delivers_it_and_knows_its_sender() -> None:
    (found,) = captured("udp-unconnected", PROTOCOL_UDP)
    destination, source = found.packet.services
    stack = Stack(config=StackConfig(), environment=Bare(found.ip.destination, destination), rng=random.Random(1))
    target = Target(Action.DEMUX, port=LISTEN_PORT, protocol=PROTOCOL_UDP)
    stack.service_table.set_rule(Rule(Prefix.of(destination), (target,)), "hand")
    stack.network_packet(found.whole, 1.0)
    (output,) = stack.take_outputs()
    assert isinstance(output, Deliver)
    header = Ipv4Header.decode(output.packet)
    segment = header.payload(output.packet)
    udp = UdpHeader.decode(segment)
    assert segment[8:] == found.packet.payload[8:] and udp.destination_port == LISTEN_PORT
    sender = stack.correspondent((header.source, udp.source_port), LISTEN_PORT)
    assert sender is not None and (sender.service_id, sender.address) == (source, found.ip.source)
    # One SERVICE extension is not enough, as in the original.
    lone = replace(found.packet, extensions=found.packet.extensions[:1])
    whole = build_ipv4(found.ip.source, found.ip.destination, 144, encode(lone))
    stack.network_packet(whole, 1.0)
    assert not stack.take_outputs() and stack.counters == {"no_service": 1}
