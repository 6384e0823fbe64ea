"""What the experiments on moves make of a run's record: client mobility, migration time, VM migration."""

from __future__ import annotations

from typing import Any

import pytest

from experiments import client_mobility, migration_time, vm_migration
from testbed.experiment.record import RunRecord
from testbed.mobility import precopy


def record(**more: Any) -> RunRecord:
    base: dict[str, Any] = {
        "number": 1,
        "contender": "serval",
        "seconds": 5.0,
        "point": {"rtt_ms": 20.0},
        "events": [],
        "blackouts": [],
        "facts": {"transport": {"name": "serval"}},
        "counters": {},
        "traffic": {"flow": {"bin": 0.01, "received": [1000] * 500, "intact": True, "broken": None, "gaps": []}},
    }
    return RunRecord({**base, **more})


def stream(gaps: list[tuple[float, float]], **more: Any) -> dict[str, Any]:
    told = [{"at": at, "seconds": seconds} for at, seconds in gaps]
    return {"flow": {"bin": 0.01, "received": [1000] * 500, "intact": True, "broken": None, "gaps": told, **more}}


CHANGES = [
    {"at": 1.0, "name": "ann's eth0 goes down"},
    {"at": 2.0, "name": "ann's eth0 comes up"},
    {"at": 3.0, "name": "ann's eth0 goes down"},
]


def test_a_silence_belongs_to_the_change_at_which_it_begins() -> None:
    run = record(events=CHANGES, traffic=stream([(0.99, 0.08), (1.6, 0.5), (2.1, 0.03), (3.0, 0.12)]))
    assert list(client_mobility.silences(run, client_mobility.LOST)) == [0.08, 0.12]
    assert client_mobility.middle(run, client_mobility.LOST) == pytest.approx(0.10)
    assert client_mobility.middle(run, client_mobility.BACK) == 0.03
    assert client_mobility.middle(record(traffic=stream([])), client_mobility.LOST) is None


def test_changes_without_a_move_are_counted_and_rivals_have_none() -> None:
    moved = [{"host": "ann"}, {"host": "ann"}, {"host": "dan"}]
    assert client_mobility.missed(record(events=CHANGES, blackouts=moved)) == 1
    assert client_mobility.missed(record(events=CHANGES)) == 3
    assert client_mobility.missed(record(events=CHANGES, facts={"transport": {"name": "tcp"}})) is None


def test_the_share_off_the_cellular_network_is_by_the_interfaces_counters() -> None:
    counted = {"ann-eth0": {"rx_bytes": 3_000_000}, "ann-eth1": {"rx_bytes": 1_000_000}}
    run = record(counters={"ann": {"interfaces": counted}})
    assert client_mobility.megabytes(run, "ann-eth0") == 3.0
    assert client_mobility.saved(run) == 0.75
    assert client_mobility.saved(record(counters=run.data["counters"], traffic=stream([], broken="silent"))) is None


def test_the_clients_last_change_leaves_it_without_wifi_longer_than_a_transport_may_be_silent() -> None:
    values = client_mobility.EXPERIMENT.values({}, {}, quick=False)
    scene = client_mobility.scene(values, client_mobility.EXPERIMENT.contender("serval"))
    assert len(scene.events) >= 10
    last = scene.events[-1]
    assert "goes down" in last.action.describe() and last.at is not None
    assert scene.seconds - last.at >= 1.2


def test_a_move_is_counted_from_its_rsyn_in_round_trips() -> None:
    moves = [{"host": "dan", "signal": seconds, "rsyns": count, "detect": 0.0} for seconds, count in
             ((0.021, 1), (0.023, 1), (0.07, 2))]  # fmt: skip
    run = record(blackouts=[*moves, {"host": "ann", "signal": 9.0, "rsyns": 9, "detect": 9.0}])
    assert migration_time.signal(run) == 0.023
    assert migration_time.beyond(run) == pytest.approx(0.003)
    assert migration_time.in_round_trips(run) == pytest.approx(1.15)
    assert migration_time.worst(run) == 0.07
    assert migration_time.rsyns(run) == pytest.approx(4 / 3)
    told = [{"at": 1.0 + number, "name": "flow moves to dan's eth1"} for number in range(4)]
    assert migration_time.unanswered(record(events=told, blackouts=moves)) == 1
    assert migration_time.signal(record()) is None


