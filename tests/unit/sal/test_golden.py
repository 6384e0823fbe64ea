"""The original's conversations, one end played by our stack: with the captured end's flowID, number and nonce, every
packet that we send is the captured one, byte for byte but for the mark in SYN and SYN-ACK.

The kernel of our end is played from the capture too: what the captured transport sent goes into sal0.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from serval_node.capture.pcap import read_ipv4
from serval_node.sal.adhoc import AdHoc
from serval_node.sal.context import Progress
from serval_node.sal.outputs import Deliver, Send
from serval_node.sal.service_table import Action, Rule, Target
from serval_node.sal.stack import Stack, StackConfig
from serval_node.sal.states import State
from serval_node.wire.ipv4 import PROTOCOL_SERVAL, PROTOCOL_TCP, Address, Ipv4Header, address, build_ipv4
from serval_node.wire.sal_header import MARK, Control, ControlFlag, SalPacket, decode, encode
from serval_node.wire.serviceid import Prefix, ServiceID
from serval_node.wire.transport import ACK, RST, SYN, TcpHeader, build_tcp, to_kernel

GOLDEN = Path(__file__).parents[2] / "golden"
SAL0 = StackConfig().sal0_address
VIRTUAL, PORT, LISTEN_PORT = bytes((198, 18, 3, 3)), 40001, 80
_SYN, _ACK, _RST, _FIN = ControlFlag.SYN, ControlFlag.ACK, ControlFlag.RST, ControlFlag.FIN


@dataclass(frozen=True)
class Captured:
    """A captured packet of TCP or UDP over SAL."""

    time: float
    ip: Ipv4Header
    packet: SalPacket
    whole: bytes

    @property
    def data(self) -> bytes:
        return self.ip.payload(self.whole)


def captured(name: str, protocol: int = PROTOCOL_TCP) -> list[Captured]:
    return list(_captured(name, protocol))


def _captured(name: str, protocol: int) -> Iterator[Captured]:
    for frame in read_ipv4(GOLDEN / f"{name}.pcap"):
        header = Ipv4Header.decode(frame.data)
        if header.protocol == PROTOCOL_SERVAL:
            packet = decode(header.payload(frame.data))
            if packet.protocol == protocol:
                yield Captured(frame.time, header, packet, frame.data)


def control_of(packet: SalPacket) -> Control:
    assert packet.control is not None
    return packet.control


def unmarked(data: bytes) -> bytes:
    """The packet without our mark, which must be there in SYN and SYN-ACK and nowhere else."""
    packet = decode(data)
    control = packet.control
    if control is None:
        return data
    assert control.mark == (MARK if control.flags & _SYN else 0)
    extensions = (replace(control, mark=0), *packet.extensions[1:])
    return encode(replace(packet, extensions=extensions))


class Scripted(random.Random):
    """Gives out a captured end's flowID, then its nonce and first number, as a flow draws them."""

    def __init__(self, packet: SalPacket) -> None:
        super().__init__(0)
        control = control_of(packet)
        self._left = [(32, packet.src_flow), (96, int.from_bytes(control.nonce, "big") << 32 | control.verno)]

    def getrandbits(self, k: int, /) -> int:
        bits, value = self._left.pop(0)
        assert bits == k
        return value


class End:
    """Our stack as the client or the server of a captured conversation."""

    protocol = PROTOCOL_TCP

    def __init__(self, packets: list[Captured], client: bool) -> None:
        self.syn = next(found for found in packets if control_of(found.packet).flags == _SYN)
        self.answer = next(found for found in packets if control_of(found.packet).flags == _SYN | _ACK)
        own = self.syn if client else self.answer
        self.own: Address = own.ip.source
        self.client = client
        self.service_id: ServiceID = self.syn.packet.services[0]
        self.stack = Stack(config=StackConfig(), environment=self, rng=Scripted(own.packet))
        target = Target(Action.DEMUX, port=LISTEN_PORT, protocol=self.protocol)
        if client:
            target = Target(Action.FORWARD, address=self.syn.ip.destination)
        self.stack.service_table.set_rule(Rule(Prefix.of(self.service_id), (target,)), "hand")
        self.kernel_peer = (VIRTUAL, LISTEN_PORT) if client else (b"", 0)
        self.delivered: list[bytes] = []
        self.sent: list[bytes] = []

    def source_address(self, destination: Address) -> Address | None:
        return self.own

    def link_mtu(self, address: Address) -> int:
        return 1500

    def is_local(self, address: Address) -> bool:
        return address == self.own

    def service_for(self, address: Address, port: int) -> ServiceID | None:
        return self.service_id if (address, port) == (VIRTUAL, LISTEN_PORT) else None

    def progress(self, local_flow: int) -> Progress | None:
        return None

    def kernel(self, segment: bytes, now: float) -> list[bytes]:
        port = PORT if self.client else LISTEN_PORT
        peer, peer_port = self.kernel_peer
        packet = to_kernel(segment, self.protocol, SAL0, peer, port, peer_port)
        self.stack.kernel_packet(build_ipv4(SAL0, peer, self.protocol, packet), 0, now)
        return self._outputs()

    def network(self, found: Captured, now: float) -> list[bytes]:
        self.stack.network_packet(found.whole, now)
        return self._outputs()

    def _outputs(self) -> list[bytes]:
        sent = []
        for output in self.stack.take_outputs():
            if isinstance(output, Send):
                sent.append(unmarked(output.data))
            elif isinstance(output, Deliver):
                header = Ipv4Header.decode(output.packet)
                self.kernel_peer = header.source, int.from_bytes(header.payload(output.packet)[:2], "big")
                self.delivered.append(header.payload(output.packet))
        self.sent += sent
        return sent


