"""What a lost path swallowed: sent again at once, only what the other lacks, and once (sal.recovery)."""

from __future__ import annotations

from dataclasses import replace

import pytest

from serval_node.sal.events import Refusal
from serval_node.wire.ipv4 import address
from serval_node.wire.sal_header import ControlFlag, SalPacket, encode
from serval_node.wire.serial import serial_add, serial_diff
from serval_node.wire.transport import ACK, OPTION_MSS, PSH, SYN, TcpHeader, build_tcp, to_wire
from tests.unit.sal.conftest import A, E, make_figure
from tests.unit.sal.fake_tcp import RETRANSMIT, WINDOW, Socket
from tests.unit.sal.test_migration import A2, A3, E2, Moving, losing, make_moving, moving_through
from tests.unit.sal.world import DELAY, Host, Send

_RSYN, _ACK = ControlFlag.RSYN, ControlFlag.ACK
TWO_WINDOWS = 2 * WINDOW


def settled(**config: object) -> Moving:
    """A connection on which everything is acknowledged."""
    moving = make_moving(**config)  # type: ignore[arg-type]
    moving.world.run(1)
    return moving


@pytest.fixture
def quick() -> Moving:
    return settled()


def other(moving: Moving, socket: Socket) -> Socket:
    return moving.server if socket is moving.client else moving.client


def in_flight(moving: Moving, socket: Socket, size: int = TWO_WINDOWS) -> bytes:
    """The program at `socket` has sent, and a window is on its way; what has come of that already is not counted."""
    data = moving.world.rng.randbytes(size)
    host = moving.a if socket is moving.client else moving.e
    host.send(socket, data)
    moving.world.run(DELAY / 2)
    assert serial_diff(socket.snd_nxt, socket.snd_una) == min(size, WINDOW)
    return data


def arrives_before_the_kernel_notices(moving: Moving, socket: Socket, data: bytes) -> None:
    """By the time of the kernel's first retransmission everything is there, and it did retransmit nothing."""
    received = other(moving, socket)
    had = len(received.received)
    moving.world.run(0.9 * RETRANSMIT, until=lambda: len(received.received) == had + len(data))
    assert bytes(received.received[had:]) == data


def lacked(host: Host, socket: Socket) -> list[tuple[int, int]]:
    """What `host` sent again, relative to the begin of the stream."""
    return [(serial_diff(first, socket.iss) - 1, serial_diff(last, socket.iss) - 1) for first, last in host.sent_again]


def test_data_towards_the_mover(quick: Moving) -> None:
    data = in_flight(quick, quick.server)
    quick.world.cut.add(address(A))
    quick.move(lost=True, cause="link down")
    had = len(quick.client.received)
    arrives_before_the_kernel_notices(quick, quick.server, data)
    ranges = lacked(quick.e, quick.server)
    assert ranges[0][0] == had and sum(last - first for first, last in ranges) == WINDOW
    assert not quick.a.sent_again
    quick.at_rest(A2, E)


def test_data_from_the_mover(quick: Moving) -> None:
    data = in_flight(quick, quick.client)
    quick.world.cut.add(address(A))
    quick.move(lost=True, cause="link down")
    arrives_before_the_kernel_notices(quick, quick.client, data)
    assert sum(last - first for first, last in lacked(quick.a, quick.client)) == WINDOW
    assert not quick.e.sent_again
    quick.at_rest(A2, E)


def test_only_what_the_peer_lacks(quick: Moving) -> None:
    """The window's first half has arrived when the link goes, its acknowledgements have not."""
    data = quick.world.rng.randbytes(WINDOW)
    had = len(quick.server.received)
    half = WINDOW // 2
    quick.a.send(quick.client, data[:half])
    quick.world.run(DELAY, until=lambda: len(quick.server.received) == had + half)
    quick.world.cut.add(address(A))
    quick.a.send(quick.client, data[half:])
    quick.move(lost=True)
    quick.world.run(0.9 * RETRANSMIT, until=lambda: len(quick.server.received) == had + WINDOW)
    assert bytes(quick.server.received[had:]) == data
    ranges = lacked(quick.a, quick.client)
    assert ranges[0][0] == had + half and sum(last - first for first, last in ranges) == WINDOW - half


@pytest.mark.parametrize("original", [False, True])
def test_a_planned_move_sends_nothing_again(original: bool) -> None:
    moving = settled(original_rules=original)
    there, back = in_flight(moving, moving.client), moving.world.rng.randbytes(TWO_WINDOWS)
    moving.e.send(moving.server, back)
    moving.move()
    had = len(moving.client.received)
    arrives_before_the_kernel_notices(moving, moving.client, there)
    moving.world.run(until=lambda: len(moving.client.received) == had + len(back))
    moving.at_rest(A2, E)
    assert not moving.a.sent_again and not moving.e.sent_again


