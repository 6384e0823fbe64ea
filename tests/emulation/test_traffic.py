"""Traffic of experiments in a running network: over Serval and its rivals, and while a path goes."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from testbed import hosts
from testbed.experiment.specification import (
    MPTCP_TUNED,
    SERVAL,
    SERVAL_UDP,
    TCP,
    TCP_RECONNECT,
    transport_obstacle,
)
from testbed.experiment.traffic import DOWN, UP, Bulk, Requests, Stream
from testbed.network import ServalNetwork
from testbed.traffic import transports
from tests.emulation.two_paths import finished, flowing, restore, two_paths

RATE = 8.0


@pytest.fixture(scope="module")
def network() -> Iterator[ServalNetwork]:
    with two_paths() as running:
        yield running


def stream(name: str, **options: Any) -> Stream:
    return Stream(name=name, source="ann", target="dan", service=f"{name}.example", rate=RATE, **options)


@pytest.mark.parametrize("transport", [SERVAL, TCP])
def test_streams_and_requests_flow_and_are_whole(network: ServalNetwork, tmp_path: Path, transport: str) -> None:
    items = [
        stream("down"),
        stream("up", direction=UP),
        Requests(name="web", source="ann", target="dan", service="web.example", rate=40.0, size=300_000),
        Requests(name="held", source="ann", target="dan", service="held.example", rate=10.0, hold=30.0),
        Bulk(name="bulk", source="ann", target="dan", service="bulk.example"),
    ]
    with flowing(network, tmp_path, *items, transport=transport, seconds=0.6) as run:
        record = finished(run)
    for name in ("down", "up"):
        flow = record[name]
        assert (flow["intact"], flow["broken"], flow["congestion_control"]) == (True, None, hosts.CONGESTION_CONTROL)
        assert len(flow["sent"]) == len(flow["received"]) == 60
        assert 0 < sum(flow["received"]) <= flow["bytes"]
        assert [one["ok"] for one in flow["connects"]] == [True]
    for name in ("web", "held"):
        requests = record[name]["requests"]
        assert requests and {(one["instance"], one["error"]) for one in requests} == {("dan", None)}
        assert all(0 < one["connect"] < one["seconds"] for one in requests)
    assert record["bulk"]["broken"] is None and sum(record["bulk"]["received"]) > 0
    assert record["bulk"]["iperf3"]["client"]["intervals"] and record["bulk"]["iperf3"]["server"]["intervals"]
    assert run.facts[transports.FACT]["congestion_control"] == hosts.CONGESTION_CONTROL


@pytest.mark.statement("S6")
@pytest.mark.parametrize(
    ("transport", "direction"),
    [(TCP, DOWN), (TCP_RECONNECT, DOWN), (TCP_RECONNECT, UP), (SERVAL_UDP, DOWN), (SERVAL, UP), (MPTCP_TUNED, UP)],
)
def test_what_becomes_of_a_stream_whose_interface_goes(
    network: ServalNetwork, tmp_path: Path, transport: str, direction: str
) -> None:
    missing = transport_obstacle(transport)
    if missing is not None:
        pytest.skip(missing)
    item = stream(f"flow-{transport}-{direction}", direction=direction)
    options = {"patience": 0.3, "reconnect": 0.2}
    try:
        with flowing(network, tmp_path, item, transport=transport, seconds=1.1, **options) as run:
            before = run.traffic[item.name].received()
            hosts.script(network.find("ann"), ["ip link set ann-eth0 down"])
            went = run.now()
            (flow,) = finished(run).values()
    finally:
        restore(network)
    assert flow["intact"] and before > 0
    if transport == TCP:
        assert flow["broken"] is not None and flow["broken"]["at"] < went + 0.2
        assert sum(flow["received"][-30:]) == 0
        assert run.events == [f"{item.name} is broken"]
        return
    assert flow["broken"] is None
    assert sum(flow["received"][-20:]) > 0
    again = 1 if transport == TCP_RECONNECT else 0
    assert len([one for one in flow["connects"] if one["ok"]]) == 1 + again
    assert run.events == [f"{item.name} has connected anew"] * again


def test_a_stream_starts_where_it_is_told_and_knows_its_port(network: ServalNetwork, tmp_path: Path) -> None:
    for transport in (SERVAL, TCP):
        item = stream(f"placed-{transport}", address="eth1")
        counters = Path("/sys/class/net/ann-eth1/statistics/rx_bytes")
        before = int(hosts.run(network.find("ann"), ["cat", str(counters)]))
        with flowing(network, tmp_path, item, transport=transport, seconds=0.3) as run:
            port = run.traffic[item.name].port()
            assert port is not None
            assert f":{port} " in hosts.run(network.find("ann"), ["ss", "-tnH"]) + " "
            time.sleep(0.05)
            (flow,) = finished(run).values()
        after = int(hosts.run(network.find("ann"), ["cat", str(counters)]))
        assert after - before > flow["bytes"] * 0.7
