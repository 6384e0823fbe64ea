"""What is in the pictures: looked up in matplotlib's own objects and in the text of the SVG, never in pixels."""

from __future__ import annotations

import copy
import functools
import io
from dataclasses import replace
from typing import Any

import matplotlib.container
import pytest

from testbed.experiment import result
from testbed.report import draw
from testbed.report.plots import Bars, Cdf, Curve, Instances, Picture, TimeSeries, restored
from testbed.report.style import styles
from testbed.report.view import Results
from tests.unit.report.builder import CUT, MOVE, STORED

NAMES = (
    "goodput", "all-runs", "instances", "dips", "answers", "blackout", "parts", "gains", "dips-bars", "dip-rtt"
)  # fmt: skip


@pytest.fixture(scope="module")
def stored() -> dict[str, Any]:
    return result.load(STORED)


def picture(document: dict[str, Any], name: str) -> Picture:
    found = next(restored(plot) for plot in document["experiment"]["plots"] if plot["name"] == name)
    assert found is not None
    return found


def figure(document: dict[str, Any], name: str) -> Any:
    made = draw.figure(picture(document, name), Results(document))
    assert made is not None
    return made


@functools.cache
def as_stored(name: str) -> Any:
    """The picture of the stored result; drawn once for all tests that only look at it."""
    return figure(result.load(STORED), name)


def words(made: Any) -> str:
    """All text of a picture, with single spaces."""
    buffer = io.StringIO()
    with matplotlib.rc_context({"svg.fonttype": "none"}):
        made.savefig(buffer, format="svg")
    lines = [part.split("<", 1)[0] for part in buffer.getvalue().split(">")]
    return " ".join(" ".join(lines).replace("\N{NO-BREAK SPACE}", " ").split())


def intervals(made: Any) -> int:
    """How many are drawn."""
    return sum(1 for item in made.axes[0].containers if isinstance(item, matplotlib.container.ErrorbarContainer))


def test_every_picture_of_the_stored_result_is_tried(stored: dict[str, Any]) -> None:
    assert tuple(plot["name"] for plot in stored["experiment"]["plots"]) == NAMES


@pytest.mark.parametrize("name", NAMES)
def test_no_text_is_cut_off(name: str) -> None:
    made = as_stored(name)
    made.canvas.draw()
    box, (width, height) = made.get_tightbbox(), made.get_size_inches()
    assert box.x0 >= 0 and box.y0 >= 0 and box.x1 <= width and box.y1 <= height, (box, width, height)


@pytest.mark.parametrize("name", NAMES)
def test_axes_have_units_and_doubts_are_told(name: str) -> None:
    text = words(as_stored(name))
    unit = {"gains": "flow 1 after / before", "goodput": "[Mbit/s]", "all-runs": "[Mbit/s]", "instances": "[1/s]"}
    assert unit.get(name, "[ms]") in text
    if name not in ("blackout", "parts"):  # Serval's runs only, and none of them is doubtful
        assert "DOUBTFUL:" in text
    else:
        assert "DOUBTFUL" not in text


def test_a_time_series_names_flows_events_runs_and_the_slide() -> None:
    text = words(as_stored("goodput"))
    for expected in ("flow1", "flow2", "sum", "Serval: run", "the nearest to the median of 6", "kernel TCP: run"):
        assert expected in text
    assert f"(1) {MOVE}, at 1.50 s" in text and f"(2) {CUT}, at 2.50 s" in text
    assert "flow 1 (slide 46, read off by eye)" in text
    assert "RSYN" not in text, "only what the schedule did"
    assert "rtt_ms" not in text, "there is one point in it"


def test_a_time_series_shows_what_was_received(stored: dict[str, Any]) -> None:
    only = TimeSeries(name="x", title="x", contenders=("tcp",), point={"rtt_ms": 20}, bin=0.5)
    made = draw.figure(only, Results(stored))
    steps = made.axes[0].findobj(matplotlib.patches.StepPatch)
    values, edges, _ = steps[0].get_data()
    assert list(edges) == pytest.approx([0, 0.5, 1, 1.5, 2, 2.5, 3])
    assert values[:3] == pytest.approx([50, 50, 50], rel=0.03) and values[3] < 20 and values[5] > 40


