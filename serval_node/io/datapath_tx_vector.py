"""Kernel to network with segmentation: a super-segment of up to 64 KB becomes wire packets by a few numpy calls and
one sendmmsg.

Each packet is two iovecs: a header row, and a slice of the buffer that was read from sal0 (its payload is never
copied). The checksum of each is the sum of its payload, taken for all rows at once, plus a constant of the
super-segment, plus its sequence number and length; everything modulo 65535.
"""

from __future__ import annotations

import errno
import struct

import numpy as np

from serval_node.io.datapath_tx import SEQUENCE_ACK_WINDOW, Shut, SlowKernel, Transmitter
from serval_node.io.fast_flow import (
    CHECKSUM_AT,
    FLAGS_AT,
    KERNEL_IP_AT,
    PSH,
    SEQUENCE_AT,
    SEQUENCE_MASK,
    TCP_AT,
    VNET_AT,
    FastFlow,
    FlowPaths,
)
from serval_node.io.sender import Sender
from serval_node.io.system_calls import (
    IOVEC_WORDS,
    MMSGHDR_WORDS,
    MSG_CONTROL,
    MSG_CONTROLLEN,
    MSG_IOV,
    MSG_IOVLEN,
    MSG_NAME,
    MSG_NAMELEN,
    sendmmsg,
)
from serval_node.io.tun import Tun
from serval_node.io.udp_encap import LONGEST, MOST_SEGMENTS, SOL_UDP, UDP_SEGMENT
from serval_node.wire.checksum import ones_sum
from serval_node.wire.ipv4 import PROTOCOL_TCP

ROWS = 128
OVERDRAWN = 8  # packets beyond what the shaper has room for, rather than split a super-segment for them
_ROW_SIZE = 96  # IPv4 20 + SAL 12 + TCP 60, rounded up
_MMSGHDR_SIZE = MMSGHDR_WORDS * 8
_SOCKET_ADDRESS = struct.Struct("=H2s4s8x")
_AF_INET = 2
_SEGMENT_CONTROL = struct.Struct("=QiiH6x")  # struct cmsghdr with the size to which the kernel cuts a datagram
_SEGMENT_CONTROL_LENGTH = 18
_U16 = struct.Struct("!H")
_U32 = struct.Struct("!I")


