"""A server with two interfaces at one router, and clients (slide 46): where flows share an interface, or do not.

    ann --+        +-- eth0 --+
          r -------+          dan      10.2.0.1 and 10.2.1.1
    ben --+        +-- eth1 --+
          |
          cleo                         service router

Each client has a link of its own to the router: 10.1.N.1/24. dan's default route leads over eth0; what leaves from the
address of eth1 leaves over eth1, by a rule of its own.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from typing import ClassVar

if "__file__" not in globals():
    # `mn --custom` runs this file by itself, and under sudo nothing else leads to the package around it.
    sys.path.append(os.path.dirname(os.path.dirname(os.path.abspath(sys._getframe().f_code.co_filename))))

from topologies.declarations import Declared, IpRouter
from topologies.parts import PROVIDER, PROVIDER_BLOCK, bulk, impairments, web, within

CLIENTS = ("ann", "ben", "abe", "bea", "ada", "bob", "amy", "bud")
SERVER, ROUTER, SERVICE_ROUTER = "dan", "r", "cleo"


class MultihomedServer(Declared):
    """Clients, a plain IP router, a server with two interfaces. Rates in Mbit/s, delays one way."""

    summary: ClassVar[str] = "a server with two interfaces at one router, and clients (slide 46)"
    parameters: ClassVar[Mapping[str, str]] = {
        "hosts": f"clients, 1 to {len(CLIENTS)} (2)",
        "rate": "rate of each link of a client and of the server, Mbit/s (100)",
        "delay": "one-way delay of each client's link (0 for none, which is the default)",
        "loss": "loss on each client's link, percent (0)",
        "impairable": "1: delay, loss and black holes may come later too, on all links but the service router's (0)",
    }

    def build(self, hosts: int = 2, rate: float = 100, delay: str = "0", loss: float = 0, impairable: int = 0) -> None:
        self.addHost(ROUTER, cls=IpRouter, ip=None)
        for number, name in enumerate(CLIENTS[: within("hosts", hosts, 1, len(CLIENTS))], 1):
            self._add(name, f"10.1.{number}", {"role": "host"}, bw=float(rate), **impairments(delay, loss, impairable))
        self._add(SERVICE_ROUTER, "10.3.0", {"role": "router", "serves": [PROVIDER]}, bw=float(rate))
        self.addHost(SERVER, ip=None, defaultRoute="via 10.2.0.254", serval={"role": "host"})
        for subnet in ("10.2.0", "10.2.1"):
            own = {"ip": f"{subnet}.1/24", "gateway": f"{subnet}.254"}
            far = {"ip": f"{subnet}.254/24"}
            self.addLink(SERVER, ROUTER, params1=own, params2=far, bw=float(rate), **impairments("0", 0, impairable))
        self.providers = {PROVIDER: PROVIDER_BLOCK}
        self.services = [web(SERVER), bulk(SERVER)]

    def _add(self, name: str, subnet: str, serval: Mapping[str, object], **link: object) -> None:
        self.addHost(name, ip=f"{subnet}.1/24", defaultRoute=f"via {subnet}.254", serval=dict(serval))
        self.addLink(name, ROUTER, params2={"ip": f"{subnet}.254/24"}, **link)


topos = {"multihomed-server": MultihomedServer}
