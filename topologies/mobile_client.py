"""A client with WiFi and a cellular network, and a server (slide 45): where a client moves between networks.

             +-- wifi --+     +---- dan     server
    ann -----+          r ----+
             +-- cell --+     +---- cleo    service router

wifi and cell are two access networks, each with a rate and a delay of its own towards r. ann's eth0 is at wifi
(10.1.0.1), its eth1 at cell (10.2.0.1); with --interfaces 1 it has eth0 only, which can be plugged in at the other one.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from typing import ClassVar

if "__file__" not in globals():
    # `mn --custom` runs this file by itself, and under sudo nothing else leads to the package around it.
    sys.path.append(os.path.dirname(os.path.dirname(os.path.abspath(sys._getframe().f_code.co_filename))))

from topologies.declarations import Bridge, Declared, IpRouter
from topologies.parts import PROVIDER, PROVIDER_BLOCK, bulk, impairments, web, within

CLIENTS = ("ann", "ben", "abe", "bea", "ada", "bob", "amy", "bud")
SERVER, ROUTER, SERVICE_ROUTER = "dan", "r", "cleo"
WIFI, CELL = "wifi", "cell"
SUBNETS = {WIFI: "10.1.0", CELL: "10.2.0"}


class MobileClient(Declared):
    """Clients at two access networks, a plain IP router, a server. Rates in Mbit/s, delays one way."""

    summary: ClassVar[str] = "a client with WiFi and a cellular network, and a server (slide 45)"
    parameters: ClassVar[Mapping[str, str]] = {
        "hosts": f"clients, 1 to {len(CLIENTS)} (1)",
        "interfaces": "2: one at each network; 1: one, at wifi first (2)",
        "wifi_rate": "rate of the WiFi network, Mbit/s (50)",
        "wifi_delay": "its one-way delay (5ms)",
        "wifi_loss": "loss on it, percent (0)",
        "cell_rate": "rate of the cellular network, Mbit/s (20)",
        "cell_delay": "its one-way delay (25ms)",
        "cell_loss": "loss on it, percent (0)",
        "rate": "rate of the links of the server and the service router, Mbit/s (100)",
    }

    def build(
        self,
        hosts: int = 1,
        interfaces: int = 2,
        wifi_rate: float = 50,
        wifi_delay: str = "5ms",
        wifi_loss: float = 0,
        cell_rate: float = 20,
        cell_delay: str = "25ms",
        cell_loss: float = 0,
        rate: float = 100,
    ) -> None:
        networks = [WIFI, CELL][: within("interfaces", interfaces, 1, 2)]
        self.addHost(ROUTER, cls=IpRouter, ip=None)
        self._add_network(WIFI, 1, bw=float(wifi_rate), **impairments(wifi_delay, wifi_loss))
        self._add_network(CELL, 2, bw=float(cell_rate), **impairments(cell_delay, cell_loss))
        for number, name in enumerate(CLIENTS[: within("hosts", hosts, 1, len(CLIENTS))], 1):
            self.addHost(name, ip=None, defaultRoute=f"via {SUBNETS[WIFI]}.254", serval={"role": "host"})
            for network in networks:
                subnet = SUBNETS[network]
                self.addLink(name, network, params1={"ip": f"{subnet}.{number}/24", "gateway": f"{subnet}.254"})
        self._add_fixed(SERVER, "10.3.0", {"role": "host"}, bw=float(rate))
        self._add_fixed(SERVICE_ROUTER, "10.4.0", {"role": "router", "serves": [PROVIDER]}, bw=float(rate))
        self.providers = {PROVIDER: PROVIDER_BLOCK}
        self.services = [web(SERVER), bulk(SERVER)]

    def _add_network(self, name: str, number: int, **link: object) -> None:
        self.addSwitch(name, cls=Bridge, dpid=str(number))
        self.addLink(name, ROUTER, params2={"ip": f"{SUBNETS[name]}.254/24"}, **link)

    def _add_fixed(self, name: str, subnet: str, serval: Mapping[str, object], **link: object) -> None:
        self.addHost(name, ip=f"{subnet}.1/24", defaultRoute=f"via {subnet}.254", serval=dict(serval))
        self.addLink(name, ROUTER, params2={"ip": f"{subnet}.254/24"}, **link)


topos = {"mobile-client": MobileClient}
