"""The data path between two network namespaces: kernel TCP over sal0, the fast path, raw sockets, a veth."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from serval_node.wire.ipv4 import Ipv4Header
from serval_node.wire.sal_header import decode
from serval_node.wire.transport import TcpHeader, verify
from testbed.link.shape import Shape
from testbed.link.tc import rate_lines

ROOT = Path(__file__).resolve().parents[2]
BULK = str(ROOT / "tests/emulation/bulk.py")
LIMIT = 60.0


class Side:
    """A toy node in a network namespace of its own, which ends with the process."""

    def __init__(self, number: int, mtu: int, mode: str, options: tuple[str, ...]) -> None:
        self.address, peer = f"10.99.0.{number}", f"10.99.0.{3 - number}"
        node = [sys.executable, "-m", "tests.emulation.toy_node", self.address, peer, str(mtu), mode, *options]
        # The node starts when its link is there: the shell waits for a line.
        self.process = subprocess.Popen(
            ["unshare", "--net", "sh", "-c", 'echo here; read line; exec "$@"', "sh", *node],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1, cwd=ROOT,
        )  # fmt: skip
        assert self._line() == "here"
        self.started: list[subprocess.Popen[str]] = []

    def _line(self) -> str:
        assert self.process.stdout is not None
        return self.process.stdout.readline().strip()

    def start(self, mtu: int) -> None:
        self.run("ip", "link", "set", "lo", "up")
        self.run("ip", "address", "add", f"{self.address}/24", "dev", "e0")
        self.run("ip", "link", "set", "e0", "mtu", str(mtu), "up")
        self.ask("start")

    def ask(self, line: str) -> Any:
        assert self.process.stdin is not None
        self.process.stdin.write(line + "\n")
        return json.loads(self._line())

    def words(self, *words: str) -> list[str]:
        return ["nsenter", "--target", str(self.process.pid), "--net", "--", *words]

    def run(self, *words: str) -> str:
        done = subprocess.run(self.words(*words), capture_output=True, text=True, timeout=LIMIT, check=False)
        assert done.returncode == 0, f"{' '.join(words)}: {done.stderr}"
        return done.stdout

    def popen(self, *words: str, text: bool = True) -> subprocess.Popen[Any]:
        process = subprocess.Popen(self.words(*words), stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=text)
        self.started.append(process)
        return process

    def close(self) -> None:
        for process in self.started:
            process.kill()
            process.communicate()
        assert self.process.stdin is not None and self.process.stdout is not None
        self.process.stdin.close()
        try:
            status = self.process.wait(10)
        finally:
            self.process.kill()
            self.process.stdout.close()
        assert status == 0, "the node failed"


Pair = Callable[..., tuple[Side, Side]]


@pytest.fixture
def pair() -> Iterator[Pair]:
    sides: list[Side] = []

    def make(mtu: int = 1500, modes: tuple[str, str] = ("vector", "vector"), options: tuple[str, ...] = ()):
        for number, mode in enumerate(modes, 1):
            sides.append(Side(number, mtu, mode, options))
        one, two = sides
        one.run("ip", "link", "add", "e0", "type", "veth", "peer", "name", "e0", "netns", str(two.process.pid))
        for side in sides:
            side.start(mtu)
        return one, two

    yield make
    for side in sides:
        side.close()


def transfer(client: Side, server: Side, *, count: int = 1, size: int) -> float:
    """Moves `size` bytes up and down on each of `count` connections; the seconds it took."""
    listener = server.popen(sys.executable, BULK, "server", "5001", str(count))
    assert listener.stdout is not None and listener.stdout.readline().strip() == "ready"
    answer = client.run(sys.executable, BULK, "client", "198.18.5.5", "5001", str(count), str(size))
    return float(json.loads(answer)["seconds"])


def assert_nothing_dropped(side: Side) -> dict[str, Any]:
    totals = side.ask("totals")
    totals["drops"].pop("kernel_not_ipv4", None)  # IPv6's housekeeping
    assert totals["drops"] == {} and totals["bad_checksums"] == 0
    return totals


@pytest.mark.parametrize("mtu", [1500, 9000])
@pytest.mark.parametrize("modes", [("vector", "vector"), ("plain", "plain"), ("vector", "plain"), ("plain", "vector")])
def test_kernel_tcp_moves_checked_bytes(pair: Pair, modes: tuple[str, str], mtu: int) -> None:
    client, server = pair(mtu, modes)
    size = 100_000_000 if modes == ("vector", "vector") else 20_000_000
    seconds = transfer(client, server, size=size)
    print(f"{modes} mtu {mtu}: {2 * size * 8 / seconds / 1e6:.0f} Mbit/s with hashing")
    for side in (client, server):
        totals = side.ask("totals")
        assert totals["bad_checksums"] == 0
        # Everything but handshake and close took the fast path, in both directions.
        assert totals["received_bytes"] >= 0.99 * size and totals["slow_network"] < 50
        (flow,) = totals["flows"].values()
        assert flow["peer_ack"] is not None and flow["received_next"] is not None
        assert totals["first_packets"] == 1


def test_two_hundred_connections_at_once(pair: Pair) -> None:
    client, server = pair()
    transfer(client, server, count=200, size=100_000)
    assert client.ask("totals")["received_bytes"] >= 0.9 * 200 * 100_000


def test_a_slow_link_holds_packets_back_and_the_node_drops_none(pair: Pair) -> None:
    client, server = pair(options=("sndbuf=8192",))
    client.run("tc", "qdisc", "add", "dev", "e0", "root", "handle", "1:", "htb", "default", "1", "r2q", "100")
    client.run(
        "tc", "class", "add", "dev", "e0", "parent", "1:", "classid", "1:1", "htb", "rate", "20mbit", "burst", "16k"
    )
    transfer(client, server, size=4_000_000)
    totals = assert_nothing_dropped(client)
    assert totals["stalls"] > 0, "the link was not slow enough to show anything"
    assert_nothing_dropped(server)


@pytest.mark.parametrize("modes", [("vector", "vector"), ("plain", "plain")])
def test_a_fast_links_shaper_is_not_made_to_wait(pair: Pair, modes: tuple[str, str]) -> None:
    """Each packet that it must let wait costs a timer: without pacing, every third."""
    client, server = pair(modes=modes)
    client.run("sh", "-ec", "\n".join(rate_lines("e0", Shape(rate=1000))))
    transfer(client, server, size=20_000_000)
    shown = client.run("tc", "-s", "class", "show", "dev", "e0")
    figures = re.search(r"(\d+) pkt .*overlimits (\d+)", shown)
    assert figures is not None, shown
    packets, overlimits = int(figures[1]), int(figures[2])
    assert packets > 13_000
    assert overlimits < packets / 50
    if modes[0] == "vector":  # without offload sal0's queue holds 500 frames only: 6 ms of this link
        assert_nothing_dropped(client)


@pytest.mark.parametrize("modes", [("vector", "vector"), ("plain", "plain")])
def test_every_packet_on_the_wire_is_right(pair: Pair, modes: tuple[str, str], tmp_path: Path) -> None:
    client, server = pair(1500, modes)
    capture = tmp_path / "wire.pcap"
    dump = server.popen("tcpdump", "-i", "e0", "-B", "65536", "-U", "-w", str(capture), "ip", "proto", "144")
    deadline = time.monotonic() + LIMIT
    while not capture.exists() or capture.stat().st_size < 24:
        assert time.monotonic() < deadline and dump.poll() is None, "tcpdump did not start"
        time.sleep(0.05)
    transfer(client, server, size=1_000_000)
    dump.terminate()
    dump.wait(10)
    packets = list(ip_packets(capture.read_bytes()))
    assert len(packets) > 1000
    for packet in packets:
        header = Ipv4Header.decode(packet)
        segment = decode(header.payload(packet)).payload
        tcp = TcpHeader.decode(segment)
        assert verify(segment, 6, header.source, header.destination)
        assert tcp.source_port == tcp.destination_port == 0
        assert header.dont_fragment and header.total_length <= 1500


def ip_packets(pcap: bytes) -> Iterator[bytes]:
    offset = 24
    while offset + 16 <= len(pcap):
        length = int.from_bytes(pcap[offset + 8 : offset + 12], sys.byteorder)
        frame = pcap[offset + 16 : offset + 16 + length]
        assert frame[12:14] == b"\x08\x00"
        yield frame[14:]
        offset += 16 + length
