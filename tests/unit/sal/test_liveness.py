"""When a path counts as silent (`serval_node.sal.liveness`), in virtual time: a hole is found soon, and nothing else is
taken for one.
"""

from __future__ import annotations

import heapq
import itertools
import random
from collections.abc import Callable
from dataclasses import dataclass

import pytest

from serval_node.sal import liveness
from serval_node.sal.liveness import Answers, Ask, Back, Liveness, PathKey, Silent
from serval_node.sal.places import Place
from serval_node.wire.ipv4 import address

HERE, THERE = address("10.0.0.1"), address("10.0.1.1")
PATH: PathKey = (HERE, Place(THERE))
FEED = 0.010


@dataclass
class Network:
    """A path, its peer, and a flow; the judge is fed and run as a node does it. Times in seconds.

    rtt, loss   of the path, for probes and answers; ``jitter`` is what the peer's processor takes, at most
    hole        from when to when nothing passes
    held_up     from when to when this node is not scheduled
    """

    rtt: float = 0.020
    loss: float = 0.0
    jitter: float = 0.0
    seed: int = 1
    marked: bool = True
    answers: bool = True
    known_rtt: bool = True

    def __post_init__(self) -> None:
        self.judge = Liveness()
        self.rng = random.Random(self.seed)
        self.now = 100.0
        self.hole = (1e9, 1e9)
        self.held_up = (1e9, 1e9)
        self.verdicts: list[tuple[float, Silent | Back]] = []
        self.answered_alone: list[float] = []
        self.probes: list[float] = []
        self.open = {1}
        self.came = self.now
        self._arrived: list[float] = []
        self._owing: tuple[bool, float] = (False, 0.0)
        self._last = 0.0
        self._changed = False
        self._calls: list[tuple[float, int, Callable[[], None]]] = []
        self._order = itertools.count()
        self._next_feed = 0.0

    # -- what the judge asks

    def is_at(self, flow_id: int, path: PathKey) -> bool:
        return flow_id in self.open and path == PATH

    def any_at(self, path: PathKey) -> int | None:
        return next(iter(self.open), None) if path == PATH else None

    def used_since(self, path: PathKey) -> float | None:
        return self.came if self.open and path == PATH else None

    # -- what happens

    def at(self, when: float, call: Callable[[], None]) -> None:
        heapq.heappush(self._calls, (when, next(self._order), call))

    def passes(self) -> bool:
        return not self.hole[0] <= self.now < self.hole[1] and self.rng.random() >= self.loss

    def hears(self, seconds: float, every: float, *, owing: bool = False) -> None:
        """A packet comes every so often; with ``owing`` they are acknowledgements of ours, and more is always out."""
        for number in range(int(seconds / every)):
            self.at(self.now + number * every, lambda: self._packet(owing))

    def _packet(self, owing: bool) -> None:
        if self.passes():
            self._arrived.append(self.now)
            self._changed = True
        if owing:
            self._owing = (True, self.now)
            self._changed = True

    def sends(self) -> None:
        """A packet of ours that wants an acknowledgement."""
        self._owing = (True, self.now)
        self._changed = True

    def settled(self) -> None:
        """All of ours is acknowledged."""
        self._owing = (False, self.now)
        self._arrived.append(self.now)
        self._changed = True

    def run(self, seconds: float) -> None:
        end = self.now + seconds
        while True:
            times = [self._calls[0][0]] if self._calls else []
            timer = self.judge.next_timer()
            if self.held_up[0] <= self.now < self.held_up[1]:
                times.append(self.held_up[1])
            else:
                times += [timer] if timer is not None else []
                times += [self._next_feed] if self._changed else []
            when = max(self.now, min(times, default=end))
            if when >= end:
                self.now = end
                return
            self.now = when
            while self._calls and self._calls[0][0] <= self.now:
                heapq.heappop(self._calls)[2]()
            if not self.held_up[0] <= self.now < self.held_up[1]:
                self._settle()

    def _settle(self) -> None:
        timer = self.judge.next_timer()
        due = timer is not None and timer <= self.now
        if self._changed and (due or self.now >= self._next_feed):
            self._next_feed = self.now + FEED
            self._feed()
        if due:
            for item in self.judge.run(self.now, self):
                if isinstance(item, Ask):
                    self._probe(item.number)
                else:
                    self.verdicts.append((self.now, item))

    def _feed(self) -> None:
        came, self._arrived, self._changed = self._arrived, [], False
        gaps = [later - earlier for earlier, later in itertools.pairwise([self._last, *came])]
        self._last = came[-1] if came else self._last
        back = self.judge.traffic(
            PATH,
            1,
            self.now,
            heard=came[-1] if came else None,
            gap=max(gaps, default=0.0),
            payload=bool(came) and not self._owing[0],
            owing=self._owing[0],
            marked=self.marked,
            rtt=self.rtt if self.known_rtt else None,
        )
        self.verdicts += [(self.now, item) for item in back]

    def _probe(self, number: int) -> None:
        self.probes.append(self.now)
        if self.answers and self.passes() and self.rng.random() >= self.loss:
            self.at(self.now + self.rtt + self.rng.random() * self.jitter, lambda: self._answer(number))

    def _answer(self, number: int) -> None:
        if not self.hole[0] <= self.now < self.hole[1]:
            news = self.judge.answered(PATH, number, self.now) if self.marked else self.judge.heard(PATH, self.now)
            self.verdicts += [(self.now, item) for item in news if not isinstance(item, Answers)]
            self.answered_alone += [self.now for item in news if isinstance(item, Answers)]

    # -- what a test asks

    def found(self) -> float:
        """How long after the hole's begin it was found."""
        silent = [when for when, item in self.verdicts if isinstance(item, Silent)]
        assert silent, "the hole was not found"
        return silent[0] - self.hole[0]

    def alarms(self) -> int:
        return sum(isinstance(item, Silent) for _, item in self.verdicts)


