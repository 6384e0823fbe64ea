"""Addresses that contradict each other are refused, and the places named."""

from __future__ import annotations

import pytest

from topologies.declarations import Bridge, Declared, IpRouter, TopologyError


class Wires(Declared):
    """ann and dan at a router, ann a second time at a bridge with eve."""

    def build(
        self,
        ann: str | None = "10.1.0.1/24",
        router: str = "10.1.0.254/24",
        dan: str | None = "10.2.0.1/24",
        second: dict[str, str] | None = None,
        eve: str | None = "10.3.0.2/24",
        route: str | None = "via 10.2.0.254",
    ) -> None:
        for name, address in (("ann", ann), ("eve", eve)):
            self.addHost(name, ip=address)
        self.addHost("dan", ip=dan, defaultRoute=route)
        self.addHost("r", cls=IpRouter, ip=None)
        self.addSwitch("b1", cls=Bridge)
        self.addSwitch("b2", cls=Bridge)
        self.addLink("ann", "r", params2={"ip": router})
        self.addLink("dan", "r", params2={"ip": "10.2.0.254/24"})
        self.addLink("ann", "b1", params1=second or {"ip": "10.3.0.1/24", "gateway": "10.3.0.254"})
        self.addLink("b1", "b2")
        self.addLink("b2", "eve")


def test_who_is_joined_by_switches_shares_a_subnet() -> None:
    Wires()


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ({"ann": "10.1.0.254/24"}, "ann-eth0 and r-eth0 have the same address 10.1.0.254"),
        ({"dan": "10.1.0.7/24"}, "are both in 10.1.0.0/24, on different wires"),
        ({"dan": "10.1.0.7/16"}, "subnets overlap: 10.1.0.0/24 of ann-eth0 and 10.1.0.0/16 of dan-eth0"),
        (
            {"eve": "10.3.1.2/24", "second": {"ip": "10.3.0.1/16"}},
            "subnets overlap: 10.3.0.0/16 of ann-eth1 and 10.3.1",
        ),
        ({"second": {"ip": "10.3.0.1/24", "gateway": "10.4.0.254"}}, "ann-eth1: its gateway 10.4.0.254 is not in"),
        ({"second": {"ip": "10.3.0.1/24", "gateway": "away"}}, "ann-eth1: 'away' is no gateway's address"),
        ({"route": "via 10.9.0.254"}, "dan: its gateway 10.9.0.254 is not in its subnet 10.2.0.0/24"),
        ({"route": "via away"}, "dan: 'away' is no gateway's address"),
        ({"second": {"ip": "10.3.0.1"}}, "'10.3.0.1' is no address with its prefix length"),
        ({"ann": "10.1.0.300/24"}, "ann-eth0: '10.1.0.300/24' is no address"),
    ],
)
def test_addresses_that_contradict_each_other_are_refused(wrong: dict[str, object], words: str) -> None:
    with pytest.raises(TopologyError, match=words):
        Wires(**wrong)