@pytest.mark.parametrize(
    ("name", "client"),
    [
        *((name, client) for name in ("tcp-basic", "tcp-echo", "delay") for client in (True, False)),
        # Each of these saw one end's side of a service router.
        ("sr-client", True),
        ("sr-server", False),
        ("sr2-server", False),
    ],
)
def test_our_end_says_what_the_original_said(name: str, client: bool) -> None:
    """Open, data, close: the captured packets and no others, none of the peer's refused."""
    packets = captured(name)
    end = End(packets, client)
    expected = []
    for found in packets:
        if found.ip.source == end.own:
            expected.append(found.data)
            if found.packet.payload:
                assert found.data in end.kernel(found.packet.payload, found.time)
            else:
                assert found.data in end.sent
        else:
            end.network(found, found.time)
    assert sorted(end.sent) == sorted(expected)
    assert end.stack.counters == {}
    states = [flow.state for flow in end.stack.flows]
    first_fin = next(found for found in packets if found.packet.control and found.packet.control.flags == _FIN)
    assert states == ([State.TIMEWAIT] if first_fin.ip.source == end.own else [])


@pytest.mark.parametrize("name", ["tcp-basic", "sr-server"])
def test_the_peers_bytes_reach_the_kernel_unchanged(name: str) -> None:
    packets = captured(name)
    end = End(packets, client=name == "tcp-basic")
    for found in packets:
        if found.ip.source == end.own:
            if found.packet.payload:
                end.kernel(found.packet.payload, found.time)
        else:
            end.network(found, found.time)
    theirs = [found.packet.payload for found in packets if found.ip.source != end.own and found.packet.payload]

    def essence(segment: bytes) -> tuple[int, int, int, bytes]:
        tcp = TcpHeader.decode(segment)
        return tcp.seq, tcp.ack, tcp.flags, segment[tcp.header_length :]

    assert [essence(segment) for segment in end.delivered] == [essence(segment) for segment in theirs]


@pytest.mark.parametrize(("name", "router"), [("sr-router", "10.77.3.3"), ("sr2-router2", "10.77.2.2")])
def test_our_router_forwards_as_the_original_does(name: str, router: str) -> None:
    """The first router makes the SOURCE extension, the second makes it longer; the rest is the captured bytes."""
    arriving, leaving = captured(name)[:2]
    assert arriving.ip.destination == address(router)

    class Router:
        def source_address(self, destination: Address) -> Address | None:
            return address(router)

        def link_mtu(self, found: Address) -> int:
            return 1500

        def is_local(self, found: Address) -> bool:
            return found == address(router)

        def service_for(self, found: Address, port: int) -> ServiceID | None:
            return None

        def progress(self, local_flow: int) -> None:
            return None

    stack = Stack(config=StackConfig(forwarding=True), environment=Router(), rng=random.Random(1))
    target = Target(Action.FORWARD, address=leaving.ip.destination)
    stack.service_table.set_rule(Rule(Prefix.of(arriving.packet.services[0]), (target,)), "hand")
    stack.network_packet(arriving.whole, 1.0)
    (output,) = stack.take_outputs()
    assert isinstance(output, Send)
    assert output.data == leaving.data
    assert (output.source, output.destination) == (leaving.ip.source, leaving.ip.destination)
    assert output.ttl == leaving.ip.ttl == arriving.ip.ttl - 1


