"""Flows that move (slide 40; S45 to S48): the exchange, its losses, both ends at once, and what is refused."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass, replace

import pytest

from serval_node.sal.events import FlowMigrated, FlowMigrating, MigrationFailed, PathHeard, PeerMoved, Refusal
from serval_node.sal.flow_table import Flow
from serval_node.sal.migration import ANSWERS
from serval_node.sal.moves import Cause, MigrationRefused, MigrationState
from serval_node.sal.outputs import Send
from serval_node.sal.service_table import Rule
from serval_node.sal.states import State
from serval_node.wire.ipv4 import address
from serval_node.wire.sal_header import ControlFlag, SalPacket, bare_header, encode
from serval_node.wire.transport import ACK, OPTION_MSS, TcpHeader, build_tcp, to_wire
from tests.unit.sal.conftest import A, E, Figure, make_figure, make_pair
from tests.unit.sal.fake_tcp import Socket
from tests.unit.sal.world import WEB_BIND, Host, Seen, World, forward

_RSYN, _ACK, _FIN = ControlFlag.RSYN, ControlFlag.ACK, ControlFlag.FIN
A2, A3, E2 = "10.1.0.1", "10.2.0.1", "10.1.3.1"
INITIAL, SENT, RECV, SENT_RECV = MigrationState
FLAGS = {_RSYN: "RSYN", _ACK: "ACK", _FIN: "FIN"}


@dataclass
class Moving:
    """An established connection between a (A, A2, A3) and e (E, E2)."""

    world: World
    a: Host
    e: Host
    client: Socket
    server: Socket

    @property
    def ours(self) -> Flow:
        (flow,) = self.a.stack.flows
        return flow

    @property
    def theirs(self) -> Flow:
        (flow,) = self.e.stack.flows
        return flow

    def move(self, to: str = A2, **how: object) -> None:
        self.a.migrate(self.ours.local_flow, address(to), **how)  # type: ignore[arg-type]

    def move_peer(self, to: str = E2, **how: object) -> None:
        self.e.migrate(self.theirs.local_flow, address(to), **how)  # type: ignore[arg-type]

    def exchange(self, size: int = 60000, seconds: float = 60.0) -> None:
        """Both programs send, and everything arrives."""
        there, back = self.world.rng.randbytes(size), self.world.rng.randbytes(size)
        had = len(self.server.received), len(self.client.received)
        self.a.send(self.client, there)
        self.e.send(self.server, back)
        self.world.run(
            seconds,
            until=lambda: (len(self.server.received), len(self.client.received)) == (had[0] + size, had[1] + size),
        )
        assert bytes(self.server.received[had[0] :]) == there
        assert bytes(self.client.received[had[1] :]) == back

    def at_rest(self, local: str, peer: str) -> None:
        """Both ends agree on the addresses, nothing is repeated any more, and data flows."""
        self.world.run(20)
        assert (self.ours.local_address, self.ours.peer_address) == (address(local), address(peer))
        assert (self.theirs.local_address, self.theirs.peer_address) == (address(peer), address(local))
        for flow in (self.ours, self.theirs):
            assert flow.migration is not None and flow.migration.state is INITIAL
            assert flow.control.pending is None
        before = len(self.world.seen)
        self.world.run(20)
        assert len(self.world.seen) == before
        self.exchange()


def make_moving(seed: int = 1, **config: object) -> Moving:
    pair = make_pair(seed, **config)
    pair.a.add_address(A2)
    pair.a.add_address(A3)
    pair.e.add_address(E2)
    client, server = pair.connect()
    moving = Moving(pair.world, pair.a, pair.e, client, server)
    moving.exchange(1000)
    return moving


@pytest.fixture(params=["ours", "original"])
def moving(request: pytest.FixtureRequest) -> Moving:
    """Towards peers of this project, and by the original's slower rule."""
    return make_moving(original_rules=request.param == "original")


@pytest.fixture
def quick() -> Moving:
    return make_moving()


def flags_seen(world: World) -> list[tuple[str, str]]:
    """CONTROL packets in order: (host, flags)."""
    return [
        (seen.host, "|".join(name for flag, name in FLAGS.items() if control.flags & flag))
        for seen in world.seen
        if (control := seen.packet.control) is not None
    ]


def losing(times: int, *flags: int) -> Callable[[Host, Send, SalPacket], bool]:
    """Loses the first ``times`` packets with exactly one of these flags."""
    left = [times]

    def lose(host: Host, send: Send, packet: SalPacket) -> bool:
        if packet.control is None or packet.control.flags not in flags or not left[0]:
            return False
        left[0] -= 1
        return True

    return lose


