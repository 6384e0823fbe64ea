"""What opening one connection costs the stacks alone, step by step: no kernel, no network, no waiting.

    .venv/bin/python -m tests.unit.sal.connect_cost

The steps are those of docs/performance.md. Packets and time come from here; measured is what the daemon calls.
"""

from __future__ import annotations

import random
import statistics
import time
from collections import defaultdict
from collections.abc import Callable

from serval_node.sal.outputs import Deliver, Output, Send
from serval_node.sal.service_table import Action, Target
from serval_node.sal.stack import Stack, StackConfig
from serval_node.wire.ipv4 import PROTOCOL_SERVAL, PROTOCOL_TCP, Ipv4Header, address, build_ipv4
from serval_node.wire.naming import SERVICE_PORT_ANY
from serval_node.wire.transport import ACK, SYN, TcpHeader, build_tcp, to_kernel
from tests.unit.sal.world import NAMES, SAL0, WEB, WEB_BIND, Names, forward

CONNECTIONS = 2000
PORT = 80
SYN_OPTIONS = bytes.fromhex("020405a8 0402080a0000000100000000 01030307")


def stack(name: str, *, forwarding: bool = False) -> Stack:
    """A host's stack; random numbers come from the system, as in the daemon."""
    environment = Names(address(name), lambda destination: True)
    return Stack(config=StackConfig(forwarding=forwarding), environment=environment, rng=random.SystemRandom())


class Opening:
    """A client, a service router and a server; `seconds` by step."""

    def __init__(self) -> None:
        self.seconds: dict[str, list[float]] = defaultdict(list)
        self._now = 1000.0
        self._client, self._server = stack("10.0.0.1"), stack("10.0.0.3")
        self._router = stack("10.0.0.2", forwarding=True)
        self._client.service_table.add_target(WEB_BIND, forward("10.0.0.2")[0], "hand")
        self._router.service_table.add_target(WEB_BIND, forward("10.0.0.3")[0], "hand")
        listener = Target(Action.DEMUX, port=PORT, protocol=PROTOCOL_TCP)
        self._server.service_table.add_target(WEB_BIND, listener, "local")

    def connect(self, number: int) -> None:
        """One connection from SYN to third ACK."""
        client, server = self._client, self._server
        program, name = (SAL0, 1024 + number % 60000), (NAMES[WEB], SERVICE_PORT_ANY)
        syn = build_tcp(0, 0, 1000, 0, SYN, window=64240, options=SYN_OPTIONS)
        sent = self._from_kernel("client: SYN", client, syn, program, name)
        sent = self._from_network("router: SYN", self._router, sent)
        delivered = self._from_network("server: SYN", server, sent)
        assert isinstance(delivered, Deliver)
        header = Ipv4Header.decode(delivered.packet)
        seen = TcpHeader.decode(header.payload(delivered.packet))
        listener, peer = (header.destination, seen.destination_port), (header.source, seen.source_port)
        syn_ack = build_tcp(0, 0, 2000, 1001, SYN | ACK, window=65160, options=SYN_OPTIONS)
        sent = self._from_kernel("server: SYN-ACK", server, syn_ack, listener, peer)
        self._from_network("client: SYN-ACK", client, sent)
        sent = self._from_kernel(
            "client: third ACK", client, build_tcp(0, 0, 1001, 2001, ACK, window=502), program, name
        )
        self._from_network("server: third ACK", server, sent)
        assert len(client.flows) == len(server.flows) == 1
        self._forget()

    def _from_kernel(
        self, step: str, stack: Stack, segment: bytes, local: tuple[bytes, int], peer: tuple[bytes, int]
    ) -> Output:
        whole = to_kernel(segment, PROTOCOL_TCP, local[0], peer[0], local[1], peer[1])
        packet = memoryview(build_ipv4(local[0], peer[0], PROTOCOL_TCP, whole))
        return self._timed(step, stack, lambda: stack.kernel_packet(packet, 0, self._now))

    def _from_network(self, step: str, stack: Stack, sent: Output) -> Output:
        assert isinstance(sent, Send)
        packet = memoryview(build_ipv4(sent.source, sent.destination, PROTOCOL_SERVAL, sent.data, ttl=sent.ttl))
        return self._timed(step, stack, lambda: stack.network_packet(packet, self._now))

    def _timed(self, step: str, stack: Stack, call: Callable[[], None]) -> Output:
        begun = time.perf_counter()
        call()
        outputs = stack.take_outputs()
        self.seconds[step].append(time.perf_counter() - begun)
        stack.take_events()
        return outputs[0]

    def _forget(self) -> None:
        """Let every flow end and every timer run out, so that each connection finds the same stacks."""
        for stack in (self._client, self._server):
            for flow in list(stack.flows):
                stack.kernel_socket_gone(flow.kernel_local, flow.kernel_peer, self._now)
        self._now += 1000.0
        for stack in (self._client, self._server):
            while stack.next_timer() is not None:
                stack.handle_timer(self._now)
                self._now += 1000.0
            assert not len(stack.flows)
            stack.take_outputs()
            stack.take_events()


def main() -> None:
    opening = Opening()
    for number in range(CONNECTIONS):
        opening.connect(number)
    medians = {step: 1e6 * statistics.median(seconds) for step, seconds in opening.seconds.items()}
    for step, microseconds in medians.items():
        print(f"{step:<20}{microseconds:8.1f} us")
    print(f"{'all':<20}{sum(medians.values()):8.1f} us")


if __name__ == "__main__":
    main()
