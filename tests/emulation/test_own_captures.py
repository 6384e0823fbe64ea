"""Captures of our own traffic: raw and inside UDP, MTU 1500 and 9000, through a service router. Every packet decodes,
and every checksum of it is right.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from serval_node.capture.pcap import read_ipv4
from serval_node.wire.checksum import sums_to_zero
from serval_node.wire.encapsulation import open_packet
from serval_node.wire.ipv4 import PROTOCOL_SERVAL, PROTOCOL_UDP, Ipv4Header
from serval_node.wire.sal_header import ControlFlag, SalPacket, decode, encode
from serval_node.wire.transport import verify
from tests.emulation.node_hosts import Host, HostNet, command, host_net, wait_for

SYN, ACK, FIN = ControlFlag.SYN, ControlFlag.ACK, ControlFlag.FIN

ECHO = """
from serval_node import socket as serval
with serval.create_server("echo.example") as server:
    print("up", flush=True)
    while True:
        conn, _ = server.accept()
        with conn:
            while data := conn.recv(65536): conn.sendall(data)
"""

TALK = """
import threading
from serval_node import socket as serval
conn = serval.create_connection("echo.example", 10)
data = bytes(range(256)) * 1600
threading.Thread(target=lambda: (conn.sendall(data), conn.shutdown(1))).start()
back = b""
while piece := conn.recv(65536): back += piece
assert back == data
"""


@pytest.fixture(scope="module")
def net() -> Iterator[HostNet]:
    with host_net() as net:
        yield net


def node(net: HostNet, name: str, mtu: int, **config: object) -> Host:
    host = net.hosts.get(name) or net.add_plain(name)
    command("ip", "link", "set", f"p-{name}", "mtu", str(mtu))
    host.run("ip", "link", "set", "eth0", "mtu", str(mtu))
    # A capture sees packets as the device gets them: with offloads, checksums would be left to a device that is none.
    host.run("ethtool", "-K", "eth0", "tx", "off", "gso", "off", "gro", "off", "tx-udp-segmentation", "off")
    net.start_node(host, **config)
    return host


def environment(host: Host) -> dict[str, str]:
    return {**os.environ, "SERVAL_CONTROL": str(host.run_dir / "control.sock")}


def captured(host: Host, path: Path, client: Host) -> list[bytes]:
    """The IPv4 packets of one conversation, at this host's interface."""
    words = "tcpdump", "-i", "eth0", "-w", str(path), "-U", "-n", "-Z", "root", "-s", "0", "ip proto 144 or udp"
    dump = host.popen(*words, stderr=subprocess.PIPE, text=True)
    assert dump.stderr is not None
    while "listening on" not in (line := dump.stderr.readline()):
        assert line, "tcpdump has ended"
    client.python(TALK, env=environment(client))
    wait_for("the capture of the close", lambda: sum(kind(item) == FIN for item in packets(path)) >= 2)
    dump.terminate()
    dump.wait(10)
    return packets(path)


def packets(path: Path) -> list[bytes]:
    return [bytes(frame.data) for frame in read_ipv4(path)]


def kind(packet: bytes) -> int:
    control = decode(open_packet(packet)[1]).control
    return 0 if control is None else control.flags


def check(packet: bytes) -> tuple[Ipv4Header, SalPacket]:
    """All checksums of a packet: of IPv4, of UDP around it, of the SAL header, of the segment."""
    header = Ipv4Header.decode(packet)
    assert sums_to_zero(packet[: header.header_length]) and header.total_length == len(packet)
    if header.protocol == PROTOCOL_UDP:
        assert verify(header.payload(packet), PROTOCOL_UDP, header.source, header.destination)
        assert header.payload(packet)[6:8] != b"\0\0", "UDP's checksum is there"
    outer, data = open_packet(packet)
    sal = decode(data)
    assert encode(sal) == data, "nothing in it that we do not mean"
    assert not sal.payload or verify(sal.payload, sal.protocol, outer.source, outer.destination)
    return header, sal


@pytest.mark.parametrize("form", ["raw", "udp"])
@pytest.mark.parametrize("mtu", [1500, 9000])
@pytest.mark.statement("S52")
def test_every_packet_of_ours_decodes_with_right_checksums(net: HostNet, tmp_path: Path, mtu: int, form: str) -> None:
    names = "ann", "cleo", "dan"
    ann, cleo, dan = (
        node(net, name, mtu, encapsulation=form, **({"role": "router"} if name == "cleo" else {})) for name in names
    )
    server = dan.popen(sys.executable, "-c", ECHO, stdout=subprocess.PIPE, text=True, env=environment(dan))
    assert server.stdout is not None and server.stdout.readline() == "up\n"
    wait_for("the rule", lambda: dan.rules("echo.example"))
    ann.forward("echo.example", cleo.address)
    cleo.forward("echo.example", dan.address)
    found = [check(packet) for packet in captured(dan, tmp_path / "dan.pcap", ann)]
    server.kill()
    server.wait()
    for host in (ann, cleo, dan):
        net.stop_node(host)
    assert {header.protocol for header, _ in found} == {PROTOCOL_SERVAL if form == "raw" else PROTOCOL_UDP}
    flags = [sal.control.flags for _, sal in found if sal.control is not None]
    assert flags[:3] == [SYN, SYN | ACK, ACK] and flags.count(FIN) >= 2
    assert found[0][1].source and found[1][1].source, "the SYN came through the router"
    assert sum(len(sal.payload) for _, sal in found) > 2 * 256 * 1600
    longest = max(header.total_length for header, _ in found)
    assert mtu - 8 <= longest <= mtu, "full packets, and none that is too long"