# -- the exchange


def test_three_packets_and_data_from_the_new_address(moving: Moving) -> None:
    moving.world.seen.clear()
    moving.move()
    moving.world.run(1)
    assert flags_seen(moving.world) == [("a", "RSYN"), ("e", "RSYN|ACK"), ("a", "ACK")]
    rsyn, answer, ack = moving.world.seen
    assert (rsyn.source, rsyn.destination) == (address(A2), address(E))
    assert (answer.source, answer.destination) == (address(E), address(A2))
    assert (ack.source, ack.destination) == (address(A2), address(E))
    first, second, third = (seen.packet.control for seen in (rsyn, answer, ack))
    assert first is not None and second is not None and third is not None
    assert second.ackno == first.verno + 1 == third.verno
    assert third.ackno == second.verno == first.ackno
    assert all(len(seen.packet.extensions) == 1 for seen in moving.world.seen)
    for seen in (rsyn, answer):
        # An original gets no report; a peer of ours one that, on a planned move, acknowledges nothing.
        report = TcpHeader.decode(seen.packet.payload) if seen.packet.payload else None
        assert (report is None) is not moving.ours.marked
        assert report is None or (report.flags, report.option(OPTION_MSS)) == (0, (1448).to_bytes(2, "big"))
    assert not ack.packet.payload
    moving.at_rest(A2, E)
    data = [seen for seen in moving.world.seen if not seen.packet.extensions]
    assert {seen.source for seen in data} == {address(A2), address(E)}


def test_the_server_moves(moving: Moving) -> None:
    moving.move_peer()
    moving.at_rest(A, E2)


def test_sockets_flow_ids_and_names_stay(moving: Moving) -> None:
    before = [
        (flow.local_flow, flow.peer_flow, flow.service_id, flow.kernel_key) for flow in (moving.ours, moving.theirs)
    ]
    moving.move()
    moving.at_rest(A2, E)
    after = [
        (flow.local_flow, flow.peer_flow, flow.service_id, flow.kernel_key) for flow in (moving.ours, moving.theirs)
    ]
    assert before == after


def test_when_the_peer_follows() -> None:
    """Ours at the RSYN, an original's rule at the ACK; on a planned move data stays on the old path meanwhile."""
    for original, follows in ((False, 0.010), (True, 0.030)):
        moving = make_moving(original_rules=original)
        start = moving.world.now
        moving.move()
        assert moving.ours.local_address == address(A)
        moving.world.run(1, until=lambda moving=moving: moving.theirs.peer_address == address(A2))
        assert moving.world.now - start == pytest.approx(follows, abs=1e-6)
        moving.world.run(1, until=lambda moving=moving: moving.ours.local_address == address(A2))


def test_a_lost_path_is_left_at_once_towards_ours() -> None:
    for original in (False, True):
        moving = make_moving(original_rules=original)
        moving.world.cut.add(address(A))
        moving.move(lost=True, cause="link down")
        assert (moving.ours.local_address == address(A2)) is not original
        moving.at_rest(A2, E)


def test_fifty_moves_with_data_in_flight() -> None:
    moving = make_moving(3)
    moving.world.keep_seen = False
    there, back = moving.world.rng.randbytes(2_000_000), moving.world.rng.randbytes(2_000_000)
    had = len(moving.server.received), len(moving.client.received)
    moving.a.send(moving.client, there)
    moving.e.send(moving.server, back)
    rng = random.Random(3)
    for number in range(50):
        places = [name for name in (A, A2, A3) if address(name) != moving.ours.local_address]
        moving.move(rng.choice(places), lost=bool(number % 2))
        moving.world.run(rng.uniform(0.005, 0.2))
    moving.world.run(300, until=lambda: len(moving.server.received) == had[0] + len(there))
    moving.world.run(300, until=lambda: len(moving.client.received) == had[1] + len(back))
    assert bytes(moving.server.received[had[0] :]) == there and bytes(moving.client.received[had[1] :]) == back


# -- loss, copies, order


