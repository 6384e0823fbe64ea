"""A calibration says what a path does, and marks what it does not."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from testbed.calibration import MISSED, OK, Calibration, calibrate
from testbed.errors import TestbedError
from testbed.network import ServalNetwork
from topologies.declarations import Declared


class Two(Declared):
    """Two plain hosts and a link."""

    has_controller = False

    def build(self) -> None:
        for number, name in enumerate(("ann", "dan"), 1):
            self.addHost(name, ip=f"10.8.0.{number}/24")
        self.addLink("ann", "dan", bw=20, delay="10ms", loss=3, params2={"loss": 0})


@pytest.fixture(scope="module")
def net() -> Iterator[ServalNetwork]:
    made = ServalNetwork(Two(), seed=4)
    made.start()
    yield made
    made.stop()


def found(measured: Calibration) -> dict[str, tuple[str, float]]:
    return {quantity.name: (quantity.verdict, quantity.achieved) for quantity in measured.quantities}


def test_what_is_asked_is_measured_one_way(net: ServalNetwork) -> None:
    net.link_between("ann", "dan").change(delay="40ms", towards="ann")
    there = found(calibrate(net, [("ann", "dan")])[0])
    assert there["loss"][0] == OK and 0.5 < there["loss"][1] < 6
    # How late a busy machine is, is its own affair; too early is the relay's.
    assert 9.8 <= there["delay"][1] < 25
    assert 10 < there["rate"][1] <= 20 * 1448 / 1490 * 1.02


def test_what_a_link_does_not_do_is_marked(net: ServalNetwork) -> None:
    link = net.link_between("ann", "dan")
    assert link.relay is not None
    link.relay.request("set", direction=1, delay=0.10)  # behind the link's back, which has 40 ms
    back = found(calibrate(net, [("dan", "ann")])[0])
    assert (back["delay"][0], back["loss"]) == (MISSED, (OK, 0))
    assert back["delay"][1] >= 99.8
    link.relay.request("set", direction=1, delay=0.0, loss=100.0)
    with pytest.raises(TestbedError, match="nothing of .* probes from dan came in at ann"):
        calibrate(net, [("dan", "ann")])
