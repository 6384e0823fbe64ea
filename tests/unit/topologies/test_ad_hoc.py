"""The ad hoc topology as data: addresses, routes, options; nothing is built."""

from __future__ import annotations

import ipaddress

import pytest

from topologies import TopologyError, find
from topologies.ad_hoc import AdHocNetwork, topos


def interfaces(topo: AdHocNetwork) -> dict[str, list[ipaddress.IPv4Interface]]:
    """Every host's addresses: the first is its option `ip`, others stand at links."""
    found = {name: [ipaddress.ip_interface(topo.nodeInfo(name)["ip"])] for name in topo.hosts()}
    for first, second, info in topo.links(withInfo=True):
        for name, key in ((first, "params1"), (second, "params2")):
            if info["node1"] != first:
                key = {"params1": "params2", "params2": "params1"}[key]
            if "ip" in info.get(key, {}):
                found[name].append(ipaddress.ip_interface(info[key]["ip"]))
    return found


def next_hop(topo: AdHocNetwork, own: list[ipaddress.IPv4Interface], name: str, to: ipaddress.IPv4Address) -> str:
    """What the host's routing table says, longest prefix first."""
    if any(to in interface.network for interface in own):
        return str(to)
    for network, gateway in topo.nodeInfo(name).get("routes") or []:
        if to in ipaddress.ip_network(network):
            return str(gateway)
    return str(topo.nodeInfo(name)["defaultRoute"]).removeprefix("via ")


@pytest.mark.parametrize("parameters", [{}, {"chain": 0}, {"chain": 1}, {"chain": 5, "instances": 4, "router": 1}])
def test_every_host_reaches_every_other_by_ip(parameters: dict[str, int]) -> None:
    topo = AdHocNetwork(**parameters)
    places = interfaces(topo)
    owners = {str(interface.ip): name for name, own in places.items() for interface in own}
    assert len(owners) == sum(len(own) for own in places.values()), "each address once"
    for source in places:
        for target in (interface.ip for own in places.values() for interface in own):
            at = source
            for _ in range(len(places)):
                if target in (interface.ip for interface in places[at]):
                    break
                assert at == source or topo.nodeInfo(at).get("ip_forward"), f"{at} forwards nothing"
                at = owners[next_hop(topo, places[at], at, target)]
            assert target in (interface.ip for interface in places[at]), f"{source} does not reach {target}"


def test_options_of_the_nodes() -> None:
    topo = AdHocNetwork(router=1, hops=5)
    nodes = topo.serval_nodes()
    assert not topo.has_controller and topo.service_routers() == ["cleo"]
    assert all(options["adhoc"] and options["adhoc_hops"] == 5 for options in nodes.values())
    assert [name for name, options in nodes.items() if options.get("adhoc_relay")] == ["dan", "eve", "fay"]
    assert [name for name, options in nodes.items() if not options["find_router"]] == ["cleo"]
    assert {service.name: service.hosts for service in topo.services} == {
        "web.example": ("ben", "cal"),
        "far.example": ("fay",),
    }
    assert find("adhoc") is topos["adhoc"] is AdHocNetwork


@pytest.mark.parametrize(
    "wrong",
    [{"instances": 0}, {"instances": 7}, {"chain": -1}, {"chain": 13}, {"hops": 0}, {"router": 2}, {"chain": "x"}],
)
def test_parameters_that_make_no_network(wrong: dict[str, int]) -> None:
    with pytest.raises(TopologyError, match=f"{next(iter(wrong))} must be a whole number"):
        AdHocNetwork(**wrong)


def test_parameters_are_those_of_build() -> None:
    names = AdHocNetwork.build.__code__.co_varnames[1 : AdHocNetwork.build.__code__.co_argcount]
    assert tuple(AdHocNetwork.parameters) == names
