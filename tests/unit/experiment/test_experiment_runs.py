"""One run and many of them, with a network in memory: order, events, failures, interruption, what is kept."""

from __future__ import annotations

import io
import json
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from testbed.errors import TestbedError
from testbed.experiment import conduct, live, result
from testbed.experiment.plan import Plan, Turn
from testbed.experiment.progress import RunProgress
from testbed.experiment.record import RunRecord
from testbed.experiment.runner import REPEATS_LEAST, Runner, compute
from testbed.experiment.schedule import Event
from testbed.experiment.specification import Experiment, Metric
from testbed.experiment.traffic import Stream
from tests.unit.experiment.fakes import Moved, Note, World
from tests.unit.experiment.made import EXPERIMENT, STREAM, planned

LATER = Stream(name="late", source="ann", target="dan", service="late.example", start=0.1, seconds=0.1)


def with_scene(**changes: Any) -> Experiment:
    return replace(EXPERIMENT, scene=lambda values, who: replace(EXPERIMENT.scene(values, who), **changes))


def one_run(world: World, directory: Path, contender: str = "serval", **changes: Any) -> dict[str, Any]:
    laid = planned(with_scene(**changes), runs=1)
    turn = next(turn for turn in laid.turns if turn.contender == contender)
    return live.carry_out(laid, turn, 0, directory, world.tools())


def test_all_is_ready_before_anything_flows_and_ended_whatever_comes(tmp_path: Path) -> None:
    world = World()
    record = one_run(world, tmp_path, traffic=(STREAM, LATER), services=True)
    assert record["failed"] is None
    assert world.happened == [
        *("network up", "services up", "flow made", "late made", "flow ready", "late ready", "flow begins"),
        *("late begins", "late ends", "flow ends", "flow stopped", "late stopped", "network down", "logs collected"),
    ]


def test_zero_is_when_what_starts_at_once_is_seen_to_flow(tmp_path: Path) -> None:
    world = World(flows_after=0.15)
    record = one_run(world, tmp_path, traffic=(STREAM, LATER))
    assert record["traffic"]["flow"]["begun"] <= -0.15
    assert record["traffic"]["late"]["begun"] >= 0.1
    starts = {event["name"]: event["at"] for event in record["events"]}
    assert starts["late starts"] >= 0.1 and starts["late ends"] >= 0.2


def test_events_happen_at_their_time_and_only_for_whom_they_are_meant(tmp_path: Path) -> None:
    world = World()
    events = (
        Event(action=Note(world, "second"), at=0.2),
        Event(action=Note(world, "first"), at=0.1),
        Event(action=Note(world, "for tcp"), at=0.1, only=("tcp",)),
    )
    record = one_run(world, tmp_path, events=events)
    assert [event["name"] for event in record["events"]] == ["first", "second"]
    first = record["events"][0]
    assert first["at"] >= first["facts"]["begun"] >= 0.1 and first["source"] == "schedule"
    assert first["facts"]["fact"] == 1
    other = one_run(World(), tmp_path, contender="tcp", events=events)
    assert "for tcp" in [event["name"] for event in other["events"]]


def test_an_action_that_takes_long_by_its_nature_holds_up_nothing(tmp_path: Path) -> None:
    class Long(Note):
        beside = True

    world = World()
    events = (Event(action=Long(world, "long", seconds=0.4), at=0.05), Event(action=Note(world, "short"), at=0.1))
    record = one_run(world, tmp_path, events=events)
    assert [event["name"] for event in record["events"]] == ["short", "long"]
    assert record["events"][1]["at"] >= 0.45  # longer than the run of 0.3 s: its end is waited for


def test_no_other_action_overtakes_one_that_is_late_and_traffic_does_not_wait(tmp_path: Path) -> None:
    world = World()
    events = (Event(action=Note(world, "slow", seconds=0.3), at=0.05), Event(action=Note(world, "next"), at=0.06))
    record = one_run(world, tmp_path, events=events, traffic=(STREAM, LATER))
    order = [event["name"] for event in record["events"]]
    assert order == ["late starts", "late ends", "slow", "next"]


def test_a_condition_triggers_its_action_after_a_pause(tmp_path: Path) -> None:
    world = World()
    event = Event(action=Note(world, "moved"), when=Moved(0.1e6), after=0.1)
    record = one_run(world, tmp_path, events=(event,))
    came, moved = record["events"]
    assert (came["name"], came["source"]) == ("flow has moved 100000", "condition")
    assert moved["name"] == "moved" and moved["at"] >= came["at"] + 0.1


