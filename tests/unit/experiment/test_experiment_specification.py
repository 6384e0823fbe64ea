"""What an experiment says of itself is checked before anything is started."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from typing import Any

import pytest
from mininet.topo import Topo

from testbed.experiment.actions import MovedBytes
from testbed.experiment.record import RunRecord
from testbed.experiment.schedule import Event, SpecificationError
from testbed.experiment.specification import (
    MPTCP,
    SERVAL,
    TCP,
    Acceptance,
    Contender,
    Experiment,
    Metric,
    Parameter,
    Reference,
    Scene,
)
from testbed.experiment.traffic import Bulk, Requests, Stream


@dataclass(frozen=True)
class Cut:
    """An action on the link of one host."""

    host: str

    def describe(self) -> str:
        return f"the link of {self.host} is cut"

    def check(self, topology: Topo, traffic: Collection[str]) -> None:
        if self.host not in topology.hosts():
            raise SpecificationError(f"{self.describe()}: there is no {self.host}")

    def carry_out(self, run: Any) -> Mapping[str, Any]:
        return {}


class Pair(Topo):
    def build(self) -> None:
        self.providers = {"example": 0x5E7A1E}
        self.addHost("ann")
        self.addHost("dan")
        self.addLink("ann", "dan")


STREAM = Stream(name="flow", source="ann", target="dan", service="bulk.example", rate=10)

REQUESTS = Requests(name="web", source="ann", target="dan", service="web.example")


def scene(values: Mapping[str, float], contender: Contender) -> Scene:
    cut = Event(action=Cut("ann"), at=values["cut"], only=("serval",))
    return Scene(topology="pair", traffic=(STREAM,), events=(cut,), seconds=4.0, calibrate=(("ann", "dan"),))


EXPERIMENT = Experiment(
    name="cutting",
    title="A cut",
    description="A link is cut.",
    source="nowhere",
    statements=(),
    contenders=(Contender(name="serval", label="Serval"), Contender(name="tcp", label="TCP", transport=TCP)),
    scene=scene,
    metrics=(Metric(name="gap", label="gap", compute=lambda run: run.largest_gap("flow")),),
    acceptance=(Acceptance(text="short", metric="gap", contender="serval", at_most=1.0),),
    parameters={"cut": Parameter(2.0, "s", "when", low=0.0, high=9.0, quick=1.0), "loss": Parameter(0.0, "%", "loss")},
    points=({"loss": 0.0}, {"loss": 1.0}, {"loss": 2.0}),
)


def check(experiment: Experiment, **given: float) -> None:
    experiment.check(lambda name, options: Pair(), given, quick=False)


def refused(experiment: Experiment, words: str, **given: float) -> None:
    with pytest.raises(SpecificationError, match=words):
        check(experiment, **given)


def with_scene(**changes: Any) -> Experiment:
    return replace(EXPERIMENT, scene=lambda values, contender: replace(scene(values, contender), **changes))


def test_a_sound_experiment_passes() -> None:
    check(EXPERIMENT)
    check(EXPERIMENT, cut=3.0)


def test_parameters_come_from_defaults_quick_values_the_user_and_the_point() -> None:
    assert EXPERIMENT.values({"loss": 1.0}, {}, quick=False) == {"cut": 2.0, "loss": 1.0}
    assert EXPERIMENT.values({}, {}, quick=True) == {"cut": 1.0, "loss": 0.0}
    assert EXPERIMENT.values({}, {"cut": 3.0}, quick=True) == {"cut": 3.0, "loss": 0.0}


def test_a_quick_run_has_the_ends_of_the_sweep() -> None:
    assert EXPERIMENT.chosen_points(quick=True) == ({"loss": 0.0}, {"loss": 2.0})
    assert len(EXPERIMENT.chosen_points(quick=False)) == 3


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"cuts": 1.0}, "no parameter 'cuts'; did you mean cut"),
        ({"cut": -1.0}, "cut must be at least 0 and at most 9 s, not -1"),
        ({"cut": 5.0}, "at 5 s is outside the run, which lasts 4 s"),
    ],
)
def test_parameters_that_do_not_fit_are_refused(given: dict[str, float], words: str) -> None:
    refused(EXPERIMENT, words, **given)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"seconds": 0.0}, "must last more than 0 s"),
        ({"traffic": (STREAM, STREAM)}, "two flows are called 'flow'"),
        ({"traffic": (replace(STREAM, target="dun"),)}, "stream 'flow': the topology has no host 'dun'"),
        ({"traffic": (replace(STREAM, target="ann"),)}, "source and target are both ann"),
        ({"traffic": (replace(STREAM, rate=0),)}, "rate must be more than 0"),
        ({"traffic": (replace(STREAM, direction="left"),)}, "direction is 'down' or 'up'"),
        ({"traffic": (replace(STREAM, start=5.0),)}, "not within the run of 4 s"),
        ({"traffic": (replace(STREAM, start=1.0, seconds=3.5),)}, "1 to 4.5 s is not within"),
        ({"calibrate": (("ann", "eve"),)}, "calibrate: the topology has no host 'eve'"),
        ({"events": (Event(action=Cut("eve"), at=1.0),)}, "there is no eve"),
        ({"events": (Event(action=Cut("ann")),)}, "needs either a time or a condition"),
        ({"events": (Event(action=Cut("ann"), at=1.0, only=("quic",)),)}, "for 'quic', which does not run"),
        ({"events": (Event(action=Cut("ann"), at=4.0),)}, "at 4 s is outside the run, which lasts 4 s"),
        ({"events": (Event(action=Cut("ann"), when=MovedBytes("flow", 1), after=4.0),)}, "4 s after its condition"),
        ({"events": (Event(action=Cut("ann"), when=MovedBytes("flow", 1), after=-1.0),)}, "-1 s after its condition"),
        ({"events": (Event(action=Cut("ann"), when=MovedBytes("flow", 1), within=0.0),)}, "`within` must be more"),
        ({"seconds": math.inf}, "and end, not inf"),
        ({"traffic": (replace(STREAM, rate=math.nan),)}, "rate must be more than 0, not nan"),
        ({"traffic": (replace(STREAM, rate="fast"),)}, "rate must be more than 0, not fast"),
        ({"traffic": (replace(STREAM, service="bulk"),)}, "'bulk' is no service name; one is: flow.example"),
        ({"traffic": (replace(STREAM, service="bulk.exmple"),)}, "no provider 'exmple'; did you mean example"),
        ({"traffic": (replace(STREAM, address="eth1"),)}, "ann has no interface 'eth1', only 1, from eth0 on"),
        ({"traffic": (replace(REQUESTS, size=-1),)}, "requests 'web': the size must be at least 0, not -1"),
        ({"traffic": (replace(REQUESTS, count=0),)}, "the count must be at least 1, not 0"),
        ({"traffic": (replace(REQUESTS, hold=-1.0),)}, "the hold must be at least 0, not -1"),
        ({"calibrate": (("ann", "ann"),)}, "a path goes from one host to another, not ann - ann"),
        ({"calibrate": (("ann",),)}, "a path goes from one host to another, not ann"),
    ],
)
def test_scenes_that_make_no_sense_are_refused(changes: dict[str, Any], words: str) -> None:
    refused(with_scene(**changes), words)


def test_what_cannot_carry_its_traffic_is_refused() -> None:
    bulk = with_scene(traffic=(Bulk(name="bulk", source="ann", target="dan", service="bulk.example"),))
    check(bulk)
    also = replace(bulk, contenders=(*bulk.contenders, Contender(name="mp", label="MPTCP", transport=MPTCP)))
    refused(also, "bulk 'bulk' of mp: iperf3 cannot run over mptcp\n  it runs over serval, serval-udp, tcp")


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"contenders": ()}, "has no contender"),
        ({"contenders": (EXPERIMENT.contenders[0],) * 2}, "contender 'serval' stands twice"),
        ({"contenders": (replace(EXPERIMENT.contenders[0], transport="quic"),)}, "no transport 'quic'"),
        ({"against": "servl"}, "no contender 'servl'; did you mean serval"),
        ({"references": {"gaps": Reference(1.0, "slide 1")}}, "unknown metric 'gaps'"),
        ({"acceptance": (replace(EXPERIMENT.acceptance[0], metric="x"),)}, "no metric 'x'; there are: gap"),
        ({"acceptance": (replace(EXPERIMENT.acceptance[0], contender="x"),)}, "no contender 'x'"),
        ({"acceptance": (replace(EXPERIMENT.acceptance[0], at_most=None),)}, "has no bound"),
        ({"acceptance": (replace(EXPERIMENT.acceptance[0], over="mean"),)}, "over 'median' or 'every', not 'mean'"),
        ({"acceptance": (replace(EXPERIMENT.acceptance[0], point={"loss": 5.0}),)}, "no point has {'loss': 5.0}"),
        ({"metrics": (replace(EXPERIMENT.metrics[0], better="bigger"),)}, "better is 'higher' or 'lower'"),
    ],
)
def test_names_that_do_not_fit_are_refused(changes: dict[str, Any], words: str) -> None:
    refused(replace(EXPERIMENT, **changes), words)


def test_what_flows_and_happens_is_plain_data_for_the_result() -> None:
    from testbed.experiment.traffic import described

    shown = described(Requests(name="web", source="ann", target="dan", service="web.example", rate=5))
    assert (shown["kind"], shown["rate"], shown["size"], shown["service"]) == ("requests", 5, 1000, "web.example")
    (event,) = scene({"cut": 2.0}, EXPERIMENT.contenders[0]).events
    assert event.described() == {"action": "the link of ann is cut", "notice": None, "at": 2.0, "only": [SERVAL]}


RECORD = RunRecord(
    {
        "number": 1,
        "seconds": 0.1,
        "events": [{"at": 0.03, "name": "the link of ann is cut"}],
        "traffic": {
            "flow": {
                "bin": 0.01,
                "received": [10, 20, 30, 0, 0, 60, 70, 80, 90, 100],
                "gaps": [{"at": 0.03, "seconds": 0.02}, {"at": 0.08, "seconds": 0.001}],
            }
        },
    }
)


def test_goodput_counts_whole_bins_between_two_moments() -> None:
    assert RECORD.bits_per_second("flow", 0.0, 0.03) == pytest.approx(8 * 60 / 0.03)
    assert RECORD.bits_per_second("flow", 0.015, 0.035) == pytest.approx(8 * 30 / 0.01)
    assert RECORD.bits_per_second("flow", 0.05, 0.1) == pytest.approx(8 * 400 / 0.05)
    with pytest.raises(ValueError, match="no whole bin"):
        RECORD.bits_per_second("flow", 0.011, 0.029)


def test_gaps_and_events_are_found_by_their_moment_and_words() -> None:
    assert RECORD.event("is cut") == 0.03
    assert RECORD.largest_gap("flow") == 0.02
    assert RECORD.largest_gap("flow", 0.05) == 0.001
    assert RECORD.largest_gap("flow", 0.09) == 0.0
    with pytest.raises(KeyError, match="no event 'mended' in run 1"):
        RECORD.event("mended")