def test_retransmitted_syns_are_the_same_packet() -> None:
    packets = captured("syn-retransmit")
    answered = replace(packets[0], packet=replace(packets[0].packet, src_flow=9))
    fake_answer = replace(
        answered,
        packet=replace(answered.packet, extensions=(replace(control_of(packets[0].packet), flags=_SYN | _ACK),)),
    )
    end = End([*packets, fake_answer], client=True)
    for found in packets:
        assert end.kernel(found.packet.payload, found.time) == [found.data]
    assert len(end.stack.flows) == 1


BROADCAST, EVERYONE = address("10.77.0.255"), AdHoc({address("10.77.0.255"): address("10.77.0.1")})


@pytest.mark.statement("S44")
def test_a_syn_by_the_default_broadcast_rule_and_what_follows() -> None:
    """The checksum inside is over the broadcast address, the third ACK's over the instance's own."""
    packets = captured("broadcast-default")[:3]
    end = End(packets, client=True)
    end.stack.adhoc = EVERYONE
    syn, answer, third = packets
    assert syn.ip.destination == BROADCAST and end.kernel(syn.packet.payload, syn.time) == [syn.data]
    end.network(answer, answer.time)
    assert end.kernel(third.packet.payload, third.time) == [third.data]
    (flow,) = end.stack.flows
    assert (flow.local_address, flow.peer_address) == (answer.ip.destination, answer.ip.source)
    assert end.stack.counters == {}


@pytest.mark.statement("S44")
def test_our_instance_answers_a_broadcast_syn_as_the_original_did() -> None:
    """From its own address, without SOURCE."""
    packets = captured("broadcast-default")[:3]
    end = End(packets, client=False)
    end.stack.adhoc = AdHoc({BROADCAST: end.own})
    syn, answer, third = packets
    end.network(syn, syn.time)
    assert end.kernel(answer.packet.payload, answer.time) == [answer.data]
    end.network(third, third.time)
    assert [flow.state for flow in end.stack.flows] == [State.CONNECTED] and end.stack.counters == {}


def test_reset_of_a_client_that_closes_with_unread_data() -> None:
    """The original's TCP FIN, then its RST|ACK: our kernel is asked for its next number, then reset with that."""
    packets = captured("close-unread")
    end = End(packets, client=False)
    for found in packets:
        if found.ip.source == end.own:
            end.kernel(found.packet.payload, found.time)
        else:
            end.network(found, found.time)
    probe = TcpHeader.decode(end.delivered[-1])
    answer = TcpHeader.decode(end.answer.packet.payload)
    syn = TcpHeader.decode(end.syn.packet.payload)
    assert (probe.flags, probe.seq) == (ACK, syn.seq)
    next_number = (syn.seq + 1 + 500 + 1) & 0xFFFFFFFF
    end.kernel(build_tcp(0, 0, answer.seq + 501, next_number, ACK), packets[-1].time + 0.001)
    reset = TcpHeader.decode(end.delivered[-2])
    assert (reset.flags, reset.seq) == (RST, next_number)
    # The socket is gone, says the kernel to the next question.
    end.kernel(build_tcp(0, 0, answer.seq + 501, 0, RST), packets[-1].time + 0.002)
    assert not list(end.stack.flows)


def test_our_client_that_closes_with_unread_data_resets_as_the_original_does() -> None:
    """The TCP RST of our kernel goes out as data first ("TCP RST"); RST|ACK is the captured one."""
    packets = captured("close-unread")
    end = End(packets, client=True)
    resets = []
    for found in packets:
        if found.ip.source != end.own:
            end.network(found, found.time)
        elif found.packet.payload:
            assert found.data in end.kernel(found.packet.payload, found.time)
            last = TcpHeader.decode(found.packet.payload)
        elif control_of(found.packet).flags & _RST:
            resets.append(found)
            tcp_reset, reset = end.kernel(build_tcp(0, 0, last.seq, last.ack, RST | ACK), found.time)
            assert TcpHeader.decode(decode(tcp_reset).payload).flags == RST | ACK and not decode(tcp_reset).extensions
            assert reset == found.data
    assert len(resets) == 1


def test_original_client_offers_no_window_in_its_syn() -> None:
    """Protocol notes 1.5: a window of 0 is what the kernel gets, and the right one with the third ACK."""
    packets = captured("tcp-echo")
    end = End(packets, client=False)
    end.network(packets[0], 0.0)
    syn = TcpHeader.decode(end.delivered[0])
    assert syn.flags == SYN and syn.window == 0 and syn.option(2) is not None
