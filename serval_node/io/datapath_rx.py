"""Network to kernel, one packet at a time: for a Python without numpy, and what the vector path leaves over."""

from __future__ import annotations

import errno
import os
import socket
import struct
import time
from collections.abc import Callable

from serval_node.io.fast_flow import (
    CHECKSUM_AT,
    FIN_SYN_RST,
    KERNEL_IP_AT,
    SMALLEST,
    TCP_AT,
    VNET_AT,
    FastFlow,
    FlowPaths,
)
from serval_node.io.tun import MAX_PACKET, PLAIN_VNET_HEADER, Tun

PACKETS_PER_CALL = 64

# From byte 12 of a wire packet: addresses and SAL header, ports, sequence, ack, offset and flags, window, checksum.
WIRE_START = struct.Struct("!20sIIIHHH")
# From byte 2 on, over the outer headers: the vnet header, the kernel's IPv4 header and the ports.
KERNEL_START = struct.Struct("!10sBBHHHBBH8s4s")
_U16 = struct.Struct("!H")
_DONT_FRAGMENT = 0x4000

SlowNetwork = Callable[[memoryview], None]
FirstPacket = Callable[[int], None]


class Receiver:
    """Reads SAL packets, gives those of established flows to the kernel, the others to the stack."""

    def __init__(
        self, tun: Tun, sock: socket.socket, paths: FlowPaths, slow: SlowNetwork, first_packet: FirstPacket
    ) -> None:
        """`slow(packet)` gets a whole IPv4 packet in memory that is valid during the call only.
        `first_packet(local_flow)` is called for the first fast-path packet of a flow since its last `install`."""
        self._tun_fd = tun.fileno()
        self._socket = sock
        self._paths = paths
        self._slow = slow
        self._first_packet = first_packet
        self._view = memoryview(bytearray(MAX_PACKET))

    def receive(self) -> None:
        """Handles what the socket has, up to PACKETS_PER_CALL packets."""
        for _ in range(PACKETS_PER_CALL):
            try:
                length = self._socket.recv_into(self._view)
            except BlockingIOError:
                return
            self._one(self._view, length)

    def _one(self, view: memoryview, length: int) -> None:
        """Handles the packet view[:length]; the view is changed."""
        if length < SMALLEST or view[0] != 0x45:
            self._pass_on(view, length)
            return
        key, ports, sequence, ack, offset_flags, _, checksum = WIRE_START.unpack_from(view, KERNEL_IP_AT)
        flow = self._paths.by_wire.get(key)
        if flow is None or offset_flags & FIN_SYN_RST:
            self._pass_on(view, length)
            return
        data = TCP_AT + (offset_flags >> 10 & 60)
        if not SMALLEST <= data <= length:
            self._paths.drops["bad_transport_header"] += 1
            return
        # The sum stays the same when addresses and ports are exchanged, so the kernel still verifies the payload.
        checksum = (checksum + flow.outer_sum + ports - flow.kernel_sum) % 65535
        self._write_kernel_start(flow, view, length - KERNEL_IP_AT, PLAIN_VNET_HEADER, checksum)
        self._note(flow, 1, length - data, sequence, ack)
        try:
            os.write(self._tun_fd, view[VNET_AT:length])
        except OSError as error:
            self._count_error(error.errno or 0, 1)

    def _write_kernel_start(self, flow: FastFlow, view: memoryview, total: int, vnet: bytes, checksum: int) -> None:
        """Puts the kernel's headers for an IPv4 packet of `total` bytes over the outer ones; TOS is kept."""
        tos = view[1]
        ip_checksum = -(flow.inner_ip_sum + tos + total) % 65535
        KERNEL_START.pack_into(
            view, VNET_AT, vnet, 0x45, tos, total, 0, _DONT_FRAGMENT, 64, 6, ip_checksum,
            flow.inner_addresses, flow.inner_ports,
        )  # fmt: skip
        _U16.pack_into(view, CHECKSUM_AT, checksum)

    def _note(self, flow: FastFlow, packets: int, payload: int, sequence: int, ack: int) -> None:
        flow.note_received(packets, payload, sequence, ack)
        flow.arrived(time.monotonic())
        if not flow.heard:
            flow.heard = True
            self._first_packet(flow.state.local_flow)

    def _pass_on(self, view: memoryview, length: int) -> None:
        self._paths.slow_network += 1
        self._slow(view[:length])

    def _count_error(self, number: int, packets: int) -> None:
        self._paths.drops["kernel_" + errno.errorcode.get(number, str(number)).lower()] += packets
