"""Probes between real stacks (`serval_node.sal.probing`): what they look like, what they change, what they find."""

from __future__ import annotations

from dataclasses import replace

import pytest

from serval_node.sal.events import PathAnswers, PathSilent, Refusal
from serval_node.sal.flow_table import Flow
from serval_node.sal.outputs import Send
from serval_node.sal.states import State
from serval_node.wire.ipv4 import address
from serval_node.wire.sal_header import Control, ControlFlag, SalPacket, encode
from serval_node.wire.serial import serial_lt
from tests.unit.sal.conftest import A, E, make_pair
from tests.unit.sal.fake_tcp import Socket
from tests.unit.sal.test_migration import A2, Moving, make_moving
from tests.unit.sal.world import Host, Names, World

_NACK, _ACK, _RST = ControlFlag.NACK, ControlFlag.ACK, ControlFlag.RST
STEP = 0.01


class Watched:
    """A connection between hosts that probe. `run` tells the stacks what the data path would, every 10 ms."""

    def __init__(self, moving: Moving) -> None:
        self.moving = moving
        self.world = moving.world
        self.ends = ((moving.a, moving.client), (moving.e, moving.server))
        self._received: dict[str, int] = {}
        for host, _ in self.ends:
            host.stack.probing.switch(on=True)

    def run(self, seconds: float, *, sending: tuple[Socket, ...] = ()) -> None:
        """Let time pass, with a little data from these ends in every step."""
        for _ in range(round(seconds / STEP)):
            for host, socket in self.ends:
                if socket in sending:
                    host.send(socket, bytes(500))
            self.world.run(STEP)
            for host, socket in self.ends:
                self._tell(host, socket)

    def end(self) -> None:
        """No more probes; those that are on their way are answered."""
        for host, _ in self.ends:
            host.stack.probing.switch(on=False)
        self.world.run(0.1)

    def _tell(self, host: Host, socket: Socket) -> None:
        (flow,) = host.stack.flows
        heard = len(socket.received) + (socket.snd_una - socket.iss)
        news = heard != self._received.get(host.name)
        self._received[host.name] = heard
        if flow.fast:
            host.stack.probing.traffic(
                flow.local_flow,
                self.world.now,
                heard=self.world.now if news else None,
                gap=STEP,
                owing=socket.snd_nxt != socket.snd_una,
                payload=news,
            )


@pytest.fixture
def watched() -> Watched:
    return Watched(make_moving())


def probes(world: World, flags: int = _NACK) -> list[Control]:
    return [seen.packet.control for seen in world.controls(flags) if seen.packet.control is not None]


def numbers(flow: Flow) -> tuple[object, ...]:
    control = flow.control
    return control.snd_nxt, control.snd_una, control.rcv_nxt, control.pending, flow.state, flow.migration


def test_a_probe_has_an_old_number_and_changes_nothing(watched: Watched) -> None:
    """Its verno is from before the SYN's: what makes an original answer by a bare ACK (protocol notes 2.2)."""
    ours, theirs = watched.moving.ours, watched.moving.theirs
    before = numbers(ours), numbers(theirs)
    watched.run(1, sending=(watched.moving.client,))
    watched.end()
    asked, answered = probes(watched.world), probes(watched.world, _NACK | _ACK)
    assert asked and len(answered) == len(asked)
    nonces = {ours.control.local_nonce, theirs.control.local_nonce}
    for probe in asked:
        sender, receiver = (ours, theirs) if probe.nonce == ours.control.local_nonce else (theirs, ours)
        assert serial_lt(probe.verno, sender.control.initial) and receiver.control.is_stale(probe)
    assert {probe.nonce for probe in asked} <= nonces and all(probe.mark == 0 for probe in (*asked, *answered))
    assert len({(probe.nonce, probe.verno) for probe in asked}) == len(asked)
    assert before == (numbers(ours), numbers(theirs))
    assert not (watched.moving.a.stack.counters.keys() | watched.moving.e.stack.counters.keys()) & {
        Refusal.STALE_CONTROL.value,
        Refusal.UNEXPECTED_CONTROL.value,
    }


