"""What the scapy layer says about checksums and about extensions that no node would accept."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from scapy.layers.inet import IP, TCP, UDP
from scapy.packet import Packet, Raw

from serval_node.capture.checks import header_of, segment_of
from serval_node.capture.dissector import SAL, SALAddresses, SALControl, SALPad, SALService, SALSource
from serval_node.capture.pcap import read_ipv4
from serval_node.wire.ipv4 import Ipv4Header

GOLDEN = Path(__file__).parents[1] / "golden"
CAPTURES = sorted(GOLDEN.glob("*.pcap"))


def serval_packets(path: Path) -> Iterator[bytes]:
    for captured in read_ipv4(path):
        header = Ipv4Header.decode(captured.data)
        if header.protocol == 144:
            yield captured.data[: header.total_length]


def changed(packet: bytes, offset: int) -> Packet:
    """The packet with one bit of the byte at ``offset`` turned over."""
    return IP(packet[:offset] + bytes([packet[offset] ^ 1]) + packet[offset + 1 :])


def without_sum(whole: Packet) -> bool:
    """No segment, or a datagram whose sender computed no checksum."""
    return not whole[SAL].payload or (UDP in whole and whole[UDP].chksum == 0)


def lines(packet: Packet) -> list[str]:
    return ["".join(line.split()) for line in packet.show(dump=True).splitlines()]


@pytest.mark.parametrize("path", CAPTURES, ids=lambda path: path.stem)
def test_every_checksum_of_the_captures_is_right_and_a_turned_bit_is_found(path: Path) -> None:
    for packet in serval_packets(path):
        whole = IP(packet)
        sal = whole[SAL]
        carried = "none" if without_sum(whole) else "ok"
        assert (header_of(sal), segment_of(sal)) == ("ok", carried)
        assert sal.mysummary().endswith(", checksum ok")
        assert {"checksum_status=ok", f"segment_status={carried}"} <= set(lines(whole))
        assert header_of(changed(packet, 20 + 3)[SAL]) == "bad"
        assert changed(packet, 20 + 3)[SAL].mysummary().endswith(", checksum bad (SAL)")
        if carried == "ok":
            damaged = changed(packet, len(packet) - 1)
            name = "TCP" if TCP in whole else "UDP"
            assert (header_of(damaged[SAL]), segment_of(damaged[SAL])) == ("ok", "bad")
            assert damaged[SAL].mysummary().endswith(f", checksum bad ({name})")
            assert segment_of(changed(packet, 15)[SAL]) == "bad", "the outer addresses are in the sum"


@pytest.mark.parametrize("path", CAPTURES, ids=lambda path: path.stem)
def test_removed_checksums_are_computed_as_the_original_did(path: Path) -> None:
    for packet in serval_packets(path):
        copy = IP(packet).copy()
        if without_sum(copy):
            continue
        copy.clear_cache()
        for layer, field in ((SAL, "checksum"), (TCP, "chksum"), (UDP, "chksum")):
            if layer in copy:
                setattr(copy[layer], field, None)
        assert bytes(copy) == packet


def test_what_a_cut_capture_lacks_is_not_called_bad() -> None:
    packet = next(serval_packets(GOLDEN / "tcp-basic.pcap"))
    sal = IP(packet[:-1])[SAL]
    assert (header_of(sal), segment_of(sal)) == ("ok", "cut")
    assert sal.mysummary().endswith("checksum ok (SAL), the segment is cut")
    sal = IP(packet[: 20 + 30])[SAL]
    assert (header_of(sal), segment_of(sal)) == ("cut", "cut")
    assert sal.mysummary().endswith("checksum not known")


@pytest.mark.parametrize(
    "unknown",
    [b"\x50\x04ab", b"\x10\x18" + bytes(22), b"\x20\x04ab", b"\x30\x08" + bytes(6), b"\x40\x06" + bytes(6), b"\x40"],
    ids=["type 5", "long CONTROL", "short SERVICE", "short ADDRESS", "odd SOURCE", "no length"],
)
def test_what_is_no_extension_is_shown_as_bytes_and_not_taken_for_the_segment(unknown: bytes) -> None:
    filler = bytes(-len(unknown) % 4)
    extensions = [*[SALPad()] * len(filler), SALControl(flags="SYN"), Raw(unknown)]
    made = IP(src="10.0.0.1", dst="10.0.0.2") / SAL(extensions=extensions) / TCP(sport=0, dport=0, seq=9)
    again = IP(bytes(made))
    assert [type(layer) for layer in again[SAL].extensions] == [type(layer) for layer in extensions]
    assert again[TCP].seq == 9
    assert f"{len(unknown)} bytes of no known extension / TCP, checksum ok" in again[SAL].mysummary()


def test_all_five_extensions_survive_both_ways() -> None:
    extensions = [
        SALControl(flags="SYN+ACK", verno=1, ackno=2, nonce=b"12345678", mark=0x5A, reserved=3),
        SALService(service_id=bytes(range(32)), reserved2=7),
        SALService(service_id=bytes(32)),
        SALAddresses(verno=4, ackno=5, addresses=["10.0.0.1", "10.0.0.2"]),
        SALSource(addresses=["10.0.0.1", "10.0.0.9"]),
        *[SALPad()] * 4,
    ]
    made = bytes(IP(src="10.0.0.1", dst="10.0.0.2") / SAL(src_flow=1, extensions=extensions) / UDP(sport=0, dport=0))
    again = IP(made)
    assert [bytes(layer) for layer in again[SAL].extensions] == [bytes(layer) for layer in extensions]
    assert [type(layer) for layer in again[SAL].extensions] == [type(layer) for layer in extensions]
    assert bytes(again) == made and segment_of(again[SAL]) == "ok"
