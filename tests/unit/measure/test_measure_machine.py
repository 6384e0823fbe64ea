"""What /proc says about the machine, and when a pair is void."""

from __future__ import annotations

import os

import pytest

from testbed.measure import machine
from testbed.measure.machine import Load, Snapshot, between, complaint, parse_process, parse_stat

TICK = os.sysconf("SC_CLK_TCK")


def test_the_first_line_of_proc_stat() -> None:
    text = "cpu  100 20 30 4000 50 6 7 8 90 0\ncpu0 1 1 1 1 1 1 1 1 0 0\n"
    assert parse_stat(text) == pytest.approx((150 / TICK, 13 / TICK, 4050 / TICK, 8 / TICK))


def test_a_process_with_a_nasty_name_counts_itself_and_its_children() -> None:
    fields = " ".join(str(number) for number in range(3, 53))  # field N of proc(5) has the value N
    text = f"77 (a) b) 1 2) {fields}\n".replace(") 3 ", ") S ")
    assert parse_process(text) == pytest.approx((14 + 15 + 16 + 17) / TICK)


def snapshot(at: float, program: float, softirq: float, own: float, *, steal: float = 0.0) -> Snapshot:
    return Snapshot(
        at=at, program=program, softirq=softirq, idle=2 * at - program - softirq - steal, steal=steal, own=own
    )


def test_others_are_what_our_processes_do_not_explain() -> None:
    load = between(snapshot(0, 0, 0, 0), snapshot(10, 6, 1, 4))
    assert load.seconds == 10 and load.total == 20
    assert load.others == 2 and load.others_share == 0.1
    assert load.cpu == 5  # ours and softirq


def test_softirq_inside_our_processes_is_counted_once() -> None:
    # Our processes have 2 s more than user and system time: these are softirq, and so only 1 s of the 3 is left.
    load = between(snapshot(0, 0, 0, 0), snapshot(10, 6, 3, 8))
    assert load.others == 0 and load.cpu == pytest.approx(9)


def test_children_that_ended_between_still_count() -> None:
    before = machine.own_seconds()
    pid = os.fork()
    if pid == 0:
        end = os.times().user + 0.1
        while os.times().user < end:
            pass
        os._exit(0)
    os.waitpid(pid, 0)
    assert machine.own_seconds() - before >= 0.08


def load(*, others: float = 0.0, steal: float = 0.0, total: float = 20.0) -> Load:
    return Load(seconds=total / 2, own=1.0, others=others, softirq=0.0, steal=steal, total=total)


def test_a_quiet_machine_is_no_reason() -> None:
    assert complaint(load(others=1.0, steal=0.1)) is None


def test_steal_and_others_are() -> None:
    assert complaint(load(others=4.0)) == "others used 20 % of the CPU time"
    assert complaint(load(steal=1.0)) == "the hypervisor took 5 % of the CPU time"


def test_a_few_clock_ticks_of_a_short_gap_are_chance() -> None:
    assert complaint(load(others=2.5 / TICK, total=0.2)) is None
    assert complaint(load(others=12 / TICK, total=0.2)) is not None


def test_a_gap_waits_for_quiet_but_not_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    loads = [load(others=9.0), load(others=9.0), load()]
    monkeypatch.setattr(machine, "gap", lambda: loads.pop(0))
    assert machine.quiet_gap(limit=60).others == 0
    monkeypatch.setattr(machine, "gap", lambda: load(others=9.0))
    assert machine.quiet_gap(limit=0).others == 9.0
