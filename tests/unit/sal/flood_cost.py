"""What a forged SYN costs a node whose half-open table is full, beside an honest connection: the stack alone, without
kernel and sockets (docs/defence.md).

    .venv/bin/python -m tests.unit.sal.flood_cost
"""

from __future__ import annotations

import random
import statistics
import time

from serval_node.sal.outputs import Deliver
from serval_node.sal.stack import Stack, StackConfig
from serval_node.wire.ipv4 import Ipv4Header, address, build_ipv4
from serval_node.wire.transport import ACK, SYN, TcpHeader, build_tcp
from tests.adversary.attacks import ATTACKS, Aim
from tests.unit.sal.conftest import make_pair
from tests.unit.sal.world import WEB_ID

SYNS, ROUNDS = 1500, 5


def microseconds(stack: Stack, packets: list[bytes], start: float) -> float:
    """Processor time per SYN, with the SYN-ACK that the listener's kernel answers."""
    began = time.process_time()
    for number, packet in enumerate(packets):
        now = start + number * 1e-4
        stack.network_packet(packet, now)
        for output in stack.take_outputs():
            if isinstance(output, Deliver):
                header = Ipv4Header.decode(output.packet)
                tcp = TcpHeader.decode(header.payload(output.packet))
                if tcp.flags & SYN:
                    answer = build_tcp(tcp.destination_port, tcp.source_port, 1, tcp.seq + 1 & 0xFFFFFFFF, SYN | ACK)
                    stack.kernel_packet(build_ipv4(header.destination, header.source, 6, answer), 0, now)
        stack.take_outputs(), stack.take_events()
        stack.next_timer()
    return (time.process_time() - began) / len(packets) * 1e6


def main() -> None:
    for sources, source in (("many", None), ("one", address("10.66.0.1"))):
        spent = []
        for turn in range(ROUNDS):
            pair = make_pair()
            stack = Stack(config=StackConfig(), environment=pair.e.environment, rng=random.SystemRandom())
            for entry in pair.e.stack.service_table.entries():
                stack.service_table.add_target(entry.prefix, entry.slots[0].target, "local")
            rng, aim = random.Random(turn), Aim(pair.e.address, source, WEB_ID)
            packets = [ATTACKS["syn-flood"].make(aim, rng) for _ in range(SYNS + 1100)]
            microseconds(stack, packets[:1100], 1.0)
            spent.append(microseconds(stack, packets[1100:], 2.0))
            assert stack.counters["half_open_full"] > SYNS
        middle, least, most = statistics.median(spent), min(spent), max(spent)
        print(f"{sources} source(s): {middle:.0f} us per forged SYN; {ROUNDS} rounds, {least:.0f} to {most:.0f}")


if __name__ == "__main__":
    main()