def test_an_action_that_the_end_overtakes_fails_the_run(tmp_path: Path) -> None:
    world = World()
    event = Event(action=Note(world, "moved"), when=Moved(0.1e6), after=0.29)
    record = one_run(world, tmp_path, events=(event,))
    assert "moved" not in world.happened
    assert re.match(r"'moved' was due at 0\.\d+ s and not done: the run lasts 0\.3 s", record["failed"])


@pytest.mark.parametrize("within", [0.1, 60.0])
def test_a_condition_that_never_comes_true_fails_the_run(tmp_path: Path, within: float) -> None:
    world = World()
    event = Event(action=Note(world, "moved"), when=Moved(1e12), within=within)
    record = one_run(world, tmp_path, events=(event, Event(action=Note(world, "later"), at=0.2)))
    shown = min(within, 0.3)
    assert ("later" in world.happened) == (within > 0.2)
    assert f"within {shown:g} s it did not come true that flow has moved 1e+12" in record["failed"]
    assert record["log"].startswith("logs/run-") and (tmp_path / record["log"]).is_dir()


def test_an_action_that_fails_ends_the_run_and_all_is_stopped(tmp_path: Path) -> None:
    world = World()
    events = (Event(action=Note(world, "broken", error="refused"), at=0.05), Event(action=Note(world, "late"), at=0.25))
    record = one_run(world, tmp_path, events=events)
    assert record["failed"] == "broken: refused" and not record["metrics"]
    assert world.happened[-3:] == ["flow stopped", "network down", "logs collected"]


def test_an_action_that_fails_after_the_end_of_the_schedule_fails_the_run(tmp_path: Path) -> None:
    event = Event(action=Note(World(), "broken", seconds=0.4, error="refused"), at=0.05)
    assert one_run(World(), tmp_path, events=(event,))["failed"] == "broken: refused"


def test_an_action_with_a_mistake_in_it_is_not_lost(tmp_path: Path) -> None:
    world = World()
    event = Event(action=Note(world, "wrong", seconds=-1.0), at=0.05)
    assert "wrong: ValueError" in one_run(world, tmp_path, events=(event,))["failed"]


def test_traffic_that_does_not_flow_fails_the_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(conduct, "FLOWING_SECONDS", 0.1)
    world = World(flows_after=9.0)
    assert "flow does not flow within 0.1 s" in one_run(world, tmp_path)["failed"]
    assert "flow stopped" in world.happened


def test_events_are_written_with_both_clocks(tmp_path: Path) -> None:
    record = one_run(World(), tmp_path, events=(Event(action=Note(World(), "first"), at=0.1),))
    (line,) = (tmp_path / live.EVENTS_FILE).read_text().splitlines()
    event = json.loads(line)
    assert event["name"] == "first" and event["run"] == record["number"]
    assert event["monotonic"] == pytest.approx(record["zero"] + event["at"])
    assert event["realtime"] - event["monotonic"] == pytest.approx(record["realtime"] - record["zero"])


class Saves:
    def __init__(self, document: dict[str, Any]) -> None:
        self._document = document
        self.runs: list[int] = []

    def __call__(self) -> None:
        self.runs.append(len(self._document["runs"]))


def run_all(world: World, directory: Path, laid: Plan, on_run: Callable[[Turn], None] = lambda turn: None) -> Any:
    document = result.new(laid, {"summary": "a test"}, ["test"])
    saves, said = Saves(document), io.StringIO()

    def carry_out(turn: Turn, attempt: int) -> dict[str, Any]:
        on_run(turn)
        return live.carry_out(laid, turn, attempt, directory, world.tools())

    runner = Runner(laid, document, carry_out, RunProgress(laid, said), saves)
    return runner, document, saves, said


def test_every_run_is_carried_out_on_a_network_of_its_own_and_saved(tmp_path: Path) -> None:
    world, laid = World(), planned(with_scene(seconds=0.05), runs=2)
    runner, document, saves, said = run_all(world, tmp_path, laid)
    assert runner.run() and world.networks == 4
    assert [run["contender"] for run in document["runs"]] == [turn.contender for turn in laid.turns]
    assert saves.runs == [1, 2, 3, 4, 4] and document["ended"] is None
    assert document["runs"][0]["metrics"] == {"gap": 0.0, "bytes": 1000.0}
    assert "4 runs in" in said.getvalue()


