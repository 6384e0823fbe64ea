"""A client with two access networks, running: a verified stream lives while its networks go and come."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from testbed import hosts, nodes
from testbed.errors import TestbedError
from testbed.experiment.actions import BlackHole, CarrierLost, LinkDown, LinkUp
from testbed.mobility import replug
from testbed.network import ServalNetwork
from testbed.streaming import streaming
from tests.emulation.doing import RATE, Doing, whole
from topologies.mobile_client import MobileClient

WIFI, CELL = "10.1.0.1", "10.2.0.1"


@pytest.fixture(scope="module")
def mobile() -> Iterator[ServalNetwork]:
    net = ServalNetwork(MobileClient(wifi_delay="2ms", cell_delay="4ms"))
    net.start()
    try:
        yield net
    finally:
        assert net.stop()


def test_what_leaves_from_an_address_goes_by_its_own_interface(mobile: ServalNetwork) -> None:
    for address, interface, gateway in ((WIFI, "ann-eth0", "10.1.0.254"), (CELL, "ann-eth1", "10.2.0.254")):
        shown = hosts.run(mobile.find("ann"), ["ip", "route", "get", "10.3.0.1", "from", address])
        assert f"via {gateway} dev {interface}" in shown
        hosts.run(mobile.find("ann"), ["ping", "-n", "-q", "-c", "1", "-W", "3", "-I", address, "10.3.0.1"])


@pytest.mark.statement("E1")
@pytest.mark.statement("S12")
def test_a_stream_lives_while_its_clients_networks_go_and_come(mobile: ServalNetwork) -> None:
    doing = Doing(mobile)
    with streaming(mobile, "ann", "dan", rate=RATE) as stream:
        flow = stream.flow("ann")["flow_id"]
        assert stream.place("ann") == WIFI
        for cut, mended in (
            (LinkDown("ann", "eth0"), LinkUp("ann", "eth0")),
            (CarrierLost("ann", "eth0"), LinkUp("ann", "eth0")),
            (BlackHole("wifi", "r"), BlackHole("wifi", "r", on=False)),
        ):
            doing.do(cut)
            stream.wait_place("ann", CELL)
            doing.do(mended)
            if not isinstance(cut, LinkDown):  # only what took routes away brings a flow back with them
                nodes.ask(mobile.serval_host("ann"), "migrate", flow_id=flow, to="ann-eth0")
            stream.wait_place("ann", WIFI)
        assert stream.flow("ann")["flow_id"] == flow
        whole(stream)
    routes = hosts.run(mobile.find("ann"), ["ip", "route", "show", "table", "101"])
    assert "default via 10.1.0.254" in routes, "a link that comes up gets the routes of its table back too"


def test_an_interface_at_a_router_cannot_be_plugged_in_elsewhere(mobile: ServalNetwork) -> None:
    with pytest.raises(TestbedError, match="dan-eth0 cannot be moved: at its other end is r"):
        replug.find(mobile, "dan", "dan-eth0")
    with pytest.raises(TestbedError, match="no network 'wire' to plug in at; there are: cell, wifi"):
        replug.bridge(mobile, "wire")