def test_only_what_happened_in_the_shown_time_is_marked(stored: dict[str, Any]) -> None:
    shown = TimeSeries(name="x", title="x", point={"rtt_ms": 20}, begin=1.0, end=2.0)
    text = words(draw.figure(shown, Results(stored)))
    assert MOVE in text and CUT not in text


def test_bins_are_never_finer_than_they_were_counted(stored: dict[str, Any]) -> None:
    fine = TimeSeries(name="x", title="x", contenders=("tcp",), point={"rtt_ms": 20}, bin=0.01)
    for asked, shown in ((0.01, 0.1), (0.25, 0.3)):
        made = draw.figure(replace(fine, bin=asked), Results(stored))
        _, edges, _ = made.axes[0].findobj(matplotlib.patches.StepPatch)[0].get_data()
        assert edges[1] - edges[0] == pytest.approx(shown)
        assert f"per bin of {shown:g} s" in words(made)


def test_a_doubtful_run_is_the_typical_one_only_where_there_is_no_other(stored: dict[str, Any]) -> None:
    document = copy.deepcopy(stored)
    assert "nearest to the median of 6, DOUBTFUL" not in words(figure(document, "goodput"))
    for run in document["runs"]:
        if run["contender"] == "tcp":
            run["fidelity"] = {"trustworthy": False, "reasons": ["others used 40 %"], "kinds": ["somebody else worked"]}
    assert "nearest to the median of 6, DOUBTFUL: somebody else worked" in words(figure(document, "goodput"))


def test_events_at_nearly_the_same_time_share_a_mark(stored: dict[str, Any]) -> None:
    document = copy.deepcopy(stored)
    for run in document["runs"]:
        run["events"].append({"at": 1.53, "name": "dan thaws", "source": "schedule", "facts": {}})
    text = words(figure(document, "goodput"))
    assert "1, 2" in text and "(2) dan thaws, at 1.53 s" in text and f"(3) {CUT}" in text


def test_long_words_of_a_legend_are_whole(stored: dict[str, Any]) -> None:
    document = copy.deepcopy(stored)
    for metric in document["experiment"]["metrics"]:
        metric["label"] = "from the standstill until the first data"
    made = figure(document, "parts")
    made.canvas.draw()
    box = made.get_tightbbox()
    assert box.x0 >= 0 and box.x1 <= made.get_size_inches()[0]


def test_the_only_run_is_said_to_be_that(stored: dict[str, Any]) -> None:
    document = copy.deepcopy(stored)
    document["runs"] = [run for run in document["runs"] if run["repetition"] == 0]
    assert "the only one" in words(figure(document, "goodput"))


def test_all_runs_are_drawn_and_doubtful_ones_dotted() -> None:
    made = as_stored("all-runs")
    assert len(made.axes) == 4, "two contenders at two points"
    steps = made.axes[1].findobj(matplotlib.patches.StepPatch)
    assert len(steps) == 2 * (6 + 1), "two flows, each six runs and their median"
    assert sum(1 for step in steps if step.get_linestyle() == (0, (1, 1.5))) == 2
    assert "dotted: 1 DOUBTFUL" in words(made)


def test_bars_have_intervals_counts_and_the_slides_figure() -> None:
    made = as_stored("gains")
    text = words(made)
    assert intervals(made) == 5, "three contenders at two points, of which one has too few runs"
    assert "2.026 (1.964 .. 2.034), n = 6" in text
    assert "1.480, n = 5" in text, "five runs have no interval"
    assert "n = 6, 1 DOUBTFUL" in text
    assert "dashed: slide 46: 2.000 (read off by eye)" in text
    assert "dashed: kernel TCP: slide 40: 450.0 ms" in words(as_stored("dips-bars"))


def test_doubtful_runs_are_hollow() -> None:
    dots = [line for line in as_stored("gains").axes[0].lines if line.get_linestyle() == "None"]
    hollow = sum(len(line.get_xdata()) for line in dots if line.get_markerfacecolor() == "white")
    assert (hollow, sum(len(line.get_xdata()) for line in dots) - hollow) >= (2, 33)


