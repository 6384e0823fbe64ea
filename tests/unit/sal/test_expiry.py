"""Rules that end by themselves: idle and hard time-outs, and the counters that are told at the end."""

from __future__ import annotations

import pytest

from serval_node.sal.events import Refusal, RuleExpired
from serval_node.sal.service_table import Action, Rule, RuleError, Target
from tests.unit.sal.conftest import D, E, Figure
from tests.unit.sal.world import NAMING, WEB_BIND, Host, forward

BLOCK = NAMING.block("example")


def expired(host: Host) -> list[RuleExpired]:
    return host.happened(RuleExpired)  # type: ignore[return-value]


def timed(host: Host, *names: str, **seconds: float) -> None:
    host.stack.service_table.set_rule(Rule(WEB_BIND, forward(*names), **seconds), "hand")  # type: ignore[arg-type]


@pytest.mark.statement("S24")
def test_a_hard_time_out_ends_a_rule_however_busy_it_is(figure: Figure) -> None:
    figure.e.serve()
    timed(figure.c, E, hard=10.0)
    for _ in range(19):
        figure.a.connect()
        figure.world.run(0.5)
    assert not expired(figure.c)
    figure.world.run(1.0)
    (event,) = expired(figure.c)
    assert (event.prefix, event.origin, event.cause, event.packets) == (WEB_BIND, "hand", "hard", 19)
    assert event.bytes > 19 * 88 and event.dropped_packets == 0
    assert event.seconds == pytest.approx(10.0)
    assert figure.c.stack.service_table.get(WEB_BIND) is None
    refused = figure.a.connect()
    figure.world.run(0.5)
    assert refused.error == "ECONNREFUSED", "the next shorter rule decides, and there is none"


@pytest.mark.statement("S24")
def test_an_idle_time_out_counts_from_the_last_packet(figure: Figure) -> None:
    figure.d.serve()
    figure.e.serve()
    timed(figure.c, D, E, idle=5.0)
    for _ in range(4):
        figure.world.run(4.0)
        figure.a.connect()
    figure.world.run(4.9)
    assert not expired(figure.c)
    figure.world.run(0.5)
    (event,) = expired(figure.c)
    assert (event.cause, event.packets) == ("idle", 4)
    assert event.seconds == pytest.approx(21.0, abs=0.1)


def test_a_rule_that_is_set_anew_begins_anew_and_keeps_its_counters(figure: Figure) -> None:
    figure.e.serve()
    timed(figure.c, E, hard=10.0)
    figure.a.connect()
    figure.world.run(8.0)
    timed(figure.c, E, hard=10.0)
    figure.world.run(8.0)
    assert not expired(figure.c)
    figure.world.run(2.5)
    assert [event.packets for event in expired(figure.c)] == [1]


def test_the_time_out_can_be_taken_away(figure: Figure) -> None:
    timed(figure.c, E, hard=3.0)
    figure.world.run(1.0)
    timed(figure.c, E)
    figure.world.run(60.0)
    assert not expired(figure.c) and figure.c.stack.service_table.get(WEB_BIND) is not None


def test_only_the_rule_of_its_origin_ends(figure: Figure) -> None:
    """A local listener stands beside the rule, and stays."""
    figure.c.serve()
    timed(figure.c, E, hard=3.0)
    figure.world.run(4.0)
    entry = figure.c.stack.service_table.get(WEB_BIND)
    assert entry is not None
    assert [(slot.origin, slot.target.action) for slot in entry.slots] == [("local", Action.DEMUX)]


def test_the_end_of_a_delay_rule_releases_what_waits(figure: Figure) -> None:
    """The packets meet the next shorter rule; the event tells what the rule had kept."""
    listener = figure.e.serve()
    figure.c.stack.service_table.set_rule(Rule(BLOCK, forward(E)), "controller")
    figure.c.stack.service_table.set_rule(Rule(WEB_BIND, (Target(Action.DELAY),), hard=5.0), "hand")
    client = figure.a.connect()
    figure.world.run(4.0)
    assert client.state == "SYN_SENT"
    figure.world.run(1.5)
    assert client.state == "ESTABLISHED" and len(listener.queue) == 1
    assert [(event.packets, event.dropped_packets) for event in expired(figure.c)] == [(3, 0)], "two repetitions"
    assert figure.c.count(Refusal.DUPLICATE_SYN) == 2


def test_a_table_without_time_outs_needs_no_timer(figure: Figure) -> None:
    figure.c.stack.service_table.set_rule(Rule(WEB_BIND, forward(E)), "hand")
    assert figure.c.stack.next_timer() is None
    timed(figure.c, E, hard=5.0)
    assert figure.c.stack.next_timer() == 0.0
    figure.c.stack.handle_timer(figure.world.now)
    assert figure.c.stack.next_timer() == figure.world.now + 5.0
    figure.c.stack.service_table.remove_rule(WEB_BIND, "hand")
    figure.c.stack.handle_timer(figure.world.now)
    assert figure.c.stack.next_timer() is None and not expired(figure.c)


@pytest.mark.parametrize("seconds", [-1.0, float("inf"), float("nan"), 2.0**40])
def test_senseless_time_outs_are_refused(seconds: float) -> None:
    with pytest.raises(RuleError, match="time-out"):
        Rule(WEB_BIND, forward(E), idle=seconds)
    with pytest.raises(RuleError, match="time-out"):
        Rule(WEB_BIND, forward(E), hard=seconds)
