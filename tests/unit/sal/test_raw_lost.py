"""Raw packets are dropped from some moment on, in the middle of a flow: it goes on inside UDP, if it may."""

from __future__ import annotations

import pytest

from serval_node.sal.encapsulation import Encapsulation
from serval_node.sal.events import FlowMigrated, PathSilent
from serval_node.sal.outputs import Send
from serval_node.sal.transfer import RAW_UNANSWERED
from serval_node.wire.encapsulation import TO_SERVER
from serval_node.wire.ipv4 import UdpPorts, address
from serval_node.wire.sal_header import ControlFlag
from tests.unit.sal.conftest import A, E, make_pair
from tests.unit.sal.fake_tcp import Socket
from tests.unit.sal.test_encapsulation import AUTO, KEEPALIVE, PUBLIC, RAW, UDP, Nat, chosen, only, sent
from tests.unit.sal.test_migration import Moving
from tests.unit.sal.test_probing import Watched

_RSYN, _NACK = ControlFlag.RSYN, ControlFlag.NACK


class Running(Watched):
    """A raw connection, both ends of which probe."""

    def __init__(self, choice: Encapsulation = AUTO) -> None:
        pair = make_pair(encapsulation=chosen(RAW), keepalive=KEEPALIVE)
        client, server = pair.connect()
        super().__init__(Moving(pair.world, pair.a, pair.e, client, server))
        for host in (pair.a, pair.e):
            host.stack.encapsulation.default = choice

    def senders(self, direction: str) -> tuple[Socket, ...]:
        client, server = self.moving.client, self.moving.server
        return {"there": (client,), "back": (server,), "both": (client, server)}[direction]

    def all_has_come(self) -> bool:
        client, server = self.moving.client, self.moving.server
        pairs = ((client, server), (server, client))
        return all(one.snd_nxt - one.iss - 1 == len(other.received) for one, other in pairs)


def raw_is_lost(send: Send) -> Send | None:
    return None if send.ports is None else send


@pytest.mark.statement("S52")
@pytest.mark.parametrize("choice", [AUTO, UDP])
@pytest.mark.parametrize("direction", ["there", "back", "both"])
def test_a_raw_flow_goes_on_inside_udp(direction: str, choice: Encapsulation) -> None:
    running = Running(choice)
    sending, (a, e) = running.senders(direction), (running.moving.a, running.moving.e)
    running.run(1, sending=sending)
    running.world.middlebox = raw_is_lost
    running.run(1, sending=sending)
    assert only(a).ports is not None and only(e).ports is not None, "either end may have been the first to notice"
    assert (only(a).peer_address, only(e).peer_address) == (address(E), address(A))
    moved = [*a.happened(FlowMigrated), *e.happened(FlowMigrated)]
    assert moved and all(event.cause == RAW_UNANSWERED for event in moved)
    running.run(2)
    assert running.all_has_come()
    running.world.run(2 * KEEPALIVE)
    assert sent(running.world, "a", _RSYN)[-1] == only(a).ports, "and the client says where it is from then on"


@pytest.mark.statement("S52")
def test_behind_a_nat_that_drops_raw_packets_from_now_on() -> None:
    running = Running()
    sending, (a, e) = running.senders("both"), (running.moving.a, running.moving.e)
    running.run(1, sending=sending)
    Nat(running.world, A)
    running.run(1, sending=sending)
    assert only(a).peer == (address(E), TO_SERVER)
    assert only(e).peer == (PUBLIC, UdpPorts(54325, 20000))
    running.run(2)
    assert running.all_has_come()


def test_raw_alone_stays_raw() -> None:
    running = Running(RAW)
    running.run(1, sending=running.senders("both"))
    running.world.middlebox = raw_is_lost
    running.run(2, sending=running.senders("both"))
    assert running.moving.a.happened(PathSilent)
    assert all(seen.ports is None for seen in running.world.seen)
    running.world.middlebox = None
    running.run(5)
    assert running.all_has_come()


def test_a_hole_for_every_packet_changes_no_form() -> None:
    running = Running()
    sending, a = running.senders("both"), running.moving.a
    running.run(1, sending=sending)
    running.world.middlebox = lambda _send: None
    running.run(0.5, sending=sending)
    assert a.happened(PathSilent) and TO_SERVER in sent(running.world, "a", _NACK)
    running.world.middlebox = None
    running.run(5, sending=sending)
    assert only(a).ports is None and not a.happened(FlowMigrated)
    running.run(2)
    assert running.all_has_come()


def test_a_rash_verdict_changes_no_form() -> None:
    """The path is back when the question inside UDP is answered, and nothing else has come on it yet."""
    running = Running()
    a, e = running.moving.a, running.moving.e
    running.run(1, sending=running.senders("both"))

    def until_asked_inside(send: Send) -> Send | None:
        if send.ports is None:
            return None
        running.world.middlebox = None
        return send

    running.world.middlebox = until_asked_inside
    running.run(2, sending=running.senders("there"))
    assert a.happened(PathSilent) or e.happened(PathSilent)
    assert only(a).ports is None and only(e).ports is None
    running.run(2)
    assert running.all_has_come()
