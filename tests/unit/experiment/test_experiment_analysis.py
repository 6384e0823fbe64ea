"""From results to what may be said: intervals, verdicts of paired differences, acceptance, trust; all of it as text."""

from __future__ import annotations

import random
import re
from typing import Any

import pytest

from testbed.experiment import analysis, summary
from testbed.experiment.analysis import (
    BETTER,
    CANNOT_TELL,
    HELD,
    NOT_DISTINGUISHABLE,
    NOT_HELD,
    TOO_FEW,
    WORSE,
    Estimate,
)
from testbed.experiment.plan import Turn
from testbed.experiment.specification import HIGHER, LOWER
from tests.unit.experiment.made import SWEPT, document

SPREAD = (0.000, 0.001, -0.001, 0.002, -0.002, 0.003, -0.003, 0.004, -0.004, 0.005)


def gaps(serval: float, tcp: float) -> Any:
    """Each repetition has an offset of its own, that of both contenders: pairs differ by less than runs do."""

    def gap(turn: Turn) -> float:
        return (serval if turn.contender == "serval" else tcp) + SPREAD[turn.repetition % len(SPREAD)]

    return gap


def verdicts(made: Any) -> dict[str, str | None]:
    return {one.metric: one.verdict for one in analysis.comparisons(made)}


def test_medians_have_the_exact_interval_in_the_shown_unit() -> None:
    (serval, tcp, *_) = analysis.summaries(document(gaps(0.020, 0.100), runs=10))
    assert (serval.contender, serval.metric, serval.unit) == ("serval", "gap", "ms")
    assert serval.estimate.median == pytest.approx(20.5) and tcp.estimate.median == pytest.approx(100.5)
    exact = serval.estimate.exact
    assert exact is not None and exact.coverage >= 0.95
    assert (exact.low, exact.high) == (pytest.approx(17.0), pytest.approx(24.0))  # 2nd and 9th of ten
    low, high = serval.estimate.bootstrap or (0, 0)
    assert exact.low <= low < 20.5 < high <= exact.high


def test_differences_are_taken_within_repetitions() -> None:
    made = document(gaps(0.020, 0.027), runs=10)
    (gap,) = (one for one in analysis.comparisons(made) if one.metric == "gap")
    assert gap.contender == "tcp" and gap.against == "serval"
    # Runs differ by 9 ms among themselves, the pairs not at all.
    assert gap.estimate.values == pytest.approx([7.0] * 10)
    assert gap.verdict == WORSE


def test_a_repetition_that_lacks_one_side_is_no_pair() -> None:
    def gap(turn: Turn) -> float | None:
        return None if (turn.contender, turn.repetition) == ("tcp", 2) else 0.02

    made = document(gap, runs=8)
    (found,) = (one for one in analysis.comparisons(made) if one.metric == "gap")
    assert found.estimate.count == 7
    tcp = next(one for one in analysis.summaries(made) if (one.metric, one.contender) == ("gap", "tcp"))
    assert (tcp.estimate.count, tcp.failed) == (7, 1)


@pytest.mark.parametrize(
    ("tcp", "runs", "said"),
    [
        (0.100, 10, WORSE),
        (0.010, 10, BETTER),
        (0.023, 10, NOT_DISTINGUISHABLE),  # 3 ms: clearly more, but less than the 5 ms that matter
        (0.017, 10, NOT_DISTINGUISHABLE),
        (0.100, 5, TOO_FEW),
    ],
)
def test_verdicts_ask_for_what_matters(tcp: float, runs: int, said: str) -> None:
    found = verdicts(document(gaps(0.020, tcp), runs=runs))
    assert found["gap"] == said
    assert found["bytes"] is None  # neither more nor less is better


def test_differences_on_both_sides_of_nothing_are_not_distinguishable() -> None:
    chance = random.Random(1)
    values = Estimate.of([chance.uniform(-10, 10) for _ in range(20)])
    assert analysis.verdict(values, LOWER, 0.0) == analysis.verdict(values, HIGHER, 0.0) == NOT_DISTINGUISHABLE
    more = Estimate.of([1.0] * 6)
    assert (analysis.verdict(more, HIGHER, 0.0), analysis.verdict(more, LOWER, 0.0)) == (BETTER, WORSE)


def judged(made: Any) -> dict[str, tuple[str, str | None]]:
    return {one.text: (one.verdict, one.why) for one in analysis.judgements(made)}


def test_acceptance_that_holds() -> None:
    found = judged(document(gaps(0.020, 0.100), runs=10))
    assert found == {"short": (HELD, None), "always short": (HELD, None), "half of TCP's": (HELD, None)}


def test_acceptance_that_does_not_hold() -> None:
    found = judged(document(gaps(0.050, 0.060), runs=10))
    assert {verdict for verdict, _ in found.values()} == {NOT_HELD}


def test_a_bound_within_the_interval_tells_nothing() -> None:
    assert judged(document(gaps(0.030, 0.100), runs=10))["short"] == (CANNOT_TELL, "the bound lies within the interval")


def test_too_few_runs_tell_nothing_but_one_breaks_what_every_run_must_hold() -> None:
    found = judged(document(gaps(0.020, 0.100), runs=3))
    assert found["short"] == found["always short"] == (CANNOT_TELL, "too few runs: 3 of at least 6")
    assert judged(document(gaps(0.050, 0.100), runs=3))["always short"] == (NOT_HELD, None)


def test_what_every_run_must_hold_is_not_told_from_the_runs_that_went_through() -> None:
    def gap(turn: Turn) -> float | None:
        return None if (turn.contender, turn.repetition) == ("serval", 2) else 0.02

    assert judged(document(gap, runs=10))["always short"] == (CANNOT_TELL, "1 run failed or gave no value")


