"""Network to kernel with coalescing: a run of consecutive segments of one flow becomes one TSO frame for sal0.

The frame's checksum is derived from those of its parts and no payload byte is looked at here. A valid segment says
that the sum of its payload is minus the sum of its headers; so the sum of all payloads is known without reading
them, if each claim holds. The kernel sums the payload and drops the frame if one did not.
"""

from __future__ import annotations

import errno
import socket

import numpy as np

from serval_node.io.datapath_rx import WIRE_START, FirstPacket, Receiver, SlowNetwork
from serval_node.io.fast_flow import (
    CHECKSUM_AT,
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
    FastFlow,
    FlowPaths,
)
from serval_node.io.system_calls import (
    IOVEC_WORDS,
    MMSGHDR_WORDS,
    MSG_IOV,
    MSG_IOVLEN,
    MSG_LEN,
    recvmmsg,
    writev,
)
from serval_node.io.tun import GSO_TCPV4, MAX_PACKET, VNET_HEADER, Tun
from serval_node.wire.checksum import ones_sum
from serval_node.wire.ipv4 import PROTOCOL_TCP

SLOTS = 64
ROUNDS_PER_CALL = 4
SMALLEST_VECTOR = 3  # packets; fewer are faster one by one
_SLACK = 128  # beyond the MTU; keeps slots from lying at equal places in the cache
_COMPARED_WORDS = 12  # of 8 bytes each: outer IPv4, SAL and TCP header with all its options
_NUMBER_OF_LENGTHS = 16


def comparison_masks(*, outer: bool) -> np.ndarray:
    """One row per TCP header length in 4-byte words: which bits must be equal in two packets that are to be joined.
    `outer`: they have an IPv4 header each, and its version, length, TOS and addresses count.
    """
    masks = np.zeros((_NUMBER_OF_LENGTHS, _COMPARED_WORDS * 8), np.uint8)
    if outer:
        masks[:, :2] = 0xFF
    for words in range(5, _NUMBER_OF_LENGTHS):
        masks[words, KERNEL_IP_AT if outer else SAL_AT : TCP_AT + 4 * words] = 0xFF
    masks[:, SEQUENCE_AT : SEQUENCE_AT + 4] = 0
    masks[:, FLAGS_AT] &= ~PSH & 0xFF
    masks[:, CHECKSUM_AT : CHECKSUM_AT + 2] = 0
    return masks.view(np.uint64)


