"""Fuzz target: running stacks with damaged packets from the network and from the kernel.

Each run is the same short life of the slides' figure (client, service router, two instances), up to an open
connection; then the packets come. Nothing may be raised, a new connection must work, and nothing may be left over.
"""

from __future__ import annotations

from functools import cache

from serval_node.wire.ipv4 import PROTOCOL_SERVAL, address, build_ipv4
from tests.fuzz.parsers import golden_packets
from tests.unit.sal.conftest import D, E, Figure, make_figure
from tests.unit.sal.world import WEB_BIND, Host

HOSTS = "acde"
"""The first byte of an item names the host that gets the packet; from the kernel it is a capital letter."""


def open_figure() -> Figure:
    figure = make_figure()
    figure.point(D, E)
    figure.d.serve(), figure.e.serve()
    figure.a.add_address("10.1.0.1")
    client = figure.a.connect()
    figure.world.run(0.5, until=lambda: client.state == "ESTABLISHED")
    figure.a.send(client, b"hello")
    figure.world.run(0.2)
    return figure


@cache
def items() -> list[bytes]:
    """What comes to the hosts in such a life, until its end, and the original's packets."""
    figure = open_figure()
    kernel: list[bytes] = []
    for host in (figure.a, figure.d, figure.e):
        _note_kernel(host, kernel)
    (flow,) = figure.a.stack.flows
    figure.a.migrate(flow.local_flow, address("10.1.0.1"))
    client = figure.a.connect()
    figure.world.run(0.5)
    figure.a.send(client, b"x" * 3000)
    figure.a.close(client)
    for host in (figure.d, figure.e):
        for socket in list(host.kernel.sockets.values()):
            host.send(socket, b"back")
            host.close(socket)
    figure.world.run(1)
    for socket in list(figure.a.kernel.sockets.values()):
        figure.a.abort(socket)
    figure.world.run(1)
    network = []
    for seen in figure.world.seen:
        to = figure.world.hosts.get(seen.destination)
        if to is not None:
            raw = build_ipv4(seen.source, seen.destination, PROTOCOL_SERVAL, seen.raw, seen.ttl)
            network.append(to.name.encode() + raw)
    found = list(dict.fromkeys(network + kernel))
    return found + [host.encode() + packet for host in "ce" for packet in golden_packets()]


def _note_kernel(host: Host, found: list[bytes]) -> None:
    through = host.kernel.emit

    def emit(packet: bytes, gso: int) -> None:
        found.append(host.name.upper().encode() + packet)
        through(packet, gso)

    host.kernel.emit = emit


def feed(*given: bytes) -> None:
    """Run the figure with these items."""
    figure = open_figure()
    hosts = {"a": figure.a, "c": figure.c, "d": figure.d, "e": figure.e}
    for item in given:
        if not item:
            continue
        host = hosts[HOSTS[item[0] % 4] if chr(item[0] | 0x20) not in hosts else chr(item[0] | 0x20)]
        now = figure.world.now
        if item[0] & 0x20:
            host.stack.network_packet(memoryview(item)[1:], now)
        else:
            host.stack.kernel_packet(memoryview(item)[1:], 0, now)
        host.settle()
        figure.world.run(0.005)
    figure.world.run(2)
    figure.point(D, E)
    check_a_new_connection(figure)
    check_nothing_is_left(figure)


def check_a_new_connection(figure: Figure) -> None:
    client = figure.a.connect()
    figure.world.run(5, until=lambda: client.state == "ESTABLISHED")
    figure.a.send(client, b"still there")
    instances = (figure.d, figure.e)
    figure.world.run(
        5,
        until=lambda: any(
            bytes(socket.received) == b"still there" for host in instances for socket in host.kernel.sockets.values()
        ),
    )


def check_nothing_is_left(figure: Figure) -> None:
    """When all programs end, everything goes within the longest time that a flowID stays taken."""
    figure.world.run(100)
    hosts = (figure.a, figure.c, figure.d, figure.e)
    for host in hosts:
        for socket in list(host.kernel.sockets.values()):
            if socket.state == "ESTABLISHED":
                host.abort(socket)
    figure.world.run(600)
    for host in hosts:
        context = host.stack._context
        assert not list(host.stack.flows), [(flow.local_flow, flow.state) for flow in host.stack.flows]
        assert not host.paths and not host.stack.delayed() and len(context.half_open) == 0
        assert host.stack.next_timer() is None
    assert figure.c.stack.service_table.get(WEB_BIND) is not None
