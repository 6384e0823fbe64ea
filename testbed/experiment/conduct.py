"""Conducts one run on a network that is up: traffic made ready and begun, zero, what the schedule says, the end.

Actions are carried out beside the schedule, in a thread of their own and in their order: one that takes longer than it
should (a busy machine) holds up no traffic, and none overtakes another. An action that takes long by its nature (a link
that flaps) says so by a class attribute `beside = True`, and then has a thread for itself.
"""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from testbed.errors import TestbedError
from testbed.experiment.run import Run, Running
from testbed.experiment.schedule import Event
from testbed.experiment.traffic import Traffic
from testbed.measure import ending

FLOWING_SECONDS = 20.0
"""Within so long what starts at 0 has to flow, and what starts later after its start."""
DONE_SECONDS = 30.0
"""So long an action may go on after the end of the schedule."""
POLL_SECONDS, LOOK_SECONDS = 0.002, 0.05
TRAFFIC, SCHEDULE = "traffic", "schedule"

Start = Callable[[Run, Traffic], Running]


@dataclass(slots=True)
class _Doing:
    """An action under way."""

    event: Event
    over: threading.Event = field(default_factory=threading.Event)
    error: TestbedError | None = None


@dataclass(order=True, slots=True)
class _Due:
    """Something that happens at a time; `number` keeps the order of what is due at the same moment."""

    at: float
    number: int
    do: Callable[[], None] = field(compare=False)
    action: str | None = field(default=None, compare=False)
    """In words, if it is one of the schedule's."""


