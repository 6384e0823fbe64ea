"""Probes for one-way delay and loss: `python -m testbed.link.probe PATH` takes orders there, in each of two hosts.

    listen   address, port                            be ready for probes
    collect  count, patience                          {"came": [[number, nanoseconds], ...]}: once all are there, or
                                                      nothing has come for `patience` seconds
    send     address, port, count, interval, size     {"left": [[number, nanoseconds], ...]}

The stamps are the kernel's, of the moments at which a datagram left by the sender's interface (behind its shaper) and
came in at the receiver's: no program's way from its bed to its socket is in them. Both are of the one clock that all
hosts of a machine have (SO_TIMESTAMPING, Documentation/networking/timestamping of Linux).
"""

from __future__ import annotations

import select
import socket
import struct
import sys
import time
from typing import Any

from testbed.traffic.orders import serve_orders

SO_TIMESTAMPNS, SO_TIMESTAMPING, IP_RECVERR = 35, 37, 11
_TX_SOFTWARE, _SOFTWARE, _NUMBERED, _STAMP_ONLY = 1 << 1, 1 << 4, 1 << 7, 1 << 11
_TIMESPEC = struct.Struct("@qq")
_NUMBER = struct.Struct("!I")
_ERROR_NUMBER = struct.Struct("@12xI")  # of struct sock_extended_err: ee_data
_RECEIVE_BUFFER = 4 << 20
_STAMP_SECONDS = 0.5
"""How long after the last probe the kernel may take to hand out its stamps."""

Stamps = list[tuple[int, int]]


class Probe:
    """Both sides."""

    def __init__(self) -> None:
        self._socket: socket.socket | None = None

    def listen(self, order: dict[str, Any], _tell: Any) -> dict[str, Any]:
        if self._socket is not None:
            self._socket.close()
        self._socket = receiver = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        receiver.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _RECEIVE_BUFFER)
        receiver.setsockopt(socket.SOL_SOCKET, SO_TIMESTAMPNS, 1)
        receiver.bind((order["address"], order["port"]))
        return {}

    def collect(self, order: dict[str, Any], _tell: Any) -> dict[str, Any]:
        assert self._socket is not None
        self._socket.settimeout(order["patience"])
        came: Stamps = []
        while len(came) < order["count"]:
            try:
                data, ancillary, _, _ = self._socket.recvmsg(2048, 64)
            except TimeoutError:
                break
            came.append((_NUMBER.unpack_from(data)[0], _nanoseconds(ancillary[0][2])))
        return {"came": came}

    def send(self, order: dict[str, Any], _tell: Any) -> dict[str, Any]:
        left: Stamps = []
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
            wanted = _TX_SOFTWARE | _SOFTWARE | _NUMBERED | _STAMP_ONLY
            sender.setsockopt(socket.SOL_SOCKET, SO_TIMESTAMPING, wanted)
            sender.connect((order["address"], order["port"]))
            payload = bytes(order["size"])
            at = time.monotonic()
            for number in range(order["count"]):
                time.sleep(max(0.0, at + number * order["interval"] - time.monotonic()))
                try:
                    sender.send(_NUMBER.pack(number) + payload[_NUMBER.size :])
                except ConnectionRefusedError:  # the receiver has gone: what was sent before is said by the numbers
                    break
                _stamps(sender, left)
            deadline = time.monotonic() + _STAMP_SECONDS
            while len(left) < order["count"] and (rest := deadline - time.monotonic()) > 0:
                select.select([], [], [sender], rest)
                if not _stamps(sender, left):
                    select.select([sender], [], [], min(rest, 0.01))
        return {"left": left}


def _stamps(sender: socket.socket, into: Stamps) -> bool:
    """Take the stamps that the kernel has ready; whether there were any."""
    before = len(into)
    while True:
        try:
            _, ancillary, _, _ = sender.recvmsg(0, 512, socket.MSG_ERRQUEUE | socket.MSG_DONTWAIT)
        except BlockingIOError:
            return len(into) > before
        found = {(level, kind): data for level, kind, data in ancillary}
        error, stamp = found.get((socket.IPPROTO_IP, IP_RECVERR)), found.get((socket.SOL_SOCKET, SO_TIMESTAMPING))
        if error is not None and stamp is not None:
            into.append((_ERROR_NUMBER.unpack_from(error)[0], _nanoseconds(stamp)))


def _nanoseconds(stamp: bytes) -> int:
    seconds, nanoseconds = _TIMESPEC.unpack_from(stamp)
    return int(seconds) * 1_000_000_000 + int(nanoseconds)


def main() -> None:
    probe = Probe()
    serve_orders(sys.argv[1], {"listen": probe.listen, "collect": probe.collect, "send": probe.send})


if __name__ == "__main__":
    main()
