"""SYNs without anybody behind them: who sends them and who counts them, as helper programs of a benchmark.

    python -m experiments.benchmarks.syns send|count PATH       takes orders on a unix socket

    burst    destination, service, count          as fast as they go: {}
    alone    destination, service, count, pause   one after the other: {"times"}, when each was sent
    collect  count                                {} when it counts, then {"times"}: when the kernel had each of them

Each SYN is another connection's: flowID, nonce and port differ. Times are seconds of the wall clock, the kernel's own.
"""

from __future__ import annotations

import socket
import struct
import sys
import time
from collections.abc import Callable
from typing import Any

from serval_node.wire.ipv4 import PROTOCOL_SERVAL, PROTOCOL_TCP, address
from serval_node.wire.sal_header import Control, ControlFlag, SalPacket, Service, encode
from serval_node.wire.serviceid import ServiceID
from serval_node.wire.transport import SYN, build_tcp, to_wire
from testbed.traffic.orders import Answer, serve_orders

Tell = Callable[[Answer], None]
QUIET_SECONDS = 2.0
_BUFFER = 64 << 20
_SO_RCVBUFFORCE, _SO_TIMESTAMPNS = 33, 35
_TIMESPEC = struct.Struct("@qq")


class Sender:
    """Every SYN is made before the first one is sent."""

    def __init__(self) -> None:
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_RAW, PROTOCOL_SERVAL)
        self._number = 0

    def burst(self, order: dict[str, Any], _tell: Tell) -> Answer:
        send, destination = self._socket.sendto, (order["destination"], 0)
        for data in self._made(order):
            send(data, destination)
        return {}

    def alone(self, order: dict[str, Any], _tell: Tell) -> Answer:
        times = []
        for data in self._made(order):
            times.append(time.time())
            self._socket.sendto(data, (order["destination"], 0))
            time.sleep(order["pause"])
        return {"times": times}

    def _made(self, order: dict[str, Any]) -> list[bytes]:
        service = Service(ServiceID(bytes.fromhex(order["service"].removeprefix("0x"))))
        ends = address(order["source"]), address(order["destination"])
        made = []
        for _ in range(order["count"]):
            self._number += 1
            control = Control(ControlFlag.SYN, 1, 0, self._number.to_bytes(8, "big"))
            segment = to_wire(build_tcp(1024 + self._number % 60000, 80, 1, 0, SYN, window=65535), PROTOCOL_TCP, *ends)
            made.append(encode(SalPacket(self._number, 0, PROTOCOL_TCP, (control, service), segment)))
        return made


class Counter:
    """Stamps come from the kernel: how quickly this program reads does not matter."""

    def __init__(self) -> None:
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_RAW, PROTOCOL_SERVAL)
        try:
            self._socket.setsockopt(socket.SOL_SOCKET, _SO_RCVBUFFORCE, _BUFFER)
        except PermissionError:  # in a user namespace: as large as the machine's limit allows
            self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _BUFFER)
        self._socket.setsockopt(socket.SOL_SOCKET, _SO_TIMESTAMPNS, 1)

    def collect(self, order: dict[str, Any], tell: Tell) -> Answer:
        self._drain()
        tell({"ok": True})
        times: list[float] = []
        self._socket.settimeout(QUIET_SECONDS)
        try:
            while len(times) < order["count"]:
                _, ancillary, _, _ = self._socket.recvmsg(64, 64)
                seconds, nanoseconds = _TIMESPEC.unpack_from(ancillary[0][2])
                times.append(seconds + nanoseconds * 1e-9)
        except TimeoutError:
            raise OSError(f"{len(times)} of {order['count']} SYNs came, then none for {QUIET_SECONDS:g} s") from None
        return {"times": times}

    def _drain(self) -> None:
        self._socket.setblocking(False)
        try:
            while True:
                self._socket.recv(64)
        except BlockingIOError:
            return


def main() -> None:
    kind, path = sys.argv[1:]
    if kind == "send":
        sender = Sender()
        serve_orders(path, {"burst": sender.burst, "alone": sender.alone})
    serve_orders(path, {"collect": Counter().collect})


if __name__ == "__main__":
    main()