def test_a_failed_run_is_recorded_and_repeated(tmp_path: Path) -> None:
    world, laid = World(fail_start=(2,)), planned(with_scene(seconds=0.05), runs=2)
    runner, document, _, said = run_all(world, tmp_path, laid)
    assert runner.run()
    assert [(run["number"], run["attempt"], run["failed"] is None) for run in document["runs"]] == [
        *((1, 0, True), (2, 0, False), (2, 1, True), (3, 0, True), (4, 0, True))
    ]
    assert "failed, and is repeated: the nodes did not start; its log is somewhere" in said.getvalue()
    assert not result.failed_runs(document) and len(result.good_runs(document)) == 4


def test_repeats_are_bounded_and_the_rest_goes_on(tmp_path: Path) -> None:
    world, laid = World(fail_start=range(1, 99)), planned(with_scene(seconds=0.05), runs=3)
    runner, document, _, _ = run_all(world, tmp_path, laid)
    assert not runner.run()
    assert len(document["runs"]) == len(laid.turns) + REPEATS_LEAST
    assert len(result.failed_runs(document)) == len(laid.turns)


def test_ctrl_c_keeps_what_was_measured(tmp_path: Path) -> None:
    world, laid = World(), planned(with_scene(seconds=0.05), runs=3)

    def interrupt(turn: Turn) -> None:
        if turn.number == 3:
            raise KeyboardInterrupt

    runner, document, saves, _ = run_all(world, tmp_path, laid, interrupt)
    with pytest.raises(KeyboardInterrupt):
        runner.run()
    assert len(document["runs"]) == 2 and document["ended"] == "KeyboardInterrupt" and saves.runs[-1] == 2


def test_ctrl_c_within_a_run_stops_its_network(tmp_path: Path) -> None:
    class Interrupted(Moved):
        def holds(self, run: Any) -> bool:
            raise KeyboardInterrupt

    world = World()
    laid = planned(with_scene(events=(Event(action=Note(world, "x"), when=Interrupted(1.0)),)), runs=1)
    with pytest.raises(KeyboardInterrupt):
        live.carry_out(laid, laid.turns[0], 0, tmp_path, world.tools())
    assert world.happened[-3:] == ["flow stopped", "network down", "logs collected"]


def test_a_full_disk_ends_the_experiment_and_says_so(tmp_path: Path) -> None:
    laid = planned(with_scene(seconds=0.05), runs=1)
    runner, document, _, _ = run_all(World(), tmp_path, laid)

    def full() -> None:
        raise TestbedError("cannot write result.json: No space left on device")

    runner._save = full
    with pytest.raises(TestbedError, match="No space left"):
        runner.run()
    assert "No space left" in document["ended"]


def test_metrics_that_a_run_does_not_have_are_none_with_the_reason() -> None:
    def metric(name: str, compute: Callable[[RunRecord], float | None]) -> Metric:
        return Metric(name=name, label=name, compute=compute)

    values, without = compute(
        (
            metric("fine", lambda run: 1),
            metric("none", lambda run: None),
            metric("missing", lambda run: run.event("nothing")),
            metric("infinite", lambda run: float("inf")),
            metric("mistaken", lambda run: run.evnt("nothing")),  # type: ignore[attr-defined]
        ),
        {"number": 7, "events": []},
    )
    assert values == {"fine": 1.0, "none": None, "missing": None, "infinite": None, "mistaken": None}
    assert without["mistaken"].startswith("AttributeError: ")
    assert without["none"] == "this run has none" and "no event 'nothing' in run 7" in without["missing"]
    assert "inf" in without["infinite"]


def test_the_time_left_follows_the_pace_of_the_runs_so_far() -> None:
    clock = [0.0]
    laid = planned(runs=2)
    progress = RunProgress(laid, io.StringIO(), lambda: clock[0])
    expected = progress.left()
    assert expected == pytest.approx(laid.total_seconds())
    progress.begin(laid.turns[0], 0)
    clock[0] += 2 * expected / 4
    progress.done(laid.turns[0], None, again=False)
    assert progress.left() == pytest.approx(2 * 3 * expected / 4)