def test_a_silence_that_a_loss_began_before_a_black_hole_counts_from_there_on() -> None:
    hole = [{"at": 1.0, "name": "dan's eth0 becomes a black hole"}]
    dead = record(events=hole, traffic=stream([(0.2, 0.5), (0.8, 4.2)]))
    assert migration_time.silence(dead) == pytest.approx(4.05)
    assert migration_time.silence(record(events=hole, traffic=stream([(0.2, 0.5)]))) == 0


@pytest.mark.parametrize(
    ("contender", "notices"),
    [("serval", {"seen"}), ("serval-told", {"told"}), ("serval-hole", {"silent"}), ("mptcp-tuned-hole", {"silent"})],
)
def test_a_mobile_client_is_told_or_sees_it_or_meets_a_silent_loss(contender: str, notices: set[str]) -> None:
    experiment = client_mobility.EXPERIMENT
    events = client_mobility.scene(experiment.values({}, {}, quick=False), experiment.contender(contender)).events
    assert {event.described()["notice"] for event in events} - {None} == notices


def test_told_moves_go_there_and_back() -> None:
    experiment = migration_time.EXPERIMENT
    values = experiment.values({}, {}, quick=False)
    scene = migration_time.scene(values, experiment.contender("told"))
    assert [getattr(event.action, "to", None) for event in scene.events[:3]] == ["eth1", "eth0", "eth1"]


def test_the_machines_standstill_is_given_or_the_models() -> None:
    experiment = vm_migration.EXPERIMENT
    values = experiment.values({}, {}, quick=False)
    assert vm_migration.standstill(values) == precopy.migrate(128e6, 5e6, 25e6).standstill
    assert vm_migration.standstill({**values, "standstill": 0.3}) == 0.3
    control = vm_migration.scene({**values, "standstill": 0.3}, experiment.contender("freeze")).events
    assert [event.at for event in control] == [3.5, 3.8]


def test_the_rate_after_a_move_is_a_share_of_the_one_before() -> None:
    bins = [1000] * 250 + [0] * 10 + [900] * 240
    moved = [{"at": 2.5, "name": "vic moves to ian"}]
    told = {"form": "light", "stopped": 2.5, "parts": {"copy": 0.003, "signal": 0.02}, "figures": {}}
    run = record(events=moved, traffic=stream([(2.5, 0.1)], received=bins), facts={"moves": [told]})
    assert vm_migration.recovered(run) == pytest.approx(0.9)
    assert vm_migration.silence(run) == 0.1
    assert vm_migration.part("signal")(run) == 0.02
    assert vm_migration.part("address")(run) is None
    assert vm_migration.part("signal")(record()) is None
    assert vm_migration.qemu_downtime(run) is None and vm_migration.copied(run) is None


def test_while_its_memory_is_copied_a_machine_runs() -> None:
    """What a real machine's stream does meanwhile is neither its silence nor its rate afterwards."""
    bins = [1000] * 150 + [100] * 100 + [0] * 100 + [1000] * 150
    told = {"form": "real", "stopped": 2.5, "parts": {"copy": 1.0}, "figures": {"qemu_downtime": 0.04}}
    run = record(
        events=[{"at": 1.5, "name": "vic moves to ian"}, {"at": 2.5, "name": "vic stopped"}],
        traffic=stream([(1.6, 0.9), (2.5, 0.1)], received=bins),
        facts={"moves": [told]},
    )
    assert vm_migration.silence(run) == 0.1
    assert vm_migration.qemu_downtime(run) == 0.04
    assert vm_migration.copied(run) == 1.0
    assert vm_migration.recovered(run) == pytest.approx(1.0)