@pytest.mark.parametrize(
    "lost", [(_RSYN,), (_RSYN | _ACK,), (_ACK,), (_RSYN, _RSYN | _ACK, _ACK)], ids=["RSYN", "RSYN-ACK", "ACK", "each"]
)
@pytest.mark.parametrize("times", [1, 3])
@pytest.mark.statement("S46")
def test_lost_control_is_repeated(moving: Moving, lost: tuple[int, ...], times: int) -> None:
    """With the old path alive, which is where an original gets stuck after a lost RSYN-ACK."""
    moving.world.lose = losing(times, *lost)
    moving.move()
    moving.world.run(10)
    moving.at_rest(A2, E)


def test_rsyn_backs_off(quick: Moving) -> None:
    quick.world.lose = losing(5, _RSYN)
    quick.world.seen.clear()
    quick.move()
    quick.world.run(30)
    times = [seen.time for seen in quick.world.controls(_RSYN)]
    gaps = [later - earlier for earlier, later in zip(times, times[1:], strict=False)]
    assert len(times) == 6
    assert all(later == pytest.approx(2 * earlier) for earlier, later in zip(gaps, gaps[1:], strict=False))


def test_answers_end_without_an_ack(quick: Moving) -> None:
    """A peer that vanishes in the middle of its move is not answered for ever."""
    quick.world.lose = losing(10**6, _ACK, _RSYN)
    rsyn = quick.ours.control.begin(_RSYN, quick.world.now)
    quick.ours.control.pending = None
    packet = SalPacket(quick.ours.local_flow, quick.ours.peer_flow, 6, (rsyn,), b"")
    quick.world.seen.clear()
    quick.world.inject(Send(address("10.9.9.9"), address(E), 64, encode(packet)))
    quick.world.run(120)
    assert len(quick.world.controls(_RSYN | _ACK)) == ANSWERS
    assert quick.theirs.migration is not None and quick.theirs.migration.state is RECV


def test_a_mover_that_is_long_out_of_earshot_is_answered_when_it_asks_again(moving: Moving) -> None:
    """The peer has stopped repeating its answer by then; the mover still asks."""
    moving.world.lose = losing(10**6, _RSYN | _ACK)
    moving.move(lost=True)
    moving.world.run(120)
    before = len(moving.world.controls(_RSYN | _ACK))
    moving.world.run(2)
    moving.world.lose = None
    moving.at_rest(A2, E)
    assert before > ANSWERS


def inject_again(moving: Moving, seen: Seen, source: str | None = None) -> None:
    moving.world.inject(Send(address(source) if source else seen.source, seen.destination, 64, seen.raw))


@pytest.mark.statement("S46")
def test_stale_rsyn_is_ignored(quick: Moving) -> None:
    quick.world.seen.clear()
    quick.move(A2)
    quick.world.run(1)
    quick.move(A3)
    quick.world.run(1)
    old = quick.world.controls(_RSYN)[0]
    before = len(quick.world.seen)
    inject_again(quick, old)
    quick.world.run(1)
    assert len(quick.world.seen) == before
    assert quick.e.count(Refusal.STALE_CONTROL) == 1
    quick.at_rest(A3, E)


@pytest.mark.statement("S46")
def test_copies_of_every_control_packet_do_no_harm(moving: Moving) -> None:
    moving.world.seen.clear()
    moving.move()
    moving.world.run(1)
    for seen in list(moving.world.seen):
        inject_again(moving, seen)
        moving.world.run(0.5)
    moving.at_rest(A2, E)


@pytest.mark.parametrize("seed", range(40))
@pytest.mark.statement("S46")
def test_bad_network(seed: int) -> None:
    moving = make_moving(seed, original_rules=seed % 4 == 3)
    world, rng = moving.world, random.Random(seed)
    world.keep_seen = False
    world.loss, world.duplication, world.jitter, world.delivery_loss = 0.15, 0.15, 0.03, 0.01
    there, back = rng.randbytes(300000), rng.randbytes(300000)
    had = len(moving.server.received), len(moving.client.received)
    moving.a.send(moving.client, there)
    moving.e.send(moving.server, back)
    ends: tuple[tuple[Callable[..., None], list[str]], ...] = ((moving.move, [A, A2, A3]), (moving.move_peer, [E, E2]))
    for _ in range(12):
        move, places = rng.choice(ends)
        try:
            move(rng.choice(places), lost=rng.random() < 0.5)
        except MigrationRefused as error:
            assert "already" in str(error)
        world.run(rng.choice([0.0, 0.01, 0.05, 0.3]))
    world.run(900, until=lambda: len(moving.server.received) == had[0] + len(there))
    world.run(900, until=lambda: len(moving.client.received) == had[1] + len(back))
    assert bytes(moving.server.received[had[0] :]) == there and bytes(moving.client.received[had[1] :]) == back
    world.loss = world.delivery_loss = 0.0
    moving.a.close(moving.client)
    moving.e.close(moving.server)
    world.run(500)
    assert not list(moving.a.stack.flows) and not list(moving.e.stack.flows)


