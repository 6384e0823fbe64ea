"""What a moved guest's Serval node does first, as seen on the link where the guest is now: a capture by the host.

The times are the host's. The guest's own clock stood still during the move, and says nothing about it.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Iterable
from dataclasses import dataclass
from ipaddress import IPv4Address
from pathlib import Path

from serval_node.capture.pcap import CapturedPacket, read_ipv4
from serval_node.wire.encapsulation import CLIENT_PORT, SERVER_PORT
from serval_node.wire.errors import WireError
from serval_node.wire.ipv4 import PROTOCOL_SERVAL, PROTOCOL_TCP, PROTOCOL_UDP, Ipv4Header
from serval_node.wire.sal_header import ControlFlag, SalPacket, decode
from testbed import hosts, processes, sniffer
from testbed.hosts import EmulatedNode
from testbed.vm.qmp import monotonic_minus_realtime

SNAP = 192
"""Bytes kept of a frame: Ethernet, IP, perhaps UDP, and the SAL header of an RSYN with all of its extensions."""
_UDP_HEADER = 8
_POLL_SECONDS = 0.02


@dataclass(frozen=True, slots=True)
class Sighting:
    """Times of CLOCK_MONOTONIC, None for what was not seen; see MoveRecord."""

    asked: float | None = None
    answered: float | None = None
    data: float | None = None


class Witness:
    """A capture at an interface of a host, from now until `close`."""

    def __init__(self, node: EmulatedNode, interface: str, path: Path) -> None:
        """Listening when it returns; raises TestbedError."""
        self._path = path
        path.unlink(missing_ok=True)
        argv = [sys.executable, "-I", sniffer.__file__, interface, str(path), str(SNAP)]
        log = path.with_suffix(".log")
        log.unlink(missing_ok=True)
        self._process = processes.start("the capture of a move", hosts.inside(node, argv), log=log)
        self._process.wait_ready(lambda: "listening on" in self._process.printed())

    def sighting(self, address: str) -> Sighting:
        """What was seen until now of the Serval node that has this address."""
        packets = read_ipv4(self._path)
        return look(packets, address, monotonic_minus_realtime())

    def wait_data(self, address: str, *, until: float) -> Sighting:
        """Wait for the whole sequence, until a monotonic time; what was seen by then."""
        while True:
            found = self.sighting(address)
            if found.data is not None or time.monotonic() > until:
                return found
            time.sleep(_POLL_SECONDS)

    def close(self) -> None:
        """May be called again."""
        self._process.stop()
        self._path.unlink(missing_ok=True)


def look(packets: Iterable[CapturedPacket], address: str, to_monotonic: float) -> Sighting:
    """Find the first RSYN from an address, the first answer to it, and the first packet of a flow after that. Pure."""
    own = IPv4Address(address).packed
    asked: float | None = None
    answered: float | None = None
    for packet in packets:
        found = _serval(packet.data)
        if found is None:
            continue
        header, sal = found
        flags = 0 if sal.control is None else sal.control.flags
        when = packet.time + to_monotonic
        if asked is None:
            if header.source == own and flags & ControlFlag.RSYN:
                asked = when
        elif answered is None:
            if header.destination == own and flags & ControlFlag.RSYN and flags & ControlFlag.ACK:
                answered = when
        elif not flags and sal.protocol == PROTOCOL_TCP and own in (header.source, header.destination):
            return Sighting(asked, answered, when)
    return Sighting(asked, answered)


def _serval(packet: bytes) -> tuple[Ipv4Header, SalPacket] | None:
    """The SAL packet in an IPv4 packet of which the end may be missing; None where there is none."""
    # The reader wants whole packets. What is missing is behind all that is looked at.
    packet = packet.ljust(int.from_bytes(packet[2:4], "big"), b"\0")
    try:
        header = Ipv4Header.decode(packet)
        payload = packet[header.header_length :]
        if header.protocol == PROTOCOL_UDP:
            ports = int.from_bytes(payload[:2], "big"), int.from_bytes(payload[2:4], "big")
            if not {CLIENT_PORT, SERVER_PORT} & set(ports):
                return None
            payload = payload[_UDP_HEADER:]
        elif header.protocol != PROTOCOL_SERVAL:
            return None
        return header, decode(payload)
    except WireError:
        return None