RTTS = (0.0005, 0.020, 0.100)


@pytest.mark.parametrize("rtt", RTTS)
@pytest.mark.parametrize("owing", [True, False], ids=["sender", "receiver"])
def test_a_hole_is_found_in_time(rtt: float, owing: bool) -> None:
    """Dense traffic either way: with one round trip for the move, 2.5 round trips and 40 ms in all."""
    network = Network(rtt)
    network.hears(2.0, 0.001, owing=owing)
    network.hole = (network.now + 1.2345, 1e9)
    network.run(3)
    assert network.found() <= 1.5 * rtt + 0.030
    assert network.judge.counters["paths_silent"] == 1


@pytest.mark.parametrize("rtt", RTTS)
def test_loss_is_no_hole(rtt: float) -> None:
    """2 % loss, ten minutes of traffic that stalls every second, as TCP does when its last segments are lost."""
    network = Network(rtt, loss=0.02, jitter=0.003)
    for start in range(600):
        for number in range(100):
            network.at(network.now + start + number * 0.005, lambda: network._packet(True))
    network.run(600)
    assert len(network.probes) > 600
    assert network.alarms() == 0


def test_a_node_that_was_not_scheduled_judges_nobody() -> None:
    for seed in range(20):
        network = Network(0.001, seed=seed)
        network.hears(3.0, 0.001, owing=True)
        begin = network.now + 1 + network.rng.random()
        network.held_up = (begin, begin + 0.2)
        # Nothing comes while it is away, and what had come is read a little after the timers.
        network.hole = (begin, begin + 0.203)
        network.run(3)
        assert network.alarms() == 0


def test_the_machine_is_busy_for_the_peer_too() -> None:
    """A node that is often late itself gives answers more time."""
    calm, busy = Network(0.001), Network(0.001)
    for network in (calm, busy):
        network.hears(2.0, 0.001, owing=True)
    busy.held_up = (busy.now + 1.150, busy.now + 1.170)
    for network in (calm, busy):
        network.hole = (network.now + 1.2, 1e9)
        network.run(2)
    assert busy.found() > calm.found() + 0.015


@pytest.mark.parametrize("every", [0.030, 0.1, 0.5])
def test_what_is_usual_is_not_looked_into(every: float) -> None:
    """Packets at long intervals: after a while no probe but the measuring ones, one each second."""
    network = Network(0.020)
    network.hears(30.0, every, owing=True)
    network.run(15)
    before = len(network.probes)
    network.run(10)
    assert len(network.probes) - before <= 11


def test_an_idle_flow_costs_a_few_packets_and_then_nothing() -> None:
    network = Network(0.020)
    network.hears(2.0, 0.001)
    network.run(2)
    before = len(network.probes)
    network.run(3600)
    assert before + 1 < len(network.probes) <= before + liveness.PROBES * liveness.IDLE_CHECKS + 1
    assert network.judge.next_timer() is None and not network.verdicts