# -- both at once


@pytest.mark.statement("S47")
def test_crossing_moves_with_the_old_paths_gone(moving: Moving) -> None:
    """The RSYNs are on their way when both old addresses go: where the original black-holes."""
    moving.move(lost=True)
    moving.move_peer(lost=True)
    moving.world.run(0.011)
    states = {flow.migration.state for flow in (moving.ours, moving.theirs) if flow.migration is not None}
    assert states == {SENT_RECV}
    moving.world.cut |= {address(A), address(E)}
    moving.at_rest(A2, E2)


@pytest.mark.parametrize("loser", ["a", "e"])
def test_crossing_moves_one_rsyn_lost(moving: Moving, loser: str) -> None:
    def lose(host: Host, send: Send, packet: SalPacket) -> bool:
        return host.name == loser and packet.control is not None and packet.control.flags == _RSYN and not done

    done: list[bool] = []
    moving.world.lose = lose
    moving.move()
    moving.move_peer()
    moving.world.run(0.005)
    done.append(True)
    moving.at_rest(A2, E2)


@pytest.mark.statement("S47")
def test_both_lost_each_other_and_meet_by_the_name() -> None:
    """No RSYN can arrive: both old addresses are dead. The client finds the instance through the service router."""
    figure = make_figure()
    moving = moving_through(figure)
    moving.world.cut |= {address(A), address(E)}
    moving.move(lost=True)
    moving.move_peer(lost=True)
    moving.world.run(0.5)
    figure.point(E2, "10.0.2.1")
    moving.world.run(20)
    assert figure.d.count(Refusal.UNKNOWN_FLOW) > 0
    moving.at_rest(A2, E2)


def moving_through(figure: Figure) -> Moving:
    figure.point(E)
    listener = figure.e.serve()
    client = figure.a.connect()
    figure.world.run(until=lambda: bool(listener.queue) and client.state == "ESTABLISHED")
    figure.a.add_address(A2)
    figure.e.add_address(E2)
    moving = Moving(figure.world, figure.a, figure.e, client, listener.queue[0])
    moving.exchange(1000)
    return moving


def test_only_the_holder_of_the_flow_answers_a_search() -> None:
    figure = make_figure()
    moving = moving_through(figure)
    figure.point(E2, "10.0.2.1")
    moving.world.cut |= {address(A), address(E)}
    moving.world.seen.clear()
    moving.move(lost=True)
    moving.move_peer(lost=True)
    moving.world.run(20)
    assert {seen.host for seen in moving.world.controls(_RSYN | _ACK)} == {"a", "e"}
    assert not [seen for seen in moving.world.seen if seen.host == "d"]


# -- together with closing


def test_fin_in_flight_rides_along(moving: Moving) -> None:
    moving.world.lose = losing(1, _FIN)
    moving.a.shutdown(moving.client)
    moving.world.run(until=lambda: moving.ours.control.pending is not None)
    moving.move()
    moving.world.run(5)
    assert moving.world.controls(_RSYN | _FIN)
    assert moving.server.eof
    assert moving.theirs.state is State.CLOSEWAIT and moving.ours.state is State.FINWAIT2
    moving.e.close(moving.server)
    moving.world.run(200)
    assert not list(moving.a.stack.flows) and not list(moving.e.stack.flows)


def test_moving_before_the_third_ack_has_arrived(moving: Moving) -> None:
    """The client thinks that it is connected; the server does not know yet."""
    moving.world.lose = losing(1, _ACK)
    client = moving.a.connect()
    moving.world.run(until=lambda: client.state == "ESTABLISHED")
    flow = moving.a.stack.flow_for_kernel(*client.peer, client.local[1])
    assert flow is not None and flow.unconfirmed
    moving.a.migrate(flow.local_flow, address(A2))
    moving.world.run(5)
    assert (flow.local_address, flow.unconfirmed) == (address(A2), False)
    theirs = moving.e.stack.flows.get(flow.peer_flow)
    assert theirs is not None and theirs.peer_address == address(A2)
    moving.a.send(client, b"hello")
    moving.world.run(1)
    assert bytes(moving.e.kernel.sockets[theirs.kernel_key].received) == b"hello"