def test_a_logarithmic_axis_has_no_bars() -> None:
    assert len(as_stored("gains").axes[0].patches) == 6 and "bar: median" in words(as_stored("gains"))
    made = as_stored("dips-bars")
    assert not made.axes[0].patches and "mark: median" in words(made) and intervals(made) == 5


def test_a_curve_has_a_line_per_contender_with_intervals_and_the_law() -> None:
    made = as_stored("dip-rtt")
    assert intervals(made) == 5, "three contenders at two points, of which one has too few runs"
    text = words(made)
    assert "round-trip time [ms]" in text and "Serval (n = 6 each)" in text and "1 RTT (slide 40)" in text
    assert "(n = 5 to 6 each)" in text


def test_a_distribution_ends_at_one_and_counts() -> None:
    made = as_stored("dips")
    assert "n = 6, 1 DOUBTFUL" in words(made)
    steps = [line for line in made.axes[0].lines if len(line.get_xdata()) > 1]
    assert len(steps) == 6 and all(line.get_ydata()[-1] == 1 for line in steps)
    assert "n = 66 of 6 runs" in words(as_stored("answers")), "one request of twelve had no answer"


def test_a_blackout_is_its_phases() -> None:
    made = as_stored("blackout")
    text = words(made)
    for expected in ("detect (median)", "signal (median)", "their sum", "23.00, n = 6", "103.0, n = 6"):
        assert expected in text
    widths = [patch.get_width() for patch in made.axes[0].patches]
    assert sum(widths[:4]) == pytest.approx(23) and sum(widths[4:8]) == pytest.approx(103)
    assert [patch.get_x() for patch in made.axes[0].patches][:4] == pytest.approx([0, 0, 1, 21]), "one after the other"


def test_blackouts_of_one_run_do_not_count_one_by_one(stored: dict[str, Any]) -> None:
    document = copy.deepcopy(stored)
    for run in document["runs"]:
        run["blackouts"] *= 4
    made = figure(document, "blackout")
    assert "23.00, n = 6 runs, 24 blackouts" in words(made)
    document["runs"] = [run for run in document["runs"] if run["repetition"] < 5]
    assert intervals(figure(document, "blackout")) == intervals(made), "marks of the sums"
    marks = figure(document, "blackout").axes[0].containers[-1]
    assert not marks.has_xerr, "five runs have no interval, however many blackouts they saw"


def test_who_answered_is_stacked() -> None:
    text = words(as_stored("instances"))
    assert "dan" in text and "eve" in text and "no answer" in text


@pytest.mark.parametrize(
    "missing",
    [
        TimeSeries(name="x", title="x", flows=("flow9",)),
        Instances(name="x", title="x", traffic="flow1"),
        Cdf(name="x", title="x", traffic="nothing"),
        Bars(name="x", title="x", metric="freeze", contenders=("tcp",)),
        Curve(name="x", title="x", metric="dip", x="loss"),
        Bars(name="x", title="x", metric="dip", point={"rtt_ms": 300}),
    ],
)
def test_what_a_result_does_not_have_makes_no_picture(stored: dict[str, Any], missing: Picture) -> None:
    assert draw.figure(missing, Results(stored)) is None


def test_a_contender_looks_the_same_everywhere() -> None:
    policies = styles([("serval", "serval"), ("tcp", "tcp"), ("round-robin", "serval"), ("ring", "serval")])
    assert policies["serval"] == styles([("tcp", "tcp"), ("random", ""), ("serval", "serval")])["serval"]
    assert len({style.colour for style in policies.values()}) == 4
    moves = styles([("told", "serval"), ("hole", "serval"), ("tuned", "mptcp-tuned")])
    assert moves["told"] == policies["serval"], "the first of a transport looks as it does elsewhere"
    assert moves["hole"].colour != policies["tcp"].colour, "and nobody as another transport"
    many = styles([(f"policy{number}", "serval") for number in range(20)])
    assert len({(style.colour, style.line) for style in many.values()}) == 20


def test_a_quick_run_says_so(stored: dict[str, Any]) -> None:
    document = copy.deepcopy(stored)
    document["settings"]["quick"] = True
    assert "(quick run)" in words(figure(document, "gains"))