def test_a_pause_before_dense_traffic_gives_nobody_more_time() -> None:
    """A delayed ACK at the beginning; one amid dense traffic does, where the peer's processor has other work."""
    delayed, calm, busy = (_found_after(*pauses) for pauses in ((0.060, 0.0), (0.001, 0.0), (0.001, 0.060)))
    assert abs(delayed - calm) < 0.005 and busy > calm + 0.010


def _found_after(first: float, amid: float) -> float:
    """When a hole is found in traffic that began with pauses of one length, and had one of the other in its middle."""
    network = Network(0.020)
    for number in range(3):
        network.at(network.now + number * first, lambda: network._packet(True))
    begin = network.now + 3 * first
    network.at(begin, lambda: network.hears(0.3, 0.001, owing=True))
    network.at(begin + 0.3 + amid, lambda: network.hears(1.0, 0.001, owing=True))
    network.hole = (begin + 0.8, 1e9)
    network.run(2)
    return network.found()


def test_a_path_that_is_answered_and_brings_nothing_is_told() -> None:
    """Not for the probes that measure, nor where the peer's own packets come."""
    network = Network(0.020)
    network.hears(5.0, 0.001, owing=True)
    network.run(5.0)
    assert len(network.probes) >= 4 and not network.answered_alone
    end = network.now
    network.run(0.1)
    assert network.answered_alone and end + 0.025 < network.answered_alone[0] < end + 0.045
    network.hole = (network.now, 1e9)
    before = len(network.answered_alone)
    network.run(20)
    assert network.alarms() and len(network.answered_alone) == before


def test_a_new_path_is_soon_worth_a_verdict() -> None:
    """A tenth of a second of dense traffic, whose first packet let itself be waited for."""
    network = Network(0.0005)
    network.at(network.now, lambda: network._packet(False))
    network.at(network.now + 0.015, lambda: network.hears(1.0, 0.001))
    network.hole = (network.now + 0.2, 1e9)
    network.run(1)
    assert network.found() <= 0.030


def test_a_short_answer_is_not_waited_for() -> None:
    """A few packets and a pause are no stream that was cut; one probe measures the new path."""
    network = Network(0.020)
    network.hears(0.05, 0.001)
    network.run(10)
    assert len(network.probes) <= 1


def test_a_receiver_finds_the_hole_that_opens_in_a_pause() -> None:
    network = Network(0.020)
    network.hears(2.0, 0.001)
    network.hole = (network.now + 2.3, 1e9)
    network.run(10)
    assert network.alarms()


def test_a_first_packet_after_a_pause_has_its_time() -> None:
    """Until a delayed ACK may have come nothing is asked; in a hole it is found all the same."""
    network = Network(0.020)
    network.hears(1.0, 0.001)
    network.run(100)
    before = len(network.probes)
    network.sends()
    network.at(network.now + 0.020 + 0.040, network.settled)
    network.run(5)
    assert len(network.probes) == before
    network.hole = (network.now, 1e9)
    network.sends()
    network.run(1)
    assert network.found() < 0.2


def test_data_that_stays_unacknowledged_is_asked_about_ever_more_rarely() -> None:
    """The peer answers and its TCP does not: a probe now and then."""
    network = Network(0.0005)
    network.hears(1.0, 0.001, owing=True)
    network.run(61)
    assert network.alarms() == 0 and len(network.probes) < 40


def test_a_closed_flow_ends_the_watch() -> None:
    network = Network(0.020)
    network.hears(1.0, 0.001, owing=True)
    network.hole = (network.now + 0.9, 1e9)
    network.at(network.now + 0.905, network.open.clear)
    network.run(60)
    assert not network.alarms() and network.judge.next_timer() is None


def test_silence_from_before_a_flow_came_is_not_counted() -> None:
    """The path was used, left while it worked, and swallows what the next flow there sends."""
    network = Network(0.020)
    network.hears(1.0, 0.001, owing=True)
    network.run(1.0)
    network.settled()
    network.run(0.1)
    network.open.clear()
    network.run(7.0)
    network.hole = (network.now, 1e9)
    network.open.add(2)
    network.came = network.now
    network.judge.waits(PATH, 2, network.now, marked=True, rtt=0.020)
    network.run(5)
    silent = [item for _, item in network.verdicts if isinstance(item, Silent)]
    assert len(silent) > 1 and {item.since for item in silent} == {network.came}


