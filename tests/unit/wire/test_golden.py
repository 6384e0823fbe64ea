"""The original's packets, captured on the wire, are the judge of every codec here."""

from __future__ import annotations

from pathlib import Path

import pytest

from serval_node.capture.pcap import read_ipv4
from serval_node.wire import transport
from serval_node.wire.ipv4 import PROTOCOL_SERVAL, PROTOCOL_TCP, Ipv4Header, address, build_ipv4
from serval_node.wire.sal_header import Control, ControlFlag, SalPacket, Service, Source, bare_header, decode, encode
from serval_node.wire.serviceid import ServiceID

GOLDEN = Path(__file__).parents[2] / "golden"
CAPTURES = sorted(GOLDEN.glob("*.pcap"))


def serval_packets(path: Path) -> list[tuple[Ipv4Header, bytes, bytes]]:
    """IPv4 header, whole IPv4 packet and SAL part of each Serval packet in the capture."""
    found = []
    for captured in read_ipv4(path):
        header = Ipv4Header.decode(captured.data)
        if header.protocol == PROTOCOL_SERVAL:
            found.append((header, captured.data[: header.total_length], header.payload(captured.data)))
    return found


def sal_packets(name: str) -> list[SalPacket]:
    return [decode(data) for _, _, data in serval_packets(GOLDEN / name)]


def test_all_captures_are_there() -> None:
    assert len(CAPTURES) == 18
    assert sum(len(serval_packets(path)) for path in CAPTURES) == 609


@pytest.mark.parametrize("path", CAPTURES, ids=lambda path: path.stem)
def test_sal_headers_reencode_byte_for_byte(path: Path) -> None:
    for _, _, data in serval_packets(path):
        packet = decode(data)
        assert encode(packet) == data
        if not packet.extensions:
            assert data[:12] == bare_header(packet.src_flow, packet.dst_flow, packet.protocol)


@pytest.mark.parametrize("path", CAPTURES, ids=lambda path: path.stem)
def test_ipv4_headers_rebuild_byte_for_byte(path: Path) -> None:
    for header, packet, data in serval_packets(path):
        rebuilt = build_ipv4(
            header.source,
            header.destination,
            PROTOCOL_SERVAL,
            data,
            ttl=header.ttl,
            df=header.dont_fragment,
            tos=header.tos,
            identification=header.identification,
        )
        assert rebuilt == packet


@pytest.mark.parametrize("path", CAPTURES, ids=lambda path: path.stem)
def test_transport_segments_are_what_to_wire_makes(path: Path) -> None:
    for header, _, data in serval_packets(path):
        packet = decode(data)
        if not packet.payload:
            continue
        ends = header.source, header.destination
        assert transport.verify(packet.payload, packet.protocol, *ends)
        virtual = address("198.19.0.9"), address("198.18.0.1")
        inside = transport.to_kernel(packet.payload, packet.protocol, *virtual, 40000, 80)
        assert transport.verify(inside, packet.protocol, *virtual)
        if packet.protocol == PROTOCOL_TCP or packet.payload[6:8] != b"\0\0":
            assert transport.to_wire(inside, packet.protocol, *ends) == packet.payload


def test_syn_and_its_answers() -> None:
    syn, synack, third = sal_packets("tcp-basic.pcap")[:3]
    number = Service(ServiceID.from_number(16390))
    assert syn.dst_flow == 0 and third.dst_flow == synack.src_flow and synack.dst_flow == syn.src_flow
    assert syn.control is not None and synack.control is not None and third.control is not None
    assert syn.control.flags == ControlFlag.SYN and syn.control.mark == 0
    assert synack.control.flags == ControlFlag.SYN | ControlFlag.ACK
    assert synack.control.ackno == syn.control.verno + 1
    assert third.control == Control(ControlFlag.ACK, syn.control.verno + 1, synack.control.verno + 1, syn.control.nonce)
    assert syn.extensions == (syn.control, number) and third.extensions == (third.control, number)
    assert synack.extensions == (synack.control,)


def test_syn_carries_mss_and_window_scale_only() -> None:
    header = transport.TcpHeader.decode(sal_packets("tcp-basic.pcap")[0].payload)
    assert header.flags == transport.SYN and header.window == 0
    assert header.option(transport.OPTION_MSS) == (1448).to_bytes(2, "big")
    assert [kind for kind, _ in transport.iterate_options(header.options)] == [
        transport.OPTION_MSS,
        transport.OPTION_WINDOW_SCALE,
    ]


def test_service_router_leaves_its_address_in_source() -> None:
    synack = sal_packets("sr-server.pcap")[1]
    client, router, server = (address(text) for text in ("10.77.0.1", "10.77.3.3", "10.77.2.2"))
    assert synack.extensions[1] == Source((client, router, server))
    assert synack.source == (client, router, server)


def test_unconnected_datagram_names_destination_then_source() -> None:
    (datagram,) = sal_packets("udp-unconnected.pcap")
    assert datagram.control is None and datagram.dst_flow == 0
    assert datagram.services == (ServiceID.from_number(7), ServiceID.from_number(6))