def test_an_originals_mover_sends_again_after_the_answer() -> None:
    """Towards one: no report, and everything that its data has not acknowledged."""
    moving = settled(original_rules=True)
    data = in_flight(moving, moving.client)
    moving.world.cut.add(address(A))
    moving.world.seen.clear()
    moving.move(lost=True)
    arrives_before_the_kernel_notices(moving, moving.client, data)
    assert all(not seen.packet.payload for seen in moving.world.seen if seen.packet.control is not None)
    assert moving.a.sent_again
    moving.at_rest(A2, E)


def test_both_move_at_once(quick: Moving) -> None:
    there, back = in_flight(quick, quick.client), quick.world.rng.randbytes(WINDOW)
    quick.e.send(quick.server, back)
    had = len(quick.client.received), len(quick.server.received)
    quick.move(lost=True)
    quick.move_peer(lost=True)
    quick.world.run(DELAY * 1.1)  # the RSYNs have crossed
    quick.world.cut |= {address(A), address(E)}
    quick.world.run(
        2,
        until=lambda: (
            (len(quick.client.received), len(quick.server.received)) == (had[0] + len(back), had[1] + len(there))
        ),
    )
    assert bytes(quick.client.received[had[0] :]) == back and bytes(quick.server.received[had[1] :]) == there
    quick.at_rest(A2, E2)
    for host, socket in ((quick.a, quick.client), (quick.e, quick.server)):
        spans = lacked(host, socket)
        assert len(spans) == len(set(spans)), "each range once"


def test_a_peer_found_by_its_name() -> None:
    """The client's RSYN with SERVICE goes through the router, report and all."""
    figure = make_figure()
    moving = moving_through(figure)
    moving.world.run(1)
    data = in_flight(moving, moving.server)
    moving.world.cut |= {address(A), address(E)}
    moving.move(lost=True)
    moving.move_peer(lost=True)
    figure.point(E2)
    had = len(moving.client.received)
    moving.world.run(20, until=lambda: len(moving.client.received) == had + len(data))
    assert bytes(moving.client.received[had:]) == data and moving.e.sent_again
    moving.at_rest(A2, E2)


# -- how often


def test_a_lost_answer_makes_no_second_copy(quick: Moving) -> None:
    """The data sent again arrived, so the repeated RSYN says more than the first."""
    data = in_flight(quick, quick.server)
    quick.world.cut.add(address(A))
    quick.world.lose = losing(2, _RSYN | _ACK)
    quick.move(lost=True)
    arrives_before_the_kernel_notices(quick, quick.server, data)
    quick.at_rest(A2, E)
    assert sum(last - first for first, last in quick.e.sent_again) == WINDOW
    assert len(quick.world.controls(_RSYN)) > 1


def test_what_was_lost_again_goes_again(quick: Moving) -> None:
    """The new path takes the RSYN-ACK and the data too, for a while."""
    data = in_flight(quick, quick.server, WINDOW)
    quick.world.cut.add(address(A))
    quick.move(lost=True)
    quick.world.run(DELAY / 2)
    quick.world.lose = lambda host, send, packet: host is quick.e
    quick.world.run(DELAY)
    assert quick.e.sent_again
    quick.world.lose = None
    quick.e.sent_again.clear()
    arrives_before_the_kernel_notices(quick, quick.server, data)
    assert sum(last - first for first, last in quick.e.sent_again) == WINDOW


def test_copies_of_an_rsyn_make_no_copies_of_data(quick: Moving) -> None:
    """At any time, and however many: each gets an RSYN-ACK as always."""
    data = in_flight(quick, quick.server)
    quick.world.cut.add(address(A))
    quick.move(lost=True)
    (rsyn,) = quick.world.controls(_RSYN)
    for delay in (0.0, 0.0, 0.01, 0.02, 0.035, 0.05, 0.2):
        quick.world.inject(Send(rsyn.source, rsyn.destination, 64, rsyn.raw), DELAY + delay)
    arrives_before_the_kernel_notices(quick, quick.server, data)
    quick.world.run(2)
    assert sum(last - first for first, last in quick.e.sent_again) == WINDOW
    assert len(quick.world.controls(_RSYN | _ACK)) >= 7


def test_losing_one_place_after_the_other(quick: Moving) -> None:
    data = in_flight(quick, quick.server)
    quick.world.cut |= {address(A), address(A2)}
    quick.move(A2, lost=True)
    quick.world.run(0.005)
    quick.move(A3, lost=True)
    arrives_before_the_kernel_notices(quick, quick.server, data)
    quick.at_rest(A3, E)


# -- what is not believed, and who gets it


def report(
    moving: Moving, flags: int, ack: int, *, data: bytes = b"", options: bytes = b"", nonce: bytes = b""
) -> None:
    """An RSYN of the mover with this report."""
    rsyn = moving.ours.control.begin(_RSYN, moving.world.now)
    moving.ours.control.pending = None
    if nonce:
        rsyn = replace(rsyn, nonce=nonce)
    segment = build_tcp(0, 0, 1, ack, flags, options=options, data=data)
    segment = to_wire(segment, 6, address(A2), address(E))
    packet = SalPacket(moving.ours.local_flow, moving.ours.peer_flow, 6, (rsyn,), segment)
    moving.world.inject(Send(address(A2), address(E), 64, encode(packet)))
    moving.world.run(DELAY / 10)


