"""What both forms of VM migration have in common."""

from __future__ import annotations

import json

import pytest

from testbed.errors import TestbedError
from testbed.vm_migration import REAL, MoveRecord, check_place


def record(**moments: float) -> MoveRecord:
    return MoveRecord(REAL, "h1", "h2", "10.1.0.10", "10.2.0.10", ordered=10.0, stopped=11.0, resumed=11.25, **moments)


def test_parts_lie_between_moments() -> None:
    whole = record(asked=11.5, answered=11.625, data=12.0)
    assert whole.parts() == {"copy": 1.0, "standstill": 0.25, "address": 0.25, "signal": 0.125, "recover": 0.375}


def test_what_was_not_seen_is_no_part() -> None:
    assert set(record().parts()) == {"copy", "standstill"}
    assert set(record(asked=11.5, data=12.0).parts()) == {"copy", "standstill", "address"}


def test_a_record_is_plain_json() -> None:
    told = json.loads(json.dumps(record(asked=11.5).to_json()))
    assert told["form"] == "real" and told["parts"]["address"] == 0.25 and told["answered"] is None


def test_a_place_is_an_address_with_its_gateway() -> None:
    interface, gateway = check_place("10.2.0.10/24", "10.2.0.254")
    assert (str(interface), str(gateway)) == ("10.2.0.10/24", "10.2.0.254")


@pytest.mark.parametrize(
    ("address", "gateway", "said"),
    [
        ("10.2.0.10", "10.2.0.254", "needs the length"),
        ("10.2.0.10/32", "10.2.0.10", "needs the length"),
        ("10.2.0.10/24", "10.1.0.254", "not in the subnet 10.2.0.0/24"),
        ("10.2.0.10/24", "10.2.0.10", "own address"),
        ("10.2.0.300/24", "10.2.0.1", "no place for a VM"),
    ],
)
def test_a_place_that_makes_no_sense_is_refused(address: str, gateway: str, said: str) -> None:
    with pytest.raises(TestbedError, match=said):
        check_place(address, gateway)
