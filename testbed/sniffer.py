"""A small tcpdump, for user namespaces: there is no other user there, and tcpdump insists on becoming one.

    python testbed/sniffer.py INTERFACE FILE SNAP

Writes a pcap file with nanoseconds (SNAP bytes of each frame, 0: all), says "listening on" when it does, and at SIGTERM
how many frames the kernel dropped, all as tcpdump does. Stands alone, so that it starts quickly.
"""

from __future__ import annotations

import select
import signal
import socket
import struct
import sys
import time
from typing import BinaryIO

ETH_P_ALL = 0x0003
SOL_PACKET, PACKET_STATISTICS = 263, 6
SO_TIMESTAMPNS = 35
RECEIVE_BUFFER = 8 << 20
MAX_FRAME = 14 + 4 + 65536
DRAIN_SECONDS = 0.5
_TIMESPEC, _STATISTICS = struct.Struct("@qq"), struct.Struct("=II")
_FILE_HEADER, _RECORD_HEADER = struct.Struct("=IHHiIII"), struct.Struct("=IIII")
_MAGIC, _ETHERNET = 0xA1B23C4D, 1


def sniff(interface: str, output: BinaryIO, snap: int, stopped: socket.socket) -> None:
    """Write frames until ``stopped`` is readable, and then those that wait still; `output` is unbuffered, so that each
    frame is in the file at once.
    """
    packets = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0)
    packets.setsockopt(socket.SOL_SOCKET, SO_TIMESTAMPNS, 1)
    # In a user namespace the kernel gives as much of it as the host's limit allows.
    packets.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, RECEIVE_BUFFER)
    packets.bind((interface, ETH_P_ALL))
    packets.getsockopt(SOL_PACKET, PACKET_STATISTICS, _STATISTICS.size)  # reading it clears it
    packets.setblocking(False)
    output.write(_FILE_HEADER.pack(_MAGIC, 2, 4, 0, 0, snap or MAX_FRAME, _ETHERNET))
    print(f"listening on {interface}", file=sys.stderr, flush=True)
    ended = False
    while not ended:
        ended = stopped in select.select([packets, stopped], [], [])[0]
        # On a link that never rests there is no last frame.
        _write_waiting(packets, output, snap, until=time.monotonic() + DRAIN_SECONDS)
    statistics = packets.getsockopt(SOL_PACKET, PACKET_STATISTICS, _STATISTICS.size)
    print(f"{_STATISTICS.unpack(statistics)[1]} packets dropped by kernel", file=sys.stderr, flush=True)


def _write_waiting(packets: socket.socket, output: BinaryIO, snap: int, *, until: float) -> None:
    while time.monotonic() < until:
        try:
            frame, ancillary, _, _ = packets.recvmsg(MAX_FRAME, 64)
        except BlockingIOError:
            return
        seconds, nanoseconds = _TIMESPEC.unpack_from(ancillary[0][2])
        kept = frame[:snap] if snap else frame
        output.write(_RECORD_HEADER.pack(seconds, nanoseconds, len(kept), len(frame)) + kept)


def main(arguments: list[str]) -> int:
    """Returns 0 after SIGTERM, 1 when the interface or the file cannot be used."""
    stopped, told = socket.socketpair()
    told.setblocking(False)
    # The handler does nothing: the signal's number arrives at `stopped`, between two frames.
    signal.signal(signal.SIGTERM, lambda number, frame: None)
    signal.set_wakeup_fd(told.fileno())
    interface, path, snap = arguments
    try:
        with open(path, "wb", buffering=0) as output:
            sniff(interface, output, int(snap), stopped)
    except OSError as error:
        print(f"sniffer: {interface}, {path}: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
