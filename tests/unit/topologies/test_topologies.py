"""What all topologies must hold, and what those for hosts that move have."""

from __future__ import annotations

import ipaddress
import sys
from typing import Any

import pytest

from testbed.mobility.multihoming import Home, routes
from topologies import TOPOLOGIES
from topologies.declarations import Bridge, Declared, TopologyError
from topologies.mobile_client import MobileClient
from topologies.multihomed_server import MultihomedServer
from topologies.subnets import Place, places_of
from topologies.vm_migration import VmMigration

EVERY = [(name, {}) for name in TOPOLOGIES] + [
    ("multihomed-server", {"hosts": 8}),
    ("mobile-client", {"hosts": 3, "interfaces": 1}),
    ("vm-migration", {"hosts": 4}),
    ("vm-migration", {"light": 0}),
]


def next_hop(topo: Declared, name: str, own: list[Place], to: ipaddress.IPv4Address) -> str | None:
    """What the host's main routing table says, declared routes first: they are longer than the default."""
    if any(to in place.address.network for place in own):
        return str(to)
    info = topo.nodeInfo(name)
    for network, gateway in info.get("routes") or []:
        if to in ipaddress.ip_network(network):
            return str(gateway)
    if info.get("defaultRoute"):
        return str(info["defaultRoute"]).removeprefix("via ")
    return next((str(place.gateway) for place in own if place.gateway), None)


@pytest.mark.parametrize(("name", "options"), EVERY)
def test_every_host_reaches_every_other_by_ip(name: str, options: dict[str, Any]) -> None:
    topo = TOPOLOGIES[name](**options)
    places: dict[str, list[Place]] = {}
    for place in places_of(topo):
        places.setdefault(place.name.rpartition("-")[0], []).append(place)
    owners = {place.address.ip: host for host, own in places.items() for place in own}
    for source in topo.serval_nodes():
        for target in owners:
            at = source
            for _ in range(len(places)):
                if owners[target] == at:
                    break
                hop = next_hop(topo, at, places[at], target)
                assert hop is not None, f"{at} knows no way to {target}"
                at = owners[ipaddress.IPv4Address(hop)]
            assert owners[target] == at, f"{source} does not reach {target}"


@pytest.mark.parametrize("name", list(TOPOLOGIES))
def test_a_topology_says_what_its_parameters_are(name: str) -> None:
    kind = TOPOLOGIES[name]
    build = kind.build.__code__
    assert tuple(kind.parameters) == build.co_varnames[1 : build.co_argcount]
    assert kind.summary and kind().services


def links(topo: Declared, name: str) -> list[dict[str, Any]]:
    return [info for first, second, info in topo.links(withInfo=True) if name in (first, second)]


def test_the_servers_interfaces_have_a_gateway_each() -> None:
    topo = MultihomedServer(rate=10, delay="2ms")
    own = [place for place in places_of(topo) if place.name.startswith("dan-")]
    assert [(place.name, str(place.address), str(place.gateway)) for place in own] == [
        ("dan-eth0", "10.2.0.1/24", "10.2.0.254"),
        ("dan-eth1", "10.2.1.1/24", "10.2.1.254"),
    ]
    assert all(info["bw"] == 10 and "delay" not in info for info in links(topo, "dan"))
    assert all((info["bw"], info["delay"]) == (10, "2ms") for info in links(topo, "ann"))


def test_access_networks_have_rate_and_delay_and_the_clients_own_links_none() -> None:
    topo = MobileClient(wifi_rate=30, wifi_delay="3ms", cell_rate=6, cell_delay="40ms", cell_loss=1)
    to_router = {name: next(info for info in links(topo, name) if "bw" in info) for name in ("wifi", "cell")}
    assert (to_router["wifi"]["bw"], to_router["wifi"]["delay"]) == (30, "3ms")
    assert (to_router["cell"]["bw"], to_router["cell"]["delay"], to_router["cell"]["loss"]) == (6, "40ms", 1)
    assert not [info for info in links(topo, "ann") if {"bw", "delay", "loss"} & info.keys()]
    assert len(links(MobileClient(interfaces=1), "ann")) == 1
    assert all(topo.nodeInfo(name)["cls"] is Bridge for name in topo.switches())


def test_the_vm_begins_at_the_first_hosts_bridge_and_may_be_left_out() -> None:
    topo = VmMigration(memory=256, dirty=20, rate=1000)
    assert topo.nodeInfo("vic")["vm"] == {
        "on": "hal",
        "memory": 256.0,
        "dirty": 20.0,
        "rate": 1000.0,
        "standstill": 0.0,
    }
    assert [set(link) for link in topo.links() if "vic" in link] == [{"vic", "b1"}]
    bare = VmMigration(light=0)
    assert "vic" not in bare.hosts() and not bare.services


@pytest.mark.parametrize(
    ("kind", "wrong"),
    [
        (MultihomedServer, {"hosts": 0}),
        (MultihomedServer, {"hosts": 9}),
        (MobileClient, {"interfaces": 3}),
        (MobileClient, {"hosts": "many"}),
        (VmMigration, {"hosts": 1}),
        (VmMigration, {"light": 2}),
    ],
)
def test_parameters_that_make_no_network(kind: type[Declared], wrong: dict[str, Any]) -> None:
    with pytest.raises(TopologyError, match=f"{next(iter(wrong))} must be a whole number"):
        kind(**wrong)


def test_what_leaves_from_an_address_goes_by_its_own_interface() -> None:
    homes = [Home("dan-eth0", "10.2.0.1", 24, "10.2.0.254"), Home("dan-eth1", "10.2.1.1", 24, "10.2.1.254")]
    assert routes(homes) == [
        ("default", "via 10.2.0.254 dev dan-eth0"),
        ("10.2.0.0/24", "dev dan-eth0 table 101"),
        ("default", "via 10.2.0.254 dev dan-eth0 table 101"),
        ("default", "via 10.2.1.254 dev dan-eth1 metric 100"),
        ("10.2.1.0/24", "dev dan-eth1 table 102"),
        ("default", "via 10.2.1.254 dev dan-eth1 table 102"),
    ]


@pytest.mark.parametrize("name", list(TOPOLOGIES))
def test_a_file_given_to_mn_hides_nothing_of_mns_own(name: str) -> None:
    """mn takes each name of the file for its own, and these are its tables."""
    module = sys.modules[TOPOLOGIES[name].__module__]
    assert not {"HOSTS", "SWITCHES", "LINKS", "CONTROLLERS", "TOPOS", "TESTS"} & vars(module).keys()
    assert set(module.topos) == {name}
