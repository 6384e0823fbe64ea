"""Pictures are data: declared, checked against their experiment, carried through JSON and read again."""

from __future__ import annotations

import json
from collections.abc import Mapping

import pytest

from testbed.experiment.record import RunRecord
from testbed.experiment.schedule import SpecificationError
from testbed.experiment.specification import TCP, Contender, Experiment, Metric, Parameter, Reference, Scene
from testbed.report.plots import (
    KINDS,
    Bars,
    BlackoutPhases,
    Cdf,
    Curve,
    Instances,
    Parts,
    Picture,
    Shape,
    TimeSeries,
    restored,
)

PICTURES: tuple[Picture, ...] = (
    TimeSeries(
        name="goodput",
        title="Goodput",
        flows=("flow1", "flow2"),
        shapes=(Shape("as the slide has it", ((0, 500), (6, 1000)), "slide 46", by_eye=True),),
    ),
    Instances(name="shares", title="Shares", traffic="web"),
    Cdf(name="answers", title="Answers", traffic="web", contenders=("serval",)),
    BlackoutPhases(name="blackout", title="A blackout", cause="told"),
    Parts(name="parts", title="Parts", parts=("gap", "dip")),
    Bars(name="gaps", title="Gaps", metric="gap", references={"tcp": Reference(934.5, "slide 48")}),
    Curve(name="sweep", title="Gap against RTT", metric="gap", x="rtt_ms", point={"loss": 0.0}),
)


def no_scene(values: Mapping[str, float], contender: Contender) -> Scene:
    raise AssertionError("names are checked first")


def gap(run: RunRecord) -> float:
    return run.largest_gap("flow1")


def check(*plots: Picture) -> None:
    Experiment(
        name="moving",
        title="A move",
        description="",
        source="slide 46",
        statements=(),
        contenders=(Contender(name="serval", label="Serval"), Contender(name="tcp", label="TCP", transport=TCP)),
        scene=no_scene,
        metrics=(Metric(name="gap", label="gap", compute=gap), Metric(name="dip", label="dip", compute=gap)),
        parameters={"rtt_ms": Parameter(20, "ms", "round trip"), "loss": Parameter(0, "%", "loss")},
        points=(),
        plots=plots,
    ).check(lambda name, options: pytest.fail("nothing is built"), {}, quick=False)


def test_every_kind_is_tried_here() -> None:
    assert {type(picture) for picture in PICTURES} == set(KINDS.values())


@pytest.mark.parametrize("picture", PICTURES, ids=lambda picture: picture.kind)
def test_a_picture_comes_back_out_of_the_result_file(picture: Picture) -> None:
    assert restored(json.loads(json.dumps(picture.described()))) == picture


@pytest.mark.parametrize("picture", PICTURES, ids=lambda picture: picture.kind)
def test_what_is_there_can_be_shown(picture: Picture) -> None:
    check(picture)


@pytest.mark.parametrize(
    ("picture", "words"),
    [
        (Bars(name="p", title="", metric="gab"), "plot 'p': no metric 'gab'; there are: gap, dip"),
        (Parts(name="p", title="", parts=("gap", "x")), "no metric 'x'"),
        (Curve(name="p", title="", metric="gap", x="rtt"), "no parameter 'rtt'; there are: rtt_ms, loss"),
        (Bars(name="p", title="", metric="gap", point={"rate": 1.0}), "no parameter 'rate'"),
        (TimeSeries(name="p", title="", contenders=("servel",)), "no contender 'servel'; did you mean serval"),
        (Bars(name="p", title="", metric="gap", references={"udp": Reference(1, "s")}), "no contender 'udp'"),
        (TimeSeries(name="p", title="", bin=0.015), "a bin is a multiple of 0.01 s"),
        (Cdf(name="p", title=""), "needs a metric or a traffic's samples"),
        (Cdf(name="p", title="", metric="gap", traffic="web"), "needs a metric or a traffic's samples"),
    ],
)
def test_what_is_not_there_is_refused(picture: Picture, words: str) -> None:
    with pytest.raises(SpecificationError, match=words):
        check(picture)


def test_a_later_version_may_have_more() -> None:
    described = {**PICTURES[5].described(), "colour": "mauve"}
    assert restored(described) == PICTURES[5]
    assert restored({"kind": "hologram", "name": "x", "title": "x"}) is None