def test_the_path_goes_before_the_third_ack_has_arrived(moving: Moving) -> None:
    """The server understands nothing but the third ACK, so that has to come from the new place; also an original's
    takes the address from there.
    """
    client = moving.a.connect()
    moving.world.run(until=lambda: client.state == "ESTABLISHED")
    flow = moving.a.stack.flow_for_kernel(*client.peer, client.local[1])
    assert flow is not None and flow.unconfirmed
    moving.world.cut.add(address(A))
    moving.a.migrate(flow.local_flow, address(A2), lost=True)
    moving.a.send(client, b"hello")
    moving.world.run(20)
    theirs = moving.e.stack.flows.get(flow.peer_flow)
    assert theirs is not None and theirs.peer_address == address(A2)
    assert bytes(moving.e.kernel.sockets[theirs.kernel_key].received) == b"hello"


def test_both_paths_go_before_the_third_ack_has_arrived(moving: Moving) -> None:
    """The server cannot move what it does not know; the client finds it by the name, and its RSYN says enough."""
    client = moving.a.connect()
    moving.world.run(until=lambda: client.state == "ESTABLISHED")
    flow = moving.a.stack.flow_for_kernel(*client.peer, client.local[1])
    assert flow is not None and flow.unconfirmed
    moving.world.cut |= {address(A), address(E)}
    moving.a.stack.service_table.set_rule(Rule(WEB_BIND, forward(E2)), "hand")
    moving.a.migrate(flow.local_flow, address(A2), lost=True)
    moving.a.send(client, b"hello")
    moving.world.run(20)
    theirs = moving.e.stack.flows.get(flow.peer_flow)
    assert theirs is not None and (theirs.local_address, theirs.peer_address) == (address(E2), address(A2))
    assert bytes(moving.e.kernel.sockets[theirs.kernel_key].received) == b"hello"


def test_close_while_moving(moving: Moving) -> None:
    moving.world.lose = losing(2, _RSYN)
    moving.move()
    moving.a.close(moving.client)
    moving.e.close(moving.server)
    moving.world.run(200)
    assert moving.server.eof
    assert not list(moving.a.stack.flows) and not list(moving.e.stack.flows)


def test_a_reset_ends_a_move(moving: Moving) -> None:
    moving.world.lose = losing(10**6, _RSYN)
    moving.move()
    moving.e.abort(moving.server)
    moving.world.run(5)
    assert moving.client.error == "ECONNRESET"
    moving.world.run(200)
    assert not list(moving.a.stack.flows) and not list(moving.e.stack.flows)


def test_a_peer_that_never_answers_is_given_up() -> None:
    moving = make_moving(migration_timeout=40.0)
    moving.world.cut.add(address(E))
    moving.move(lost=True)
    moving.world.run(39)
    assert list(moving.a.stack.flows)
    moving.world.run(10)
    assert not list(moving.a.stack.flows)
    (failed,) = moving.a.happened(MigrationFailed)
    assert isinstance(failed, MigrationFailed) and "no answer" in failed.reason


# -- what is not believed, and what is refused


@pytest.mark.parametrize("flags", [_RSYN, _RSYN | _ACK, _ACK])
@pytest.mark.statement("S48")
def test_wrong_nonce(quick: Moving, flags: int) -> None:
    """An attacker who knows flowIDs and numbers, but not the nonce (S48)."""
    forged = replace(quick.ours.control.make(flags), nonce=b"guessed!")
    packet = SalPacket(quick.ours.local_flow, quick.ours.peer_flow, 6, (forged,), b"")
    quick.world.seen.clear()
    quick.world.inject(Send(address("10.66.6.6"), address(E), 64, encode(packet)))
    quick.world.run(1)
    assert quick.e.count(Refusal.WRONG_NONCE) == 1
    assert quick.theirs.peer_address == address(A) and not quick.world.seen


def test_a_bare_ack_completes_no_move(quick: Moving) -> None:
    quick.world.lose = losing(10**6, _RSYN | _ACK)
    quick.move()
    quick.world.run(0.015)
    forged = quick.theirs.control.make(_ACK)
    assert forged.ackno == quick.ours.control.snd_nxt
    packet = SalPacket(quick.theirs.local_flow, quick.theirs.peer_flow, 6, (forged,), b"")
    quick.world.inject(Send(address(E), address(A), 64, encode(packet)))
    quick.world.run(0.001)
    assert quick.ours.migration is not None and quick.ours.migration.state is SENT
    quick.world.lose = None
    quick.at_rest(A2, E)


