"""Links of a topology and changes to them, refused before anything is started."""

from __future__ import annotations

from typing import Any

import pytest
from mininet.topo import Topo

from testbed.errors import TestbedError
from testbed.link.emulated import needs_relay
from testbed.link.planned import check_change, check_links
from testbed.link.shape import Shape


def topo(**options: Any) -> Topo:
    made = Topo()
    for name in ("ann", "r1", "r2"):
        made.addHost(name)
    made.addLink("ann", "r1", bw=100)
    made.addLink("r1", "r2", **options)
    return made


def test_links_that_make_sense_are_accepted() -> None:
    check_links(topo(bw=10, delay="5ms", jitter="1ms", loss=1, max_queue_size=50, params1={"bw": 5}))


@pytest.mark.parametrize(
    "wrong", [{"bw": 0}, {"delay": "5"}, {"loss": 101}, {"delay": "1ms", "jitter": "2ms"}, {"params2": {"bw": -1}}]
)
def test_a_link_that_makes_none_is_named(wrong: dict[str, Any]) -> None:
    with pytest.raises(TestbedError, match="link r1-r2: "):
        check_links(topo(**wrong))


def test_changes_that_can_be_made_are_accepted() -> None:
    check_change(topo(), "r1", "ann", rate=10, queue=20)
    check_change(topo(delay="5ms"), "r2", "r1", towards="r1", delay=0.02, jitter="1ms", loss=1, hole=True)
    check_change(topo(impairable=True), "r1", "r2", hole=True)


@pytest.mark.parametrize(
    ("ends", "changes", "reason"),
    [
        (("ann", "r2"), {"rate": 10}, "no link between ann and r2; there are: ann-r1, r1-r2"),
        (("ann", "nobody"), {"rate": 10}, "no link between"),
        (("ann", "r1"), {"rate": 0}, "link ann-r1: a link's rate must be"),
        (("ann", "r1"), {"delay": "5 minutes"}, "is no delay"),
        (("ann", "r1"), {"delay": -1}, "delay must be"),
        (("r1", "r2"), {"loss": 101}, "loss must be"),
        (("r1", "r2"), {"jitter": 0.02}, "jitter must be from 0 to its delay"),
        (("r1", "r2"), {"hole": True, "towards": "ann"}, "does not end at 'ann'"),
        (("r1", "r2"), {"speed": 10}, "unexpected keyword argument 'speed'; what can be changed: rate, delay"),
        (("ann", "r1"), {"hole": True}, "link ann-r1 has no relay.*\n.*impairable=True"),
        (("ann", "r1"), {"delay": 0.01}, "has no relay"),
    ],
)
def test_other_changes_are_refused(ends: tuple[str, str], changes: dict[str, Any], reason: str) -> None:
    with pytest.raises(TestbedError, match=f"(?s){reason}"):
        check_change(topo(delay="5ms"), *ends, **changes)


@pytest.mark.parametrize(
    ("shape", "netem", "without"),
    [
        (Shape(rate=10), False, False),
        (Shape(delay=0.01), False, True),
        (Shape(delay=0.01), True, False),
        (Shape(delay=0.01, jitter=0.001), True, True),
        (Shape(delay=0.01, jitter=0.001, reorder=True), True, False),
        (Shape(hole=True), True, False),
    ],
)
def test_a_relay_is_there_for_what_the_kernel_cannot_do(shape: Shape, netem: bool, without: bool) -> None:
    assert needs_relay([Shape(), shape], impairable=False, netem=netem) is without
    assert needs_relay([shape], impairable=True, netem=netem)
