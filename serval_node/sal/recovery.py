"""What a lost path swallowed is sent again at once, and only what the peer lacks.

Peers of this project put a TCP header behind an RSYN and an RSYN-ACK, their report. Its MSS option says what the
sender's link takes. With ACK it also says that the old path is lost, and what the sender's kernel has received:
acknowledgement and SACK blocks. Who gets such a report sends again what the other lacks; the data path keeps the
copies. On a planned move the old path goes on carrying data, there is no ACK in the reports, and nothing is sent
again. No report is ever given to a kernel.

An original sends no report. Towards one, everything goes again that its data packets have not acknowledged.
"""

from __future__ import annotations

from dataclasses import dataclass

from serval_node.sal.context import Context, Progress
from serval_node.sal.events import Refusal
from serval_node.sal.flow_table import Flow
from serval_node.sal.outputs import DoubtSent, SendAgain
from serval_node.wire.ipv4 import HEADER_LENGTH, LARGEST_PACKET, PROTOCOL_TCP
from serval_node.wire.sal_header import BARE_LENGTH
from serval_node.wire.serial import serial_add, serial_leq, serial_lt
from serval_node.wire.transport import ACK, OPTION_MSS, OPTION_SACK, TCP_HEADER_LENGTH, TcpHeader, build_tcp

_OVERHEAD = HEADER_LENGTH + BARE_LENGTH + TCP_HEADER_LENGTH
_MSS_LENGTH = 4
_LONGEST_OPTIONS = 40
# RFC 791: what every link and host takes. A report of less would only make more packets.
_SMALLEST_MTU = 576

Range = tuple[int, int]


@dataclass(frozen=True, slots=True)
class Report:
    """What a peer tells of its end. ``acknowledged`` is None unless its old path is lost; what it has behind that
    number is in the ranges ``had``.
    """

    mtu: int | None = None
    acknowledged: int | None = None
    had: tuple[Range, ...] = ()


class Recovery:
    """Reports, and what follows from them."""

    def __init__(self, context: Context) -> None:
        self._context = context

    def report(self, flow: Flow, *, lost: bool, mtu: int) -> bytes:
        """What goes along with our RSYN or RSYN-ACK; ``mtu`` is that of the link which the flow is to use."""
        if not flow.marked or flow.protocol != PROTOCOL_TCP:
            return b""
        progress = self._progress(flow)
        sent = serial_add(flow.initial_seq, 1) if progress.sent_next is None else progress.sent_next
        mss = bytes((OPTION_MSS, _MSS_LENGTH)) + (min(mtu, LARGEST_PACKET) - _OVERHEAD).to_bytes(2, "big")
        if not lost:
            return build_tcp(0, 0, sent, 0, 0, options=mss)
        # An older number than the kernel's own only makes the peer rely on what it knows itself.
        own = serial_add(flow.initial_ack, 1) if progress.own_ack is None else progress.own_ack
        sack = progress.own_options if len(progress.own_options) + _MSS_LENGTH <= _LONGEST_OPTIONS else b""
        return build_tcp(0, 0, sent, own, ACK, window=progress.own_window, options=mss + sack)

    def read(self, flow: Flow, segment: bytes, now: float) -> Report:
        """The report behind a packet whose nonce was checked. One that makes no sense is counted and says nothing."""
        if not segment or not flow.marked or flow.protocol != PROTOCOL_TCP:
            return Report()
        tcp = TcpHeader.decode(segment)
        sent = self._progress(flow).sent_next
        ahead = tcp.flags & ACK and sent is not None and serial_lt(sent, tcp.ack)
        if tcp.flags & ~ACK or len(segment) != tcp.header_length or ahead:
            self._context.refuse(Refusal.SENSELESS_REPORT, now)
            return Report()
        mss = tcp.option(OPTION_MSS)
        mtu = None if mss is None or len(mss) != 2 else max(int.from_bytes(mss, "big") + _OVERHEAD, _SMALLEST_MTU)
        if not tcp.flags & ACK:
            return Report(mtu)
        return Report(mtu, tcp.ack, _blocks(tcp, sent))

    def doubt(self, flow: Flow) -> None:
        """The path by which this flow's data went is lost."""
        if flow.fast:
            self._context.outputs.append(DoubtSent(flow.local_flow))

    def send_again(self, flow: Flow, report: Report) -> None:
        """What was in doubt, over the flow's path of now."""
        if flow.fast:
            again = SendAgain(flow.local_flow, flow.service_id, report.acknowledged, report.had)
            self._context.outputs.append(again)

    def acknowledged(self, flow: Flow, report: Report) -> int | None:
        """What the peer is known to have: by its data packets, or by its report."""
        by_data, by_report = self._progress(flow).peer_ack, report.acknowledged
        if by_data is None or by_report is None:
            return by_report if by_data is None else by_data
        return by_data if serial_lt(by_report, by_data) else by_report

    def _progress(self, flow: Flow) -> Progress:
        return self._context.environment.progress(flow.local_flow) or Progress(None, None, None)


def _blocks(tcp: TcpHeader, sent: int | None) -> tuple[Range, ...]:
    """The SACK blocks between the acknowledgement and what was sent."""
    value = tcp.option(OPTION_SACK)
    if value is None or sent is None or len(value) % 8:
        return ()
    numbers = [int.from_bytes(value[at : at + 4], "big") for at in range(0, len(value), 4)]
    pairs = zip(numbers[::2], numbers[1::2], strict=True)
    return tuple(
        (first, last)
        for first, last in pairs
        if serial_lt(tcp.ack, first) and serial_lt(first, last) and serial_leq(last, sent)
    )