def test_a_report_that_stands_for_the_third_ack_is_not_given_to_the_kernel(quick: Moving) -> None:
    """On a planned move it has no flags at all: the kernel gets an ACK in its place, and accepts the connection."""
    quick.world.lose = losing(1, _ACK)
    (listener,) = quick.e.kernel.listeners.values()
    accepted = listener.queue
    client = quick.a.connect()
    quick.world.run(until=lambda: client.state == "ESTABLISHED")
    flow = quick.a.stack.flow_for_kernel(*client.peer, client.local[1])
    assert flow is not None
    before = len(accepted)
    quick.a.migrate(flow.local_flow, address(A2))
    quick.world.run(1.5 * DELAY)
    assert len(accepted) == before + 1 and accepted[-1].state == "ESTABLISHED"


@pytest.mark.parametrize(
    ("flags", "beyond", "data"),
    [(SYN, 0, b""), (ACK | PSH, 0, b""), (ACK, 0, b"x"), (ACK, 1, b""), (ACK, 1 << 30, b"")],
    ids=["SYN", "PSH", "data", "ahead by one", "ahead by far"],
)
def test_a_senseless_report_is_counted(quick: Moving, flags: int, beyond: int, data: bytes) -> None:
    """The move itself is good; nothing of the report reaches the kernel or makes it lose a copy."""
    in_flight(quick, quick.server, 1000)
    delivered, kept = quick.world.delivered, quick.e.memory.used
    report(quick, flags, serial_add(quick.server.snd_nxt, beyond), data=data)
    assert quick.e.count(Refusal.SENSELESS_REPORT) == 1
    assert quick.theirs.peer_address == address(A2)
    assert (quick.world.delivered, quick.e.memory.used) == (delivered, kept) and not quick.e.sent_again


def test_a_report_without_the_nonce_is_nothing(quick: Moving) -> None:
    in_flight(quick, quick.server)
    before = quick.e.memory.used
    report(quick, ACK, quick.server.snd_una, options=bytes((OPTION_MSS, 4, 0, 1)), nonce=b"guessed!")
    assert quick.e.count(Refusal.WRONG_NONCE) == 1
    assert quick.theirs.peer_mtu > 1500 and not quick.e.sent_again and before > 0


def test_an_old_acknowledgement_brings_nothing_back(quick: Moving) -> None:
    """Reports cannot make more be sent than what is under way."""
    quick.exchange(100_000)
    quick.world.run(1)
    report(quick, ACK, serial_add(quick.server.iss, 1))
    assert quick.e.count(Refusal.SENSELESS_REPORT) == 0 and not quick.e.sent_again


# -- a smaller MTU


@pytest.mark.parametrize("lost", [False, True])
@pytest.mark.parametrize("mover", ["a", "e"])
def test_a_path_with_a_smaller_mtu(quick: Moving, lost: bool, mover: str) -> None:
    """Both ends split again, new segments as well as those that are sent again."""
    quick.a.environment.mtus[address(A2)] = quick.e.environment.mtus[address(E2)] = 1280
    there = in_flight(quick, quick.client)
    back = quick.world.rng.randbytes(TWO_WINDOWS)
    quick.e.send(quick.server, back)
    had = len(quick.client.received), len(quick.server.received)
    small, large, move = (A2, A, quick.move) if mover == "a" else (E2, E, quick.move_peer)
    if lost:
        quick.world.cut.add(address(large))
    move(small, lost=lost)
    done = had[0] + len(back), had[1] + len(there)
    quick.world.run(5, until=lambda: (len(quick.client.received), len(quick.server.received)) == done)
    assert bytes(quick.client.received[had[0] :]) == back and bytes(quick.server.received[had[1] :]) == there
    sizes = [20 + len(seen.raw) for seen in quick.world.seen if address(small) in (seen.source, seen.destination)]
    assert max(sizes) == 1280
    assert bool(quick.a.sent_again or quick.e.sent_again) is lost
    quick.world.cut.clear()
    quick.world.seen.clear()
    move(large)
    quick.exchange()
    assert max(20 + len(seen.raw) for seen in quick.world.seen) == 1500


def test_the_last_segment_of_a_flow_is_split_too(quick: Moving) -> None:
    """A segment with FIN takes the slow path."""
    quick.a.environment.mtus[address(A2)] = 1280
    quick.move()
    quick.world.run(1)
    quick.world.seen.clear()
    quick.client.fin_wanted = True
    quick.a.send(quick.client, bytes(1448))
    quick.world.run(1)
    assert quick.server.eof
    sizes = [20 + len(seen.raw) for seen in quick.world.seen if seen.source == address(A2)]
    assert max(sizes) == 1280
    last = [TcpHeader.decode(seen.packet.payload) for seen in quick.world.seen if seen.packet.payload]
    assert any(tcp.flags & 1 for tcp in last)
