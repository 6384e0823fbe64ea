"""The bed of the handover benchmark: each event happens, and is seen, for each contestant. No figure is asked for."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from experiments.benchmarks import handover
from experiments.benchmarks.handover import Handover
from testbed import hosts
from testbed.measure.plan import Settings

PARAMETERS = {"rtt_ms": 4, "direction": "down", "rate": 10.0}


@pytest.fixture(scope="module")
def bed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Handover]:
    logs: Path = tmp_path_factory.mktemp("handover")
    with handover.bed(PARAMETERS, Settings(seed=1, logs=logs)) as bed:
        yield bed


CAUSES = {"told": "by hand", "down": "link down", "carrier": "link down", "hole": "no answer on this path"}


@pytest.mark.parametrize("event", CAUSES)
def test_a_run_of_serval_has_its_gap_and_its_account(bed: Handover, event: str) -> None:
    reading = bed.measure(f"serval:{event}")
    (account,) = reading.facts["blackouts"]
    assert (account["source"], account["target"]) == ("10.60.0.1", "10.61.0.1")
    assert account["cause"] == CAUSES[event]
    assert {"gap", "begin", "detect", "decide", "signal", "recover"} <= set(reading.metrics)
    assert 0 < reading.metrics["gap"] <= handover.LIMIT


@pytest.mark.parametrize("variant", ["mptcp:told", "mptcp-tuned:hole"])
def test_a_run_of_mptcp_has_its_gap(bed: Handover, variant: str) -> None:
    missing = handover.mptcp_missing()
    if missing is not None:
        pytest.skip(missing)
    assert 0 < bed.measure(variant).metrics["gap"] <= handover.LIMIT
    shown = hosts.run(bed._network.client, ["ip", "mptcp", "endpoint", "show"])
    backups = [line.split()[0] for line in shown.splitlines() if "backup" in line]
    assert backups == (["10.60.0.1"] if variant == "mptcp:told" else ["10.61.0.1"])


def test_each_run_begins_on_the_first_path_whatever_happened_before(bed: Handover) -> None:
    reading = bed.measure("serval:none")
    assert reading.metrics["gap"] < handover.LIMIT
    assert reading.metrics["moves"] == len(reading.facts["blackouts"])