def test_a_late_answer_is_a_false_alarm_and_brings_the_path_back() -> None:
    network = Network(0.020)
    network.hears(1.0, 0.001, owing=True)
    network.run(1.0)
    network.rtt = 0.3  # a queue has grown
    network.run(1)
    assert [type(item) for _, item in network.verdicts] == [Silent, Back]
    assert network.judge.counters["false_alarms"] == 1


def test_a_silent_path_is_asked_now_and_then_and_comes_back() -> None:
    network = Network(0.020)
    network.hears(1.0, 0.001, owing=True)
    network.hole = (network.now + 0.9, network.now + 20)
    network.run(60)
    kinds = [type(item) for _, item in network.verdicts]
    assert kinds[-1] is Back and kinds.count(Back) == 1 and 4 <= kinds.count(Silent) <= 7
    assert network.judge.counters["paths_silent"] == 1 and network.judge.counters["false_alarms"] == 0


def test_a_path_that_stays_silent_is_given_up() -> None:
    network = Network(0.020)
    network.hears(1.0, 0.001, owing=True)
    network.hole = (network.now + 0.9, 1e9)
    network.run(3600)
    assert network.judge.next_timer() is None
    assert len(network.probes) <= liveness.PROBES * (liveness.RECHECKS + 2) + 2


def test_an_original_that_answers_nothing_is_not_judged() -> None:
    network = Network(0.020, marked=False, answers=False)
    network.hears(20.0, 0.001, owing=True)
    network.hole = (network.now + 10, 1e9)
    network.run(60)
    assert not network.verdicts and len(network.probes) <= liveness.MEASURE_VAINLY


def test_an_original_that_answers_in_its_own_way_is() -> None:
    network = Network(0.020, marked=False)
    network.hears(20.0, 0.001, owing=True)
    network.hole = (network.now + 10, 1e9)
    network.run(60)
    assert network.found() <= 1.5 * 0.020 + 0.030


def test_the_round_trip_is_learned_where_the_handshake_did_not_tell() -> None:
    network = Network(0.100, known_rtt=False)
    network.hears(3.0, 0.001, owing=True)
    network.hole = (network.now + 2.0, 1e9)
    network.run(4)
    assert network.found() <= 1.5 * 0.100 + 0.030


def test_a_thousand_flows_of_a_path_share_its_probes() -> None:
    judge = Liveness()
    here = Network()
    here.open = set(range(1000))
    for step in range(100):
        for flow_id in here.open:
            now = 100.0 + step * 0.01
            judge.traffic(PATH, flow_id, now, heard=now, gap=0.001, owing=True, rtt=0.001)
    sent = 0
    for step in range(100):
        sent += sum(isinstance(item, Ask) for item in judge.run(101.0 + step * 0.001, here))
    assert 0 < sent <= liveness.PROBES + 1


def test_a_thousand_paths_that_fall_silent_do_not_shout_at_once() -> None:
    class Everywhere:
        def is_at(self, flow_id: int, path: PathKey) -> bool:
            return True

        def any_at(self, path: PathKey) -> int | None:
            return 1

        def used_since(self, path: PathKey) -> float | None:
            return None

    judge = Liveness()
    paths = [(HERE, Place(number.to_bytes(4, "big"))) for number in range(1000)]
    for step in range(100):
        now = 100.0 + step * 0.01
        for number, path in enumerate(paths):
            judge.traffic(path, number, now, heard=now, gap=0.001, owing=True, rtt=0.001)
    silent: set[PathKey] = set()
    for step in range(3000):
        done = judge.run(101.0 + step * 0.001, Everywhere())
        assert sum(isinstance(item, Ask) for item in done) <= liveness.PROBES_AT_ONCE
        silent |= {item.path for item in done if isinstance(item, Silent)}
    assert silent == set(paths)


def test_paths_that_nobody_uses_are_forgotten() -> None:
    network = Network()
    network.open.clear()
    judge = network.judge
    for number in range(5000):
        now = 100.0 + number
        judge.traffic((HERE, Place(number.to_bytes(4, "big"))), 7, now, heard=now, gap=0.001, owing=False)
        judge.run(now, network)
    assert len(judge._paths) < 500