class VectorReceiver(Receiver):
    """Receiver that takes many packets at a time."""

    def __init__(
        self,
        tun: Tun,
        sock: socket.socket,
        paths: FlowPaths,
        slow: SlowNetwork,
        first_packet: FirstPacket,
        *,
        mtu: int,
    ) -> None:
        """`mtu` is the largest of the host's links; a larger packet is dropped once and makes the buffers grow."""
        super().__init__(tun, sock, paths, slow, first_packet)
        self._masks = comparison_masks(outer=True)
        self._allocate(mtu + _SLACK)

    def _allocate(self, size: int) -> None:
        size = -(-size // 64) * 64
        self._slot_size = size
        memory = bytearray(SLOTS * size)
        view = memoryview(memory)
        self._slots = [view[i * size : (i + 1) * size] for i in range(SLOTS)]
        self._packets = np.frombuffer(memory, np.uint8).reshape(SLOTS, size)
        self._compared = self._packets.view(np.uint64)[:, :_COMPARED_WORDS]
        self._sequences = self._packets[:, SEQUENCE_AT : SEQUENCE_AT + 4].view(">u4")[:, 0]
        self._checksums = self._packets[:, CHECKSUM_AT : CHECKSUM_AT + 2].view(">u2")[:, 0]
        self._flags = self._packets[:, FLAGS_AT]
        self._offsets = self._packets[:, OFFSET_AT]
        self._addresses = self._packets.ctypes.data + np.arange(SLOTS, dtype=np.int64) * size
        # Kept as attributes for as long as the kernel may be given their addresses.
        self._receive_vectors = np.zeros((SLOTS, IOVEC_WORDS), np.uint64)
        self._receive_vectors[:, 0] = self._addresses
        self._receive_vectors[:, 1] = size
        self._messages = np.zeros((SLOTS, MMSGHDR_WORDS), np.uint64)
        self._messages[:, MSG_IOV] = self._receive_vectors.ctypes.data + np.arange(SLOTS) * IOVEC_WORDS * 8
        self._messages[:, MSG_IOVLEN] = 1
        self._messages_address = self._messages.ctypes.data
        self._write_vectors = np.zeros((SLOTS, IOVEC_WORDS), np.int64)
        self._write_address = self._write_vectors.ctypes.data

    def receive(self) -> None:
        """Handles what the socket has, up to ROUNDS_PER_CALL times SLOTS packets. Raises OSError."""
        for _ in range(ROUNDS_PER_CALL):
            count = recvmmsg(self._socket.fileno(), self._messages_address, SLOTS)
            if count <= 0:
                if count in (-errno.EAGAIN, -errno.EWOULDBLOCK, -errno.EINTR, 0):
                    return
                raise OSError(-count, "recvmmsg")
            self._batch(count)
            if count < SLOTS:
                return

    def _batch(self, count: int) -> None:
        column = self._messages[:count, MSG_LEN]
        if count < SMALLEST_VECTOR:
            self._each(column.tolist())
            return
        lengths = column.astype(np.int64)
        if lengths.max() > self._slot_size:
            self._each(lengths.tolist())
            return
        joined, payloads = self._joined(count, lengths)
        starts = [0, *(np.flatnonzero(~joined) + 1).tolist(), count]
        sums = self._sequences[:count].astype(np.int64) + self._checksums[:count]
        for first, stop in zip(starts, starts[1:], strict=False):
            if stop - first == 1:
                self._one(self._slots[first], int(lengths[first]))
            else:
                self._run(first, stop, lengths, payloads, sums)

    def _joined(self, count: int, lengths: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Which packets continue the one before them (one entry less than packets), and the TCP payload lengths."""
        flags = self._flags[:count]
        words = self._offsets[:count] >> 4
        starts = words * 4 + np.int64(TCP_AT)
        payloads = lengths - starts
        heads = self._compared[:count] & self._masks[words]
        sequences = self._sequences[:count].astype(np.int64)
        before, after = payloads[:-1], payloads[1:]
        joined = (heads[1:] == heads[:-1]).all(axis=1)
        joined &= sequences[1:] == (sequences[:-1] + before) & SEQUENCE_MASK
        joined &= (after > 0) & (after <= before)
        # Only the last of a run may be odd (the sums' bytes would change places), pushed, or shorter.
        joined &= (before & 1 | flags[:-1] & PSH) == 0
        joined[1:] &= (before[1:] == before[:-1]) | ~joined[:-1]
        write = self._write_vectors
        write[:count, 0] = self._addresses[:count] + starts
        write[:count, 1] = payloads
        return joined, payloads

    def _run(self, first: int, stop: int, lengths: np.ndarray, payloads: np.ndarray, sums: np.ndarray) -> None:
        """Gives packets first..stop-1, each the continuation of the one before, to the kernel."""
        view = self._slots[first]
        key, ports, _, _, offset_flags, _, _ = WIRE_START.unpack_from(view, KERNEL_IP_AT)
        flow = self._paths.by_wire.get(key) if view[0] == 0x45 else None
        if flow is None or offset_flags & (FIN_SYN_RST | URG) or offset_flags >> 12 < 5:
            for index in range(first, stop):
                self._one(self._slots[index], int(lengths[index]))
            return
        size = int(payloads[first])
        most = max(1, (MAX_PACKET - 80) // size)
        for begin in range(first, stop, most):
            self._coalesce(flow, begin, min(stop, begin + most), ports, size, payloads, sums)

    def _coalesce(
        self, flow: FastFlow, begin: int, stop: int, ports: int, size: int, payloads: np.ndarray, sums: np.ndarray
    ) -> None:
        view = self._slots[begin]
        _, _, sequence, ack, offset_flags, _, checksum = WIRE_START.unpack_from(view, KERNEL_IP_AT)
        header = offset_flags >> 10 & 60
        data = TCP_AT + header
        count = stop - begin
        if count == 1:
            self._one(view, data + int(payloads[begin]))
            return
        payload = int(payloads[begin:stop].sum())
        # What every part's header adds to its sum besides its own sequence number, checksum and payload length;
        # the lengths cancel out, as the frame's is their sum.
        common = ones_sum(view[TCP_AT:data]) - sequence - checksum + header
        whole = int(sums[begin:stop].sum()) - sequence + (count - 1) * common
        whole += count * (flow.outer_sum + PROTOCOL_TCP) - flow.kernel_sum - PROTOCOL_TCP + ports
        view[FLAGS_AT] |= int(self._packets[stop - 1, FLAGS_AT]) & PSH
        vnet = VNET_HEADER.pack(0, GSO_TCPV4, 20 + header, size, 0, 0)
        self._write_kernel_start(flow, view, 20 + header + payload, vnet, whole % 65535)
        self._note(flow, count, payload, sequence, ack)
        self._write_vectors[begin] = (self._addresses[begin] + VNET_AT, data - VNET_AT + size)
        written = writev(self._tun_fd, self._write_address + begin * IOVEC_WORDS * 8, count)
        if written < 0:
            self._count_error(-written, count)

    def _each(self, lengths: list[int]) -> None:
        """Handles the packets of a batch one by one; those that were longer than the buffers are lost."""
        for slot, length in zip(self._slots, lengths, strict=False):
            if length > self._slot_size:
                self._paths.drops["receive_oversize"] += 1
            else:
                self._one(slot, length)
        longest = max(lengths)
        if longest > self._slot_size:
            self._allocate(longest + _SLACK)
