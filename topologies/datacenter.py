"""The slides' figure: clients in the Internet, plain IP routers, a datacenter with a service router and racks.

    ann --+                                       +-- cleo             service router (the slides' c)
          s1 ---- r1 ======== r2 ---- s2 ---------+-- s3 -- dan, eve   rack 1 (the slides' d and e)
    ben --+    Internet | datacenter  spine       +-- s4 -- fay, gus   rack 2
                    WAN delay

Addresses: clients 10.1.0.N/16, WAN link 10.0.0.0/30, datacenter 10.2.0.0/16 (cleo 10.2.0.1, host J of rack I 10.2.I.J).
The initials are the slides' letters; full names, because Mininet's prompt replaces each word that is a node's name by
its address.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Mapping
from typing import ClassVar

if "__file__" not in globals():
    # `mn --custom` runs this file by itself, and under sudo nothing else leads to the package around it.
    sys.path.append(os.path.dirname(os.path.dirname(os.path.abspath(sys._getframe().f_code.co_filename))))

from topologies.declarations import Declared, IpRouter
from topologies.parts import PROVIDER, PROVIDER_BLOCK, bulk, impairments, web, within

CLIENT_NAMES = ("ann", "ben", "abe", "bea", "ada", "bob")
ROUTER_NAME = "cleo"
INSTANCE_NAMES = (
    "dan", "eve", "fay", "gus", "hal", "ida", "jon", "kim", "leo", "mia", "ned", "ona", "pam", "quin", "ros", "sam"
)  # fmt: skip
INTERNET_GATEWAY, DATACENTER_GATEWAY = "10.1.255.254", "10.2.255.254"
WAN_INTERNET, WAN_DATACENTER = "10.0.0.1", "10.0.0.2"
MAX_CLIENTS, MAX_RACKS, MAX_PER_RACK = 250, 100, 250


class Datacenter(Declared):
    """Clients, service router and racks. All rates in Mbit/s, delays one way in Mininet's notation."""

    summary: ClassVar[str] = "clients, two IP routers, a service router and racks of instances (the slides' figure)"
    parameters: ClassVar[Mapping[str, str]] = {
        "racks": "racks in the datacenter (2)",
        "hosts": "hosts per rack (2)",
        "clients": "clients in the Internet (2)",
        "spines": "switches that join the racks; two or more make loops, which the fabric has to break (1)",
        "rate": "rate of every link, Mbit/s (100)",
        "wan_rate": "rate of the link between the routers, Mbit/s (as rate)",
        "delay": "one-way delay of the link between the routers (5ms; 0 for none)",
        "loss": "loss on that link, percent (0)",
    }

    def build(
        self,
        racks: int = 2,
        hosts: int = 2,
        clients: int = 2,
        spines: int = 1,
        rate: float = 100,
        wan_rate: float | None = None,
        delay: str = "5ms",
        loss: float = 0,
    ) -> None:
        racks, hosts, clients, spines = (
            within(name, value, 1, limit)
            for name, value, limit in (
                ("racks", racks, MAX_RACKS),
                ("hosts", hosts, MAX_PER_RACK),
                ("clients", clients, MAX_CLIENTS),
                ("spines", spines, 4),
            )
        )
        self._link = {"bw": float(rate)}
        self._switch_count = 0
        names = _names(clients, racks * hosts)
        self._build_internet([next(names) for _ in range(clients)])
        self._build_wan(float(rate if wan_rate is None else wan_rate), delay, float(loss))
        instances = self._build_datacenter(names, racks, hosts, spines)
        self.providers = {PROVIDER: PROVIDER_BLOCK}
        self.services = [web(*instances), bulk(instances[-1])]

    def _build_internet(self, clients: list[str]) -> None:
        access = self._add_switch()
        self.addHost("r1", cls=IpRouter, ip=None, routes=[("10.2.0.0/16", WAN_DATACENTER)])
        self.addLink(access, "r1", params2={"ip": f"{INTERNET_GATEWAY}/16"}, **self._link)
        for number, name in enumerate(clients, 1):
            self._add_serval(name, f"10.1.0.{number}", INTERNET_GATEWAY, access, {"role": "host"})

    def _build_wan(self, rate: float, delay: str, loss: float) -> None:
        self.addHost("r2", cls=IpRouter, ip=None, routes=[("10.1.0.0/16", WAN_INTERNET)])
        ends = {"params1": {"ip": f"{WAN_INTERNET}/30"}, "params2": {"ip": f"{WAN_DATACENTER}/30"}}
        self.addLink("r1", "r2", bw=rate, **impairments(delay, loss), **ends)

    def _build_datacenter(self, names: Iterator[str], racks: int, hosts: int, spines: int) -> list[str]:
        spine = [self._add_switch() for _ in range(spines)]
        self.addLink(spine[0], "r2", params2={"ip": f"{DATACENTER_GATEWAY}/16"}, **self._link)
        role = {"role": "router", "serves": [PROVIDER]}
        self._add_serval(next(names), "10.2.0.1", DATACENTER_GATEWAY, spine[0], role)
        instances = []
        for rack in range(1, racks + 1):
            top = self._add_switch()
            for switch in spine:
                self.addLink(switch, top, **self._link)
            for number in range(1, hosts + 1):
                name = next(names)
                self._add_serval(name, f"10.2.{rack}.{number}", DATACENTER_GATEWAY, top, {"role": "host"})
                instances.append(name)
        return instances

    def _add_switch(self) -> str:
        self._switch_count += 1
        return str(self.addSwitch(f"s{self._switch_count}"))

    def _add_serval(self, name: str, address: str, gateway: str, switch: str, serval: Mapping[str, object]) -> None:
        self.addHost(name, ip=f"{address}/16", defaultRoute=f"via {gateway}", serval=dict(serval))
        self.addLink(name, switch, **self._link)


def _names(clients: int, instances: int) -> Iterator[str]:
    """Names in order: clients, service router, instances. Beyond the lists a host is h and its number in this order."""
    for number in range(clients):
        yield CLIENT_NAMES[number] if number < len(CLIENT_NAMES) else f"h{number + 1}"
    yield ROUTER_NAME
    for number in range(instances):
        yield INSTANCE_NAMES[number] if number < len(INSTANCE_NAMES) else f"h{clients + 1 + number + 1}"


topos = {"datacenter": Datacenter}
