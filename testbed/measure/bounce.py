"""The calibration: TUN - Python - veth - Python - TUN, as plain as it goes.

    python -m testbed.measure.bounce NAME ADDRESS/BITS OUTER_ADDRESS OUTER_PEER MTU

makes the TUN device NAME and carries its packets to the peer in IP packets of protocol 253 (RFC 3692, for experiments),
unchanged and one by one: no offload, no table, no checksum. What kernel TCP does over it is what a machine gives to
the idea of handling each packet in Python once at each end; figures of Serval are given as multiples of it.
"""

from __future__ import annotations

import fcntl
import os
import select
import socket
import struct
import subprocess
import sys
from pathlib import Path

PROTOCOL = 253
OUTER_HEADER = 20
BATCH = 64
CONGESTION_CONTROL = "cubic"
_TUNSETIFF, _IFF_TUN, _IFF_NO_PI = 0x400454CA, 0x1, 0x1000  # linux/if_tun.h
_SOCKET_BUFFER = 4 << 20


def open_tun(name: str) -> int:
    """A new TUN device without a header before its packets; raises OSError."""
    tun = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK)
    fcntl.ioctl(tun, _TUNSETIFF, struct.pack("16sH22x", name.encode(), _IFF_TUN | _IFF_NO_PI))
    return tun


def configure(name: str, address: str, mtu: int) -> None:
    """Address, MTU and, as on the links beside it, the congestion control by its route."""
    ipv6 = Path(f"/proc/sys/net/ipv6/conf/{name}/disable_ipv6")
    if ipv6.exists():
        ipv6.write_text("1")
    local, _, bits = address.partition("/")
    network = ".".join(local.split(".")[:3]) + f".0/{bits}"
    for words in (
        ["address", "add", address, "dev", name],
        ["link", "set", name, "mtu", str(mtu), "up"],
        ["route", "replace", network, "dev", name, "src", local, "congctl", CONGESTION_CONTROL],
    ):
        subprocess.run(["ip", *words], check=True)


def carry(tun: int, wire: socket.socket) -> None:
    """Move packets both ways until the process is ended."""
    poll = select.poll()
    poll.register(tun, select.POLLIN)
    poll.register(wire, select.POLLIN)
    while True:
        for fd, _ in poll.poll():
            try:
                if fd == tun:
                    for _ in range(BATCH):
                        wire.send(os.read(tun, 65536))
                else:
                    for _ in range(BATCH):
                        os.write(tun, memoryview(wire.recv(65536))[OUTER_HEADER:])
            except BlockingIOError:
                continue  # nothing more to read, or no room to send: as a full queue does, it drops the packet


def main() -> None:
    name, address, outer, peer, mtu = sys.argv[1:]
    tun = open_tun(name)
    configure(name, address, int(mtu))
    wire = socket.socket(socket.AF_INET, socket.SOCK_RAW, PROTOCOL)
    for option in (socket.SO_RCVBUF, socket.SO_SNDBUF):
        wire.setsockopt(socket.SOL_SOCKET, option, _SOCKET_BUFFER)
    wire.bind((outer, 0))
    wire.connect((peer, 0))
    wire.setblocking(False)
    print("ready", flush=True)
    carry(tun, wire)


if __name__ == "__main__":
    main()
