"""The replicas' topology: as many of each as asked for, and one service on the first."""

from __future__ import annotations

import pytest

from topologies.declarations import TopologyError
from topologies.replicas import BALANCER, REQUESTS, SERVICE, Replicas


def test_it_has_what_was_asked_for() -> None:
    found = Replicas(clients=3, replicas=2, spares=1)
    assert set(found.hosts()) == {"a1", "a2", "a3", "cleo", BALANCER, "d1", "d2", "e1", "r1"}
    assert found.service_routers() == ["cleo"]
    assert BALANCER not in found.serval_nodes() and "e1" in found.serval_nodes()
    assert next(item for item in found.services if item.name == SERVICE).hosts == ("d1", "d2")
    addresses = [found.nodeInfo(name).get("ip") for name in found.hosts()]
    assert len(set(addresses)) == len(addresses)
    (service,) = Replicas(serve=REQUESTS).services
    assert service.command[-2:] == ("testbed.traffic.responder", "80")


def test_only_the_clients_links_are_delayed() -> None:
    delayed = {tuple(sorted(ends[:2])) for *ends, info in Replicas(delay="3ms").links(withInfo=True) if "delay" in info}
    assert delayed == {(f"a{number}", "s1") for number in range(1, 5)}
    assert not any("delay" in info for _, _, info in Replicas(delay="0").links(withInfo=True))


@pytest.mark.parametrize(
    ("options", "says"),
    [({"replicas": 0}, "replicas must be"), ({"clients": 1.5}, "clients must be"), ({"serve": "tea"}, "serve is")],
)
def test_what_makes_no_sense_is_refused(options: dict[str, object], says: str) -> None:
    with pytest.raises(TopologyError, match=says):
        Replicas(**options)