@pytest.mark.parametrize("direction", ["there", "back", "both"])
def test_a_silent_hole_is_found_and_left(watched: Watched, direction: str) -> None:
    moving = watched.moving
    senders = {"there": (moving.client,), "back": (moving.server,), "both": (moving.client, moving.server)}[direction]
    watched.run(1, sending=senders)
    watched.world.cut.add(address(A))
    hole = watched.world.now
    watched.run(0.3, sending=senders)
    (silent,) = moving.a.happened(PathSilent)
    assert (silent.address, silent.peer) == (address(A), address(E))
    assert silent.since <= hole + STEP < silent.time < hole + 0.1
    moving.move(lost=True, cause="no answer on this path")
    moving.at_rest(A2, E)
    counters = moving.a.stack.probing.liveness.counters
    assert counters["paths_silent"] == 1 and counters["probes_sent"] >= 3


def test_a_path_that_works_again_is_told(watched: Watched) -> None:
    moving = watched.moving
    watched.run(1, sending=(moving.client,))
    watched.world.cut.add(address(A))
    watched.run(0.5, sending=(moving.client,))
    watched.world.cut.clear()
    watched.run(5)
    assert moving.a.happened(PathSilent) and moving.a.happened(PathAnswers)
    moving.exchange()


def test_a_close_that_stalls_is_noticed(watched: Watched) -> None:
    """The kernel's FIN makes the flow leave the fast path; what waits for an answer then is the stack."""
    moving = watched.moving
    watched.run(1, sending=(moving.client,))
    watched.run(1)
    watched.world.cut.add(address(A))
    moving.a.shutdown(moving.client)
    assert not moving.ours.fast
    watched.run(1)
    assert moving.a.happened(PathSilent)


def test_a_host_that_does_not_probe_answers(watched: Watched) -> None:
    moving = watched.moving
    moving.e.stack.probing.switch(on=False)
    watched.run(1, sending=(moving.server,))
    watched.end()
    assert {seen.host for seen in watched.world.controls(_NACK)} == {"a"}
    assert len(probes(watched.world, _NACK | _ACK)) == len(probes(watched.world)) > 0


def test_probes_with_a_wrong_nonce_or_for_no_flow_get_no_answer(watched: Watched) -> None:
    world, ours, theirs = watched.world, watched.moving.ours, watched.moving.theirs
    right = Control(_NACK, ours.control.initial - 1, ours.control.rcv_nxt, ours.control.local_nonce)
    for control, flow_id in (
        (replace(right, nonce=bytes(8)), theirs.local_flow),
        (replace(right, verno=ours.control.snd_nxt), theirs.local_flow),
        (right, theirs.local_flow ^ 1),
    ):
        data = encode(SalPacket(ours.local_flow, flow_id, 6, (control,), b""))
        world.inject(Send(address(A), address(E), 64, data))
    before = len(world.seen)
    world.run(1)
    assert len(world.seen) == before
    for refusal in (Refusal.WRONG_NONCE, Refusal.UNEXPECTED_CONTROL, Refusal.UNKNOWN_FLOW):
        assert watched.moving.e.count(refusal) == 1


@pytest.mark.parametrize("answers", [True, False])
def test_an_original_is_judged_only_by_what_it_answers(monkeypatch: pytest.MonkeyPatch, answers: bool) -> None:
    """An old number is answered by a bare ACK there; one that should not do so is left alone."""
    watched = Watched(make_moving())
    moving = watched.moving
    moving.ours.marked = False

    def bare_ack(flow: Flow, *_: object) -> None:
        if answers:
            moving.e.stack.probing._context.send(flow, (flow.control.make(_ACK),), b"")

    monkeypatch.setattr(moving.e.stack.probing, "receive", bare_ack)
    moving.e.stack.probing.switch(on=False)
    watched.run(3, sending=(moving.client,))
    watched.world.cut.add(address(A))
    watched.run(2, sending=(moving.client,))
    assert bool(moving.a.happened(PathSilent)) == answers
    assert len(probes(watched.world)) >= 3 if answers else len(probes(watched.world)) <= 3
    assert moving.ours.state is State.CONNECTED
    watched.world.cut.clear()
    watched.world.run(20)
    moving.exchange()


def test_a_flow_within_the_host_is_not_probed() -> None:
    pair = make_pair()
    pair.a.stack.probing.switch(on=True)
    assert isinstance(pair.a.environment, Names)
    pair.a.environment.others.add(address(E))
    client, _ = pair.connect()
    for _ in range(200):
        pair.a.send(client, bytes(100))
        pair.world.run(STEP)
        (flow,) = pair.a.stack.flows
        now = pair.world.now
        pair.a.stack.probing.traffic(flow.local_flow, now, heard=now, gap=STEP, owing=True, payload=True)
    assert not probes(pair.world)
