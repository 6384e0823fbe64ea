"""The accounts of moves: complete with the first segment, and honest where none comes."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from serval_node.daemon.blackouts import QUIET_SECONDS, Blackouts, Record
from serval_node.daemon.loop import Timer
from serval_node.sal.events import Blackout, FlowClosed, FlowMigrated, PathHeard, PeerBlackout, PeerMoved
from serval_node.wire.ipv4 import address
from serval_node.wire.serviceid import ServiceID

FLOW, ID = 7, ServiceID(bytes(32))
OLD, NEW, NEWER, PEER, PEER_NEW = map(address, ("10.1.0.1", "10.2.0.1", "10.3.0.1", "10.9.0.1", "10.9.1.1"))


class Made:
    """Blackouts with a clock and timers of the test."""

    def __init__(self) -> None:
        self.told: list[Record] = []
        self.timers: list[Timer] = []
        self.now = 0.0
        self.blackouts = Blackouts(self.told.append, self._later, lambda: self.now)

    def _later(self, delay: float, callback: Callable[[], None]) -> Timer:
        timer = Timer(delay, callback)
        self.timers.append(timer)
        return timer

    def moved(self, at: float = 10.030, target: bytes = NEW) -> None:
        times = at - 0.030, at - 0.027, at - 0.026
        self.blackouts.handle(FlowMigrated(at, FLOW, ID, "link down", OLD, target, *times, 2))

    def peer_moved(self, at: float = 10.0, asked: float = 10.0) -> None:
        self.blackouts.handle(PeerMoved(at, FLOW, ID, PEER, PEER_NEW, asked))

    def heard(self, at: float, local: bytes = NEW, peer: bytes = PEER) -> None:
        self.blackouts.handle(PathHeard(at, FLOW, ID, local, peer))

    def closed(self, at: float) -> None:
        self.blackouts.handle(FlowClosed(at, FLOW, ID, False, True, "closed"))


@pytest.fixture
def made() -> Made:
    return Made()


def test_the_four_parts_follow_each_other(made: Made) -> None:
    made.moved()
    assert made.told == []
    made.heard(10.035)
    (record,) = made.told
    assert isinstance(record, Blackout)
    assert (record.happened, record.time, record.rsyns) == (10.0, 10.035, 2)
    parts = record.detect, record.decide, record.signal, record.recover
    assert parts == pytest.approx((0.003, 0.001, 0.026, 0.005))
    assert not made.timers[0].pending
    made.heard(10.1)
    assert len(made.told) == 1


def test_heard_over_the_new_path_before_the_answer(made: Made) -> None:
    made.heard(10.020)
    made.moved()
    assert [record.recover for record in made.told] == [0.0]


def test_heard_there_long_before_this_move_counts_for_nothing(made: Made) -> None:
    made.heard(9.0)
    made.moved()
    assert made.told == []


def test_another_path_does_not_end_it(made: Made) -> None:
    made.moved()
    made.heard(10.1, local=NEWER)
    assert made.told == []


@pytest.mark.parametrize("end", ["closed", "quiet", "moved again"])
def test_no_data_is_said(made: Made, end: str) -> None:
    made.moved()
    if end == "closed":
        made.closed(12.0)
    elif end == "quiet":
        assert made.timers[0].when == QUIET_SECONDS
        made.now = 12.0
        made.timers[0]._fire()
    else:
        made.moved(12.0, NEWER)
    record = made.told[0]
    assert (record.target, record.recover, record.time) == (NEW, None, 12.0)
    made.heard(13.0)
    assert len(made.told) == 1


def test_both_ends_moves_have_accounts_of_their_own(made: Made) -> None:
    made.peer_moved(10.010, asked=10.0)
    made.moved()
    made.heard(10.040, peer=PEER_NEW)
    own, peer = made.told
    assert isinstance(own, Blackout) and own.recover == pytest.approx(0.010)
    assert isinstance(peer, PeerBlackout) and (peer.happened, peer.recover) == (10.0, pytest.approx(0.040))
    made.closed(11.0)
    assert len(made.told) == 2
