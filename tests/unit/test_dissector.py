"""The scapy layer against the original's captures and against the nodes' own codec."""

from __future__ import annotations

from pathlib import Path

import pytest
from scapy.layers.inet import IP, TCP, UDP
from scapy.packet import Packet, Raw
from scapy.utils import rdpcap, wrpcap

from serval_node.capture.__main__ import main
from serval_node.capture.checks import header_of, segment_of
from serval_node.capture.dissector import SAL, SALAddresses, SALControl, SALPad, SALService, SALSource
from serval_node.capture.pcap import read_ipv4
from serval_node.wire import sal_header, transport
from serval_node.wire.encapsulation import TO_SERVER, encapsulate, open_packet
from serval_node.wire.ipv4 import Ipv4Header, UdpPorts, address, address_text
from serval_node.wire.sal_header import MARK, ControlFlag
from serval_node.wire.serviceid import ServiceID

GOLDEN = Path(__file__).parents[1] / "golden"
CAPTURES = sorted(GOLDEN.glob("*.pcap"))


def as_fields(layer: Packet) -> sal_header.Extension:
    """A dissected extension as the codec's value."""
    if isinstance(layer, SALControl):
        return sal_header.Control(int(layer.flags), layer.verno, layer.ackno, layer.nonce, layer.mark)
    if isinstance(layer, SALService):
        return sal_header.Service(ServiceID(layer.service_id))
    if isinstance(layer, SALSource):
        return sal_header.Source(tuple(address(text) for text in layer.addresses))
    if isinstance(layer, SALAddresses):
        return sal_header.AddressList(layer.verno, layer.ackno, tuple(address(text) for text in layer.addresses))
    assert isinstance(layer, SALPad)
    return sal_header.Pad()


def golden_packets(name: str) -> list[sal_header.SalPacket]:
    packets = [captured.data for captured in read_ipv4(GOLDEN / name)]
    return [sal_header.decode(Ipv4Header.decode(data).payload(data)) for data in packets if data[9] == 144]


@pytest.mark.parametrize("path", CAPTURES, ids=lambda path: path.stem)
def test_captures_dissect_as_the_codec_decodes_them_and_build_again(path: Path) -> None:
    seen = 0
    for captured in read_ipv4(path):
        header = Ipv4Header.decode(captured.data)
        if header.protocol != 144:
            continue
        packet = captured.data[: header.total_length]
        dissected = IP(packet)
        sal, expected = dissected[SAL], sal_header.decode(header.payload(packet))
        assert (sal.src_flow, sal.dst_flow, sal.protocol) == (expected.src_flow, expected.dst_flow, expected.protocol)
        assert tuple(as_fields(layer) for layer in sal.extensions) == expected.extensions
        assert bytes(sal.payload) == expected.payload
        assert bool(expected.payload) == (TCP in sal or UDP in sal)
        assert bytes(rebuilt(dissected)) == packet
        seen += 1
    assert seen


def rebuilt(packet: IP) -> IP:
    """The same layers without scapy's cache of their bytes, and without what SAL and the extensions can compute."""
    copy = packet.copy()
    copy.clear_cache()
    sal = copy[SAL]
    sal.words = sal.checksum = None
    for layer in sal.extensions:
        if isinstance(layer, (SALSource, SALAddresses)):
            layer.length = None
    return copy


def test_link_layers_of_the_captures_lead_to_sal() -> None:
    for name in ("tcp-basic.pcap", "mig-client.pcap"):
        assert any(SAL in packet for packet in rdpcap(str(GOLDEN / name), count=5))


