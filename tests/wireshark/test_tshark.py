"""serval.lua in tshark reads every captured packet as the scapy layer does. Run by `make test-wireshark`."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from scapy.layers.inet import IP, TCP, UDP, Ether
from scapy.packet import Packet, Raw
from scapy.utils import wrpcap

import serval_node.capture
from serval_node.capture.checks import header_of, segment_of
from serval_node.capture.dissector import SAL, SALAddresses, SALControl, SALPad, SALService, SALSource
from serval_node.capture.pcap import read_ipv4
from serval_node.wire.encapsulation import SERVER_PORT

LUA = Path(serval_node.capture.__file__).parent / "serval.lua"
GOLDEN = Path(__file__).parents[1] / "golden"
CAPTURES = sorted(GOLDEN.glob("*.pcap"))
PREFIXES: dict[str, type[Packet]] = {
    "pad": SALPad,
    "control": SALControl,
    "service": SALService,
    "addresses": SALAddresses,
    "source": SALSource,
}
HEADER = ("src_flow", "dst_flow", "words", "protocol", "checksum")
COLUMNS = [
    *(f"serval.{name}" for name in (*HEADER, "checksum_status", "segment_status", "unknown")),
    *(f"serval.{prefix}.{field.name}" for prefix, layer in PREFIXES.items() for field in layer.fields_desc),
    "tcp.seq_raw",
    "tcp.checksum.status",
    "udp.length",
    "udp.checksum.status",
]
GOOD = "1"


def tshark(capture: Path, *words: str) -> str:
    """What tshark prints; a missing tshark fails the test, it is never skipped."""
    assert shutil.which("tshark"), "tshark is not installed: apt-get install --no-install-recommends tshark"
    checks = [word for name in ("tcp", "udp") for word in ("-o", f"{name}.check_checksum:TRUE")]
    command = ["tshark", "-n", "-X", f"lua_script:{LUA}", *checks, "-r", str(capture), *words]
    done = subprocess.run(command, capture_output=True, text=True, timeout=50, check=False)
    assert done.returncode == 0, done.stderr
    assert "lua" not in done.stderr.lower(), done.stderr
    return done.stdout


def rows(capture: Path) -> list[dict[str, list[str]]]:
    """For each Serval packet the values of every column as text."""
    words = ["-Y", "serval", "-T", "fields", "-E", "separator=|", "-E", "occurrence=a", "-E", "aggregator=,"]
    for column in COLUMNS:
        words += ["-e", column]
    lines = tshark(capture, *words).splitlines()
    return [
        {column: text.split(",") if text else [] for column, text in zip(COLUMNS, line.split("|"), strict=True)}
        for line in lines
    ]


def expected(packet: Packet) -> Iterator[tuple[str, list[object]]]:
    sal = packet[SAL]
    yield from ((f"serval.{name}", [getattr(sal, name)]) for name in HEADER)
    yield "serval.checksum_status", [header_of(sal)]
    yield "serval.segment_status", [segment_of(sal)]
    yield "serval.unknown", [layer.load for layer in sal.extensions if isinstance(layer, Raw)]
    for prefix, kind in PREFIXES.items():
        layers = [layer for layer in sal.extensions if isinstance(layer, kind)]
        for field in kind.fields_desc:
            values: list[object] = []
            for layer in layers:
                one = getattr(layer, field.name)
                values += one if isinstance(one, list) else [one if isinstance(one, (bytes, str)) else int(one)]
            yield f"serval.{prefix}.{field.name}", values


def same(found: str, wanted: object) -> bool:
    if isinstance(wanted, bytes):
        return found.replace(":", "") == wanted.hex()
    return found == wanted if isinstance(wanted, str) else int(found, 0) == wanted


def assert_alike(packets: list[Packet], capture: Path) -> list[dict[str, list[str]]]:
    found = rows(capture)
    assert len(found) == len(packets) > 0
    for row, packet in zip(found, packets, strict=True):
        for column, values in expected(packet):
            assert len(row[column]) == len(values), (column, row[column], values)
            assert all(map(same, row[column], values)), (column, row[column], values)
    return found


@pytest.mark.parametrize("path", CAPTURES, ids=lambda path: path.stem)
def test_the_captures_read_alike_and_the_segment_goes_to_wiresharks_own_dissector(path: Path) -> None:
    packets = [IP(captured.data) for captured in read_ipv4(path)]
    packets = [packet for packet in packets if SAL in packet]
    for row, packet in zip(assert_alike(packets, path), packets, strict=True):
        assert row["tcp.seq_raw"] == ([str(packet[TCP].seq)] if TCP in packet else [])
        assert row["udp.length"] == ([str(packet[UDP].len)] if UDP in packet else [])
        for name in ("tcp", "udp"):
            if row[f"{name}.checksum.status"] and row["serval.segment_status"] == ["ok"]:
                assert row[f"{name}.checksum.status"] == [GOOD], "Wireshark finds the same sum right"


def test_damaged_malformed_and_rare_packets_read_alike(tmp_path: Path) -> None:
    ends = Ether() / IP(src="10.0.0.1", dst="10.0.0.2")
    tcp = TCP(sport=0, dport=0, seq=9)
    rare = [
        SALControl(flags="SYN+NACK+FIN", verno=1, ackno=2, nonce=b"\0" * 8, mark=0x5A, reserved=3),
        SALService(service_id=bytes(range(32)), reserved2=7),
        SALService(service_id=bytes(32)),
        SALAddresses(verno=4, ackno=5, addresses=["10.0.0.1", "10.0.0.2"]),
        SALSource(addresses=["10.0.0.1", "10.0.0.9"]),
        *[SALPad()] * 4,
    ]
    made = [
        ends / SAL(src_flow=0xFFFFFFFF, dst_flow=1, extensions=rare) / tcp / Raw(b"odd"),
        ends / SAL(extensions=rare[:1]) / UDP(sport=0, dport=0) / Raw(b"data"),
        ends / SAL(extensions=[rare[0], Raw(b"\x50\x04ab")]) / tcp,
        ends / SAL(extensions=[Raw(b"\x20\x04ab")]) / tcp,
        ends / SAL(extensions=[Raw(b"\x30\x08" + bytes(6))]) / tcp,
        ends / SAL(checksum=1) / tcp,
        ends / SAL() / TCP(sport=0, dport=0, chksum=1),
        ends / SAL(protocol=99) / Raw(b"what is this"),
        ends / SAL(words=2) / tcp,
        ends / SAL(words=200) / tcp,
        ends / SAL(),
        ends / UDP() / SAL(src_flow=7, extensions=rare[:1]) / tcp / Raw(b"inside"),
        ends / UDP(sport=SERVER_PORT, dport=20001) / SAL() / TCP(sport=0, dport=0, chksum=1),
        ends / UDP(sport=20001, dport=SERVER_PORT) / Raw(bytes(SAL() / tcp) * 2),
    ]
    capture = tmp_path / "rare.pcap"
    wrpcap(str(capture), [Ether(bytes(packet)) for packet in made])
    found = assert_alike([Ether(bytes(packet)) for packet in made], capture)
    states = [(*row["serval.checksum_status"], *row["serval.segment_status"]) for row in found]
    assert states[:8] == [*[("ok", "ok")] * 5, ("bad", "ok"), ("ok", "bad"), ("ok", "none")]
    assert states[-3:] == [("ok", "ok"), ("ok", "nat"), ("ok", "joined")]
    lines = tshark(capture, "-Y", "serval").splitlines()
    assert "SYN+NACK+FIN v=1 a=2 marked; service 0x000102" in lines[0] and "/ TCP" in lines[0]
    assert "4 bytes of no known extension / TCP" in lines[2]


def test_cut_packets_do_not_stop_the_dissector(tmp_path: Path) -> None:
    whole = next(IP(captured.data) for captured in read_ipv4(GOLDEN / "tcp-basic.pcap") if captured.data[9] == 144)
    sal = bytes(whole[SAL])
    capture = tmp_path / "cut.pcap"
    packets = [
        Ether() / IP(src="10.0.0.1", dst="10.0.0.2", proto=144) / Raw(sal[:length]) for length in range(len(sal))
    ]
    wrpcap(str(capture), [Ether(bytes(packet)) for packet in packets])
    text = tshark(capture, "-V")
    assert "Lua Error" not in text
    assert text.count("Serval Service Access Layer") == len(sal) - 12
