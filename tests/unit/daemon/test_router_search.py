"""The search for a service router, with routers and a network in memory and a clock that is moved by hand."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass, field

import pytest

from serval_node.cli.router import router_text
from serval_node.daemon.router_search import (
    Finding,
    HostOnly,
    Question,
    RouterFound,
    RouterLost,
    RouterSearch,
    SearchEvent,
    Timing,
)
from serval_node.wire.ipv4 import Address, address

CLEO, OTTO = address("10.9.0.200"), address("10.9.0.201")
TIMING = Timing()


@dataclass
class Link:
    """A host and the routers that answer it; an answer takes `delay` seconds. `loses` says which questions get lost."""

    search: RouterSearch = field(default_factory=lambda: RouterSearch(random.Random(1)))
    routers: dict[Address, float] = field(default_factory=dict)
    now: float = 50.0
    controlled: bool = False
    loses: Callable[[Question], bool] = lambda question: False
    asked: list[tuple[float, Address | None]] = field(default_factory=list)
    events: list[SearchEvent] = field(default_factory=list)
    _answers: list[tuple[float, Address, bytes]] = field(default_factory=list)

    def _send(self) -> None:
        for question in self.search.take_questions():
            self.asked.append((round(self.now - 50.0, 3), question.to))
            if not self.loses(question):
                for router, delay in self.routers.items():
                    if question.to in (None, router):
                        self._answers.append((self.now + delay, router, question.token))
        self.events += self.search.take_events()

    def run(self, seconds: float) -> None:
        end = self.now + seconds
        self._send()
        while True:
            timer = self.search.next_timer()
            when = min([time for time, *_ in self._answers] + ([] if timer is None else [timer]), default=end + 1)
            if when > end:
                self.now = end
                return
            self.now = max(self.now, when)
            for answer in [item for item in self._answers if item[0] <= self.now]:
                self._answers.remove(answer)
                self.search.receive(answer[1], answer[2], "cleo", self.now)
            self.search.handle_timer(self.now, controlled=self.controlled)
            self._send()

    @property
    def router(self) -> Address | None:
        return None if self.search.router is None else self.search.router.address


@pytest.fixture
def link() -> Link:
    link = Link()
    link.search.start(link.now)
    return link


@pytest.mark.statement("S61")
def test_the_first_router_that_answers_is_kept(link: Link) -> None:
    link.routers = {CLEO: 0.02, OTTO: 0.01}
    link.run(0.05)
    assert link.search.state is Finding.FOUND and link.router == OTTO
    (found,) = link.events
    assert isinstance(found, RouterFound) and found.seconds == pytest.approx(0.01)
    link.routers[CLEO] = 0.001
    link.run(10)
    assert link.router == OTTO and len(link.events) == 1, "another one that is faster changes nothing"
    assert {to for _, to in link.asked[1:]} == {OTTO}, "who answers is asked alone"
    assert 9 <= len(link.asked) - 1 <= 11


@pytest.mark.statement("S61")
def test_no_answer_and_the_host_works_by_itself(link: Link) -> None:
    link.run(3)
    assert link.search.state is Finding.HOST_ONLY and link.router is None
    (alone,) = link.events
    assert isinstance(alone, HostOnly) and alone.time == pytest.approx(50 + TIMING.patience)
    assert [when for when, _ in link.asked] == [0.0, 0.1, 0.3, 0.7]
    link.routers = {CLEO: 0.01}
    link.run(5)
    assert link.router == CLEO, "it goes on asking from time to time"


def test_lost_questions_are_asked_again(link: Link) -> None:
    lost = iter([True, True])
    link.routers, link.loses = {CLEO: 0.01}, lambda question: next(lost, False)
    link.run(0.5)
    assert link.router == CLEO and len(link.asked) == 3


@pytest.mark.statement("S61")
def test_a_router_that_disappears_is_noticed(link: Link) -> None:
    link.routers = {CLEO: 0.01}
    link.run(5)
    gone = link.now
    link.routers = {}
    link.run(TIMING.refresh + TIMING.misses * TIMING.answer_wait + 0.01)
    assert link.router is None and link.search.state is Finding.SEARCHING
    lost = link.events[-1]
    assert isinstance(lost, RouterLost) and lost.router == CLEO
    assert lost.time - gone <= TIMING.refresh + TIMING.misses * TIMING.answer_wait
    link.run(2)
    assert link.search.state is Finding.HOST_ONLY


def test_single_lost_answers_do_not_end_it(link: Link) -> None:
    link.routers = {CLEO: 0.01}
    counted = iter(range(1000))
    link.loses = lambda question: next(counted) % 3 != 0
    link.run(30)
    assert link.router == CLEO and len(link.events) == 1


def test_news_from_the_links_or_of_a_router_starts_it_again(link: Link) -> None:
    link.run(2)
    assert link.search.state is Finding.HOST_ONLY
    link.routers = {CLEO: 0.01}
    link.search.look_again(link.now)
    link.run(0.05)
    assert link.router == CLEO
    asked = len(link.asked)
    link.search.look_again(link.now)
    link.run(0.05)
    assert link.asked[asked:] == [(pytest.approx(2.05), CLEO)], "it is asked whether it is still there"


@pytest.mark.statement("S61")
def test_a_controller_goes_before(link: Link) -> None:
    link.routers = {CLEO: 0.01}
    link.run(1)
    link.controlled = True
    link.run(2)
    assert link.search.state is Finding.CONTROLLER and link.router is None
    asked = len(link.asked)
    link.run(20)
    assert len(link.asked) == asked
    link.controlled = False
    link.run(TIMING.retry + 0.1)
    assert link.router == CLEO


def test_what_was_not_asked_for_is_not_believed(link: Link) -> None:
    link.run(0.01)
    link.search.receive(OTTO, bytes(8), "otto", link.now)
    assert link.router is None and link.search.counters["router_answers_refused"] == 1
    link.routers = {CLEO: 0.01}
    link.run(1)
    assert link.router == CLEO
    link.search.stop()
    link.run(20)
    assert link.search.state is Finding.OFF and link.router is None and link.search.next_timer() is None


def test_a_late_answer_still_counts(link: Link) -> None:
    """One that comes after the next question, or in host-only mode."""
    link.routers = {CLEO: 1.2}
    link.run(1.5)
    assert link.router == CLEO and isinstance(link.events[0], HostOnly)


@pytest.mark.parametrize("state", list(Finding))
def test_words_for_every_state(state: Finding) -> None:
    answer = {"is_router": False, "state": state.value, "router": "10.9.0.200", "name": "cleo", "default": None}
    assert "what no rule matches fails at once" in router_text({**answer, "found": 1.0, "heard": 0.5, "answered": 0})
    assert "answered 3 hosts" in router_text({**answer, "is_router": True, "answered": 3})