class Conductor:
    """One run. `traffic` is the run's own table of what flows: entries appear as soon as they are started."""

    def __init__(self, run: Run, traffic: dict[str, Running], start: Start, set_zero: Callable[[], None]) -> None:
        """`set_zero` is called when the schedule begins; from then on `run.now()` counts."""
        self._run, self._traffic, self._start, self._set_zero = run, traffic, start, set_zero
        self._due: list[_Due] = []
        self._waiting: list[Event] = []
        self._doing: list[_Doing] = []
        self._queue: queue.SimpleQueue[_Doing | None] = queue.SimpleQueue()
        self._numbers = 0
        self._flowing: set[str] = set()
        """What has not been told to end yet."""

    def prepare(self) -> None:
        """Both ends of everything stand, and what starts at 0 flows. Raises TestbedError."""
        items = self._run.scene.traffic
        for item in items:
            self._traffic[item.name] = self._start(self._run, item)
            self._flowing.add(item.name)
        for running in self._traffic.values():
            running.wait_ready()
        first = [item for item in items if item.start == 0]
        for item in first:
            self._traffic[item.name].begin()
        self._await_flowing([item.name for item in first])

    def _await_flowing(self, names: list[str]) -> None:
        deadline = time.monotonic() + FLOWING_SECONDS
        for name in names:
            while not self._traffic[name].flowing():
                if time.monotonic() > deadline:
                    raise TestbedError(
                        f"{name} does not flow within {FLOWING_SECONDS:g} s", f"the logs are in {self._run.logs}"
                    )
                ending.heed()
                time.sleep(POLL_SECONDS)

    def play(self) -> None:
        """From zero to the end of the schedule. Raises TestbedError when an action fails or never comes."""
        scene = self._run.scene
        for item in scene.traffic:
            self._plan_traffic(item)
        for event in scene.events:
            if event.only and self._run.contender.name not in event.only:
                continue
            if event.at is not None:
                self._at(event.at, partial(self._carry_out, event), event.action.describe())
            else:
                self._waiting.append(event)
        threading.Thread(target=self._work_on_queue, name="actions", daemon=True).start()
        self._set_zero()
        while (now := self._run.now()) < scene.seconds:
            ending.heed()
            self._check_actions()
            self._check_conditions(now)
            while self._due and self._due[0].at <= self._run.now():
                self._due.pop(0).do()
            time.sleep(max(0.0, min(self._next(), scene.seconds) - self._run.now()))
        self._end()

    def _next(self) -> float:
        """When there is something to look at, seconds after zero: an action that failed, an end that was asked for."""
        soon = self._run.now() + (POLL_SECONDS if self._waiting else LOOK_SECONDS)
        return min(soon, self._due[0].at) if self._due else soon

    def _at(self, at: float, do: Callable[[], None], action: str | None = None) -> None:
        self._numbers += 1
        self._due.append(_Due(at, self._numbers, do, action))
        self._due.sort()

    def _plan_traffic(self, item: Traffic) -> None:
        if item.start > 0:
            self._at(item.start, partial(self._begin_traffic, item.name))
        if item.seconds is not None and item.start + item.seconds < self._run.scene.seconds:
            self._at(item.start + item.seconds, partial(self._end_traffic, item.name))

    def _begin_traffic(self, name: str) -> None:
        at = self._run.now()
        self._traffic[name].begin()
        self._run.log(f"{name} starts", at=at, source=TRAFFIC)

    def _end_traffic(self, name: str) -> None:
        at = self._run.now()
        self._traffic[name].end()
        self._flowing.discard(name)
        self._run.log(f"{name} ends", at=at, source=TRAFFIC)

    def _check_conditions(self, now: float) -> None:
        for event in list(self._waiting):
            assert event.when is not None
            if event.when.holds(self._run):
                self._waiting.remove(event)
                self._run.log(event.when.describe(), source="condition")
                self._at(self._run.now() + event.after, partial(self._carry_out, event), event.action.describe())
            elif now > event.within:
                raise self._never(event)

    def _never(self, event: Event) -> TestbedError:
        assert event.when is not None
        return TestbedError(
            f"within {min(event.within, self._run.scene.seconds):g} s it did not come true that"
            f" {event.when.describe()}, so {event.action.describe()!r} was not done",
            f"the logs are in {self._run.logs}",
        )

    def _carry_out(self, event: Event) -> None:
        doing = _Doing(event)
        self._doing.append(doing)
        if getattr(event.action, "beside", False):
            threading.Thread(target=self._work, args=(doing,), name=event.action.describe(), daemon=True).start()
        else:
            self._queue.put(doing)

    def _work_on_queue(self) -> None:
        while (doing := self._queue.get()) is not None:
            self._work(doing)

    def _work(self, doing: _Doing) -> None:
        action, begun = doing.event.action, self._run.now()
        try:
            facts = dict(action.carry_out(self._run))
            done = self._run.now()
            self._run.log(action.describe(), at=facts.pop("at", done), begun=begun, took=done - begun, **facts)
        except TestbedError as error:
            doing.error = error
        except Exception as error:  # noqa: BLE001 - an action with a mistake in it must not end unseen
            doing.error = TestbedError(f"{type(error).__name__}: {error}")
        finally:
            doing.over.set()

    def _check_actions(self) -> None:
        for doing in self._doing:
            if doing.error is not None:
                error = doing.error
                raise TestbedError(f"{doing.event.action.describe()}: {error.message}", error.hint)

    def _end(self) -> None:
        if self._waiting:
            raise self._never(self._waiting[0])
        for due in self._due:
            if due.action is not None:  # its condition came true late, or the machine stood still
                raise TestbedError(
                    f"{due.action!r} was due at {due.at:.3g} s and not done: the run lasts"
                    f" {self._run.scene.seconds:g} s"
                )
        for name in sorted(self._flowing):
            self._traffic[name].end()
        deadline = time.monotonic() + DONE_SECONDS
        for doing in self._doing:
            if not doing.over.wait(max(0.0, deadline - time.monotonic())):
                raise TestbedError(
                    f"{doing.event.action.describe()}: not done {DONE_SECONDS:g} s after the end of the schedule",
                    f"the logs are in {self._run.logs}",
                )
        self._check_actions()

    def finish(self) -> Mapping[str, Any]:
        """What flowed, by name: the entry "traffic" of the record. Raises TestbedError."""
        return {name: running.finish() for name, running in self._traffic.items()}

    def stop(self) -> None:
        """End all programs of the traffic, whatever happened."""
        self._queue.put(None)
        for running in self._traffic.values():
            running.stop()
