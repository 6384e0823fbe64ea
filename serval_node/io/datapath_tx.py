"""Kernel to network, one packet at a time: for a Python without numpy, and what the vector path leaves over."""

from __future__ import annotations

import os
import struct
from collections.abc import Callable

from serval_node.io.fast_flow import (
    CHECKSUM_AT,
    FIN_SYN_RST,
    FLAGS_AT,
    KERNEL_IP_AT,
    OFFSET_AT,
    SEQUENCE_AT,
    SEQUENCE_MASK,
    TCP_AT,
    VNET_AT,
    FastFlow,
    FlowPaths,
)
from serval_node.io.sender import Sender
from serval_node.io.tun import GSO_NONE, GSO_TCPV4, MAX_PACKET, NEEDS_CHECKSUM, VNET_HEADER, Tun
from serval_node.wire.checksum import ones_sum
from serval_node.wire.ipv4 import PROTOCOL_TCP

PACKETS_PER_CALL = 32

_U16 = struct.Struct("!H")
SEQUENCE_ACK_WINDOW = struct.Struct("!IIHH")  # the third: header length and flags
_IP_START = struct.Struct("!BxHxxHxB")  # version and header length, total length, fragment, protocol
_FRAGMENT_BITS = 0x3FFF  # "more fragments" and the offset

SlowKernel = Callable[[memoryview, int], None]
Shut = Callable[[Sender], bool]


