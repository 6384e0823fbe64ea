"""From a stored result to figures, tables and plots. The file is small enough to be worked out by hand."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest

from testbed.measure import analysis, document, plot, table

STORED = Path(__file__).with_name("stored-result.json")
"""Six pairs serval | tcp: serval 4.0 4.2 4.4 4.6 4.8 5.0 Gbit/s, tcp always 8; 1 ms + 2.0 2.1 2.2 2.3 2.4 2.5 ms; six
pairs tcp | tcp: 8.0 / 8.0, 8.2, 7.8 ...; six pairs bounce | tcp: 2.3 Gbit/s, 1.5 ms."""


@pytest.fixture
def stored() -> dict[str, Any]:
    return document.load(STORED)


def by_label(result: dict[str, Any]) -> dict[str, analysis.Outcome]:
    return {outcome.label: outcome for outcome in analysis.outcomes(result)}


def test_a_value(stored: dict[str, Any]) -> None:
    outcome = by_label(stored)["rate"]
    assert outcome.median == pytest.approx(4.5) and outcome.interval is not None
    assert (outcome.interval.low, outcome.interval.high) == pytest.approx((4.0, 5.0))
    # Equal pairs from 7.6 / 8 to 8.4 / 8: half of 0.1, of an aim of 4.
    assert outcome.noise == pytest.approx(0.05 * 4.0)
    assert outcome.verdict == "met" and outcome.strength == "indicative"
    assert outcome.multiple == pytest.approx(4.5 / 2.3)


def test_a_ratio(stored: dict[str, Any]) -> None:
    outcome = by_label(stored)["ratio"]
    assert outcome.median == pytest.approx(4.5 / 8)
    assert outcome.noise == pytest.approx(0.05)
    assert outcome.verdict == "met"  # 0.5 >= 0.55 - 0.05
    assert outcome.multiple is None


def test_a_difference(stored: dict[str, Any]) -> None:
    outcome = by_label(stored)["added"]
    assert outcome.median == pytest.approx(2.25) and outcome.unit == "ms"
    assert outcome.noise == pytest.approx(0.1)  # equal pairs from -0.1 to 0.1 ms
    assert outcome.verdict == "missed"  # 2.5 > 2.3 + 0.1
    assert outcome.multiple == pytest.approx(2.25 / 0.5)


def test_five_pairs_are_too_few(stored: dict[str, Any]) -> None:
    stored["benchmarks"][0]["pairs"].pop(0)
    assert by_label(stored)["ratio"].verdict == "too few"
    assert by_label(stored)["ratio"].median is not None
    assert "too few (< 6)" in table.text(stored)


def test_void_pairs_do_not_count(stored: dict[str, Any]) -> None:
    before = by_label(stored)
    void = copy.deepcopy(stored["benchmarks"][0]["pairs"][0])
    void.update(void="before: others used 75 % of the CPU time", used=False)
    void["subject"]["metrics"]["rate"] = 1.0
    stored["benchmarks"][0]["pairs"].append(void)
    assert by_label(stored) == before
    assert "1 void pairs" in table.text(stored)


def test_more_void_than_good_pairs_make_doubts(stored: dict[str, Any]) -> None:
    entry = stored["benchmarks"][0]
    void = [{**copy.deepcopy(pair), "void": "steal", "used": False} for pair in entry["pairs"]]
    entry["pairs"] += [*void, copy.deepcopy(void[0])]
    assert analysis.doubtful(entry) == "19 pairs were void for 18 good ones"
    assert "DOUBTFUL: 19 pairs were void" in table.text(stored)


def test_twenty_pairs_make_a_claim_only_with_twenty_equal_ones(stored: dict[str, Any]) -> None:
    entry = stored["benchmarks"][0]
    mixed, equal = ([pair for pair in entry["pairs"] if pair["comparison"] == index] for index in (0, 1))
    entry["pairs"] += copy.deepcopy(mixed) * 3
    assert by_label(stored)["ratio"].count == 24
    assert by_label(stored)["ratio"].strength == "indicative"
    entry["pairs"] += copy.deepcopy(equal) * 3
    assert by_label(stored)["ratio"].strength == "claim"
    assert by_label(stored)["rate"].strength == "claim"


def test_a_ratio_to_nothing_is_left_out(stored: dict[str, Any]) -> None:
    stored["benchmarks"][0]["pairs"][0]["reference"]["metrics"]["rate"] = 0.0
    assert by_label(stored)["ratio"].count == 5


def test_an_early_end_is_told(stored: dict[str, Any]) -> None:
    stored["benchmarks"][0]["complete"] = False
    assert "interrupted: fewer pairs than planned" in table.text(stored)


def test_the_table_and_the_page(stored: dict[str, Any]) -> None:
    lines = table.text(stored).splitlines()
    assert lines[0] == "A stored result"
    assert lines[2].split()[:2] == ["rate", "4.500"]
    page = table.markdown(stored)
    assert page.startswith("Measured 2026-11-21T13:00:00+00:00 on 2 cores of a test; at most 6 pairs")
    assert "| ratio | 0.5625 | 0.5000 .. 0.6250 | +-0.05000 |  | >= 0.5500 | met, indicative | 6 |" in page


def test_a_quick_run_says_so_wherever_its_figures_stand(stored: dict[str, Any]) -> None:
    stored["settings"]["quick"] = True
    lines, page = table.text(stored).splitlines(), table.markdown(stored)
    assert lines[0] == "A stored result (quick)"
    assert "met, quick" in table.text(stored) and "indicative" not in table.text(stored)
    assert page.startswith("A quick run") and "### A stored result (quick)" in page and "| met, quick |" in page
    for pairs in (stored["benchmarks"][0]["pairs"], stored["benchmarks"][0]["pairs"] * 20):
        stored["benchmarks"][0]["pairs"] = pairs
        assert {outcome.strength for outcome in analysis.outcomes(stored)} == {"quick"}, "no claim, however many pairs"


def test_the_plots_of_a_quick_run_say_so(
    stored: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import matplotlib

    monkeypatch.setitem(matplotlib.rcParams, "svg.fonttype", "none")  # text as text
    stored["settings"]["quick"] = True
    assert "A stored result (quick)" in plot.draw(stored, tmp_path)[0].read_text()


@pytest.mark.parametrize(
    ("value", "text"),
    [(None, "-"), (0.99123, "0.9912"), (4.5, "4.500"), (12345.6, "12346"), (0.00001234, "1.234e-05"), (0, "0")],
)
def test_numbers(value: float | None, text: str) -> None:
    assert table.number(value) == text


def test_a_plot_needs_nothing_but_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("DISPLAY", raising=False)
    monkeypatch.setenv("MPLCONFIGDIR", str(tmp_path / "config"))
    written = plot.draw(document.load(STORED), tmp_path)
    assert [path.name for path in written] == ["stored.svg", "stored.png"]
    assert written[1].read_bytes().startswith(b"\x89PNG")
    assert "<svg" in written[0].read_text()


def test_a_benchmark_without_values_has_no_plot(stored: dict[str, Any], tmp_path: Path) -> None:
    stored["benchmarks"][0]["pairs"] = []
    assert plot.draw(stored, tmp_path) == []
    assert "-" in table.text(stored)


def test_a_rate_is_that_of_all_runs_together(stored: dict[str, Any]) -> None:
    entry = stored["benchmarks"][0]
    rate = {**entry["figures"][0], "label": "per hour", "how": "rate", "scale": 3600.0, "aim": None, "unit": ""}
    entry["figures"].append({**rate, "metric": "events", "calibration": None, "noise": None})
    for pair in entry["pairs"]:
        for role in ("subject", "reference"):
            pair[role]["metrics"].update(events=0, seconds=2.0)
    first = next(pair for pair in entry["pairs"] if pair["comparison"] == 0)
    first["subject"]["metrics"]["events"] = 1
    outcome = by_label(stored)["per hour"]
    assert sorted(outcome.values) == [0, 0, 0, 0, 0, 1800]
    assert outcome.median == pytest.approx(1 / 12 * 3600) and outcome.interval is not None
    assert (outcome.interval.low, outcome.interval.high) == pytest.approx((7.595, 1671.5), rel=1e-3)
    assert outcome.noise is None and outcome.verdict == "no aim"
