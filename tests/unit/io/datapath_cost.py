"""What the data path's own code costs per packet, without the kernel: `python -m tests.unit.io.datapath_cost`.

A super-segment of 64 KB is cut into packets, and these are joined again, over and over in one process; the system calls
between are replaced by nothing. The smallest of several rounds is printed.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from unittest import mock

from serval_node.io import datapath_rx_vector, datapath_tx_vector
from serval_node.io.fast_flow import KERNEL_IP_AT, VNET_AT
from serval_node.io.system_calls import MSG_LEN
from serval_node.io.tun import GSO_TCPV4, NEEDS_CHECKSUM, VNET_HEADER
from serval_node.wire.ipv4 import build_ipv4
from serval_node.wire.transport import ACK, build_tcp
from tests.unit.io.datapath_bench import TCP, ReceiveBench, TransmitBench, partial_checksum, state

ROUNDS = 20
CALLS = 200
FLOW = state()


class Patch:
    """What the benches ask of pytest's monkeypatch."""

    def setattr(self, target: str, value: object) -> None:
        mock.patch(target, value).start()


def microseconds(function: Callable[[], object], prepare: Callable[[], None] = lambda: None) -> float:
    """The time of one call, in the best of ROUNDS."""

    def rounds() -> Iterator[float]:
        for _ in range(ROUNDS):
            spent = 0.0
            for _ in range(CALLS):
                prepare()
                start = time.perf_counter()
                function()
                spent += time.perf_counter() - start
            yield spent / CALLS * 1e6

    return min(rounds())


def transmit(payload: int) -> tuple[float, list[bytes]]:
    """Microseconds per packet, and the packets."""
    bench = TransmitBench(Patch(), vector=True)
    bench.flow(FLOW)
    size = (65535 - 60) // payload * payload
    segment = build_tcp(FLOW.kernel_local[1], 80, 1, 1, ACK, window=500, data=bytes(size))
    packet = build_ipv4(FLOW.kernel_local[0], FLOW.kernel_peer[0], TCP, partial_checksum(segment, FLOW))
    vnet = VNET_HEADER.pack(NEEDS_CHECKSUM, GSO_TCPV4, 40, payload, 20, 16)
    engine, end = bench.engine, KERNEL_IP_AT + len(packet)
    flow = bench.paths.by_flow[FLOW.local_flow]

    def give() -> None:
        engine._view[VNET_AT:end] = vnet + packet

    give()
    engine._handle(flow, end)
    packets = list(bench.sender.sent)
    with mock.patch.object(datapath_tx_vector, "sendmmsg", lambda fd, messages, count: count):
        return microseconds(lambda: engine._handle(flow, end), give) / len(packets), packets


def receive(payload: int) -> float:
    """Microseconds per packet of a full batch that is one run."""
    bench = ReceiveBench(Patch(), vector=True, mtu=payload + 52)
    flow = bench.flow(FLOW)
    _, sent = transmit(payload)
    # The packets of one host are what its peer would have sent with addresses and flowIDs exchanged.
    peer = state(
        local_flow=FLOW.peer_flow, peer_flow=FLOW.local_flow, local_address=FLOW.peer_address,
        peer_address=FLOW.local_address,
    )  # fmt: skip
    bench.paths.discard(flow)
    flow = bench.flow(peer)
    flow.heard = True
    engine = bench.engine
    assert isinstance(engine, datapath_rx_vector.VectorReceiver)
    count = min(len(sent), datapath_rx_vector.SLOTS)

    def give() -> None:
        for slot, packet in zip(engine._slots, sent[:count], strict=False):
            slot[: len(packet)] = packet
        engine._messages[:count, MSG_LEN] = [len(packet) for packet in sent[:count]]

    written: list[int] = []
    with mock.patch.object(datapath_rx_vector, "writev", lambda fd, vectors, number: written.append(number) or 1):
        spent = microseconds(lambda: engine._batch(count), give)
    assert set(written) == {count}, "the packets were not joined"
    return spent / count


def main() -> None:
    for payload, name in ((1448, "MTU 1500"), (8948, "MTU 9000")):
        sent, _ = transmit(payload)
        print(f"{name}: {sent:.2f} us to send a packet, {receive(payload):.2f} us to receive one")


if __name__ == "__main__":
    main()
