"""The engine: order, void pairs, interruption, errors; what was measured is never lost and never dropped in silence."""

from __future__ import annotations

import pytest

from testbed.errors import TestbedError
from testbed.measure import analysis
from testbed.measure.engine import REPEATS
from testbed.measure.machine import GAP_SECONDS
from testbed.measure.plan import schedule
from testbed.measure.progress import SLACK
from tests.unit.measure.runs import BUSY, COMPARISONS, Bed, Run, benchmark


def test_it_runs_the_schedule_and_keeps_everything() -> None:
    run, bed = Run(pairs=6), Bed()
    assert run.engine.run([benchmark(bed)])
    turns = schedule(COMPARISONS, 6, "1 one")
    assert bed.runs == [variant for turn in turns for variant in turn.order]
    assert [pair["order"] for pair in run.entry["pairs"]] == [list(turn.order) for turn in turns]
    assert run.entry["complete"] and run.entry["error"] is None and run.document["ended"] is None
    assert run.entry["bed"] == {"offloads": {"tso": "on"}} and run.entry["parameters"] == {"seconds": 1.0}
    assert run.saves >= len(turns), "it saves after every pair"
    assert not bed.open


def test_readings_are_with_their_own_side_whichever_came_first() -> None:
    run = Run(pairs=8)
    run.engine.run([benchmark(Bed())])
    mixed = [pair for pair in run.entry["pairs"] if pair["comparison"] == 0]
    assert {tuple(pair["order"]) for pair in mixed} == {("serval", "tcp"), ("tcp", "serval")}
    assert all(pair["subject"]["metrics"]["rate"] == 5e9 for pair in mixed)
    assert all(pair["reference"]["metrics"]["rate"] == 10e9 for pair in mixed)
    # One second of CPU for each run, which carried two gigabits.
    assert mixed[0]["subject"]["metrics"]["cpu_per_gigabit"] == 0.5
    assert mixed[0]["subject"]["samples"] == {"raw": [1.0, 2.0]}


def test_a_void_pair_is_measured_again_and_both_are_kept() -> None:
    run, bed = Run(pairs=6, gaps=[BUSY]), Bed()
    run.engine.run([benchmark(bed)])
    first, second = run.entry["pairs"][:2]
    assert first["void"] == "before: others used 75 % of the CPU time" and not first["used"]
    assert (second["comparison"], second["number"], second["attempt"]) == (first["comparison"], first["number"], 1)
    assert second["void"] is None and second["used"]
    assert len(bed.runs) == 2 * (12 + 1)
    assert analysis.void_count(run.entry) == 1 and analysis.doubtful(run.entry) is None
    assert "1 void" in run.said.getvalue()
    assert [outcome.count for outcome in analysis.of_benchmark(run.document, run.entry)] == [6, 6, 6]


def test_on_a_machine_that_stays_busy_the_result_is_there_and_doubtful() -> None:
    run = Run(pairs=6, gaps=[BUSY] * 1000)
    run.engine.run([benchmark(Bed())])
    pairs = run.entry["pairs"]
    # Two repeats each until the twelve that the benchmark may repeat are used up.
    assert [pair["attempt"] for pair in pairs[: REPEATS + 1]] == [0, 1, 2]
    assert len(pairs) == 12 + 12
    assert sum(pair["used"] for pair in pairs) == 12
    assert analysis.doubtful(run.entry) == "12 of 12 pairs were measured on a busy machine"
    outcome = next(analysis.of_benchmark(run.document, run.entry))
    assert outcome.median == 5.0 and outcome.strength == "indicative" and outcome.doubtful


def test_a_run_that_takes_too_long_repeats_nothing_more() -> None:
    def slow(number: int, variant: str) -> None:
        run.seconds += 1.7  # said to be 1 s, and then there are the gaps

    run = Run(pairs=6, after=BUSY)
    run.engine.run([benchmark(Bed(slow))])
    said = benchmark(Bed()).seconds(run.settings, GAP_SECONDS)
    repeated = [index for index, pair in enumerate(run.entry["pairs"]) if not pair["used"]]
    assert repeated and max(repeated) < 6, "only at the beginning"
    assert run.entry["seconds"] < (SLACK + 1) * said * 1.7
    assert sum(pair["used"] for pair in run.entry["pairs"]) == 12


def test_ctrl_c_keeps_the_pairs_that_were_complete() -> None:
    def interrupt(number: int, variant: str) -> None:
        if number == 6:
            raise KeyboardInterrupt

    run, bed = Run(pairs=6), Bed(interrupt)
    with pytest.raises(KeyboardInterrupt):
        run.engine.run([benchmark(bed)])
    assert len(run.entry["pairs"]) == 2 and not run.entry["complete"]
    assert run.document["ended"] == "KeyboardInterrupt"
    assert run.saves == 3, "two pairs and the end"
    assert not bed.open


def test_an_error_ends_its_benchmark_only() -> None:
    def fail(number: int, variant: str) -> None:
        raise TestbedError("the client's worker has ended", "its log is there")

    run, second = Run(), Bed()
    assert not run.engine.run([benchmark(Bed(fail)), benchmark(second, "two")])
    failed, other = run.document["benchmarks"]
    assert failed["error"] == "the client's worker has ended\n  its log is there" and not failed["complete"]
    assert other["complete"] and second.runs
    assert "one: failed: the client's worker has ended" in run.said.getvalue()
