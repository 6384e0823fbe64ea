"""The datacenter topology as data: names, addresses, declarations, and what it refuses."""

from __future__ import annotations

from ipaddress import ip_interface

import pytest

from topologies import TOPOLOGIES, find
from topologies.datacenter import Datacenter, topos
from topologies.declarations import Declared, IpRouter, Service, TopologyError


def links_of(topo: Declared, name: str) -> set[str]:
    return {second if first == name else first for first, second in topo.links() if name in (first, second)}


def test_default_network_is_the_slides_figure() -> None:
    topo = Datacenter()
    assert list(topo.serval_nodes()) == ["ann", "ben", "cleo", "dan", "eve", "fay", "gus"]
    assert topo.service_routers() == ["cleo"]
    assert topo.serval_nodes()["cleo"]["serves"] == ["example"]
    assert [name for name in topo.hosts() if name not in topo.serval_nodes()] == ["r1", "r2"]
    assert links_of(topo, "ann") == links_of(topo, "ben") == {"s1"}
    assert links_of(topo, "r1") == {"s1", "r2"}


def test_the_way_from_clients_to_instances_leads_over_two_plain_ip_routers() -> None:
    topo = Datacenter()
    for name in ("r1", "r2"):
        assert topo.nodeInfo(name)["cls"] is IpRouter
        assert "serval" not in topo.nodeInfo(name)
    reached, waiting = {"ann"}, ["ann"]
    while waiting:
        for neighbour in links_of(topo, waiting.pop()) - reached - {"r1", "r2"}:
            reached.add(neighbour)
            waiting.append(neighbour)
    assert reached == {"ann", "ben", "s1"}


def test_every_link_has_a_rate_and_only_the_wan_a_delay() -> None:
    topo = Datacenter(rate=50, wan_rate=20, delay="7ms", loss=1)
    for first, second, options in topo.links(withInfo=True):
        wan = {first, second} == {"r1", "r2"}
        assert options["bw"] == (20 if wan else 50)
        assert (options.get("delay"), options.get("loss")) == (("7ms", 1) if wan else (None, None))


def test_without_delay_no_link_is_impaired() -> None:
    for delay in ("0", "0ms"):
        topo = Datacenter(delay=delay)
        assert not [link for link in topo.links(withInfo=True) if "delay" in link[2] or "loss" in link[2]]


@pytest.mark.parametrize(("racks", "hosts", "clients"), [(1, 1, 1), (3, 4, 5), (5, 5, 9)])
def test_addresses_are_unique_and_on_their_gateways_network(racks: int, hosts: int, clients: int) -> None:
    topo = Datacenter(racks=racks, hosts=hosts, clients=clients)
    assert len(topo.serval_nodes()) == racks * hosts + clients + 1
    interfaces = {name: ip_interface(topo.nodeInfo(name)["ip"]) for name in topo.serval_nodes()}
    assert len({interface.ip for interface in interfaces.values()}) == len(interfaces)
    for name, interface in interfaces.items():
        gateway = topo.nodeInfo(name)["defaultRoute"].split()[1]
        assert ip_interface(f"{gateway}/16").network == interface.network


def test_hosts_beyond_the_list_of_names_are_numbered() -> None:
    names = list(Datacenter(racks=4, hosts=5).serval_nodes())
    assert "sam" in names
    assert {"h20", "h21", "h22", "h23"} <= set(names)
    assert len(set(names)) == 23


def test_names_fit_interface_names() -> None:
    for name in Datacenter(racks=10, hosts=10, clients=20).hosts():
        assert len(f"{name}-eth10") <= 15


def test_services_are_declared_as_data() -> None:
    topo = Datacenter()
    web, bulk = topo.services
    assert (web.name, web.hosts) == ("web.example", ("dan", "eve", "fay", "gus"))
    assert (bulk.name, bulk.hosts) == ("bulk.example", ("gus",))
    assert "{host}" in web.page
    assert topo.providers.keys() == {"example"}


def test_more_spines_make_loops() -> None:
    topo = Datacenter(spines=2)
    switch_links = [link for link in topo.links() if all(topo.isSwitch(end) for end in link)]
    assert len(switch_links) == 4  # two racks, each at both spines


@pytest.mark.parametrize("wrong", [{"racks": 0}, {"hosts": 0}, {"clients": 251}, {"spines": 5}, {"racks": "two"}])
def test_counts_out_of_range_are_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(TopologyError, match=next(iter(wrong))):
        Datacenter(**wrong)


def test_an_unknown_topology_is_answered_by_the_known_ones() -> None:
    assert find("datacenter") is Datacenter
    with pytest.raises(TopologyError, match=r"'datacentre'.*datacenter"):
        find("datacentre")


def test_registered_topologies_are_loadable_by_mn_custom() -> None:
    assert topos == {name: TOPOLOGIES[name] for name in topos}


class OneHost(Declared):
    """The smallest network that a declaration can be wrong in."""

    def build(self, providers: dict[str, int], services: list[Service], serval: dict[str, object]) -> None:
        self.addHost("ann", serval=serval)
        self.providers, self.services = providers, services


@pytest.mark.parametrize(
    ("providers", "service", "serval", "complaint"),
    [
        ({"x": 0x99}, None, {"role": "host"}, "0x99"),
        ({"x": 1 << 24}, None, {"role": "host"}, "0x1000000"),
        ({"x": 0x1234, "y": 0x1234}, None, {"role": "host"}, "x and y"),
        ({"Bad!": 0x1234}, None, {"role": "host"}, "Bad!"),
        ({}, Service("web.example", ("ann",), ("true",)), {"role": "host"}, "'example' is not declared"),
        ({"example": 0x1234}, Service("web", ("ann",), ("true",)), {"role": "host"}, "'web'"),
        ({"example": 0x1234}, Service("web.example", ("bob",), ("true",)), {"role": "host"}, "'bob'"),
        ({"example": 0x1234}, Service("web.example", ("ann",), ()), {"role": "host"}, "command"),
        ({}, None, {"role": "king"}, "'king'"),
        ({}, None, {"role": "router", "serves": ["example"]}, "'example'"),
    ],
)
def test_contradicting_declarations_are_refused(
    providers: dict[str, int], service: Service | None, serval: dict[str, object], complaint: str
) -> None:
    with pytest.raises(TopologyError, match=complaint):
        OneHost(providers=providers, services=[service] if service else [], serval=serval)
