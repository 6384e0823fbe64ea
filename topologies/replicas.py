"""Clients and the replicas of one service, to see who gets what: with a service router, and a place for a rival.

    a1 --+                    +-- cleo      service router
    a2 --+                    +-- lb        plain host: a load balancer in the middle of the path can run here
    ...  s1 ---- r1 ---- s2 --+-- d1, d2, ...   replicas of web.example
    aN --+       delay        +-- e1, ...       spare hosts, on which one can be started

Addresses: clients 10.1.0.N/16, datacenter 10.2.0.0/16 (cleo 10.2.0.1, lb 10.2.0.2, replicas 10.2.1.N, spares 10.2.2.N).
The initials are the slides' letters: a asks, d and e serve.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from typing import ClassVar

if "__file__" not in globals():
    # `mn --custom` runs this file by itself, and under sudo nothing else leads to the package around it.
    sys.path.append(os.path.dirname(os.path.dirname(os.path.abspath(sys._getframe().f_code.co_filename))))

from topologies.declarations import Declared, IpRouter, Service, TopologyError
from topologies.parts import BULK_COMMAND, PROVIDER, PROVIDER_BLOCK, WEB_COMMAND, WEB_PAGE

SERVICE = f"web.{PROVIDER}"
BALANCER = "lb"
PAGE, REQUESTS = "page", "requests"
CLIENT_GATEWAY, SERVER_GATEWAY = "10.1.255.254", "10.2.255.254"
MOST = 250


class Replicas(Declared):
    """Rates in Mbit/s, delay one way in Mininet's notation."""

    summary: ClassVar[str] = "clients, a service router and replicas of one service; a host for a rival balancer"
    parameters: ClassVar[Mapping[str, str]] = {
        "clients": "clients (4)",
        "replicas": "hosts on which the service runs at first (4)",
        "spares": "further hosts, for replicas that come later (1)",
        "rate": "rate of every link, Mbit/s (100)",
        "delay": "one-way delay of each client's link (1ms; 0 for none)",
        "serve": f"what the service is: {PAGE}, for curl, or {REQUESTS}, for experiments ({PAGE})",
    }

    def build(
        self,
        clients: int = 4,
        replicas: int = 4,
        spares: int = 1,
        rate: float = 100,
        delay: str = "1ms",
        serve: str = PAGE,
    ) -> None:
        for name, count, least in (("clients", clients, 1), ("replicas", replicas, 1), ("spares", spares, 0)):
            if not isinstance(count, int) or not least <= count <= MOST:
                raise TopologyError(f"{name} must be a whole number from {least} to {MOST}, not {count!r}")
        if serve not in (PAGE, REQUESTS):
            raise TopologyError(f"serve is {PAGE} or {REQUESTS}, not {serve!r}")
        self._rate = float(rate)
        self.addHost("r1", cls=IpRouter, ip=None)
        for switch, gateway in (("s1", CLIENT_GATEWAY), ("s2", SERVER_GATEWAY)):
            self.addSwitch(switch)
            self.addLink(switch, "r1", bw=self._rate, params2={"ip": f"{gateway}/16"})
        impairment = {} if str(delay) in ("0", "0ms", "") else {"delay": delay}
        for number in range(1, clients + 1):
            self._add(f"a{number}", f"10.1.0.{number}", CLIENT_GATEWAY, "s1", **impairment)
        self._add("cleo", "10.2.0.1", SERVER_GATEWAY, "s2", role="router")
        self._add(BALANCER, "10.2.0.2", SERVER_GATEWAY, "s2", role=None)
        first = [self._add(f"d{number}", f"10.2.1.{number}", SERVER_GATEWAY, "s2") for number in range(1, replicas + 1)]
        for number in range(1, spares + 1):
            self._add(f"e{number}", f"10.2.2.{number}", SERVER_GATEWAY, "s2")
        self.providers = {PROVIDER: PROVIDER_BLOCK}
        self.services = _services(tuple(first), serve)

    def _add(
        self,
        name: str,
        address: str,
        gateway: str,
        switch: str,
        role: str | None = "host",
        **impairment: str,
    ) -> str:
        serves = {"serves": [PROVIDER]} if role == "router" else {}
        options = {} if role is None else {"serval": {"role": role, **serves}}
        self.addHost(name, ip=f"{address}/16", defaultRoute=f"via {gateway}", **options)
        self.addLink(name, switch, bw=self._rate, **impairment)
        return name


def _services(hosts: tuple[str, ...], serve: str) -> list[Service]:
    if serve == REQUESTS:
        return [Service(SERVICE, hosts, (sys.executable, "-m", "testbed.traffic.responder", "80"))]
    bulk = Service(f"bulk.{PROVIDER}", (hosts[-1],), BULK_COMMAND)
    return [Service(SERVICE, hosts, WEB_COMMAND, WEB_PAGE), bulk]


topos = {"replicas": Replicas}