class Transmitter:
    """Reads packets from sal0, sends those of established flows, gives the others to the stack."""

    def __init__(self, tun: Tun, paths: FlowPaths, slow: SlowKernel, shut: Shut) -> None:
        """`slow(packet, gso_size)` gets an IPv4 packet in memory that is valid during the call only; gso_size is
        0, or the payload size to which a TCP super-segment is to be split. Its checksum may be partial.
        `shut(sender)` is told of a sender that became shut, and says whether to go on reading for others."""
        self._tun_fd = tun.fileno()
        self._paths = paths
        self._slow = slow
        self._shut = shut
        self._buffer = bytearray(KERNEL_IP_AT + MAX_PACKET + 1)
        self._view = memoryview(self._buffer)
        self._vectors = [self._view[VNET_AT:]]

    def transmit(self) -> None:
        """Handles what sal0 has, up to PACKETS_PER_CALL packets; stops early when all senders are shut. Raises
        OSError when the device is gone."""
        by_kernel, view = self._paths.by_kernel, self._view
        for _ in range(PACKETS_PER_CALL):
            try:
                end = os.readv(self._tun_fd, self._vectors) + VNET_AT
            except BlockingIOError:
                return
            flow = by_kernel.get(bytes(view[12 + KERNEL_IP_AT : 24 + KERNEL_IP_AT]))
            if flow is None:
                self._pass_on(end)
                continue
            sender = flow.sender
            if sender.held or sender.shut():
                sender.hold(bytes(view[VNET_AT:end]))
            else:
                self._handle(flow, end)
                if not sender.held and not sender.shut():
                    continue
            if not self._shut(sender):
                return

    def resume(self, sender: Sender) -> None:
        """Sends what is held for a sender that is open again, until it is shut."""
        view = self._view
        while sender.held:
            if sender.shut():
                self._shut(sender)
                return
            packet = sender.release()
            end = VNET_AT + len(packet)
            view[VNET_AT:end] = packet
            flow = self._paths.by_kernel.get(bytes(view[12 + KERNEL_IP_AT : 24 + KERNEL_IP_AT]))
            if flow is None:
                self._pass_on(end)
            elif flow.sender is not sender and (flow.sender.held or flow.sender.shut()):
                flow.sender.hold(packet)  # the flow has moved to another path
            else:
                self._handle(flow, end)
        if sender.shut():
            self._shut(sender)

    def _handle(self, flow: FastFlow, end: int) -> None:
        buffer = self._buffer
        flags, gso_type, _, gso_size, _, _ = VNET_HEADER.unpack_from(buffer, VNET_AT)
        if buffer[FLAGS_AT] & FIN_SYN_RST or not self._is_plain_tcp(end, gso_type):
            self._pass_on(end)
            return
        header = (buffer[OFFSET_AT] >> 4) * 4
        size = flow.room - header
        if gso_type != GSO_NONE and gso_size < size:
            size = gso_size
        if end - TCP_AT - header <= size:
            self._send_one(flow, end, header, bool(flags & NEEDS_CHECKSUM))
        else:
            self._send_segments(flow, end, header, size)

    def _is_plain_tcp(self, end: int, gso_type: int) -> bool:
        version_length, total, fragment, protocol = _IP_START.unpack_from(self._buffer, KERNEL_IP_AT)
        return (
            version_length == 0x45
            and protocol == PROTOCOL_TCP
            and not fragment & _FRAGMENT_BITS
            and total == end - KERNEL_IP_AT
            and gso_type in (GSO_NONE, GSO_TCPV4)
        )

    def _pass_on(self, end: int) -> None:
        if self._buffer[KERNEL_IP_AT] >> 4 != 4:
            self._paths.drops["kernel_not_ipv4"] += 1  # IPv6's own housekeeping on sal0
            return
        self._paths.slow_kernel += 1
        _, gso_type, _, gso_size, _, _ = VNET_HEADER.unpack_from(self._buffer, VNET_AT)
        self._slow(self._view[KERNEL_IP_AT:end], gso_size if gso_type != GSO_NONE else 0)

    def _send_one(self, flow: FastFlow, end: int, header: int, partial: bool) -> None:
        buffer, view = self._buffer, self._view
        sequence, ack, _, window = SEQUENCE_ACK_WINDOW.unpack_from(buffer, SEQUENCE_AT)
        payload = end - TCP_AT - header
        if payload and flow.unacknowledged is not None:
            flow.unacknowledged.keep(sequence + payload & SEQUENCE_MASK, view[VNET_AT:end])
        tos = buffer[KERNEL_IP_AT + 1]
        if partial:
            buffer[CHECKSUM_AT] = buffer[CHECKSUM_AT + 1] = 0
            view[:SEQUENCE_AT] = flow.outer_header
            total = ones_sum(view[TCP_AT:end]) + flow.outer_sum + PROTOCOL_TCP + end - TCP_AT
            checksum = -total % 65535
        else:
            checksum = (_U16.unpack_from(buffer, CHECKSUM_AT)[0] + flow.kernel_sum - flow.outer_sum) % 65535
            view[:SEQUENCE_AT] = flow.outer_header
        _U16.pack_into(buffer, CHECKSUM_AT, checksum)
        buffer[1] = tos  # DSCP and ECN are the transport's to choose
        sender = flow.sender
        sender.send(view[sender.skip : end], flow.peer_socket)
        flow.note_sent(1, payload, sequence, ack)
        self._note_window(flow, header, window)

    def _note_window(self, flow: FastFlow, header: int, window: int) -> None:
        flow.own_window = window
        if header > 20 or flow.own_options:
            flow.own_options = bytes(self._view[TCP_AT + 20 : TCP_AT + header])

    def _send_segments(self, flow: FastFlow, end: int, header: int, size: int) -> None:
        # Without numpy sal0 has no segmentation offload; the stack can split what is too large for the path.
        sequence, ack, _, window = SEQUENCE_ACK_WINDOW.unpack_from(self._buffer, SEQUENCE_AT)
        payload = end - TCP_AT - header
        if flow.unacknowledged is not None:
            flow.unacknowledged.keep(sequence + payload & SEQUENCE_MASK, self._view[VNET_AT:end])
        flow.note_sent(-(-payload // size), payload, sequence, ack)
        self._note_window(flow, header, window)
        self._pass_on(end)
