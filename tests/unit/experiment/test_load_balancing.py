"""E8: what happens to whom, and what its metrics make of a record."""

from __future__ import annotations

from typing import Any

import pytest

from controllers.policies import POLICIES as KNOWN
from experiments import load_balancing as e8
from experiments.load_balancing import EXPERIMENT, FIRST, POLICIES, RIVALS
from testbed.experiment import build
from testbed.experiment.record import RunRecord


def test_it_makes_sense_and_every_policy_but_one_is_in_it() -> None:
    for quick in (False, True):
        EXPERIMENT.check(build.topology, {}, quick=quick)
    assert set(POLICIES) == set(KNOWN) - {"all"}
    assert {contender.name for contender in EXPERIMENT.contenders} == {*POLICIES, *RIVALS}


def test_a_policy_is_set_and_a_rival_is_told_of_every_change() -> None:
    values = EXPERIMENT.values({}, {}, quick=False)

    def done(name: str) -> list[str]:
        scene = EXPERIMENT.scene(values, EXPERIMENT.contender(name))
        return [event.action.describe() for event in sorted(scene.events, key=lambda event: event.at or 0)]

    common = ["web.example starts on e1", "d2 leaves web.example", "web.example on d3 is killed"]
    assert done("maglev") == ["web.example gets the policy maglev", *common]
    told = [words for words in done("nft-random") if words.startswith("lb")]
    assert told == [
        "lb balances over d1, d2, d3, d4",
        "lb balances over d1, d2, d3, d4, e1",
        "lb balances over d1, d3, d4, e1",
        "lb balances over d1, d4, e1",
    ]
    assert [words for words in done("nft-random") if not words.startswith("lb")] == common


def request(at: float, instance: str | None, error: str | None = None) -> dict[str, Any]:
    return {"at": at, "connect": 0.01, "seconds": 0.02, "instance": instance, "error": error}


def run(contender: str, **more: Any) -> RunRecord:
    """Two clients: a1 goes round the replicas, a2 stays at d1 until d2 leaves and changes to d4 then."""
    turns = [request(2 + number * 0.25, FIRST[number % 4]) for number in range(16)]
    after = [request(10 + number * 0.25, "d1") for number in range(4)]
    stays = [request(2 + number * 0.25, "d1") for number in range(32)]
    data = {
        "number": 1,
        "contender": contender,
        "seconds": 18.0,
        "events": [
            {"at": 0.5, "name": f"web.example gets the policy {contender}"},
            {"at": 0.1, "name": "lb balances over d1, d2, d3, d4"},
            {"at": 6.0, "name": "web.example starts on e1"},
            {"at": 10.0, "name": "d2 leaves web.example"},
            {"at": 14.0, "name": "web.example on d3 is killed"},
        ],
        "traffic": {
            "a1": {"requests": turns + after},
            "a2": {"requests": [*stays, *(request(10.2 + number * 0.25, "d4") for number in range(4))]},
            "held-a1": {"requests": [request(2.0, "d1"), request(2.0, "d3", "ConnectionError: closed")]},
        },
        "counters": {
            "cleo": {"node": {"resolved_packets": 58}},
            "lb": {"interfaces": {"lb-eth0": {"rx_packets": 580}}},
        },
    }
    return RunRecord({**data, **more})


def test_balance_is_that_of_the_time_before_the_join_over_that_of_chance() -> None:
    record = run("round-robin")
    counts = [4 + 16, 4, 4, 4]
    expected = sum(counts) ** 2 / (4 * sum(count**2 for count in counts)) * (sum(counts) + 3) / sum(counts)
    assert e8.balance(record) == pytest.approx(expected)
    assert e8.busiest(record) == pytest.approx(20 * 4 / 32)


def test_who_changes_although_its_replica_is_there_is_counted() -> None:
    assert e8.disruption(run("round-robin")) == pytest.approx(1.0), "of a2; a1 asked nothing right before"


def test_only_what_the_killed_replica_had_may_break() -> None:
    assert e8.broken(run("ring")) == 0
    traffic = run("ring").data["traffic"]
    worse = {**traffic, "held-a1": {"requests": [request(2.0, "d2", "ConnectionError: closed")]}}
    assert e8.broken(run("ring", traffic=worse)) == 1


def test_failures_count_before_or_after_the_death() -> None:
    traffic = {**run("ring").data["traffic"], "a1": {"requests": [request(at, None, "x") for at in (3.0, 14.5, 15.0)]}}
    record = run("ring", traffic=traffic)
    assert (e8.refused(record), e8.lost(record)) == (1, 2)


def test_work_for_each_connection_is_counted_where_it_is_done() -> None:
    made = sum(len(item["requests"]) for item in run("ring").data["traffic"].values())
    assert e8.per_connection(run("ring")) == pytest.approx(58 / made)
    assert e8.per_connection(run("nft-random")) == pytest.approx(580 / made)
