"""Network to kernel for packets inside UDP: one datagram of the kernel's at a time, which may hold many segments.

The kernel has verified UDP's checksum, and with it the payload; sal0 is told so, and nobody sums it again. The
segment's own checksum is not looked at: behind a NAT it is for other addresses (serval_node.wire.encapsulation).
"""

from __future__ import annotations

import os
import socket
import struct

from serval_node.io.datapath_rx import WIRE_START, FirstPacket, Receiver, SlowNetwork
from serval_node.io.fast_flow import FIN_SYN_RST, KERNEL_IP_AT, SAL_AT, SMALLEST, TCP_AT, VNET_AT, FastFlow, FlowPaths
from serval_node.io.tun import GSO_NONE, MAX_PACKET, NEEDS_CHECKSUM, VNET_HEADER, Tun
from serval_node.io.udp_encap import IP_PKTINFO, IP_TTL, SOL_UDP, UDP_GRO
from serval_node.wire.checksum import ones_sum
from serval_node.wire.encapsulation import received
from serval_node.wire.ipv4 import DEFAULT_TTL, HEADER_LENGTH, PROTOCOL_TCP, Address, UdpPorts

DATAGRAMS_PER_CALL = 32

_SLACK = 128  # so that headers can be looked at without asking whether they are complete
_INT = struct.Struct("=i")
_ADDRESS_IN_PKTINFO = slice(8, 12)
_ANCILLARY_BYTES = socket.CMSG_SPACE(12) + 2 * socket.CMSG_SPACE(4)
PARTIAL_VNET_HEADER = VNET_HEADER.pack(NEEDS_CHECKSUM, GSO_NONE, 0, 0, 20, 16)


class UdpReceiver(Receiver):
    """Receiver of one of the two ports. Segments lie in the buffer one after the other, each with room for an IPv4
    header before it: at the start of the buffer, or the end of the segment before, which has been dealt with by then.
    """

    def __init__(
        self,
        tun: Tun,
        sock: socket.socket,
        paths: FlowPaths,
        slow: SlowNetwork,
        first_packet: FirstPacket,
        *,
        port: int,
    ) -> None:
        super().__init__(tun, sock, paths, slow, first_packet)
        self._port = port
        self._buffer = bytearray(SAL_AT + MAX_PACKET + _SLACK)
        self._all = memoryview(self._buffer)
        self._places = [self._all[SAL_AT : SAL_AT + MAX_PACKET]]

    def receive(self) -> None:
        """Handles what the socket has, up to DATAGRAMS_PER_CALL datagrams of the kernel's."""
        for _ in range(DATAGRAMS_PER_CALL):
            try:
                length, ancillary, _, (text, port) = self._socket.recvmsg_into(self._places, _ANCILLARY_BYTES)
            except BlockingIOError:
                return
            local, size, ttl = b"", length, DEFAULT_TTL
            for level, kind, value in ancillary:
                if level == SOL_UDP and kind == UDP_GRO:
                    (size,) = _INT.unpack_from(value)
                elif level == socket.IPPROTO_IP and kind == IP_PKTINFO:
                    local = value[_ADDRESS_IN_PKTINFO]
                elif level == socket.IPPROTO_IP and kind == IP_TTL:
                    (ttl,) = _INT.unpack_from(value)
            if length and port and len(local) == 4:
                self._datagram(length, size, socket.inet_aton(text), local, port, ttl)

    def _datagram(self, length: int, size: int, source: Address, local: Address, port: int, ttl: int) -> None:
        """`length` bytes from `source`, in segments of `size` but for the last."""
        for begin in range(0, length, size):
            self._segment(begin, min(size, length - begin), source, local, port, ttl)

    def _segment(self, begin: int, size: int, source: Address, local: Address, port: int, ttl: int) -> None:
        view, length = self._all[begin:], SAL_AT + size
        view[KERNEL_IP_AT:SAL_AT] = source + local
        key, _, sequence, ack, offset_flags, _, _ = WIRE_START.unpack_from(view, KERNEL_IP_AT)
        flow = self._paths.by_wire.get(key) if length >= SMALLEST else None
        if flow is None or offset_flags & FIN_SYN_RST:
            self._paths.slow_network += 1
            ports = UdpPorts(self._port, port)
            if length + 8 <= MAX_PACKET:
                self._slow(memoryview(received(source, local, ports, view[SAL_AT:length], ttl)))
            return
        data = TCP_AT + (offset_flags >> 10 & 60)
        if not SMALLEST <= data <= length:
            self._paths.drops["bad_transport_header"] += 1
            return
        self._write_partial(flow, view, length - KERNEL_IP_AT, PARTIAL_VNET_HEADER)
        self._note(flow, 1, length - data, sequence, ack)
        try:
            os.write(self._tun_fd, view[VNET_AT:length])
        except OSError as error:
            self._count_error(error.errno or 0, 1)

    def _write_partial(self, flow: FastFlow, view: memoryview, total: int, vnet: bytes) -> None:
        """The kernel's headers for an IPv4 packet of `total` bytes whose checksum counts as verified."""
        view[1] = 0  # the outer TOS is not known
        checksum = ones_sum(flow.inner_addresses) + PROTOCOL_TCP + total - HEADER_LENGTH
        self._write_kernel_start(flow, view, total, vnet, checksum % 65535)