class VectorTransmitter(Transmitter):
    """Transmitter that also takes super-segments."""

    def __init__(self, tun: Tun, paths: FlowPaths, slow: SlowKernel, shut: Shut) -> None:
        super().__init__(tun, paths, slow, shut)
        self._data = np.frombuffer(self._buffer, np.uint8)
        self._data_address = self._data.ctypes.data
        # Kept as attributes for as long as the kernel may be given their addresses.
        self._headers = np.zeros((ROWS, _ROW_SIZE), np.uint8)
        self._sequences = self._headers[:, SEQUENCE_AT : SEQUENCE_AT + 4].view(">u4")[:, 0]
        self._checksums = self._headers[:, CHECKSUM_AT : CHECKSUM_AT + 2].view(">u2")[:, 0]
        self._flags = self._headers[:, FLAGS_AT]
        self._name = bytearray(16)
        self._name_array = np.frombuffer(self._name, np.uint8)
        self._vectors_array = np.zeros((ROWS, 2, IOVEC_WORDS), np.uint64)
        self._vectors_array[:, 0, 0] = self._headers.ctypes.data + np.arange(ROWS) * _ROW_SIZE
        self._messages = np.zeros((ROWS, MMSGHDR_WORDS), np.uint64)
        self._messages[:, MSG_NAME] = self._name_array.ctypes.data
        self._messages[:, MSG_NAMELEN] = len(self._name)
        self._messages[:, MSG_IOV] = self._vectors_array.ctypes.data + np.arange(ROWS) * 2 * IOVEC_WORDS * 8
        self._messages[:, MSG_IOVLEN] = 2
        self._messages_address = self._messages.ctypes.data
        self._segment_control = bytearray(_SEGMENT_CONTROL.size)
        self._segment_control_array = np.frombuffer(self._segment_control, np.uint8)
        self._joined = self._messages.copy()  # each of many segments
        self._joined[:, MSG_CONTROL] = self._segment_control_array.ctypes.data
        self._joined[:, MSG_CONTROLLEN] = len(self._segment_control)
        self._joined_address = self._joined.ctypes.data
        self._numbers = np.arange(ROWS, dtype=np.int64)
        self._offsets: dict[int, np.ndarray] = {}
        self._layout = (0, 0, 0, 0)  # header's begin and end, payload offset, segment size that the iovecs stand for

    def _send_segments(self, flow: FastFlow, end: int, header: int, gso_size: int) -> None:
        buffer, view = self._buffer, self._view
        start = TCP_AT + header
        fit = flow.sender.packets_at_once(start + gso_size - flow.sender.skip)
        if fit is not None and end - start > (max(fit, 1) + OVERDRAWN) * gso_size:
            cut = start + max(fit, 1) * gso_size
            self._hold_back(flow.sender, start, cut, end)
            end = cut
        sequence, ack, _, window = SEQUENCE_ACK_WINDOW.unpack_from(buffer, SEQUENCE_AT)
        if flow.unacknowledged is not None:
            flow.unacknowledged.keep(sequence + end - start & SEQUENCE_MASK, view[VNET_AT:end])
        last_flags = buffer[FLAGS_AT]
        tos = buffer[KERNEL_IP_AT + 1]
        buffer[FLAGS_AT] = last_flags & ~PSH  # the last segment gets it back
        buffer[CHECKSUM_AT] = buffer[CHECKSUM_AT + 1] = 0
        view[:SEQUENCE_AT] = flow.outer_header
        buffer[1] = tos
        constant = flow.outer_sum + PROTOCOL_TCP + header + ones_sum(view[TCP_AT:start]) - sequence
        port = flow.peer_socket[1].to_bytes(2, "big")
        _SOCKET_ADDRESS.pack_into(self._name, 0, _AF_INET, port, flow.state.peer_address)
        packets = -(-(end - start) // gso_size)
        for first in range(0, packets, ROWS):
            rows = min(ROWS, packets - first)
            begin = start + first * gso_size
            stop = min(end, begin + rows * gso_size)
            self._fill_headers(rows, begin, stop, start, gso_size, sequence + begin - start, constant)
            if stop == end:
                self._flags[rows - 1] = last_flags
                self._checksums[rows - 1] = (int(self._checksums[rows - 1]) - (last_flags & PSH)) % 65535
            self._send_rows(flow, rows, begin, stop, start, gso_size)
        flow.note_sent(packets, end - start, sequence, ack)
        self._note_window(flow, header, window)

    def _hold_back(self, sender: Sender, start: int, cut: int, end: int) -> None:
        """Splits the super-segment in two: what is behind `cut` becomes one of its own, which is held."""
        buffer, view = self._buffer, self._view
        rest = bytearray(view[VNET_AT:start]) + view[cut:end]
        rest_view = memoryview(rest)
        (sequence,) = _U32.unpack_from(rest, SEQUENCE_AT - VNET_AT)
        _U32.pack_into(rest, SEQUENCE_AT - VNET_AT, sequence + cut - start & SEQUENCE_MASK)
        # The partial checksum is the pseudo header's sum, with the length in it.
        (partial,) = _U16.unpack_from(rest, CHECKSUM_AT - VNET_AT)
        _U16.pack_into(rest, CHECKSUM_AT - VNET_AT, (partial - (cut - start)) % 65535)
        ip = KERNEL_IP_AT - VNET_AT
        _U16.pack_into(rest, ip + 2, len(rest) - ip)
        _U16.pack_into(rest, ip + 10, 0)
        _U16.pack_into(rest, ip + 10, -ones_sum(rest_view[ip : ip + 20]) % 65535)
        buffer[FLAGS_AT] &= ~PSH & 0xFF
        sender.hold_first(bytes(rest))

    def _fill_headers(
        self, rows: int, begin: int, stop: int, header_end: int, gso_size: int, sequence: int, constant: int
    ) -> None:
        self._headers[:rows, :header_end] = self._data[:header_end]
        offsets = self._offsets.get(gso_size)
        if offsets is None:
            offsets = self._offsets[gso_size] = self._numbers * gso_size
        sequences = (offsets[:rows] + sequence) & SEQUENCE_MASK
        self._sequences[:rows] = sequences
        full, rest = divmod(stop - begin, gso_size)
        sums = sequences + (constant + gso_size)
        if full:
            sums[:full] += row_sums(self._buffer, begin, full, gso_size)
        if rest:
            sums[full] += ones_sum(self._view[stop - rest : stop]) + rest - gso_size
        self._checksums[:rows] = -sums % 65535

    def _send_rows(self, flow: FastFlow, rows: int, begin: int, stop: int, header_end: int, gso_size: int) -> None:
        vectors, sender = self._vectors_array, flow.sender
        skip = sender.skip
        if self._layout != (skip, header_end, begin, gso_size):
            self._layout = (skip, header_end, begin, gso_size)
            vectors[:, 0, 0] = self._headers.ctypes.data + self._numbers * _ROW_SIZE + skip
            vectors[:, 0, 1] = header_end - skip
            vectors[:, 1, 0] = self._data_address + begin + self._numbers * gso_size
            vectors[:, 1, 1] = gso_size
        last_size = stop - begin - (rows - 1) * gso_size
        vectors[rows - 1, 1, 1] = last_size
        done = 0
        if rows > 1 and not sender.backlog and sender.joins(flow.state.peer_address):
            done = self._send_joined(flow, rows, header_end - skip + gso_size)
        while done < rows and not sender.backlog:
            sent = sendmmsg(sender.fileno(), self._messages_address + done * _MMSGHDR_SIZE, rows - done)
            if sent > 0:
                done += sent
            elif sent in (-errno.EAGAIN, -errno.EWOULDBLOCK):
                break
            elif sent != -errno.EINTR:
                sender.count_error(-sent)
                done += 1
        sender.spend(stop - begin + rows * (header_end - skip), rows)
        for row in range(done, rows):
            data = begin + row * gso_size
            packet = self._headers[row, skip:header_end].tobytes() + self._view[data : min(data + gso_size, stop)]
            sender.park(packet, flow.peer_socket)
        vectors[rows - 1, 1, 1] = gso_size

    def _send_joined(self, flow: FastFlow, rows: int, size: int) -> int:
        """Gives the kernel many segments of `size` bytes at once; how many rows it took."""
        each = min(MOST_SEGMENTS, LONGEST // size)
        messages = -(-rows // each)
        starts = self._numbers[:messages] * each
        joined = self._joined
        joined[:messages, MSG_IOV] = self._vectors_array.ctypes.data + starts * 2 * IOVEC_WORDS * 8
        joined[:messages, MSG_IOVLEN] = 2 * np.minimum(rows - starts, each)
        _SEGMENT_CONTROL.pack_into(self._segment_control, 0, _SEGMENT_CONTROL_LENGTH, SOL_UDP, UDP_SEGMENT, size)
        sender, done = flow.sender, 0
        while done < messages:
            sent = sendmmsg(sender.fileno(), self._joined_address + done * _MMSGHDR_SIZE, messages - done)
            if sent > 0:
                done += sent
            elif sent != -errno.EINTR:
                if sent not in (-errno.EAGAIN, -errno.EWOULDBLOCK):
                    # Otherwise the caller's attempt to send them one by one is refused too, and counted.
                    sender.refused_by_kernel(-sent, flow.state.peer_address)
                break
        return min(done * each, rows)


def row_sums(buffer: bytearray, offset: int, rows: int, size: int) -> np.ndarray:
    """One's complement sums of `rows` consecutive blocks of `size` bytes from `offset` on, as int64 below 2**41.

    Little-endian words are summed, because that is what the processor reads fast; 2**8 times such a sum is the
    big-endian one modulo 65535.
    """
    if size & 1:
        octets = np.frombuffer(buffer, np.uint8, rows * size, offset).reshape(rows, size)
        return octets[:, ::2].sum(axis=1, dtype=np.int64) * 256 + octets[:, 1::2].sum(axis=1, dtype=np.int64)
    width, kind = (2, "<u2") if size & 3 else (4, "<u4")
    words = np.frombuffer(buffer, kind, rows * size // width, offset).reshape(rows, size // width)
    return (words.sum(axis=1, dtype=np.uint64) % 65535).astype(np.int64) * 256
