"""What instances say of their load: it takes the place of flows, is told at once, and not too often."""

from __future__ import annotations

import pytest

from serval_node.control.messages import Binding
from serval_node.daemon.loop import Callback, Timer
from serval_node.daemon.service_loads import REPORT_SECONDS, ServiceLoads
from serval_node.wire.naming import Naming

NAMING = Naming({"example": 0x9C1185})
WEB, BULK = NAMING.bind_prefix("web.example"), NAMING.bind_prefix("bulk.example")


class Clock:
    """Time passes when the test says so; counts what is told."""

    def __init__(self) -> None:
        self.due: list[Callback] = []
        self.told = 0
        self.loads = ServiceLoads(self.call_later, self.tell)

    def call_later(self, delay: float, callback: Callback) -> Timer:
        assert delay == REPORT_SECONDS
        self.due.append(callback)
        return Timer(delay, callback)

    def tell(self) -> None:
        self.told += 1

    def pass_time(self) -> None:
        due, self.due = self.due, []
        for callback in due:
            callback()

    def load(self) -> list[float]:
        return [item.load for item in self.loads.services([Binding(WEB), Binding(BULK)])]


@pytest.fixture
def clock() -> Clock:
    return Clock()


def test_a_figure_takes_the_place_of_the_flows_until_it_is_taken_back(clock: Clock) -> None:
    clock.loads.open[WEB] = 3
    assert clock.load() == [3, 0]
    clock.loads.give(WEB, 0.5)
    assert clock.load() == [0.5, 0]
    clock.loads.give(WEB, None)
    assert clock.load() == [3, 0]
    clock.loads.give(WEB, 7)
    clock.loads.withdrawn(WEB)
    assert clock.load() == [3, 0]


def test_the_first_is_told_at_once_and_of_many_the_last_one(clock: Clock) -> None:
    clock.loads.give(WEB, 1)
    assert clock.told == 1
    for figure in range(100):
        clock.loads.give(WEB, figure)
    assert clock.told == 1
    clock.pass_time()
    assert clock.told == 2 and clock.load()[0] == 99
    clock.pass_time()
    assert clock.told == 2 and not clock.due, "nothing new, and no timer is left"
    clock.loads.give(WEB, 1)
    assert clock.told == 3
