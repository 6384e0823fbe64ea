"""A process that carries TCP over the data path without the real stack: both hosts know each flow beforehand.

A connection from client port C to server port S has the flowID C << 16 | S on both sides, so that every forwarding
state follows from the first packet, and the "slow path" only exchanges headers. Run in a network namespace of its own:

    python -m tests.emulation.toy_node LOCAL PEER MTU vector|plain [queue=PACKETS] [sndbuf=BYTES]

It reads commands from standard input, one a line, and answers each with a line of JSON.
"""

from __future__ import annotations

import json
import os
import select
import sys
from dataclasses import asdict

from serval_node.io.datapath import DataPath
from serval_node.io.raw_ip import RawIp
from serval_node.io.tun import Tun, TunConfig
from serval_node.sal.flow_table import ForwardingState
from serval_node.sal.outputs import Deliver, Send
from serval_node.wire.ipv4 import PROTOCOL_TCP, Ipv4Header, address, build_ipv4
from serval_node.wire.sal_header import bare_header, decode
from serval_node.wire.transport import SYN, TcpHeader, split, strip_timestamps, to_kernel, to_wire, verify

SAL0 = address("198.18.0.1")
SERVICE = address("198.18.5.5")
CLIENT = address("198.19.0.1")
SAL_HEADER = 12


class ToyNode:
    def __init__(
        self, local: bytes, peer: bytes, *, mtu: int, vector: bool, queue_length: int, send_buffer: int
    ) -> None:
        self.local, self.peer = local, peer
        config = TunConfig(
            address=SAL0, prefix_length=15, mtu=mtu - SAL_HEADER, offload=vector, queue_length=queue_length
        )
        self.tun = Tun(config)
        self.raw = RawIp(send_buffer=send_buffer)
        self.first_packets: list[int] = []
        self.bad_checksums = 0
        self.client_flows: set[int] = set()
        self.path = DataPath(
            self.tun,
            self.raw,
            stack_kernel=self.from_kernel,
            stack_network=self.from_network,
            on_first_packet=self.first_packets.append,
            mtu=mtu,
            vector=vector,
        )

    def from_kernel(self, packet: memoryview, gso_size: int) -> None:
        header = Ipv4Header.decode(packet)
        if header.protocol != PROTOCOL_TCP:
            return
        segment = header.payload(packet)
        tcp = TcpHeader.decode(segment)
        if header.destination == SERVICE:
            flow = tcp.source_port << 16 | tcp.destination_port
        else:
            flow = tcp.destination_port << 16 | tcp.source_port
        self.learn(flow, header.source, tcp.source_port, header.destination, tcp.destination_port)
        if tcp.flags & SYN:
            segment = strip_timestamps(segment)
        for piece in split(segment, gso_size) if gso_size else [segment]:
            data = bare_header(flow, flow, PROTOCOL_TCP) + to_wire(piece, PROTOCOL_TCP, self.local, self.peer)
            self.path.send(Send(self.local, self.peer, 64, data))

    def from_network(self, packet: memoryview) -> None:
        header = Ipv4Header.decode(packet)
        sal = decode(header.payload(packet))
        segment = sal.payload
        if not verify(segment, PROTOCOL_TCP, header.source, header.destination):
            self.bad_checksums += 1
            return
        flow = sal.dst_flow
        client, server = flow >> 16, flow & 0xFFFF
        if self.path.counters(flow) is None:
            self.learn(flow, SAL0, server, CLIENT, client)
        is_server = flow not in self.client_flows
        here, there = (server, client) if is_server else (client, server)
        source = CLIENT if is_server else SERVICE
        data = to_kernel(segment, PROTOCOL_TCP, source, SAL0, there, here)
        self.path.deliver(Deliver(build_ipv4(source, SAL0, PROTOCOL_TCP, data)))

    def learn(self, flow: int, local: bytes, local_port: int, peer: bytes, peer_port: int) -> None:
        if peer == SERVICE:
            self.client_flows.add(flow)
        if self.path.counters(flow) is None:
            self.path.install(
                ForwardingState(
                    local_flow=flow,
                    peer_flow=flow,
                    protocol=PROTOCOL_TCP,
                    local_address=self.local,
                    peer_address=self.peer,
                    kernel_local=(local, local_port),
                    kernel_peer=(peer, peer_port),
                )
            )

    def command(self, line: str) -> object:
        verb, *arguments = line.split()
        if verb == "totals":
            flows = {f: asdict(c) for f in self.first_packets if (c := self.path.counters(f))}
            return {
                **asdict(self.path.totals()),
                "bad_checksums": self.bad_checksums,
                "first_packets": len(self.first_packets),
                "flows": flows,
                "cpu": sum(os.times()[:2]),
            }
        raise ValueError(line)

    def run(self) -> None:
        poll = select.poll()
        poll.register(self.path.fileno(), select.POLLIN)
        poll.register(0, select.POLLIN)
        print(json.dumps({"ready": True}), flush=True)
        while True:
            for fd, _ in poll.poll():
                if fd == 0:
                    line = os.read(0, 4096).decode()
                    if not line:
                        return
                    print(json.dumps(self.command(line), default=bytes.hex), flush=True)
                else:
                    self.path.ready()


def main() -> None:
    local, peer, mtu, mode = sys.argv[1:5]
    options = dict(item.split("=") for item in sys.argv[5:])
    ToyNode(
        address(local),
        address(peer),
        mtu=int(mtu),
        vector=mode == "vector",
        queue_length=int(options.get("queue", 500)),
        send_buffer=int(options.get("sndbuf", 256 << 10)),
    ).run()


if __name__ == "__main__":
    main()
