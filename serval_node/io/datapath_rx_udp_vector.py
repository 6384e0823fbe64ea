"""Network to kernel for packets inside UDP, many segments at a time: what the kernel joined (UDP_GRO) becomes one TSO
frame for sal0 for each run of consecutive segments of a flow; mostly that is all of it.
"""

from __future__ import annotations

import socket

import numpy as np

from serval_node.io.datapath_rx import WIRE_START, FirstPacket, SlowNetwork
from serval_node.io.datapath_rx_udp import UdpReceiver
from serval_node.io.datapath_rx_vector import SMALLEST_VECTOR, comparison_masks
from serval_node.io.fast_flow import (
    FIN_SYN_RST,
    FLAGS_AT,
    KERNEL_IP_AT,
    OFFSET_AT,
    PSH,
    SAL_AT,
    SEQUENCE_AT,
    SEQUENCE_MASK,
    TCP_AT,
    URG,
    VNET_AT,
    FlowPaths,
)
from serval_node.io.system_calls import IOVEC_WORDS, writev
from serval_node.io.tun import GSO_TCPV4, MAX_PACKET, NEEDS_CHECKSUM, VNET_HEADER, Tun
from serval_node.wire.ipv4 import Address

_COMPARED = 96  # bytes: outer IPv4, SAL and TCP header with all its options, as in the masks
_MOST = 128  # segments looked at together; the kernel joins 64


class VectorUdpReceiver(UdpReceiver):
    """UdpReceiver that takes the segments of a datagram together."""

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
        super().__init__(tun, sock, paths, slow, first_packet, port=port)
        self._bytes = np.frombuffer(self._buffer, np.uint8)
        self._address = self._bytes.ctypes.data
        self._masks = comparison_masks(outer=False)
        self._vectors = np.zeros((_MOST, IOVEC_WORDS), np.int64)
        self._vectors_address = self._vectors.ctypes.data

    def _datagram(self, length: int, size: int, source: Address, local: Address, port: int, ttl: int) -> None:
        count = -(-length // size)
        if not SMALLEST_VECTOR <= count <= _MOST or size < TCP_AT + 20 - SAL_AT:
            super()._datagram(length, size, source, local, port, ttl)
            return
        lengths = np.full(count, size, np.int64)
        lengths[-1] = length - (count - 1) * size
        joined, payloads, starts = self._joined(count, size, lengths)
        runs = [0, *(np.flatnonzero(~joined) + 1).tolist(), count]
        vectors = self._vectors
        vectors[:count, 0] = self._address + starts + np.arange(count) * size
        vectors[:count, 1] = payloads
        addresses = source + local
        for first, stop in zip(runs, runs[1:], strict=False):
            if stop - first == 1 or not self._run(first, stop, size, payloads, addresses):
                for index in range(first, stop):
                    self._segment(index * size, int(lengths[index]), source, local, port, ttl)

    def _joined(self, count: int, size: int, lengths: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Which segments continue the one before them (one entry less than segments), the TCP payload lengths, and
        where in its segment each payload begins, an IPv4 header included.
        """
        rows = np.lib.stride_tricks.as_strided(self._bytes, (count, _COMPARED), (size, 1)).copy()
        words = rows[:, OFFSET_AT] >> 4
        starts = words * 4 + np.int64(TCP_AT)
        payloads = lengths + SAL_AT - starts
        heads = rows.view(np.uint64) & self._masks[words]
        sequences = rows[:, SEQUENCE_AT : SEQUENCE_AT + 4].view(">u4")[:, 0].astype(np.int64)
        before, after = payloads[:-1], payloads[1:]
        joined = (heads[1:] == heads[:-1]).all(axis=1)
        joined &= sequences[1:] == (sequences[:-1] + before) & SEQUENCE_MASK
        joined &= (after > 0) & (after <= before) & (rows[:-1, FLAGS_AT] & PSH == 0)
        joined[1:] &= (before[1:] == before[:-1]) | ~joined[:-1]
        return joined, payloads, starts

    def _run(self, first: int, stop: int, size: int, payloads: np.ndarray, addresses: bytes) -> bool:
        """Gives segments first..stop-1, each the continuation of the one before, to the kernel; False: they are for one
        by one.
        """
        view = self._all[first * size :]
        view[KERNEL_IP_AT:SAL_AT] = addresses
        key, _, sequence, ack, offset_flags, _, _ = WIRE_START.unpack_from(view, KERNEL_IP_AT)
        flow = self._paths.by_wire.get(key)
        if flow is None or offset_flags & (FIN_SYN_RST | URG) or offset_flags >> 12 < 5:
            return False
        header, segment = offset_flags >> 10 & 60, int(payloads[first])
        data = TCP_AT + header
        payload = int(payloads[first:stop].sum())
        if data - KERNEL_IP_AT + payload > MAX_PACKET:
            return False
        pushed = self._bytes[(stop - 1) * size + FLAGS_AT] & PSH
        view[FLAGS_AT] |= int(pushed)
        vnet = VNET_HEADER.pack(NEEDS_CHECKSUM, GSO_TCPV4, 20 + header, segment, 20, 16)
        self._write_partial(flow, view, data - KERNEL_IP_AT + payload, vnet)
        self._note(flow, stop - first, payload, sequence, ack)
        self._vectors[first] = (self._address + first * size + VNET_AT, data - VNET_AT + segment)
        written = writev(self._tun_fd, self._vectors_address + first * IOVEC_WORDS * 8, stop - first)
        if written < 0:
            self._count_error(-written, stop - first)
        return True
