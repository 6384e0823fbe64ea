"""A NAT puts a client at another port in the middle of a flow: the client notices that its probes are answered and its
own packets are not, and says at once where it is.
"""

from __future__ import annotations

import pytest

from serval_node.sal.events import FlowMigrated, PathSilent, PeerMoved, Refusal
from serval_node.sal.keepalive import NOT_AGAIN
from serval_node.wire.ipv4 import UdpPorts
from serval_node.wire.sal_header import ControlFlag
from tests.unit.sal.fake_tcp import Socket
from tests.unit.sal.test_encapsulation import KEEPALIVE, behind_nat, only, sent
from tests.unit.sal.test_migration import Moving, make_moving
from tests.unit.sal.test_probing import Watched

_RSYN = ControlFlag.RSYN
SOON = KEEPALIVE / 10


class Behind(Watched):
    """A connection of a client behind a NAT, both ends of which probe."""

    def __init__(self) -> None:
        pair, self.nat = behind_nat()
        self.pair = pair
        client, server = pair.connect()
        super().__init__(Moving(pair.world, pair.a, pair.e, client, server))


@pytest.fixture
def behind() -> Behind:
    return Behind()


def senders(behind: Behind, direction: str) -> tuple[Socket, ...]:
    moving = behind.moving
    return {"there": (moving.client,), "back": (moving.server,), "both": (moving.client, moving.server)}[direction]


@pytest.mark.statement("S52")
@pytest.mark.parametrize("direction", ["there", "back", "both"])
def test_a_rebound_client_says_so_at_once(behind: Behind, direction: str) -> None:
    """Also one that only receives: what came densely comes no more."""
    sending = senders(behind, direction)
    behind.run(1, sending=sending)
    behind.nat.rebind()
    rebound = behind.world.now
    behind.run(SOON, sending=sending)
    (moved,) = behind.pair.e.happened(PeerMoved)
    assert moved.time < rebound + 0.5 and only(behind.pair.e).ports == UdpPorts(54325, 20001)
    behind.run(2)
    moving = behind.moving
    for end, other in ((moving.client, moving.server), (moving.server, moving.client)):
        assert end.snd_una == end.snd_nxt and end.snd_nxt - end.iss - 1 == len(other.received)
    assert not behind.pair.a.happened(FlowMigrated) and not behind.pair.a.happened(PathSilent)


def test_what_went_to_the_old_port_is_sent_again_at_once(behind: Behind) -> None:
    """And not when the kernel's time-out is over: the server learns with the RSYN what the client lacks."""
    sending = (behind.moving.server,)
    behind.run(1, sending=sending)
    behind.nat.rebind()
    behind.run(0.15, sending=sending)
    assert behind.nat.dropped and behind.pair.e.happened(PeerMoved)
    before = len(behind.world.seen)
    behind.run(0.05)
    assert len(behind.moving.client.received) == behind.moving.server.snd_nxt - behind.moving.server.iss - 1
    assert len(behind.world.seen) > before


def test_whoever_is_only_silent_says_so_once_a_second_at_most(behind: Behind) -> None:
    """The server's program stops to read, or its last packets are lost: no NAT has to do with it."""
    client = behind.moving.client
    behind.run(1, sending=(client,))
    behind.world.lose = lambda host, send, packet: packet.control is None
    behind.world.seen.clear()
    behind.run(SOON, sending=(client,))
    assert 1 <= len(sent(behind.world, "a", _RSYN)) <= SOON / NOT_AGAIN + 1
    behind.world.lose = None
    behind.run(KEEPALIVE)
    behind.world.seen.clear()
    behind.run(3.5 * KEEPALIVE)
    assert 3 <= len(sent(behind.world, "a", _RSYN)) <= 4, "an idle flow has its keep-alives and no more"
    assert not behind.pair.e.happened(PeerMoved) and not behind.pair.e.count(Refusal.STALE_CONTROL)


def test_a_raw_flow_and_a_server_say_nothing() -> None:
    behind, raw = Behind(), Watched(make_moving())
    said = []
    for watched, host, sender in (
        (behind, "a", behind.moving.client),
        (behind, "e", behind.moving.server),
        (raw, "a", raw.moving.client),
    ):
        watched.world.lose = None
        watched.run(2, sending=(sender,))
        watched.world.lose = lambda host, send, packet: packet.control is None
        watched.world.seen.clear()
        watched.run(1, sending=(sender,))
        said.append(len(sent(watched.world, host, _RSYN)))
    assert said == [1, 0, 0]


def test_the_peers_own_probes_say_that_nothing_has_changed(behind: Behind) -> None:
    """Both ends ask at the same time: what finds the client needs no telling where it is."""
    both = behind.moving.client, behind.moving.server
    behind.run(1, sending=both)
    behind.world.lose = lambda host, send, packet: packet.control is None
    behind.world.seen.clear()
    behind.run(SOON, sending=both)
    assert not sent(behind.world, "a", _RSYN)


def test_a_host_that_does_not_probe_waits_for_the_keepalive(behind: Behind) -> None:
    sending = (behind.moving.client,)
    behind.run(1, sending=sending)
    behind.pair.a.stack.probing.switch(on=False)
    behind.nat.rebind()
    behind.run(SOON, sending=sending)
    assert not behind.pair.e.happened(PeerMoved)
    behind.run(KEEPALIVE, sending=sending)
    assert behind.pair.e.happened(PeerMoved)