def test_refusals_say_why(quick: Moving) -> None:
    def refused(text: str, flow_id: int, to: str) -> None:
        with pytest.raises(MigrationRefused, match=text):
            quick.a.stack.migrate(flow_id, address(to), quick.world.now, Cause("by hand", False, 0.0, 0.0))

    ours = quick.ours.local_flow
    refused("no flow 1", 1, A2)
    refused("no address of this host", ours, "10.9.9.9")
    refused("no address of this host", ours, "127.0.0.1")
    refused("at 10.0.0.1 already", ours, A)
    quick.a.abort(quick.client)
    refused("CLOSED: only an open flow can move", ours, A2)


def test_a_flow_within_the_host_does_not_move() -> None:
    moving = make_moving()
    listener = moving.a.serve()
    client = moving.a.connect()
    moving.world.run(until=lambda: bool(listener.queue) and client.state == "ESTABLISHED")
    flow = next(flow for flow in moving.a.stack.flows if flow.peer_address == address("127.0.0.1"))
    with pytest.raises(MigrationRefused, match="stays within this host"):
        moving.a.migrate(flow.local_flow, address(A2))


# -- what is told


def test_events_account_for_the_blackout(quick: Moving) -> None:
    start = quick.world.now
    quick.world.lose = losing(1, _RSYN)
    quick.a.stack.migrate(
        quick.ours.local_flow, address(A2), start, Cause("link down", True, start - 0.004, start - 0.001)
    )
    quick.a.settle()
    quick.world.run(1)
    (begun,), (moved,), (followed,) = (
        quick.a.happened(FlowMigrating),
        quick.a.happened(FlowMigrated),
        quick.e.happened(PeerMoved),
    )
    assert isinstance(begun, FlowMigrating) and isinstance(moved, FlowMigrated) and isinstance(followed, PeerMoved)
    assert (begun.source, begun.target, begun.cause) == (address(A), address(A2), "link down")
    assert (moved.source, moved.target) == (address(A), address(A2))
    assert (moved.happened, moved.detected, moved.started) == (start - 0.004, start - 0.001, start)
    assert moved.rsyns == 2 and moved.time > start + 0.020
    assert (followed.source, followed.target) == (address(A), address(A2))
    assert followed.asked == followed.time


def heard(host: Host) -> list[tuple[float, bytes, bytes]]:
    return [(event.time, event.local, event.peer) for event in host.happened(PathHeard) if isinstance(event, PathHeard)]


def test_each_end_tells_of_the_first_segment_over_the_new_path(moving: Moving) -> None:
    assert heard(moving.a) == heard(moving.e) == []
    start = moving.world.now
    moving.move()
    moving.world.run(1)
    assert heard(moving.a) == heard(moving.e) == []  # control packets are none
    moving.a.send(moving.client, b"there")
    moving.world.run(1)
    assert heard(moving.e) == [(start + 1 + moving.world.delay, address(E), address(A2))]
    assert heard(moving.a) == [(start + 1 + 2 * moving.world.delay, address(A2), address(E))]
    moving.exchange()
    assert (len(heard(moving.a)), len(heard(moving.e))) == (1, 1)


def test_what_still_comes_over_the_old_path_does_not_end_a_blackout(quick: Moving) -> None:
    """A planned move: data under way to the old address arrives after the switch, and is delivered all the same."""
    quick.move()
    quick.world.run(quick.world.delay * 1.5)  # the RSYN is there, its answer is not
    stray = bare_header(quick.theirs.local_flow, quick.ours.local_flow, 6) + to_wire(
        build_tcp(quick.server.local[1], quick.client.local[1], 1, 1, ACK), 6, address(E), address(A)
    )
    quick.world.inject(Send(address(E), address(A), 64, stray), quick.world.delay)
    delivered = quick.world.delivered
    quick.world.run(1)
    assert quick.ours.local_address == address(A2) and quick.world.delivered > delivered
    assert heard(quick.a) == []


def test_a_flow_that_is_closing_is_heard_by_the_slow_path(quick: Moving) -> None:
    """While its FIN is unanswered a flow's packets all pass the stack."""
    quick.world.lose = lambda host, send, packet: host is quick.e
    quick.a.shutdown(quick.client)
    quick.world.run(0.05)
    assert not quick.ours.fast
    quick.world.lose = None
    quick.move()
    quick.world.run(5)
    assert len(heard(quick.a)) == 1
