"""A host looks for a service router on its links, keeps to the first that answers, and notices when it goes (S61).

    OFF         -- switched on -->      SEARCHING
    SEARCHING   -- answer -->           FOUND: the router is asked again from time to time
                -- no answer in time -> HOST_ONLY: the links are asked again from time to time
    FOUND       -- answers missing -->  SEARCHING
    HOST_ONLY   -- answer -->           FOUND
    any but OFF -- controller there --> CONTROLLER, -- controller gone --> SEARCHING

Pure: time and randomness are passed in; what is to be asked, and what happened, is taken out.
"""

from __future__ import annotations

import random
from collections import Counter, deque
from dataclasses import dataclass
from enum import Enum

from serval_node.control.router_messages import TOKEN_LENGTH
from serval_node.wire.ipv4 import Address


class Finding(str, Enum):
    """How it stands with the search; the values are words for people and JSON."""

    OFF = "off"
    SEARCHING = "searching"
    FOUND = "found"
    HOST_ONLY = "host-only"
    CONTROLLER = "controller"


@dataclass(frozen=True, slots=True)
class Timing:
    """Seconds, and a number.

    first_pause  after the first question of a search; each further pause is twice as long
    patience     after which a search is given up and the host works by itself
    retry        between questions in host-only mode, and looks at the controller's channel
    refresh      between questions to a router that answers
    answer_wait  how long such an answer may take before the question is repeated
    misses       so many answers missing one after the other: the router is gone
    """

    first_pause: float = 0.1
    patience: float = 1.0
    retry: float = 5.0
    refresh: float = 1.0
    answer_wait: float = 0.3
    misses: int = 3


@dataclass(frozen=True, slots=True)
class Question:
    """To be sent to a router, or (None) to the broadcast addresses of all links."""

    token: bytes
    to: Address | None


@dataclass(slots=True)
class Router:
    """The service router that was found."""

    address: Address
    name: str
    found: float
    heard: float


@dataclass(slots=True)
class RouterFound:
    """A service router answered; ``seconds`` since the search began."""

    time: float
    router: Address
    name: str
    seconds: float


@dataclass(slots=True)
class RouterLost:
    """The service router does not answer any more; it was heard last ``seconds`` ago."""

    time: float
    router: Address
    name: str
    seconds: float


@dataclass(slots=True)
class HostOnly:
    """No service router answered in time: the host works by itself."""

    time: float
    seconds: float


SearchEvent = RouterFound | RouterLost | HostOnly


class RouterSearch:
    """The search of one host. `counters`: what was asked and what was not believed."""

    def __init__(self, rng: random.Random, timing: Timing | None = None) -> None:
        self.state = Finding.OFF
        self.router: Router | None = None
        self.counters: Counter[str] = Counter()
        self._rng = rng
        self._timing = timing or Timing()
        self._questions: list[Question] = []
        self._events: list[SearchEvent] = []
        self._tokens: deque[bytes] = deque(maxlen=8)
        self._due: float | None = None
        self._begun = 0.0
        self._pause = 0.0
        self._unanswered = 0

    # -- what it wants

    def next_timer(self) -> float | None:
        """When `handle_timer` wants to be called."""
        return self._due

    def take_questions(self) -> list[Question]:
        questions, self._questions = self._questions, []
        return questions

    def take_events(self) -> list[SearchEvent]:
        events, self._events = self._events, []
        return events

    # -- what happens

    def start(self, now: float) -> None:
        """Begin to search, or begin anew."""
        self.router = None
        self.state = Finding.SEARCHING
        self._begun = now
        self._pause = self._timing.first_pause
        self._ask(None)
        self._due = now + self._pause

    def stop(self) -> None:
        self.state, self.router, self._due = Finding.OFF, None, None
        self._tokens.clear()

    def stand_aside(self, now: float, seconds: float | None = None) -> None:
        """The controller makes the rules; look again after `seconds`."""
        self.stop()
        self.state = Finding.CONTROLLER
        self._due = now + (self._timing.retry if seconds is None else seconds)

    def look_again(self, now: float) -> None:
        """Links or addresses have changed, or a router says that it is there: do not wait for the next time."""
        if self.state is Finding.FOUND:
            self._refresh(now)
        elif self.state in (Finding.SEARCHING, Finding.HOST_ONLY):
            self.start(now)

    def handle_timer(self, now: float, *, controlled: bool) -> None:
        """Do what is due. `controlled`: there is a controller now."""
        if self._due is None or now < self._due:
            return
        if controlled:
            self.stand_aside(now)
        elif self.state is Finding.CONTROLLER:
            self.start(now)
        elif self.state is Finding.SEARCHING:
            self._search_on(now)
        elif self.state is Finding.HOST_ONLY:
            self._ask(None)
            self._due = now + self._timing.retry
        elif self.state is Finding.FOUND:
            self._refresh(now)

    def receive(self, sender: Address, token: bytes, name: str, now: float) -> None:
        """The answer of a router."""
        router = self.router
        if token not in self._tokens:
            self.counters["router_answers_refused"] += 1
        elif router is None and self.state in (Finding.SEARCHING, Finding.HOST_ONLY):
            self.state = Finding.FOUND
            self.router = Router(sender, name, now, now)
            self._heard(now)
            self._events.append(RouterFound(now, sender, name, now - self._begun))
        elif router is not None and router.address == sender:
            router.heard, router.name = now, name
            self._heard(now)
        # Another router's answer to the same question: the first one stays.

    def _heard(self, now: float) -> None:
        self._unanswered = 0
        self._due = now + self._timing.refresh

    def _search_on(self, now: float) -> None:
        if now >= self._begun + self._timing.patience:
            self.state = Finding.HOST_ONLY
            self._events.append(HostOnly(now, now - self._begun))
            self._due = now + self._timing.retry
            return
        self._ask(None)
        self._pause *= 2
        self._due = min(now + self._pause, self._begun + self._timing.patience)

    def _refresh(self, now: float) -> None:
        router = self.router
        assert router is not None
        if self._unanswered >= self._timing.misses:
            self._events.append(RouterLost(now, router.address, router.name, now - router.heard))
            self.start(now)
            return
        self._unanswered += 1
        self._ask(router.address)
        self._due = now + self._timing.answer_wait

    def _ask(self, to: Address | None) -> None:
        token = self._rng.getrandbits(8 * TOKEN_LENGTH).to_bytes(TOKEN_LENGTH, "big")
        self._tokens.append(token)
        self._questions.append(Question(token, to))
        self.counters["router_questions_sent"] += 1
