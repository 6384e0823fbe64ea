"""Schedules are random and repeatable; plans are checked; the catalogue loads without Mininet."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from experiments.benchmarks.catalogue import BENCHMARKS, choose
from testbed.errors import TestbedError
from testbed.measure.machine import GAP_SECONDS
from testbed.measure.plan import RATIO, Benchmark, Comparison, Figure, Settings, schedule

ROOT = Path(__file__).resolve().parents[3]
BOTH = (Comparison("serval", "tcp"), Comparison("tcp", "tcp", most=4))


def test_the_same_seed_gives_the_same_order_and_another_one_another() -> None:
    turns = schedule(BOTH, 10, "7 goodput")
    assert turns == schedule(BOTH, 10, "7 goodput")
    assert turns != schedule(BOTH, 10, "8 goodput")


def test_every_pair_is_there_interleaved_and_in_both_orders() -> None:
    turns = schedule(BOTH, 10, 1)
    numbers = [(turn.comparison.name, turn.number) for turn in turns]
    assert sorted(numbers) == sorted([("serval | tcp", n) for n in range(10)] + [("tcp | tcp", n) for n in range(4)])
    assert numbers != sorted(numbers)
    assert {turn.order for turn in turns if not turn.comparison.equal} == {("serval", "tcp"), ("tcp", "serval")}


def plan(*figures: Figure) -> Benchmark:
    def bed(parameters: object, settings: Settings) -> object:
        raise AssertionError("a check builds nothing")

    return Benchmark("name", "Title", BOTH, figures, bed, {"seconds": 2.0}, 1.0, quick={"seconds": 0.5})  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("figure", "message"),
    [
        (Figure("x", "m", "quic"), "no run of 'quic'"),
        (Figure("x", "m", "tcp", "serval", RATIO), "no pairs of 'tcp' and 'serval'"),
        (Figure("x", "m", "serval", aim=1.0), "no equal pairs of 'serval'"),
    ],
)
def test_a_figure_without_its_pairs_is_refused(figure: Figure, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        plan(figure).check()
    plan(Figure("x", "m", "serval", "tcp", RATIO, aim=1.0)).check()


def test_a_quick_run_replaces_parameters() -> None:
    assert plan().chosen(Settings()) == {"seconds": 2.0}
    assert plan().chosen(Settings(quick=True)) == {"seconds": 0.5}


def test_a_title_says_what_this_run_does() -> None:
    titles = {one.name: (one.titled(Settings()), one.titled(Settings(quick=True))) for one in BENCHMARKS}
    assert titles["parallel"][0].startswith("200 connections at once, 100,000 bytes each")
    assert titles["parallel"][1].startswith("20 connections at once, 100,000 bytes each")
    assert titles["hosts"][0].startswith("50 hosts") and titles["hosts"][1].startswith("4 hosts")
    assert "RTT 10 ms" in titles["connect-10ms"][1] and "MTU 9000" in titles["unshaped-9000"][1]
    described = next(one for one in BENCHMARKS if one.name == "hosts").described(Settings(quick=True))
    assert described["title"] == titles["hosts"][1]


@pytest.mark.parametrize("benchmark", BENCHMARKS, ids=lambda benchmark: benchmark.name)
def test_what_a_quick_run_shortens_stands_in_the_title(benchmark: Benchmark) -> None:
    assert benchmark.titled(Settings()) != benchmark.titled(Settings(quick=True))


@pytest.mark.parametrize("benchmark", BENCHMARKS, ids=lambda benchmark: benchmark.name)
def test_every_benchmark_has_the_pairs_that_its_figures_need(benchmark: Benchmark) -> None:
    benchmark.check()
    assert any(comparison.equal for comparison in benchmark.comparisons), "nothing shows the noise"
    assert set(benchmark.quick) - {"run_seconds"} <= set(benchmark.parameters)


def test_a_default_run_of_everything_stays_below_fifteen_minutes() -> None:
    assert sum(benchmark.seconds(Settings(), GAP_SECONDS) for benchmark in choose([])) < 15 * 60


def test_what_takes_longer_is_measured_only_when_it_is_named() -> None:
    unasked = [one.name for one in BENCHMARKS if one.by_name]
    assert unasked == [one.name for one in choose(["hosts-200", "handover", "false-alarms", "relay"])]
    assert not {*unasked} & {one.name for one in choose([])}
    assert all(one.seconds(Settings(), GAP_SECONDS) < 30 * 60 for one in BENCHMARKS)


def test_names_choose() -> None:
    assert [one.name for one in choose(["connect"])] == ["connect-0ms", "connect-10ms"]
    assert choose([]) == [one for one in BENCHMARKS if not one.by_name]
    assert len(choose(["goodput", "goodput"])) == 1
    assert [one.name for one in choose(["hosts"])] == ["hosts"], "a whole name is not the beginning of others"
    with pytest.raises(TestbedError, match=r"no benchmark 'gooodput'(.|\n)*there are: goodput, "):
        choose(["gooodput"])


def test_variants_choose_what_they_are_compared_with_and_its_noise() -> None:
    (one,) = choose(["handover-20ms-down"], ["serval:hole", "serval:down"])
    assert {(pair.subject, pair.reference) for pair in one.comparisons} == {
        ("serval:hole", "serval:none"),
        ("serval:down", "serval:none"),
        ("serval:none", "serval:none"),
    }
    one.check()
    (whole,) = choose(["handover-20ms-down"])
    assert {figure.subject for figure in one.figures} == {"serval:hole", "serval:down", "serval:none"}
    (serval,) = choose(["handover-20ms-down"], ["serval"])
    assert {figure.subject for figure in serval.figures} == {
        figure.subject for figure in whole.figures if figure.subject.startswith("serval:")
    }
    with pytest.raises(TestbedError, match=r"has no variant serva(.|\n)*there are: serval:told, serval:down, "):
        choose(["handover-20ms-down"], ["serva"])


def test_the_catalogue_loads_without_mininet() -> None:
    program = "import sys; sys.modules['mininet'] = None; import experiments.benchmarks.catalogue"
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
