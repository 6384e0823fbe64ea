"""Networks that lose, duplicate and reorder: every byte arrives once and in order, and nothing is left over."""

from __future__ import annotations

import itertools
import random
from dataclasses import replace

import pytest

from serval_node.sal.outputs import Send
from serval_node.sal.service_table import Rule, Selector
from serval_node.sal.states import State
from serval_node.wire.ipv4 import address
from serval_node.wire.sal_header import ControlFlag, Source, encode
from serval_node.wire.transport import recompute_checksum
from tests.unit.sal.conftest import A, C, D, E, Figure, Pair, make_figure, make_pair
from tests.unit.sal.fake_tcp import Socket
from tests.unit.sal.world import WEB_BIND, Host, forward

SEEDS = range(25)


def make_bad(pair: Pair | Figure) -> None:
    world = pair.world
    world.loss, world.duplication, world.jitter = 0.15, 0.15, 0.03
    world.delivery_loss = 0.02
    world.keep_seen = False


def quiet(pair: Pair) -> None:
    """After the bad time: TIME_WAIT, answers to late packets, everything."""
    pair.world.loss = pair.world.delivery_loss = 0.0
    pair.world.run(500)
    for host in (pair.a, pair.e):
        assert not list(host.stack.flows), [(flow.state, flow.server) for flow in host.stack.flows]
        assert not host.paths


@pytest.mark.parametrize("seed", SEEDS)
def test_transfer_and_close(seed: int) -> None:
    pair = make_pair(seed)
    make_bad(pair)
    rng = random.Random(seed)
    client = pair.a.connect()
    pair.world.run(60, until=lambda: client.state == "ESTABLISHED")
    there, back = rng.randbytes(rng.randrange(1, 300000)), rng.randbytes(rng.randrange(1, 300000))
    pair.a.send(client, there)
    pair.world.run(60, until=lambda: bool(pair.listener.queue))
    server = pair.listener.queue[0]
    pair.e.send(server, back)
    order = rng.sample([(pair.a, client), (pair.e, server)], 2)
    if rng.random() < 0.5:
        pair.world.run(rng.random())
    for host, socket in order:
        host.shutdown(socket)
        if rng.random() < 0.5:
            pair.world.run(rng.random())
    pair.world.run(900, until=lambda: client.eof and server.eof)
    assert bytes(server.received) == there and bytes(client.received) == back
    assert (client.error, server.error) == (None, None)
    quiet(pair)


@pytest.mark.parametrize("seed", SEEDS)
def test_reset(seed: int) -> None:
    """Whoever aborts, whenever: the other end learns it, and both tables become empty."""
    pair = make_pair(seed)
    make_bad(pair)
    rng = random.Random(seed)
    client = pair.a.connect()
    pair.world.run(60, until=lambda: client.state == "ESTABLISHED")
    pair.a.send(client, b"x" * 100000)
    pair.world.run(60, until=lambda: bool(pair.listener.queue))
    server = pair.listener.queue[0]
    pair.world.run(rng.random() * 0.2)
    aborting, other = (pair.a, server) if rng.random() < 0.5 else (pair.e, client)
    aborting.abort(client if aborting is pair.a else server)
    pair.world.run(30)
    # One more word brings the answer if both RSTs were lost.
    if other.error is None:
        (pair.e if aborting is pair.a else pair.a).send(other, b"hello?")
        pair.world.run(60)
    assert other.error == "ECONNRESET"
    quiet(pair)


@pytest.mark.parametrize("seed", range(6))
def test_many_connections_through_a_router(seed: int) -> None:
    """One child per connection, each with its own bytes, whatever happens to the SYNs."""
    figure = make_figure(seed)
    make_bad(figure)
    figure.c.stack.service_table.set_rule(Rule(WEB_BIND, forward(D, E), Selector.TWO_CHOICES), "controller")
    listeners = figure.d.serve(), figure.e.serve()
    clients = [figure.a.connect() for _ in range(40)]
    figure.world.run(120, until=lambda: all(client.state == "ESTABLISHED" for client in clients))
    for number, client in enumerate(clients):
        figure.a.send(client, b"%04d" % number * 2000)
        figure.a.shutdown(client)

    def accepted() -> list[Socket]:
        return [socket for listener in listeners for socket in listener.queue]

    figure.world.run(300, until=lambda: len(accepted()) == 40 and all(socket.eof for socket in accepted()))
    assert sorted(bytes(socket.received) for socket in accepted()) == [b"%04d" % n * 2000 for n in range(40)]
    servers = [flow for host in (figure.d, figure.e) for flow in host.stack.flows if flow.state is not State.CLOSED]
    assert len(servers) == 40


def test_third_ack_that_sal0_lost_is_delivered_by_its_repetition() -> None:
    """Nobody sends data: only the repeated third ACK can complete the server's kernel."""
    pair = make_pair()
    lost = [0]

    def loses(host: Host) -> bool:
        # What e's kernel gets first is the SYN, then the third ACK.
        lost[0] += host is pair.e
        return host is pair.e and lost[0] == 2

    pair.world.loses_delivery = loses  # type: ignore[method-assign]
    pair.a.connect()
    pair.world.run(0.5)
    assert lost[0] >= 3 and len(pair.listener.queue) == 1


def test_server_behind_another_source_address() -> None:
    """The SYN-ACK's path ends with the server's own address, and that is where the client goes; the path begins with
    the client's, and that is where the server answers.
    """
    figure = make_figure()
    figure.point(E)
    listener = figure.e.serve()
    client = figure.a.connect()
    figure.world.run(0.005)
    # A router that may not use foreign source addresses puts its own there.
    (syn,) = figure.world.controls(ControlFlag.SYN, "a")
    payload = recompute_checksum(syn.packet.payload, 6, address(D), address(E))
    extensions = (*syn.packet.extensions, Source((address(A), address(C))))
    changed = replace(syn.packet, extensions=extensions, payload=payload)
    figure.world.lose = lambda host, send, packet: host is figure.c
    figure.world.inject(Send(address(D), address(E), 60, encode(changed)))
    figure.world.run(0.003)
    (answer,) = figure.world.controls(ControlFlag.SYN | ControlFlag.ACK)
    assert answer.destination == address(A)
    payload = recompute_checksum(answer.packet.payload, 6, address(D), address(A))
    figure.world.lose = None
    figure.world._events.clear()
    figure.world.inject(Send(address(D), address(A), 60, encode(replace(answer.packet, payload=payload))))
    figure.world.run(0.5)
    (third,) = figure.world.controls(ControlFlag.ACK, "a")[:1]
    assert third.destination == address(E)
    assert client.state == "ESTABLISHED" and len(listener.queue) == 1


def test_repetitions_of_a_fin_back_off() -> None:
    """Doubling pauses up to five seconds, 15 repetitions, then the flow is given up."""
    pair = make_pair()
    client, _ = pair.connect()
    pair.world.run(1)
    pair.world.lose = lambda host, send, packet: packet.control is not None and bool(packet.control.flags & 4)
    pair.a.shutdown(client)
    pair.world.run(120)
    times = [seen.time for seen in pair.world.controls(ControlFlag.FIN, "a")]
    pauses = [later - earlier for earlier, later in itertools.pairwise(times)]
    assert len(pauses) == 15
    assert all(later == pytest.approx(min(2 * earlier, 5.0)) for earlier, later in itertools.pairwise(pauses))
    assert not list(pair.a.stack.flows)
