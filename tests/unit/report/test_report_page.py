"""The page: everything that was asked for and all doubts stand in it, in one file without anything outside it."""

from __future__ import annotations

import copy
import re
from html.parser import HTMLParser
from typing import Any

import pytest

from testbed.experiment import analysis, result
from testbed.report import page
from testbed.report.deviation import deviations
from testbed.report.view import Results
from tests.unit.report import builder
from tests.unit.report.builder import CUT, MOVE, STORED

VOID = {"meta", "br", "use", "link", "img", "hr", "input"}


class Reader(HTMLParser):
    """Text, links and ids; raises where elements are not closed in their order."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.links: list[str] = []
        self.ids: list[str] = []
        self.tags: list[str] = []
        self._open: list[str] = []
        self._words: list[str] = []
        self.feed(text)
        self.close()
        assert not self._open, f"not closed: {self._open}"
        self.text = " ".join(" ".join(self._words).split())

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        for name, value in attrs:
            if name in ("href", "src", "xlink:href", "data", "action", "poster", "srcset") and value is not None:
                self.links.append(value)
            if name == "id" and value is not None:
                self.ids.append(value)
        if tag not in VOID:
            self._open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)
        if tag not in VOID:
            self._open.pop()

    def handle_endtag(self, tag: str) -> None:
        if tag not in VOID:
            assert self._open.pop() == tag, f"</{tag}> closes something else"

    def handle_data(self, data: str) -> None:
        if not self._open or self._open[-1] not in ("style", "script"):
            self._words.append(data)


def text_of(document: dict[str, Any]) -> str:
    """The words of its page; pictures left out, as they take long."""
    return Reader(page.report(document, {})).text


@pytest.fixture
def stored() -> dict[str, Any]:
    return result.load(STORED)


def test_the_stored_result_is_the_builders() -> None:
    assert result.load(STORED) == builder.document(), (
        "python -m tests.unit.report.builder; a new version of the format?"
    )


def test_one_file_with_nothing_outside_it(stored: dict[str, Any]) -> None:
    text = page.report(stored, page.figures_of(stored))
    found = Reader(text)
    assert found.tags.count("svg") == len(stored["experiment"]["plots"])
    assert found.links and all(link.startswith("#") for link in found.links)
    assert "script" not in found.tags and "link" not in found.tags and "img" not in found.tags
    assert not re.search(r"url\((?!#)|@import", text)
    assert len(found.ids) == len(set(found.ids)), "two pictures share a name"
    assert {link[1:] for link in found.links} <= set(found.ids), "a picture has lost a part of itself"
    assert set(re.findall(r"url\(#([^)]*)\)", text)) <= set(found.ids)


def test_what_was_asked_stands_there_with_verdict_and_figures(stored: dict[str, Any]) -> None:
    text = text_of(stored)
    assert "Of 5 things asked for 3 held and 2 did not hold." in text
    for judgement in analysis.judgements(stored):
        assert judgement.text in text
    assert "held flow 1 doubles at rtt_ms=20 serval, median flow 1 after / before 2.026 (1.964 .. 2.034, n = 6)" in text
    assert "not held hardly a dip" in text and "at most 1.000 ms, in every run" in text


def test_what_could_not_be_judged_is_told(stored: dict[str, Any]) -> None:
    stored["experiment"]["acceptance"].append(
        {**stored["experiment"]["acceptance"][0], "text": "the absent doubles too", "contender": "absent"}
    )
    assert "cannot tell 1 more: contender left out, or point not run the absent doubles too" in text_of(stored)


def test_figures_differences_and_verdicts(stored: dict[str, Any]) -> None:
    text = text_of(stored)
    assert "kernel TCP rtt_ms=20 6 472.6 423.1 .. 501.2 +453.4 ms (403.7 .. 482.2), n = 6 worse 1 doubtful" in text
    assert "MPTCP as it comes rtt_ms=100 5 1.480 -0.5330, n = 5 too few 1 failed" in text
    assert "not distinguishable" in text
    assert "higher is better; from 0.1 on a difference matters; slide 46 has 2 (read off by eye)" in text


def test_the_slide_is_compared_in_words(stored: dict[str, Any]) -> None:
    said = [deviation.words() for deviation in deviations(Results(stored))]
    assert said[0] == (
        "flow 1 after / before, Serval at rtt_ms=20: 2.026 (1.964 .. 2.034), n = 6;"
        " slide 46 has 2.000, read off by eye: 1.3 % more; within the interval"
    )
    assert any(line.startswith("longest silence, kernel TCP") and "slide 40 has 450.0 ms" in line for line in said)
    assert all("tcp" not in line for line in said if "after / before" in line), "the slide speaks of Serval"
    stored["experiment"]["plots"][-2]["point"] = {"rtt_ms": 100}
    said = [deviation.words() for deviation in deviations(Results(stored))]
    assert [line[:38] for line in said if "slide 40" in line] == ["longest silence, kernel TCP at rtt_ms="[:38]]
    stored["experiment"]["references"]["gain"]["value"] = 3.0
    assert deviations(Results(stored))[0].difference == "32.5 % less; outside the interval"
    stored["experiment"]["references"]["gain"]["value"] = 0.5
    assert deviations(Results(stored))[0].difference == "4.1 times as much; outside the interval"


def test_doubts_failures_and_those_left_out(stored: dict[str, Any]) -> None:
    text = text_of(stored)
    assert "DOUBTFUL: 2 of 35 runs, and calibration has 1 remark." in text
    assert "the hypervisor took 7 % of the CPU time" in text
    assert "ann to dan rtt_ms=20 rate 100.0 Mbit/s 97.00 Mbit/s from 95.00 Mbit/s to 101.0 Mbit/s ok" in text
    assert "delay 20.00 ms 23.10 ms from 19.80 ms to 20.20 ms missed one way, the median of 200 probes" in text
    assert "failed: web: no answer within 10 s" in text
    assert "MPTCP tuned (absent): kernel without MPTCP" in text


def test_links_that_nobody_measured_are_not_called_good(stored: dict[str, Any]) -> None:
    stored["calibration"] = []
    assert page.verdict(stored)[1] == "DOUBTFUL: 2 of 35 runs, and the links were not measured."


def test_what_was_done_and_how_to_do_it_again(stored: dict[str, Any]) -> None:
    text = text_of(stored)
    assert "Everybody pair, 3 s flow1: stream of bulk.example from dan to ann, as fast as it goes" in text
    assert f"at 1.5 s: {MOVE}" in text and f"at 2.5 s: {CUT}" in text
    assert ".venv/bin/python -m experiments.stored --runs 6 --seed 7" in text
    assert "commit 0123456789ab+" in text and "programs: iproute2 not known" in text


def test_told_and_silent_cases_are_told_apart(stored: dict[str, Any]) -> None:
    text = text_of(stored)
    assert "which flatters Serval: Everybody" in text
    assert "which does not flatter Serval: not in this result" in text
    for scene in stored["scenes"]:
        scene["events"][1].update(notice="silent", only=["serval", "mptcp"])
    assert "which does not flatter Serval: Serval; MPTCP as it comes" in text_of(stored)
    for scene in stored["scenes"]:
        scene["events"] = []
    assert "flatter" not in text_of(stored), "no path goes"


def test_who_meets_another_schedule_is_named(stored: dict[str, Any]) -> None:
    for scene in stored["scenes"]:
        if scene["contender"] == "tcp" or scene["setting"] == 1:
            scene["events"] = scene["events"][:1]
    text = text_of(stored)
    assert "Serval at rtt_ms=20; MPTCP as it comes at rtt_ms=20" in text
    assert "Serval at rtt_ms=100; kernel TCP; MPTCP as it comes at rtt_ms=100" in text


def test_what_was_chosen_is_part_of_the_command(stored: dict[str, Any]) -> None:
    stored["settings"].update(given={"rtt_ms": 5.0}, quick=True, contenders=["serval", "tcp"], points="1,2")
    assert page.again(stored) == (
        ".venv/bin/python -m experiments.stored --quick --runs 6 --seed 7"
        " --contenders serval,tcp --points 1,2 --set rtt_ms=5"
    )


def test_names_are_text_and_no_markup(stored: dict[str, Any]) -> None:
    stored["experiment"]["contenders"][1]["label"] = "<script>alert(1)</script>"
    found = Reader(page.report(stored, {}))
    assert "script" not in found.tags and "<script>alert(1)</script>" in found.text
    assert "one moves <away>" in found.text


def test_an_early_end_a_quick_run_and_wrong_bytes_stand_at_the_top(stored: dict[str, Any]) -> None:
    stored["ended"] = "interrupted"
    stored["settings"]["quick"] = True
    stored["runs"][0]["traffic"]["flow1"]["intact"] = False
    sentences = page.verdict(stored)
    assert sentences[0] == "Of 5 things asked for 5 cannot be told."
    assert "WRONG BYTES arrived in 1 flows: that must not be, ever." in sentences
    assert "Ended early: interrupted." in sentences
    assert any(sentence.startswith("A quick run") for sentence in sentences)


def test_all_good(stored: dict[str, Any]) -> None:
    stored["experiment"]["acceptance"] = stored["experiment"]["acceptance"][:1]
    stored["calibration"] = []
    for run in stored["runs"]:
        run["fidelity"] = {"trustworthy": True, "reasons": [], "kinds": []}
    assert page.verdict(stored) == ["All that was asked for held."]
    stored["experiment"]["acceptance"] = []
    assert page.verdict(stored) == ["Nothing was asked for of what ran; the figures stand for themselves."]


def test_a_picture_that_cannot_be_drawn_is_named(stored: dict[str, Any]) -> None:
    stored["experiment"]["plots"] = [{"kind": "hologram", "name": "x", "title": "A hologram"}]
    assert "A hologram This program cannot draw 'hologram'." in text_of(stored)


def test_an_interrupted_run_without_any_run_has_a_page(stored: dict[str, Any]) -> None:
    stored["runs"], stored["ended"] = [], "interrupted"
    text = page.report(stored, page.figures_of(stored))
    assert "No run has what this picture shows." in text and "<svg" not in text


def test_the_index_leads_to_the_pages(stored: dict[str, Any]) -> None:
    other = copy.deepcopy(stored)
    other["experiment"]["title"] = "Another"
    found = Reader(page.index([(stored, "stored/1/report.html"), (other, "other/2/report.html")]))
    assert found.links == ["stored/1/report.html", "other/2/report.html"]
    assert "Another" in found.text and "Of 5 things asked for 3 held and 2 did not hold." in found.text
    assert "DOUBTFUL" in found.text