def test_a_packet_made_by_hand_is_one_that_nodes_accept() -> None:
    number = ServiceID.from_number(16390)
    made = (
        IP(src="10.0.0.1", dst="10.0.0.2")
        / SAL(
            src_flow=7,
            extensions=[
                SALControl(flags="SYN", verno=5, nonce=b"12345678", mark=MARK),
                SALService(service_id=number.raw),
                SALSource(addresses=["10.0.0.1", "10.0.0.9"]),
                SALAddresses(verno=1, addresses=["10.0.0.1"]),
                *[SALPad()] * 4,
            ],
        )
        / TCP(sport=0, dport=0, flags="S", seq=9, window=100)
        / Raw(b"odd")
    )
    packet = bytes(made)
    header = Ipv4Header.decode(packet)
    assert header.protocol == 144
    decoded = sal_header.decode(header.payload(packet))
    assert decoded.control == sal_header.Control(ControlFlag.SYN, 5, 0, b"12345678", MARK)
    assert decoded.services == (number,) and [address_text(a) for a in decoded.source] == ["10.0.0.1", "10.0.0.9"]
    assert len(decoded.extensions) == 8
    assert transport.verify(decoded.payload, 6, header.source, header.destination)
    assert made[SAL].control_flags() == ControlFlag.SYN


def test_the_command_prints_a_line_per_serval_packet(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([str(GOLDEN / "tcp-basic.pcap")]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 198 + sum(not packet.payload for packet in golden_packets("tcp-basic.pcap"))
    assert "10.77.0.1 > 10.77.0.2 SAL 0x4 > 0x0: SYN v=" in lines[0] and "service 0x00004006 / TCP" in lines[0]
    assert "ACK+SYN" in lines[1] and "service" not in lines[1]


def inside_udp(data: bytes, source: str = "10.0.0.1", *, ports: UdpPorts = TO_SERVER) -> IP:
    """As a node sends it from 10.0.0.1, and as it looks when a NAT has put another source and port."""
    header = sal_header.bare_header(7, 9, 6)
    segment = transport.to_wire(
        transport.build_tcp(0, 0, 1, 2, transport.ACK, data=data), 6, address("10.0.0.1"), address("10.0.0.2")
    )
    return IP(encapsulate(address(source), address("10.0.0.2"), ports, header + segment))


def test_packets_inside_udp_are_found_and_judged(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    straight, translated = inside_udp(b"data"), inside_udp(b"data", "192.0.2.1", ports=UdpPorts(20001, 54325))
    many = IP(encapsulate(address("10.0.0.1"), address("10.0.0.2"), TO_SERVER, bytes(straight[SAL]) * 3))
    back = IP(encapsulate(address("10.0.0.1"), address("10.0.0.2"), UdpPorts(54325, 20001), bytes(straight[SAL])))
    assert [segment_of(packet[SAL]) for packet in (straight, translated, many, back)] == ["ok", "nat", "joined", "ok"]
    assert all(header_of(packet[SAL]) == "ok" for packet in (straight, translated, many, back))
    assert "checksum ok" in straight[SAL].mysummary()
    wrpcap(str(tmp_path / "udp.pcap"), [straight, translated])
    assert main([str(tmp_path / "udp.pcap")]) == 0
    first, second = capsys.readouterr().out.splitlines()
    assert "10.0.0.1:54324 > 10.0.0.2:54325 SAL 0x7 > 0x9 / TCP" in first
    assert "192.0.2.1:20001 > 10.0.0.2:54325 SAL" in second


def test_a_packet_inside_udp_made_by_hand_is_one_that_a_node_accepts() -> None:
    made = IP(src="10.0.0.1", dst="10.0.0.2") / UDP() / SAL(src_flow=7, dst_flow=9) / TCP(sport=0, dport=0) / Raw(b"x")
    header, data = open_packet(bytes(made))
    assert header.ports == UdpPorts(54325, 54324)
    assert transport.verify(sal_header.decode(data).payload, 6, header.source, header.destination)


def test_the_command_names_a_file_that_is_no_capture(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([str(tmp_path / "missing")]) == 1
    (tmp_path / "text").write_text("no capture at all, but longer than a header")
    assert main([str(tmp_path / "text")]) == 1
    errors = capsys.readouterr().err.splitlines()
    assert len(errors) == 2 and "missing" in errors[0] and "text" in errors[1]


@pytest.mark.parametrize("length", range(0, 80, 3))
def test_cut_packets_are_shown_without_an_exception(length: int) -> None:
    sal = next(bytes(packet[SAL]) for packet in rdpcap(str(GOLDEN / "tcp-basic.pcap"), count=3) if SAL in packet)
    packet = IP(bytes(IP(proto=144) / Raw(sal[:length])))
    packet.summary()
    packet.show(dump=True)