def test_a_quick_run_is_not_judged() -> None:
    found = judged(document(gaps(0.020, 0.100), runs=10, quick=True))
    assert {verdict for verdict, _ in found.values()} == {CANNOT_TELL}


def test_a_ratio_is_of_medians_and_its_interval_that_of_whole_repetitions() -> None:
    made = document(gaps(0.020, 0.100), runs=10)
    ratio = next(one for one in analysis.judgements(made) if one.times_of == "tcp")
    assert ratio.value == pytest.approx(20.5 / 100.5) and ratio.unit == ""
    assert ratio.low is not None and ratio.high is not None and 0.1 < ratio.low < ratio.value < ratio.high < 0.3


def test_a_sweep_is_judged_point_by_point() -> None:
    made = document(lambda turn: 0.02 if turn.setting == 0 else 0.05, SWEPT, runs=6)
    short = [one for one in analysis.judgements(made) if one.text == "short"]
    assert [(dict(one.point), one.verdict) for one in short] == [
        ({"rtt": 0.0}, HELD),
        ({"rtt": 10.0}, NOT_HELD),
        ({"rtt": 20.0}, NOT_HELD),
    ]


def test_a_contender_that_did_not_run_is_not_judged() -> None:
    made = document(gaps(0.020, 0.100), runs=6, contenders=("serval",))
    assert set(judged(made)) == {"short", "always short"}


def test_doubt_travels_with_the_runs() -> None:
    made = document(gaps(0.020, 0.100), runs=10)
    assert analysis.trust(made).trustworthy
    made["runs"][0]["fidelity"] = {"trustworthy": False, "kinds": ["a core was busy"], "reasons": ["core 1: 99 %"]}
    found = analysis.trust(made)
    assert (found.trustworthy, found.doubtful, found.reasons) == (False, 1, {"a core was busy": 1})
    assert sum(one.doubtful for one in analysis.summaries(made) if one.metric == "gap") == 1
    assert "DOUBTFUL: 19 of 20 runs trustworthy\n    a core was busy: in 1 of 20 runs" in summary.text(made)


def test_links_that_miss_what_was_asked_are_doubtful() -> None:
    made = document(gaps(0.020, 0.100), runs=10)
    made["calibration"] = [{"setting": 0, "contender": "serval", "good": False, "lines": ["rate 40 %"], "error": None}]
    assert not analysis.trust(made).trustworthy
    assert "calibration: rate 40 %" in summary.text(made)
    quantities = [{"verdict": "ok"}, {"verdict": "missed"}]
    made["calibration"][0].update(lines=["delay as asked", "rate 40 %"], paths=[{"quantities": quantities}])
    assert analysis.trust(made).calibration == ("rate 40 %",), "what is as asked is no reason to doubt"
    made["calibration"][0].update(lines=[], paths=[], error="nothing came through")
    assert analysis.trust(made).calibration == ("not measured: nothing came through",)


def test_the_summary_says_first_what_was_asked_and_whether_it_held() -> None:
    text = summary.text(document(gaps(0.020, 0.100), runs=10))
    lines = text.splitlines()
    assert lines[0] == "A made-up experiment: slide 0" and "20 of 20 runs" in lines[1]
    assert "left out: nothing: this kernel has none" in lines[2]
    assert lines[4] == "Asked for" and lines[5] == "  HELD         short"
    assert lines[6].strip() == (
        "serval, median longest silence 20.50 ms (17.00 .. 24.00, n = 10); asked: at most 30.00 ms"
    )
    assert "  kernel TCP worse  than Serval  longest silence    +80.00 ms (80.00 .. 80.00), n = 10" in lines
    assert "longest silence: slide 0 has 20.00 ms, read off by eye" in text
    assert text.index("Asked for") < text.index("Compared") < text.index("Figures") < text.index("How far to trust")


def test_failures_and_wrong_bytes_are_loud() -> None:
    made = document(lambda turn: None if turn.number == 2 else 0.02, runs=2)
    made["runs"][0]["traffic"]["flow"]["intact"] = False
    made["runs"][2]["traffic"]["web"] = {"kind": "requests", "requests": [{"at": 0.1, "error": "WrongData: byte 7"}]}
    made["ended"] = "KeyboardInterrupt"
    text = summary.text(made)
    assert "WRONG BYTES: run 1 (" in text and "WRONG BYTES: run 3 (" in text
    assert "FAILED: run 2 (" in text and "see logs/run-001" in text
    assert "ended early: KeyboardInterrupt" in text and "3 of 4 runs" in text


def test_why_a_metric_has_no_value_is_told_unless_there_is_simply_none() -> None:
    made = document(gaps(0.020, 0.100), runs=3)
    for run in made["runs"]:
        run["metrics"] |= {"bytes": None, "gap": None}
        run["without"] |= {"bytes": "KeyError: 'packets'", "gap": "this run has none"}
    lines = summary.figure_lines(made)
    (told,) = [line for line in lines if "no value in" in line]
    assert re.fullmatch(r"bytes: no value in 6 runs \((serval, tcp|tcp, serval)\): KeyError: 'packets'", told)


def test_a_run_that_went_through_when_it_was_repeated_has_not_failed() -> None:
    made = document(lambda turn: None if turn.number == 2 else 0.02, runs=2)
    failed = next(run for run in made["runs"] if run["number"] == 2)
    made["runs"].append({**failed, "attempt": 1, "failed": None, "log": None, "metrics": {"gap": 0.02, "bytes": 1}})
    assert "FAILED" not in summary.text(made) and "4 of 4 runs" in summary.text(made)
